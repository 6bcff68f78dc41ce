"""Addresses below a row: its columns, the rows related to it, references, and the messages bound to it.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from werkzeug.wrappers import Response

from d365sync.emulator.actions import BOUND_ACTIONS
from d365sync.emulator.calls import Call
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.functions import BOUND_FUNCTIONS
from d365sync.emulator.keys import RowKey
from d365sync.emulator.properties import clear_property, put_property, read_bare, read_property
from d365sync.emulator.reads import count_members, read_members
from d365sync.emulator.refuse import NAMESPACE, no_segment, not_implemented
from d365sync.emulator.related import (
    add_reference,
    clear_reference,
    members,
    read_reference,
    read_references,
    read_related,
    remove_reference,
    set_reference,
)

Segment = tuple[str, str | None]
Answers = Mapping[str, Callable[[], Response]]

VALUE, REF, COUNT = "$value", "$ref", "$count"
ADDRESSES = {
    "set": ("GET", "POST"),
    "set/$count": ("GET",),
    "set(key)": ("GET", "PATCH", "DELETE"),
    "set(key)/column": ("GET", "PUT", "DELETE"),
    "set(key)/column/$value": ("GET",),
    "set(key)/lookup": ("GET",),
    "set(key)/lookup/$ref": ("GET", "PUT", "DELETE"),
    "set(key)/collection": ("GET",),
    "set(key)/collection/$count": ("GET",),
    "set(key)/collection/$ref": ("GET", "POST", "DELETE"),
    "set(key)/collection(key)/$ref": ("DELETE",),
}
"""Every form of address of rows, with its methods: what is written down of them."""


def below_row(call: Call, key: RowKey, rest: Sequence[Segment]) -> Answers:
    """Return what answers an address below a row, by HTTP method; ``rest`` is not empty.

    Raises:
        Refusal: there is no such address.
    """
    facts, (name, inside) = key.facts, rest[0]
    after = [segment for segment, _ in rest[1:]]
    if name.startswith(NAMESPACE):
        return _message(call, key, name.removeprefix(NAMESPACE), plain=not after and not inside)
    found: Answers | None = None
    if any(bracket is not None for _, bracket in rest[1:]):
        found = None
    elif name in facts.collections:
        found = _collection(call, key, name, inside, after)
    elif inside is None and name in facts.properties:
        found = _property(call, key, name, after)
    if found is None and inside is None and name in facts.navigation:
        found = _lookup(call, key, name, after)
    if found is not None:
        return found
    if _is_known(facts, name):
        raise not_implemented(f"the address '{facts.table.entity_set_name}(…)/{'/'.join([name, *after])[:200]}'")
    raise no_segment(name)


def _message(call: Call, key: RowKey, name: str, *, plain: bool) -> Answers:
    """Return what answers a function or an action of a row."""
    function, action = BOUND_FUNCTIONS.get((key.facts.name, name)), BOUND_ACTIONS.get((key.facts.name, name))
    if plain and function is not None:
        return {"GET": lambda: function(call, _row_id(call, key))}
    if plain and action is not None:
        return {"POST": lambda: action(call, _row_id(call, key))}
    raise not_implemented(f"the message '{name[:100]}' on '{key.facts.table.entity_set_name}'")


def _property(call: Call, key: RowKey, name: str, after: Sequence[str]) -> Answers | None:
    if after == [VALUE]:
        return {"GET": lambda: read_bare(call, key, name)}
    if after:
        return None
    return {
        "GET": lambda: read_property(call, key, name),
        "PUT": lambda: put_property(call, key, name),
        "DELETE": lambda: clear_property(call, key, name),
    }


def _lookup(call: Call, key: RowKey, name: str, after: Sequence[str]) -> Answers | None:
    if not after:
        return {"GET": lambda: read_related(call, key, name)}
    if after != [REF]:
        return None
    return {
        "GET": lambda: read_reference(call, key, name),
        "PUT": lambda: set_reference(call, key, name),
        "DELETE": lambda: clear_reference(call, key, name),
    }


def _collection(call: Call, key: RowKey, name: str, inside: str | None, after: Sequence[str]) -> Answers | None:
    if after == [REF] and inside is not None:
        return {"DELETE": lambda: remove_reference(call, key, name, inside)}
    if inside is not None:
        return None
    if after == [REF]:
        return {
            "GET": lambda: read_references(call, key, name),
            "POST": lambda: add_reference(call, key, name),
            "DELETE": lambda: remove_reference(call, key, name, None),
        }
    if after == [COUNT]:
        return {"GET": lambda: count_members(call, *members(call, key, name))}
    path = f"{key.facts.table.entity_set_name}({quote(key.text)})/{name}"
    return None if after else {"GET": lambda: read_members(call, *members(call, key, name), path)}


def _row_id(call: Call, key: RowKey) -> str:
    return str(key.row(call.store)[key.facts.key])


def _is_known(facts: TableFacts, name: str) -> bool:
    return name in facts.properties or name in facts.navigation or name in facts.collections
