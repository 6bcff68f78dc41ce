"""``BulkDelete``: a job that deletes what queries find when it runs.

Source: BulkDelete action; Delete data in bulk. ``Assumed:``

- the rows are found and deleted with the rights of whoever asked, as the privileges are when the job runs
- what may not be deleted, or not yet, is left; the job goes on
- served with a frozen clock a start that has come by real time has come (``jobs_start_by_real_time``)

Pure.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from werkzeug.wrappers import Response

from d365sync.core.fetchxml.ast import Fetch
from d365sync.core.fetchxml.check import check_fetch
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.values import Row, parse_instant
from d365sync.emulator.callers import caller_context
from d365sync.emulator.calls import Call, json_response
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.jobrows import BULK_DELETE, TABLE, add_job
from d365sync.emulator.privileges import access_of_principal
from d365sync.emulator.queryexpression import fetch_text
from d365sync.emulator.refuse import Refusal, bad_query, invalid, not_implemented
from d365sync.emulator.rows import delete
from d365sync.emulator.store import Store
from d365sync.emulator.stored import StoredTables
from d365sync.emulator.wire import decode_json, encode_json
from d365sync.errors import FetchXmlError

PRIVILEGE = "prvBulkDelete"
PARAMETERS = (
    "QuerySet", "JobName", "SendEmailNotification", "ToRecipients", "CCRecipients", "RecurrencePattern",
    "StartDateTime", "SourceImportId", "RunNow",
)  # fmt: skip
UNDONE = ("SendEmailNotification", "ToRecipients", "CCRecipients", "RecurrencePattern", "SourceImportId")


def bulk_delete(call: Call) -> Response:
    """Answer ``POST BulkDelete`` with the id of the job that will delete.

    Raises:
        Refusal: a parameter is missing, wrong or not implemented, a query cannot be read, or a privilege is missing.
    """
    call.need_privilege(PRIVILEGE, TABLE)
    body = call.body()
    for name, value in body.items():
        if name not in PARAMETERS:
            raise invalid(f"The parameter '{name[:50]}' is not one of BulkDelete.")
        if name in UNDONE and value:
            raise not_implemented(f"{name} of BulkDelete")
    queries = body.get("QuerySet")
    if not isinstance(queries, list) or not queries:
        raise invalid("BulkDelete needs QuerySet, a list of queries.")
    texts = [fetch_text(one) for one in queries]
    tables = [_checked(call.store, text, call.user_id) for text in texts]
    for facts in tables:
        call.need("Read", facts)
        call.need("Delete", facts)
    job_id = add_job(
        call.store,
        BULK_DELETE,
        _name(body),
        call.user_id,
        _start(call, body),
        call.store.clock.now(),
        messagename="BulkDelete",
        primaryentitytype=tables[0].name,
        data=encode_json(texts).decode(),
    )
    return json_response({"@odata.context": call.answer_context("BulkDelete"), "JobId": job_id})


def delete_found(store: Store, job: Row, at: dt.datetime) -> str:
    """Delete what a job's queries find at an instant; return how much that was.

    Raises:
        Refusal: a query cannot be answered any more, or nobody owns the job.
    """
    user = store.get("systemuser", job.get("ownerid"))
    if user is None:
        raise invalid("The owner of the system job is not there any more.")
    deleted = left = 0
    for text in decode_json(str(job.get("data")).encode()):
        facts, rows = _found(store, text, str(user["systemuserid"]), at)
        for row in rows:
            if store.get(facts.name, row[facts.key]) is None:
                continue
            done = _deleted(store, facts, row)
            deleted, left = deleted + done, left + (not done)
    return f"{deleted} rows were deleted, {left} were not."


def _found(store: Store, text: str, user_id: str, at: dt.datetime) -> tuple[TableFacts, list[Row]]:
    """Return the rows a query finds that the user may read and delete."""
    facts = _checked(store, text, user_id)
    access = access_of_principal(store, user_id)
    tests = [test for verb in ("Read", "Delete") if (test := access.test(verb, facts)) is not None]
    context = caller_context(store, user_id, at)
    try:
        rows = evaluate(parse_fetch(text), StoredTables(store), store.catalogue.schema, context)
    except FetchXmlError as error:
        raise bad_query(error) from error
    return facts, [row for row in rows if all(test(row) for test in tests)]


def _checked(store: Store, text: str, user_id: str) -> TableFacts:
    """Return the table of a query that only finds rows."""
    try:
        fetch = parse_fetch(text)
        check_fetch(fetch, store.catalogue.schema, caller_context(store, user_id, store.clock.now()))
    except FetchXmlError as error:
        raise bad_query(error) from error
    limited = _limit(fetch)
    if limited:
        raise not_implemented(f"{limited} in a query of BulkDelete")
    return store.catalogue.tables[fetch.entity]


def _limit(fetch: Fetch) -> str:
    limits = {"top": fetch.top, "count": fetch.count, "page": fetch.page, "aggregate": fetch.aggregate}
    return next((name for name, value in limits.items() if value), "")


def _deleted(store: Store, facts: TableFacts, row: Row) -> bool:
    try:
        with store.transaction():
            delete(store, facts, str(row[facts.key]))
    except Refusal:
        return False
    return True


def _name(body: dict[str, Any]) -> str:
    name = body.get("JobName")
    if not isinstance(name, str) or not name or len(name) > 256:
        raise invalid("BulkDelete needs JobName, a text of up to 256 characters.")
    return name


def _start(call: Call, body: dict[str, Any]) -> dt.datetime:
    text, clock = body.get("StartDateTime"), call.store.clock
    try:
        start = clock.now() if text is None or body.get("RunNow") is True else parse_instant(str(text))
    except (ValueError, OverflowError):
        raise invalid("StartDateTime must be an instant such as 2026-11-20T09:00:00Z.") from None
    has_come = call.store.settings.jobs_start_by_real_time and start <= clock.outside()
    return (min(start, clock.now()) if has_come else start).replace(microsecond=0)
