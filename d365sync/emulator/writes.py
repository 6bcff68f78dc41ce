"""Answers to POST, PATCH and DELETE: conditions, create, update, upsert, delete.

Source: Perform conditional operations using the Web API; Create, update and delete table rows using the Web API; Use
Upsert to create or update a record.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from werkzeug.wrappers import Response

from d365sync.core.values import Row
from d365sync.emulator.calls import Call, empty_response
from d365sync.emulator.deep import create_with_related
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.keys import RowKey
from d365sync.emulator.odata.encode import etag
from d365sync.emulator.odata.options import parse_options
from d365sync.emulator.payload import parse_payload
from d365sync.emulator.reads import row_response
from d365sync.emulator.refuse import Refusal, already_exists, version_mismatch
from d365sync.emulator.rows import delete, update

NO_CONCURRENCY = "0x8006088d"


def create_row(call: Call, facts: TableFacts) -> Response:
    """Answer ``POST set``: 204 with the row's address, or 201 with the row when the caller prefers it."""
    return _create(call, facts, None)


def update_row(call: Call, key: RowKey) -> Response:
    """Answer ``PATCH set(key)``: an update, or without ``If-Match`` an upsert.

    An update by alternate key leaves the key's columns alone, whatever the body says of them.
    """
    headers, facts = call.request.headers, key.facts
    row = key.row_if_any(call.store)
    if row is None:
        if headers.get("If-Match") is not None:
            key.row(call.store)
        return _create(call, facts, key)
    if headers.get("If-None-Match") == "*":
        raise already_exists()
    check_match(call, facts, row)
    call.need_row("Write", facts, row)
    options = parse_options(call.arguments, facts, call.asking())
    change_row(call, key, call.body())
    row_id = str(row[facts.key])
    if call.preferences.representation:
        return row_response(call, facts, options, row_id)
    return empty_response(204, {"OData-EntityId": call.address(facts, _shown(key))})


def change_row(call: Call, key: RowKey, body: Mapping[str, Any]) -> None:
    """Carry out an update of an existing row that the caller may write.

    Raises:
        Refusal: the body is not right, or a rule is broken.
    """
    facts = key.facts
    changes = parse_payload(body, facts, call.store, call.root, creating=False)
    kept = {name: value for name, value in changes.items() if name not in key.values}
    row_id = str(key.row(call.store)[facts.key])
    update(call.store, facts, row_id, kept, call.user_id, real_id=call.real_id)


def delete_row(call: Call, key: RowKey) -> Response:
    """Answer ``DELETE set(key)``."""
    facts = key.facts
    call.need("Delete", facts)
    row = key.row(call.store)
    call.need_row("Delete", facts, row)
    check_match(call, facts, row)
    delete(call.store, facts, str(row[facts.key]))
    return empty_response(204)


def check_match(call: Call, facts: TableFacts, row: Row) -> None:
    """Refuse a write whose ``If-Match`` is not the row's etag.

    Raises:
        Refusal: so.
    """
    wanted = call.request.headers.get("If-Match")
    if wanted is None or wanted == "*":
        return
    if not facts.table.optimistic_concurrency:
        raise Refusal(400, NO_CONCURRENCY, f"Optimistic concurrency isn't enabled for entity type {facts.name}.")
    if wanted != etag(row):
        raise version_mismatch()


def _create(call: Call, facts: TableFacts, key: RowKey | None) -> Response:
    call.need("Create", facts)
    options = parse_options(call.arguments, facts, call.asking())
    row_id = str(create_with_related(call, facts, call.body(), key)[facts.key])
    if call.preferences.representation:
        return row_response(call, facts, options, row_id, 201)
    address = call.address(facts, row_id if key is None else _shown(key))
    return empty_response(204, {"OData-EntityId": address, "Location": address})


def _shown(key: RowKey) -> str:
    """Return the key as the request had it. Source: Use Upsert (the address echoes the form of the key)."""
    return quote(key.text, safe="=,'()!*:@")
