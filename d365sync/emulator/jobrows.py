"""The rows of system jobs: how one is added, what may be changed in it, and when it is due.

A job is its ``asyncoperation`` row and nothing else, so it is taken back with the request that made it and is kept
with the state. Source: AsyncOperation table reference (states, statuses, operation types).

Pure.
"""

from __future__ import annotations

import datetime as dt
import uuid

from d365sync.core.values import Row, Value
from d365sync.emulator.kept import completed
from d365sync.emulator.payload import Changes
from d365sync.emulator.refuse import BAD_STATUS, Refusal, invalid
from d365sync.emulator.store import Store

TABLE = "asyncoperation"
BULK_DELETE, GOAL_ROLLUP = 13, 40
READY, SUSPENDED, COMPLETED = 0, 1, 3
NO_RESOURCES, WAITING, SUCCEEDED, FAILED, CANCELED = 0, 10, 30, 31, 32
OPEN = (READY, SUSPENDED)


def add_job(
    store: Store, kind: int, name: str, user: Value, due: dt.datetime, now: dt.datetime, **columns: Value
) -> str:
    """Add a job that a user owns, made ``now``, that waits until it is due; return its id."""
    job_id = str(uuid.uuid4())
    waits = due > now
    row: dict[str, Value] = {
        "asyncoperationid": job_id,
        "name": name,
        "operationtype": kind,
        "statecode": SUSPENDED if waits else READY,
        "statuscode": WAITING if waits else NO_RESOURCES,
        "postponeuntil": due,
        "retrycount": 0,
        "ownerid": user,
        "owneridtype": "systemuser",
        **dict.fromkeys(("createdon", "modifiedon"), now),
        **dict.fromkeys(("createdby", "modifiedby"), user),
        **columns,
    }
    store.put(TABLE, completed(store.catalogue.tables[TABLE], row, store))
    return job_id


def due_at(job: Row) -> dt.datetime:
    """Return when a job is due: the time it waits for, otherwise as soon as it is there."""
    for name in ("postponeuntil", "createdon"):
        value = job.get(name)
        if isinstance(value, dt.datetime):
            return value
    return dt.datetime.min.replace(tzinfo=dt.UTC)


def check_job(old: Row | None, row: Row, changes: Changes) -> None:
    """Refuse what may not be done to a job: only canceling it, or putting it off, and only while it waits.

    Assumed: that nothing else may be changed, and the error.

    Raises:
        Refusal: so.
    """
    if old is None:
        raise invalid("System jobs are made by the messages that need them, not by themselves.")
    if old.get("statecode") not in OPEN:
        raise Refusal(400, BAD_STATUS, "The system job has been completed and cannot be changed.")
    if changes.keys() & {"statecode", "statuscode"} and (row["statecode"], row["statuscode"]) != (COMPLETED, CANCELED):
        raise Refusal(400, BAD_STATUS, "A waiting system job can only be canceled: statecode 3, statuscode 32.")
