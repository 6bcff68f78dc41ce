"""System jobs: what is due runs before the next request is answered, in the order of time, each as at its own time.

Source: asynchronous service in Microsoft Dataverse; Goal Roll Up jobs (Set up automatic rollup). ``Assumed:``

- a job runs when it is due and no sooner than :attr:`EmulatorSettings.job_delay_s` after it was made; it takes no time
- what a job could not delete does not make it fail; its message says how much there was

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

from d365sync.core.values import Row, Value
from d365sync.emulator.bulkdelete import delete_found
from d365sync.emulator.jobrows import BULK_DELETE, COMPLETED, FAILED, GOAL_ROLLUP, OPEN, SUCCEEDED, TABLE, due_at
from d365sync.emulator.refuse import Refusal
from d365sync.emulator.rollupjob import is_wanted, roll_up_goals, schedule
from d365sync.emulator.store import Store

Runner = Callable[[Store, Row, dt.datetime], str]

RUNNERS: Mapping[int, Runner] = {BULK_DELETE: delete_found, GOAL_ROLLUP: roll_up_goals}
"""What the jobs of each operation type do; the text is the job's message."""
MOST = 1000
"""Most jobs that run before one request, should the clock have jumped far."""


def run_due_jobs(store: Store) -> int:
    """Run what is due by the store's clock, and return how many jobs ran. Whoever calls holds the lock."""
    schedule(store)
    for ran in range(MOST):
        job = _next(store)
        if job is None:
            return ran
        _run(store, job)
    return MOST


def _next(store: Store) -> Row | None:
    now = store.clock.now()
    delay = dt.timedelta(seconds=store.settings.job_delay_s)
    waiting = [job for job in store.rows(TABLE).values() if job.get("statecode") in OPEN and _runs(store, job)]
    due = [(_starts_at(job, delay), str(job["asyncoperationid"]), job) for job in waiting]
    return min((one for one in due if one[0] <= now), default=(None, None, None), key=lambda one: one[:2])[2]


def _runs(store: Store, job: Row) -> bool:
    kind = job.get("operationtype")
    return kind in RUNNERS and (kind != GOAL_ROLLUP or is_wanted(store))


def _starts_at(job: Row, delay: dt.timedelta) -> dt.datetime:
    made = job.get("createdon")
    return max(due_at(job), made + delay) if isinstance(made, dt.datetime) else due_at(job)


def _run(store: Store, job: Row) -> None:
    """Run one job, whole or not at all, and note how it ended."""
    at = _starts_at(job, dt.timedelta(seconds=store.settings.job_delay_s))
    ended: dict[str, Value]
    try:
        with store.transaction():
            message = RUNNERS[int(str(job["operationtype"]))](store, job, at)
        ended = {"statuscode": SUCCEEDED, "message": message}
    except Refusal as refusal:
        code = int(refusal.code, 16) - 2**32 if refusal.code else 0
        ended = {"statuscode": FAILED, "message": refusal.message, "errorcode": code}
    times: dict[str, Value] = dict.fromkeys(("startedon", "completedon", "modifiedon"), at)
    store.change(TABLE, str(job["asyncoperationid"]), {"statecode": COMPLETED, **ended, **times})
