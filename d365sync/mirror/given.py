"""Rows that a statement is given: a temporary table in SQLite, arrays among its parameters in PostgreSQL.

A read replica makes no temporary tables, and a distributed database joins a list that comes with the statement.

IO: SQL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection

from d365sync.mirror.tables import Dialect, marks, quote

Kind = Literal["TEXT", "BIGINT"]


@dataclass(frozen=True, slots=True)
class Given:
    """What goes before a statement that names the rows as a table, and the parameters of that."""

    before: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


NOTHING_GIVEN = Given()


def give(
    connection: Connection,
    dialect: Dialect,
    name: str,
    columns: Mapping[str, Kind],
    rows: Sequence[Sequence[object]],
    *,
    index: Sequence[str] = (),
) -> Given:
    """Have a statement of this transaction find rows under the name of a table, quickly by the columns ``index``."""
    if dialect == "postgresql":
        return _arrays(name, columns, rows)
    defined = ", ".join(
        f"{quote(column)} {'TEXT' if kind == 'TEXT' else 'INTEGER'}" for column, kind in columns.items()
    )
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({defined})")
    if index:
        indexed = ", ".join(map(quote, index))
        connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS temp.{name}_lookup ON {name} ({indexed})")
    connection.exec_driver_sql(f"DELETE FROM {name}")
    if rows:
        connection.exec_driver_sql(f"INSERT INTO {name} VALUES {marks(dialect, rows[0])}", [tuple(row) for row in rows])
    return NOTHING_GIVEN


def _arrays(name: str, columns: Mapping[str, Kind], rows: Sequence[Sequence[object]]) -> Given:
    arrays = {f"{name}_{at}": [row[at] for row in rows] for at in range(len(columns))}
    cast = [f"CAST(:{name}_{at} AS {kind}[])" for at, kind in enumerate(columns.values())]
    shown = [
        f'{quote(one)} COLLATE "C" AS {quote(one)}' if kind == "TEXT" else quote(one) for one, kind in columns.items()
    ]
    named = ", ".join(map(quote, columns))
    listed = f"SELECT {', '.join(shown)} FROM unnest({', '.join(cast)}) AS given ({named})"
    return Given(f"WITH {name} AS ({listed}) ", arrays)
