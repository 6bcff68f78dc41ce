"""Answers to POST, PATCH and DELETE: conditions, create, update, upsert, delete.

Source: Perform conditional operations using the Web API; Create, update and delete table rows using the Web API.

Pure.
"""

from __future__ import annotations

from werkzeug.wrappers import Response

from d365sync.core.values import Row
from d365sync.emulator.calls import Call, empty_response
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.encode import etag
from d365sync.emulator.odata.options import parse_options
from d365sync.emulator.payload import parse_payload
from d365sync.emulator.reads import row_response
from d365sync.emulator.refuse import Refusal, already_exists, missing_row, version_mismatch
from d365sync.emulator.rows import create, delete, update

NO_CONCURRENCY = "0x8006088d"


def create_row(call: Call, facts: TableFacts) -> Response:
    """Answer ``POST set``: 204 with the row's address, or 201 with the row when the caller prefers it."""
    return _create(call, facts, None)


def update_row(call: Call, facts: TableFacts, row_id: str) -> Response:
    """Answer ``PATCH set(id)``: an update, or without ``If-Match`` an upsert."""
    headers = call.request.headers
    row = call.store.get(facts.name, row_id)
    if row is None:
        if headers.get("If-Match") is not None:
            raise missing_row(facts.name, row_id)
        return _create(call, facts, row_id)
    if headers.get("If-None-Match") == "*":
        raise already_exists()
    _check_match(call, facts, row)
    call.need_row("Write", facts, row)
    options = parse_options(call.arguments, facts, call.asking())
    changes = parse_payload(call.body(), facts, call.store, creating=False)
    update(call.store, facts, row_id, changes, call.user_id, real_id=call.real_id)
    if call.preferences.representation:
        return row_response(call, facts, options, row_id)
    return empty_response(204, {"OData-EntityId": call.address(facts, row_id)})


def delete_row(call: Call, facts: TableFacts, row_id: str) -> Response:
    """Answer ``DELETE set(id)``."""
    call.need("Delete", facts)
    row = call.store.get(facts.name, row_id)
    if row is None:
        raise missing_row(facts.name, row_id)
    call.need_row("Delete", facts, row)
    _check_match(call, facts, row)
    delete(call.store, facts, row_id)
    return empty_response(204)


def _create(call: Call, facts: TableFacts, row_id: str | None) -> Response:
    call.need("Create", facts)
    options = parse_options(call.arguments, facts, call.asking())
    changes = parse_payload(call.body(), facts, call.store, creating=True)
    if row_id is not None:
        changes[facts.key] = row_id
    made = str(create(call.store, facts, changes, call.user_id, call.real_id)[facts.key])
    if call.preferences.representation:
        return row_response(call, facts, options, made, 201)
    address = call.address(facts, made)
    return empty_response(204, {"OData-EntityId": address, "Location": address})


def _check_match(call: Call, facts: TableFacts, row: Row) -> None:
    wanted = call.request.headers.get("If-Match")
    if wanted is None or wanted == "*":
        return
    if not facts.table.optimistic_concurrency:
        raise Refusal(400, NO_CONCURRENCY, f"Optimistic concurrency isn't enabled for entity type {facts.name}.")
    if wanted != etag(row):
        raise version_mismatch()
