"""What a row's navigation properties lead to: the rows, and their references (``$ref``).

Source: Retrieve related rows with a query; Associate and disassociate table rows using the Web API. Assumed:

- a collection's rows are those that a lookup here names; there are no many-to-many relationships
- taking away what is not associated changes nothing and is answered 204
- an empty single-valued property is answered 204

Pure.
"""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from d365sync.core.values import Row
from d365sync.emulator.calls import Call, empty_response, json_response
from d365sync.emulator.deep import add_member
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.keys import RowKey, key_of, read_key
from d365sync.emulator.odata.predicates import Predicate
from d365sync.emulator.payload import BIND
from d365sync.emulator.properties import refuse_options, writable
from d365sync.emulator.reads import read_row
from d365sync.emulator.references import is_absolute, referenced
from d365sync.emulator.refuse import bad_payload, bad_uri, invalid, missing_row
from d365sync.emulator.shown import shown, shown_rows
from d365sync.emulator.writes import change_row

ID = "@odata.id"
REFERENCES = "$metadata#$ref"
COLLECTION = "$metadata#Collection($ref)"


def read_related(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``GET set(key)/lookup``: the row it names."""
    target = _named(call, key, name)
    return empty_response(204) if target is None else read_row(call, target)


def read_reference(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``GET set(key)/lookup/$ref``: the address of the row it names."""
    refuse_options(call)
    target = _named(call, key, name)
    if target is None:
        return empty_response(204)
    address = call.address(target.facts, str(target.row_id))
    return json_response({"@odata.context": call.root + REFERENCES, ID: address})


def set_reference(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``PUT set(key)/lookup/$ref``: the lookup names the row of the body's ``@odata.id``."""
    row = writable(call, key)
    change_row(call, key_of(key.facts, str(row[key.facts.key])), {name + BIND: _address(call, key.facts)})
    return empty_response(204)


def clear_reference(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``DELETE set(key)/lookup/$ref``: the lookup is empty afterwards."""
    row = writable(call, key)
    if _named(call, key, name, reading=False) is not None:
        change_row(call, key_of(key.facts, str(row[key.facts.key])), {name + BIND: None})
    return empty_response(204)


def members(call: Call, key: RowKey, name: str) -> tuple[TableFacts, Predicate]:
    """Return the table of a collection, and the test that a row belongs to this row's.

    Raises:
        Refusal: the caller may not read the row, or there is none.
    """
    row = _readable(call, key)
    table, lookup = key.facts.collections[name]
    row_id = row[key.facts.key]
    return call.store.catalogue.tables[table], lambda member: member.get(lookup) == row_id


def read_references(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``GET set(key)/collection/$ref``: the addresses of its rows that the caller may read."""
    refuse_options(call)
    other, belongs = members(call, key, name)
    call.need("Read", other)
    may_read = call.access.test("Read", other)
    every = shown_rows(call.store, other.name).values()
    rows = [row for row in every if belongs(row) and (not may_read or may_read(row))]
    value = [{ID: call.address(other, row_id)} for row_id in sorted(str(row[other.key]) for row in rows)]
    return json_response({"@odata.context": call.root + COLLECTION, "value": value})


def add_reference(call: Call, key: RowKey, name: str) -> Response:
    """Answer ``POST set(key)/collection/$ref``: the row of the body's ``@odata.id`` belongs to the collection."""
    row = _readable(call, key)
    add_member(call, key.facts, row, name, _address(call, key.facts))
    return empty_response(204)


def remove_reference(call: Call, key: RowKey, name: str, member: str | None) -> Response:
    """Answer ``DELETE set(key)/collection(key)/$ref`` and ``…/collection/$ref?$id=address``."""
    row = _readable(call, key)
    facts, (table, lookup) = key.facts, key.facts.collections[name]
    other = call.store.catalogue.tables[table]
    gone = read_key(member, other, call.store, call.arguments) if member is not None else _asked(call)
    if gone is None or gone.facts.name != table:
        raise bad_uri(f"'$id' must be the address of a row of '{name}'.")
    found = gone.row(call.store)
    call.need_row("Write", other, found)
    if found.get(lookup) == row[facts.key]:
        navigation = other.columns[lookup].navigation[facts.name]
        change_row(call, key_of(other, str(found[other.key])), {navigation + BIND: None})
    return empty_response(204)


def _asked(call: Call) -> RowKey | None:
    return referenced(call.arguments.get("$id"), call.store, call.root)


def _readable(call: Call, key: RowKey) -> Row:
    call.need("Read", key.facts)
    row = key.row(call.store)
    call.need_row("Read", key.facts, row)
    return row


def _named(call: Call, key: RowKey, name: str, *, reading: bool = True) -> RowKey | None:
    """Return the row a lookup names through a property, None when it names none through that one."""
    facts = key.facts
    row = shown(call.store, facts.name, _readable(call, key)) if reading else key.row(call.store)
    lookup, targets = facts.navigation[name]
    column = facts.columns[lookup].column
    value = row.get(lookup)
    table = row.get(column.type_name) if column.is_polymorphic else targets[0]
    if value is None or table not in targets:
        return None
    other = call.store.catalogue.tables.get(str(table))
    if other is None:
        raise missing_row(str(table), str(value))
    return key_of(other, str(value))


def _address(call: Call, facts: TableFacts) -> Any:
    """Return the address in the body of a ``$ref`` request.

    Source: Associate and disassociate (an absolute address; a relative one goes with ``@odata.context``).
    """
    body = call.body()
    address = body.get(ID)
    if not isinstance(address, str):
        raise invalid(f"The body of a '$ref' request must have '{ID}', the address of a row.")
    allowed = call.store.settings.relative_references or "@odata.context" in body
    if not is_absolute(address) and not allowed:
        shown = f"the address {address[:200]!r} in '{ID}' is relative and the body has no '@odata.context'."
        raise bad_payload(facts.table.entity_set_name, shown)
    return address
