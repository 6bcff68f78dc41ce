"""Conditions that find single rows of a mirrored table ``r``: by key, by the beginning of a key, by name, by a column.

They stand where a group's compiled query stands, so that the mirror has one way to read rows.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.schema import Table
from d365sync.core.storage import FOLD_SUFFIX, fold
from d365sync.core.values import format_instant
from d365sync.mirror.tables import quote

MOST_VALUES = 500
"""Values in one condition; databases limit the parameters of a statement."""


def begins_with(table: Table, start: str) -> Predicate:
    """Return the condition that the key begins with a text (a whole key included)."""
    return Predicate(f"substr(r.{quote(table.primary_id)}, 1, {len(start)}) = :start", {"start": start.lower()})


def named(table: Table, name: str) -> Predicate:
    """Return the condition that the primary name is a text, without regard to case; false without a name column."""
    if table.primary_name is None:
        return Predicate("1 = 0", {})
    return Predicate(f"r.{quote(table.primary_name + FOLD_SUFFIX)} = :name", {"name": fold(name)})


def among(column: str, values: Sequence[str]) -> Predicate:
    """Return the condition that a column of ids is one of at most :data:`MOST_VALUES` values."""
    parameters: dict[str, int | float | str | None] = {f"v{number}": value for number, value in enumerate(values)}
    return Predicate(f"r.{quote(column)} IN ({', '.join(f':{name}' for name in parameters)})", parameters)


def changed_after(instant: dt.datetime) -> Predicate:
    """Return the condition that ``modifiedon`` is later than an instant."""
    return Predicate('r."modifiedon" > :after', {"after": format_instant(instant)})
