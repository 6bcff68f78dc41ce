"""The layout of a mirror: what it is made of besides the tables, and which version of that it has.

IO: SQL.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from d365sync.mirror import sums
from d365sync.mirror.models import MirrorModel
from d365sync.mirror.tables import Dialect, quote

LAYOUT_VERSION = 5


def is_laid_out(connection: Connection) -> bool:
    """Say whether everything is there, as this version makes it."""
    found = set(inspect(connection).get_table_names())
    return found >= {"_layout", *MirrorModel.metadata.tables} and _version(connection) == LAYOUT_VERSION


def lay_out(connection: Connection, dialect: Dialect) -> None:
    """Make what is not there; a mirror of another layout is emptied first."""
    _drop_other_layout(connection)
    MirrorModel.metadata.create_all(connection)
    for statement in sums.slice_tables(dialect):
        connection.exec_driver_sql(statement)
    connection.execute(text("INSERT INTO _layout VALUES (:v) ON CONFLICT DO NOTHING"), {"v": LAYOUT_VERSION})


def _version(connection: Connection) -> int | None:
    found = connection.exec_driver_sql("SELECT MAX(version) FROM _layout").scalar()
    return None if found is None else int(found)


def _drop_other_layout(connection: Connection) -> None:
    """Drop everything in a mirror of another layout: it is disposable, the next cycle pulls it again.

    Tables that are not the mirror's stay, such as the journal's in the same database.
    """
    found = set(inspect(connection).get_table_names())
    if "_layout" in found:
        if _version(connection) == LAYOUT_VERSION:
            return
    elif "_bookmark" not in found:
        return
    mirrored = connection.exec_driver_sql("SELECT name FROM _table").scalars() if "_table" in found else ()
    names = {*mirrored, *(name for name in found if name.startswith("_"))}
    for name in sorted(found & names):
        connection.exec_driver_sql(f"DROP TABLE {quote(name)}")
