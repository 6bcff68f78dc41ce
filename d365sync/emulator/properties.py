"""Single values of a row: ``GET``, ``PUT`` and ``DELETE set(key)/column``, and the bare ``/$value``.

Source: Retrieve a table row using the Web API (single property values); Update and delete table rows using the Web API
(single property values). Assumed: 204 for an empty value, as OData has it; no query options.

Pure.
"""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from d365sync.core.values import Row
from d365sync.emulator.calls import Call, empty_response, json_response
from d365sync.emulator.keys import RowKey, key_of
from d365sync.emulator.refuse import bad_uri, invalid
from d365sync.emulator.shown import shown
from d365sync.emulator.wire import encode_json, writer
from d365sync.emulator.writes import change_row, check_match


def read_property(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``GET set(key)/column``."""
    value = _value(call, key, name)
    if value is None:
        return empty_response(204)
    facts, row_id = key.facts, str(key.row(call.store)[key.facts.key])
    context = f"{call.root}$metadata#{facts.table.entity_set_name}({row_id})/{name}"
    return json_response({"@odata.context": context, "value": value})


def read_bare(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``GET set(key)/column/$value``: the value as text."""
    value = _value(call, key, name)
    if value is None:
        return empty_response(204)
    text = value if isinstance(value, str) else encode_json(value).decode()
    return Response(text, content_type="text/plain; charset=utf-8")


def put_property(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``PUT set(key)/column`` with the body ``{"value": …}``."""
    row = writable(call, key)
    body = {part: value for part, value in call.body().items() if not part.startswith("@")}
    if body.keys() != {"value"}:
        raise invalid(f"The body of a request that sets '{name}' must be an object with 'value' alone.")
    return _changed(call, key, row, {name: body["value"]})


def clear_property(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``DELETE set(key)/column``: the value becomes null."""
    return _changed(call, key, writable(call, key), {name: None})


def refuse_options(call: Call) -> None:
    """Refuse query options where an address takes none.

    Raises:
        Refusal: so.
    """
    for name in call.arguments:
        if name.startswith("$") and name != "$id":
            raise bad_uri(f"The query parameter '{name}' is not supported for this address.")


def writable(call: Call, key: RowKey) -> Row:
    """Return the row a request is about to change.

    Raises:
        Refusal: there is none, the caller may not write it, or ``If-Match`` is not its etag.
    """
    call.need("Write", key.facts)
    refuse_options(call)
    row = key.row(call.store)
    call.need_row("Write", key.facts, row)
    check_match(call, key.facts, row)
    return row


def _value(call: Call, key: RowKey, name: str) -> Any:
    facts = key.facts
    call.need("Read", facts)
    refuse_options(call)
    row = key.row(call.store)
    call.need_row("Read", facts, row)
    column = facts.columns[facts.properties[name]]
    value, write = shown(call.store, facts.name, row).get(column.name), writer(column.column)
    return value if value is None or write is None else write(value)


def _changed(call: Call, key: RowKey, row: Row, body: dict[str, Any]) -> Response:
    """Carry out the change of one column; it may be one of the key that addresses the row."""
    facts = key.facts
    change_row(call, key_of(facts, str(row[facts.key])), body)
    return empty_response(204)
