"""Creating a row together with rows related to it: deep insert, in the request's one transaction.

Rows that lookups name are made first, rows of collections after. Source: Create a table row using the Web API (create
related table rows in one operation; associate table rows on create). Assumed: the depth that is refused; a lookup that
may name several tables needs ``@odata.type``.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d365sync.core.values import Row
from d365sync.emulator.calls import Call
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.keys import RowKey
from d365sync.emulator.payload import BIND, TYPE, Changes, parse_payload, type_name
from d365sync.emulator.references import referenced
from d365sync.emulator.refuse import bad_payload, invalid
from d365sync.emulator.rows import create, update

MAX_DEPTH = 10


def create_with_related(
    call: Call, facts: TableFacts, body: Mapping[str, Any], key: RowKey | None = None, depth: int = 0
) -> Row:
    """Create a row and what its body nests; return what is stored of the row itself.

    ``key`` is the address of an upsert: an id is the row's, the columns of an alternate key are taken where the body
    has none.

    Raises:
        Refusal: the caller lacks a privilege, a body is not right, or a rule is broken.
    """
    if depth > MAX_DEPTH:
        raise invalid(f"The request nests more than {MAX_DEPTH} levels of related rows.")
    call.need("Create", facts)
    own = dict(body)
    collections = {name: own.pop(name) for name in body if name in facts.collections}
    bound = {name: own.pop(name) for name in body if name.removesuffix(BIND) in facts.collections and BIND in name}
    for name in [name for name in own if name in facts.navigation and isinstance(own[name], dict)]:
        target = _target(call, facts, name, own[name])
        made = create_with_related(call, target, own.pop(name), None, depth + 1)
        own[name + BIND] = call.address(target, str(made[target.key]))
    row = create(call.store, facts, _changes(call, facts, own, key), call.user_id, call.real_id)
    for name, nested in collections.items():
        for one in _listed(facts, name, nested, dict):
            _create_member(call, facts, row, name, one, depth + 1)
    for name, addresses in bound.items():
        for address in _listed(facts, name, addresses, str):
            add_member(call, facts, row, name.removesuffix(BIND), address)
    return call.store.rows(facts.name)[str(row[facts.key])]


def add_member(call: Call, facts: TableFacts, row: Row, name: str, address: Any) -> None:
    """Let an existing row belong to a collection: its lookup names the collection's row afterwards.

    Raises:
        Refusal: the address is none of the other table, or the caller may not write that row.
    """
    member = _member(call, facts, name, address)
    other = member.facts
    found = member.row(call.store)
    call.need_row("Write", other, found)
    changes = parse_payload(_lookup_to(call, facts, row, name), other, call.store, call.root, creating=False)
    update(call.store, other, str(found[other.key]), changes, call.user_id, real_id=call.real_id)


def _member(call: Call, facts: TableFacts, name: str, address: Any) -> RowKey:
    member = referenced(address, call.store, call.root)
    if member is None or member.facts.name != facts.collections[name][0]:
        shown = f"{str(address)[:200]!r} is not the address of a row of '{name}'."
        raise bad_payload(facts.table.entity_set_name, shown)
    return member


def _create_member(call: Call, facts: TableFacts, row: Row, name: str, body: Mapping[str, Any], depth: int) -> None:
    other = call.store.catalogue.tables[facts.collections[name][0]]
    create_with_related(call, other, {**body, **_lookup_to(call, facts, row, name)}, None, depth)


def _lookup_to(call: Call, facts: TableFacts, row: Row, name: str) -> dict[str, str]:
    """Return the body that makes a row of a collection belong to the row."""
    table, lookup = facts.collections[name]
    navigation = call.store.catalogue.tables[table].columns[lookup].navigation[facts.name]
    return {navigation + BIND: call.address(facts, str(row[facts.key]))}


def _changes(call: Call, facts: TableFacts, body: Mapping[str, Any], key: RowKey | None) -> Changes:
    changes = parse_payload(body, facts, call.store, call.root, creating=True)
    if key is None:
        return changes
    if key.values:
        return {**key.values, **changes}
    return {**changes, facts.key: key.row_id}


def _target(call: Call, facts: TableFacts, name: str, body: Mapping[str, Any]) -> TableFacts:
    """Return the table of a row nested in a lookup."""
    targets = [one for one in facts.navigation[name][1] if one in call.store.catalogue.tables]
    said = type_name(body.get(TYPE, ""))
    if len(targets) == 1 and said in ("", targets[0]):
        return call.store.catalogue.tables[targets[0]]
    if said not in targets:
        shown = f"the row nested in '{name}' needs '{TYPE}', one of {', '.join(targets)}."
        raise bad_payload(facts.table.entity_set_name, shown)
    return call.store.catalogue.tables[said]


def _listed(facts: TableFacts, name: str, given: Any, kind: type) -> list[Any]:
    if not isinstance(given, list) or not all(isinstance(one, kind) for one in given):
        wanted = "rows" if kind is dict else "addresses of rows"
        raise bad_payload(facts.table.entity_set_name, f"the value of '{name}' must be a list of {wanted}.")
    return given
