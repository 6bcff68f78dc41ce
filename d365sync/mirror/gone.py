"""A sweep: which rows the other side has no longer, by the pages of ids that it still has.

The ids wait in a temporary table, and the database tells the difference, a page at a time: nothing here grows with a
table.

IO: SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection

from d365sync.core.storage import StoredAs
from d365sync.mirror.pages import Writer
from d365sync.mirror.tables import Dialect, mark, sql_type

PRESENT = "_present"
ROWS_AT_ONCE = 5000


def begin(connection: Connection, dialect: Dialect) -> None:
    """Make room for the ids that are there; it is the connection's own and outlives its transactions."""
    kind = sql_type(StoredAs.TEXT, dialect)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE IF NOT EXISTS {PRESENT} (row_id {kind} PRIMARY KEY)")
    connection.exec_driver_sql(f"DELETE FROM {PRESENT}")


def note_present(connection: Connection, dialect: Dialect, ids: Iterable[str]) -> None:
    """Note a page of ids that are there; they may come more than once."""
    entries = [(one,) for one in ids]
    if entries:
        insert = f"INSERT INTO {PRESENT} (row_id) VALUES ({mark(dialect)}) ON CONFLICT DO NOTHING"
        connection.exec_driver_sql(insert, entries)


def count(writer: Writer) -> int:
    """Return how many rows of the table were not noted as present."""
    return int(writer.connection.exec_driver_sql(f"SELECT COUNT(*) {_rows(writer)}").scalar_one())


def ids(writer: Writer) -> Iterator[Sequence[str]]:
    """Yield the ids of those rows, in order, some at a time; they may be removed meanwhile."""
    sql = (
        f"SELECT r.{writer.key} {_rows(writer)} AND r.{writer.key} > {mark(writer.dialect)} "
        f"ORDER BY r.{writer.key} LIMIT {ROWS_AT_ONCE}"
    )
    last = ""
    while some := [str(row[0]) for row in writer.connection.exec_driver_sql(sql, (last,))]:
        yield some
        last = some[-1]


def end(connection: Connection) -> None:
    """Forget what was noted."""
    connection.exec_driver_sql(f"DROP TABLE {PRESENT}")


def _rows(writer: Writer) -> str:
    noted = f"SELECT 1 FROM {PRESENT} p WHERE p.row_id = r.{writer.key}"
    return f"FROM {writer.name} r WHERE NOT EXISTS ({noted})"
