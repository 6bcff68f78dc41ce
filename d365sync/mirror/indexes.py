"""The indexes over mirrored tables that the groups' statements are answered from.

IO: SQL.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection

from d365sync.core.schema import Column, ColumnType, Table
from d365sync.core.storage import FOLD_SUFFIX, StoredAs, has_fold, stored_as
from d365sync.mirror.sums import Index
from d365sync.mirror.tables import Dialect, mark, quote

PREFIX = "_ix_"
_FOUND = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
    "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()",
}


def ensure(connection: Connection, dialect: Dialect, wanted: frozenset[Index]) -> None:
    """Make the indexes that are not there, and drop those of ours that are not wanted any more."""
    names = {_name(index): index for index in wanted}
    found = {row[0] for row in connection.exec_driver_sql(_FOUND[dialect]) if row[0].startswith(PREFIX)}
    for name in sorted(found - names.keys()):
        connection.exec_driver_sql(f"DROP INDEX {quote(name)}")
    for name in sorted(names.keys() - found):
        connection.exec_driver_sql(_statement(name, names[name]))


def exists(connection: Connection, dialect: Dialect, name: str) -> bool:
    """Say whether an index of this name is there."""
    column = "name" if dialect == "sqlite" else "indexname"
    found = connection.exec_driver_sql(f"{_FOUND[dialect]} AND {column} = {mark(dialect)}", (name,))
    return found.first() is not None


def indexable(table: Table, names: set[str], dialect: Dialect) -> tuple[str, ...]:
    """Return the stored columns by which conditions on these columns can be answered from an index.

    Long text is left out, and on PostgreSQL all text that may be long: its index entries are limited in size.
    Source: PostgreSQL B-tree (an index row takes at most a third of a page).
    """
    columns = (table.columns[name] for name in sorted(names) if name in table.columns)
    return tuple(_compared(column) for column in columns if _is_short(column, dialect))


def _is_short(column: Column, dialect: Dialect) -> bool:
    if column.type is ColumnType.MEMO:
        return False
    unbounded = has_fold(column) or column.type is ColumnType.MULTISELECT
    return dialect == "sqlite" or not (unbounded and stored_as(column) is StoredAs.TEXT)


def _compared(column: Column) -> str:
    return column.logical_name + FOLD_SUFFIX if has_fold(column) else column.logical_name


def _name(index: Index) -> str:
    digest = hashlib.sha256("|".join((index.table, *index.columns, index.where)).encode()).hexdigest()[:12]
    return f"{PREFIX}{index.table[:40]}_{digest}"


def _statement(name: str, index: Index) -> str:
    columns = ", ".join(map(quote, index.columns))
    where = f" WHERE {index.where}" if index.where else ""
    return f"CREATE INDEX {quote(name)} ON {quote(index.table)} ({columns}){where}"
