"""Rows as whoever asks is shown them: without the columns that are secured, if those may not be read.

Every answer and every query goes by these rows, so that such a column is null in the answer and just as null for
conditions, orders, groups and aggregates; no query is refused for naming one. Source: Use field security to control
access to field values (columns, filter conditions, aggregating, grouping and ordering on secured attributes).
``Assumed:``

- the type of a secured polymorphic lookup and the ``_base`` amount of a secured amount are as secret as the column
- a row whose secured lookup names another is not among that one's related rows

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from d365sync.core.values import Row
from d365sync.emulator.store import Store

_NOTHING: frozenset[str] = frozenset()


def hidden_columns(store: Store, table: str) -> frozenset[str]:
    """Return the names under which rows of a table hold what may not be read."""
    if store.settings.reads_secured:
        return _NOTHING
    secured = [one.column for one in store.catalogue.tables[table].columns.values() if one.column.is_secured]
    types = (column.type_name for column in secured if column.is_polymorphic)
    return frozenset((*(column.logical_name for column in secured), *types))


def shown(store: Store, table: str, row: Row) -> Row:
    """Return a row without what may not be read."""
    return _without(row, hidden_columns(store, table))


def shown_rows(store: Store, table: str) -> Mapping[str, Row]:
    """Return the rows of a table by id, in the order they came, without what may not be read."""
    hidden = hidden_columns(store, table)
    rows = store.rows(table)
    return {row_id: _without(row, hidden) for row_id, row in rows.items()} if hidden else rows


def shown_row(store: Store, table: str, row_id: object) -> Row | None:
    """Return one row without what may not be read; None when there is none."""
    found = store.get(table, str(row_id))
    return None if found is None else shown(store, table, found)


def shown_referring(store: Store, table: str, column: str, row_id: str) -> list[Row]:
    """Return the rows whose lookup names a row, without what may not be read; none when that is the lookup."""
    hidden = hidden_columns(store, table)
    if column in hidden:
        return []
    return [_without(row, hidden) for row in store.referring(table, column, row_id)]


def _without(row: Row, hidden: frozenset[str]) -> Row:
    return {name: value for name, value in row.items() if name not in hidden} if hidden else row
