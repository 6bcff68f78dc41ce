"""What the JSON body of a write means: column values, and lookups set by ``@odata.bind``.

Source: Create a table row using the Web API; Update and delete; Associate and disassociate.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d365sync.core.values import Value
from d365sync.emulator.facts import ColumnFacts, TableFacts
from d365sync.emulator.keys import RowKey
from d365sync.emulator.references import referenced
from d365sync.emulator.refuse import NAMESPACE, Refusal, bad_payload, not_implemented
from d365sync.emulator.store import Store
from d365sync.emulator.wire import WireError, read_value

BIND = "@odata.bind"
TYPE = "@odata.type"
Changes = dict[str, Value]


def type_name(raw: object) -> str:
    """Return the table that an ``@odata.type`` names, with or without its namespace."""
    return str(raw).removeprefix("#").removeprefix(NAMESPACE)


def parse_payload(body: Mapping[str, Any], facts: TableFacts, store: Store, root: str, *, creating: bool) -> Changes:
    """Return the columns a body sets, null ones as None; a polymorphic lookup brings its table.

    ``root`` is that of the service, which absolute addresses must begin with.

    Raises:
        Refusal: a property is unknown, read-only, of the wrong type, or a reference leads nowhere.
    """
    changes: Changes = {}
    for name, raw in body.items():
        if name.endswith(BIND):
            changes.update(_bound(name.removesuffix(BIND), raw, facts, store, root, creating=creating))
        elif "@" in name:
            continue
        elif name in facts.properties:
            column = facts.columns[facts.properties[name]]
            changes[column.name] = _value(name, raw, column, facts, store, creating=creating)
        else:
            changes.update(_navigation(name, raw, facts, creating=creating))
    return changes


def _value(name: str, raw: Any, column: ColumnFacts, facts: TableFacts, store: Store, *, creating: bool) -> Value:
    if column.column.is_lookup:
        raise bad_payload(
            _set(facts),
            "CRM do not support direct update of Entity Reference properties, Use Navigation properties instead.",
        )
    if not column.column.is_primary_id:
        _check_writable(name, column, facts, creating=creating)
    try:
        return read_value(column.column, raw, rounding=store.settings.rounding)
    except WireError as error:
        raise bad_payload(_set(facts), f"the property '{name}' {error}.") from error


def _navigation(name: str, raw: Any, facts: TableFacts, *, creating: bool) -> Changes:
    if name in facts.collections or (name in facts.navigation and raw is not None):
        raise not_implemented(f"deep insert through '{name}'")
    if name not in facts.navigation:
        kind = f"{NAMESPACE}{facts.name}"
        raise bad_payload(
            _set(facts),
            f"Invalid property '{name}' was found in entity '{kind}'. The property '{name}' does not exist on type "
            f"'{kind}'. Make sure to only use property names that are defined by the type.",
        )
    column = facts.columns[facts.navigation[name][0]]
    _check_writable(name, column, facts, creating=creating)
    return _lookup(column, None, None)


def _bound(name: str, raw: Any, facts: TableFacts, store: Store, root: str, *, creating: bool) -> Changes:
    if name in facts.collections:
        raise not_implemented(f"binding of the collection '{name}'")
    if name not in facts.navigation:
        raise bad_payload(
            _set(facts),
            f"An undeclared property '{name}' which only has property annotations in the payload but no property "
            "value was found in the payload. In OData, only declared navigation properties and declared named "
            "streams can be represented as properties without values.",
        )
    lookup, targets = facts.navigation[name]
    column = facts.columns[lookup]
    _check_writable(name, column, facts, creating=creating)
    if raw is None:
        return _lookup(column, None, None)
    target = _reference(raw, targets, name, facts, store, root)
    return _lookup(column, str(target.row(store)[target.facts.key]), target.facts.name)


def _lookup(column: ColumnFacts, row_id: str | None, table: str | None) -> Changes:
    kind = {column.column.type_name: table} if column.column.is_polymorphic else {}
    return {column.name: row_id, **kind}


def _reference(raw: Any, targets: tuple[str, ...], name: str, facts: TableFacts, store: Store, root: str) -> RowKey:
    if isinstance(raw, str) and raw.startswith("$"):
        raise not_implemented("a Content-ID reference outside a change set")
    target = referenced(raw, store, root)
    if target is None:
        raise bad_payload(_set(facts), f"the reference {str(raw)[:200]!r} of '{name}' is not the address of a row.")
    if target.facts.name not in targets:
        raise bad_payload(_set(facts), f"'{name}' cannot point to '{target.facts.table.entity_set_name}'.")
    return target


def _check_writable(name: str, column: ColumnFacts, facts: TableFacts, *, creating: bool) -> None:
    if not (column.column.valid_for_create if creating else column.column.valid_for_update):
        raise _read_only(name, facts, creating=creating)


def _read_only(name: str, facts: TableFacts, *, creating: bool) -> Refusal:
    when = "create" if creating else "update"
    return bad_payload(_set(facts), f"the property '{name}' of '{facts.name}' is not valid for {when}.")


def _set(facts: TableFacts) -> str:
    return facts.table.entity_set_name
