"""Applying pages to a mirrored table: upsert what is new, remove what is gone, keep what it replaced.

The first before-image of a row since the last recompute stays; with it and the row as it is now, the goals that a
change touches can be told, and the columns that differ.

IO: SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from d365sync.core.rowshape import VERSION, Stored, StoredRow
from d365sync.mirror.tables import (
    BEFORE_PREFIX,
    ETAG_COLUMN,
    LOAD_COLUMN,
    Dialect,
    MirrorTable,
    mark,
    marks,
    quote,
)

IDS_PER_STATEMENT = 500


@dataclass(frozen=True, slots=True)
class Writer:
    """One mirrored table within one transaction."""

    connection: Connection
    dialect: Dialect
    table: MirrorTable

    @property
    def name(self) -> str:
        """The table's SQL name, quoted."""
        return quote(self.table.name)

    @property
    def before(self) -> str:
        """The SQL name of the table's before-images, quoted."""
        return quote(BEFORE_PREFIX + self.table.name)

    @property
    def key(self) -> str:
        """The key column, quoted."""
        return quote(self.table.table.primary_id)

    @property
    def version_at(self) -> int | None:
        """Where the version stands in a stored row, None when rows have none."""
        return self.table.rows.places.get(VERSION)


def put_rows(writer: Writer, rows: Sequence[StoredRow], load_number: int) -> int:
    """Upsert the rows that are new or have another version; return how many those are.

    What the present load (or a delta after it) has seen is never replaced by an older version of it: pages may come
    twice, or in another order. An older version is taken from a new load, since an organization may be restored. A row
    that once came without its etag takes it from any later page.
    """
    latest = _latest(writer, rows)
    known = _versions(writer, list(latest))
    version = writer.version_at
    fresh = {
        row_id: row
        for row_id, row in latest.items()
        if version is None or row_id not in known or _supersedes(row, version, known[row_id], load_number)
    }
    _note_changes(writer, list(fresh), existing=[row_id for row_id in fresh if row_id in known])
    if fresh:
        writer.connection.exec_driver_sql(writer.table.upsert(writer.dialect, load_number), list(fresh.values()))
    _mark_seen(writer, [row_id for row_id in latest if row_id not in fresh], load_number)
    return len(fresh)


def append_rows(writer: Writer, rows: Sequence[StoredRow], load_number: int) -> None:
    """Add rows to a table that has no key index yet; rows may come more than once until :func:`make_unique`."""
    if not rows:
        return
    if writer.dialect == "sqlite":
        writer.connection.exec_driver_sql(writer.table.append(writer.dialect, load_number), list(rows))
        return
    names = ", ".join(quote(name) for name, _ in writer.table.stored_columns)
    driver: Any = writer.connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {writer.name} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row((*row, load_number))


def make_unique(writer: Writer) -> None:
    """Leave the greatest version of every appended row, and make the table's indexes."""
    place = "rowid" if writer.dialect == "sqlite" else "ctid"
    version = f"{quote(VERSION)} DESC, " if writer.table.has_version else ""
    order = f"ROW_NUMBER() OVER (PARTITION BY {writer.key} ORDER BY {version}{place} DESC)"
    twice = f"SELECT {writer.key} FROM {writer.name} GROUP BY {writer.key} HAVING COUNT(*) > 1"
    again = f"SELECT {place} AS place, {order} AS nth FROM {writer.name} WHERE {writer.key} IN ({twice})"
    unique, *others = writer.table.create_indexes()
    try:
        with writer.connection.begin_nested():
            writer.connection.exec_driver_sql(unique)
    except IntegrityError:
        writer.connection.exec_driver_sql(
            f"DELETE FROM {writer.name} WHERE {place} IN (SELECT place FROM ({again}) AS seen WHERE nth > 1)"
        )
        writer.connection.exec_driver_sql(unique)
    for statement in others:
        writer.connection.exec_driver_sql(statement)
    writer.connection.execute(
        text("UPDATE _table SET pulse = pulse + 1 WHERE name = :name"), {"name": writer.table.name}
    )


def _latest(writer: Writer, rows: Sequence[StoredRow]) -> dict[str, StoredRow]:
    latest = {str(row[0]): row for row in rows}
    version = writer.version_at
    if len(latest) == len(rows) or version is None:
        return latest
    latest = {}
    for row in rows:
        other = latest.get(str(row[0]))
        if other is None or _number(row[version]) >= _number(other[version]):
            latest[str(row[0])] = row
    return latest


def _supersedes(row: StoredRow, at: int, known: tuple[int | None, int, bool], load_number: int) -> bool:
    version = row[at]
    if version is None or known[0] is None or (row[-1] is not None and not known[2]):
        return True
    return _number(version) > known[0] or (known[1] != load_number and version != known[0])


