"""Bookmarks: to where each table was read the last time, or why it could not be read.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from d365sync.core.values import format_instant, parse_instant


@dataclass(frozen=True, slots=True)
class Position:
    """A bookmark: where a table was last read to. Instants are UTC; ``watermark`` is the greatest ``modifiedon``."""

    pulled_at: dt.datetime
    delta_link: str | None = None
    watermark: dt.datetime | None = None
    swept_at: dt.datetime | None = None


def read(connection: Connection) -> dict[str, Position]:
    """Return every table's bookmark, by name."""
    sql = "SELECT name, pulled_at, delta_link, watermark, swept_at FROM _bookmark ORDER BY name"
    return {row[0]: _position(*row[1:]) for row in connection.exec_driver_sql(sql)}


def read_one(connection: Connection, name: str) -> Position | None:
    """Return the bookmark of a table, None when it has none."""
    sql = text("SELECT pulled_at, delta_link, watermark, swept_at FROM _bookmark WHERE name = :name")
    row = connection.execute(sql, {"name": name}).one_or_none()
    return None if row is None else _position(*row)


def save(connection: Connection, name: str, position: Position) -> None:
    """Keep the bookmark of a table, which therefore may be read."""
    connection.execute(text("UPDATE _table SET unreadable = '', mend = '' WHERE name = :name"), {"name": name})
    connection.execute(
        text(
            "INSERT INTO _bookmark (name, delta_link, watermark, swept_at, pulled_at) "
            "VALUES (:name, :delta_link, :watermark, :swept_at, :pulled_at) ON CONFLICT (name) DO UPDATE SET "
            "delta_link = excluded.delta_link, watermark = excluded.watermark, swept_at = excluded.swept_at, "
            "pulled_at = excluded.pulled_at"
        ),
        {
            "name": name,
            "delta_link": position.delta_link,
            "watermark": _spelled(position.watermark),
            "swept_at": _spelled(position.swept_at),
            "pulled_at": format_instant(position.pulled_at),
        },
    )


def forget(connection: Connection, names: Iterable[str]) -> None:
    """Forget the bookmarks of tables."""
    for name in names:
        connection.execute(text("DELETE FROM _bookmark WHERE name = :name"), {"name": name})


def note_unreadable(connection: Connection, name: str, reason: str, mend: str) -> None:
    """Note that a table may not be read, until its bookmark is saved again."""
    connection.execute(
        text("UPDATE _table SET unreadable = :reason, mend = :mend WHERE name = :name"),
        {"name": name, "reason": reason, "mend": mend},
    )


def unreadable(connection: Connection) -> dict[str, tuple[str, str]]:
    """Return, by table, why it could not be read the last time, and what mends that."""
    sql = "SELECT name, unreadable, mend FROM _table WHERE unreadable <> ''"
    return {row[0]: (row[1], row[2]) for row in connection.exec_driver_sql(sql)}


def _position(pulled_at: str, delta_link: str | None, watermark: str | None, swept_at: str | None) -> Position:
    return Position(parse_instant(pulled_at), delta_link, _instant(watermark), _instant(swept_at))


def _instant(stored: str | None) -> dt.datetime | None:
    return None if stored is None else parse_instant(stored)


def _spelled(instant: dt.datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)
