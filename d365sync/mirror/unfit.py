"""Values that were left out of the mirror, and columns that show none.

IO: SQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from d365sync.core.rowshape import DAMAGED
from d365sync.mirror.tables import UNFIT_COLUMN, MirrorTable, quote

OWNER = "ownerid"
MOST = 1000
"""Records of a table that are told apart."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A record of which a value was left out; ``owner`` is None where it cannot be told."""

    record: str
    owner: str | None


def left_out(connection: Connection, tables: Iterable[MirrorTable]) -> dict[tuple[str, str], list[Unfit]]:
    """Return the columns of these tables of which values were left out, each with the first of its records.

    A column is named as in the stored row: with :data:`~d365sync.core.rowshape.DAMAGED` before it where the value
    is none of its type, without where it is too large. A table with very many such records has one of no owner.
    """
    found: dict[tuple[str, str], list[Unfit]] = {}
    column = quote(UNFIT_COLUMN)
    for table in tables:
        key, owner = quote(table.table.primary_id), quote(OWNER) if OWNER in table.rows.places else "NULL"
        sql = f"SELECT {column}, {key}, {owner} FROM {quote(table.name)} WHERE {column} IS NOT NULL ORDER BY 2"
        rows = connection.exec_driver_sql(f"{sql} LIMIT {MOST + 1}").all()
        for columns, record, owner_id in rows:
            names = str(columns).split()
            known = None if DAMAGED + OWNER in names or len(rows) > MOST else owner_id
            for name in names:
                found.setdefault((table.name, name), []).append(Unfit(str(record), known))
    return found


def has_values(connection: Connection, table: MirrorTable, column: str) -> bool:
    """Say whether any row has a value in a column, or there is no row at all."""
    name = quote(table.name)
    shown = f"SELECT 1 FROM {name} WHERE {quote(column)} IS NOT NULL"
    sql = f"SELECT NOT EXISTS (SELECT 1 FROM {name}) OR EXISTS ({shown})"
    return bool(connection.exec_driver_sql(sql).scalar_one())
