"""Table definitions that the mirror remembers, as documents with the instant at which they were read.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from sqlalchemy import Connection, text

from d365sync.core.values import format_instant, parse_instant


def read(connection: Connection) -> dict[str, tuple[str, dt.datetime]]:
    """Return every document and when it was read, by table name."""
    found = connection.exec_driver_sql("SELECT name, document, read_at FROM _metadata ORDER BY name")
    return {row[0]: (row[1], parse_instant(row[2])) for row in found}


def save(connection: Connection, documents: Mapping[str, str], read_at: dt.datetime) -> None:
    """Keep documents, by table name."""
    statement = text(
        "INSERT INTO _metadata (name, document, read_at) VALUES (:name, :document, :read_at) "
        "ON CONFLICT (name) DO UPDATE SET document = excluded.document, read_at = excluded.read_at"
    )
    for name, document in documents.items():
        connection.execute(statement, {"name": name, "document": document, "read_at": format_instant(read_at)})