def _number(version: Stored) -> int:
    return int(version) if version is not None else -1


def remove_rows(writer: Writer, ids: Sequence[str]) -> int:
    """Remove rows; ids that are not there are passed over. Return how many were there."""
    known = list(_versions(writer, ids))
    _note_changes(writer, known, existing=known)
    for batch in _batches(known):
        writer.connection.exec_driver_sql(
            f"DELETE FROM {writer.name} WHERE {writer.key} IN {marks(writer.dialect, batch)}", tuple(batch)
        )
    return len(known)


def known_ids(writer: Writer, ids: Sequence[str]) -> list[str]:
    """Return those of the ids that are there."""
    return list(_versions(writer, ids))


def unseen_ids(writer: Writer, load_number: int) -> list[str]:
    """Return the ids of the rows that a full load did not see: they are gone at the other side."""
    sql = f"SELECT {writer.key} FROM {writer.name} WHERE {quote(LOAD_COLUMN)} <> {mark(writer.dialect)}"
    return [row[0] for row in writer.connection.exec_driver_sql(sql, (load_number,))]


def differing_columns(writer: Writer) -> frozenset[str]:
    """Return the columns in which some changed row differs from its before-image; all, if a row came or went."""
    stored = [(one.logical_name, one.logical_name) for one in writer.table.columns]
    stored += [(one.type_name, one.logical_name) for one in writer.table.columns if one.is_polymorphic]
    names = [name for name, _ in stored]
    before, after = _changed_rows(writer, writer.before, names), _changed_rows(writer, writer.name, names)
    if after.keys() ^ before.keys():
        return frozenset(writer.table.column_names)
    return frozenset(
        column for i, (_, column) in enumerate(stored) if any(row[i] != before[key][i] for key, row in after.items())
    )


def _changed_rows(writer: Writer, source: str, names: Sequence[str]) -> dict[str, tuple[object, ...]]:
    selected = ", ".join(map(quote, names))
    sql = f"SELECT {selected} FROM {source} WHERE {writer.key} IN (SELECT row_id FROM _changed WHERE name = :name)"
    return {row[0]: tuple(row) for row in writer.connection.execute(text(sql), {"name": writer.table.name})}


def _versions(writer: Writer, ids: Sequence[str]) -> dict[str, tuple[int | None, int, bool]]:
    """Return, of the rows that are there, the version, the load that last saw it, and whether it has an etag."""
    version = quote(VERSION) if writer.table.has_version else "NULL"
    etag = f"{quote(ETAG_COLUMN)} IS NOT NULL"
    sql = f"SELECT {writer.key}, {version}, {quote(LOAD_COLUMN)}, {etag} FROM {writer.name} WHERE {writer.key} IN "
    return {
        row[0]: (row[1], row[2], bool(row[3]))
        for batch in _batches(ids)
        for row in writer.connection.exec_driver_sql(sql + marks(writer.dialect, batch), tuple(batch))
    }


def _note_changes(writer: Writer, ids: Sequence[str], *, existing: Sequence[str]) -> None:
    """Note the ids as changed and keep the first before-image of those there, unless all counts as changed."""
    if not ids:
        return
    sql = text("UPDATE _table SET pulse = pulse + 1 WHERE name = :name")
    writer.connection.execute(sql, {"name": writer.table.name})
    if _all_changed(writer):
        return
    names = ", ".join(quote(name) for name, _ in writer.table.stored_columns)
    noted = f"SELECT row_id FROM _changed WHERE name = {mark(writer.dialect)}"
    for batch in _batches(existing):
        writer.connection.exec_driver_sql(
            f"INSERT INTO {writer.before} ({names}) SELECT {names} FROM {writer.name} "
            f"WHERE {writer.key} IN {marks(writer.dialect, batch)} AND {writer.key} NOT IN ({noted})",
            (*batch, writer.table.name),
        )
    writer.connection.exec_driver_sql(
        f"INSERT INTO _changed (name, row_id) VALUES {marks(writer.dialect, ('', ''))} ON CONFLICT DO NOTHING",
        [(writer.table.name, row_id) for row_id in ids],
    )


def _all_changed(writer: Writer) -> bool:
    sql = text("SELECT all_changed FROM _table WHERE name = :name")
    return bool(writer.connection.execute(sql, {"name": writer.table.name}).scalar_one())


def _mark_seen(writer: Writer, ids: Sequence[str], load_number: int) -> None:
    for batch in _batches(ids):
        writer.connection.exec_driver_sql(
            f"UPDATE {writer.name} SET {quote(LOAD_COLUMN)} = {mark(writer.dialect)} "
            f"WHERE {writer.key} IN {marks(writer.dialect, batch)}",
            (load_number, *batch),
        )


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS_PER_STATEMENT):
        yield ids[start : start + IDS_PER_STATEMENT]
