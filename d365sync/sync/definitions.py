"""Table definitions, remembered in the mirror for a day so that an idle cycle does not read metadata.

IO: HTTP and SQL, through the client and the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.schema import ColumnType, Schema, Table
from d365sync.mirror.store import Mirror

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient

MAX_AGE = dt.timedelta(days=1)


def definitions(client: DataverseClient, mirror: Mirror, names: Iterable[str], now: dt.datetime) -> Schema:
    """Return the definitions of the tables that exist, reading those not known or older than a day."""
    from d365sync.dataverse.metadata import read_schema

    remembered: list[Table] = []
    unknown: list[str] = []
    wanted = sorted(set(names))
    known = mirror.definitions() if wanted else {}
    for name in wanted:
        entry = known.get(name)
        table = _read(entry[0]) if entry is not None and now - entry[1] < MAX_AGE else None
        if table is None:
            unknown.append(name)
        else:
            remembered.append(table)
    fresh = read_schema(client, unknown) if unknown else Schema({})
    _remember(mirror, fresh.tables.values(), now)
    return Schema.of([*remembered, *fresh.tables.values()])


def labelled(
    client: DataverseClient, mirror: Mirror, schema: Schema, wanted: Iterable[tuple[str, str]], now: dt.datetime
) -> Schema:
    """Return the schema with the labels of the choices wanted, by table and column; read and remembered once."""
    from d365sync.dataverse.metadata import read_labels

    kinds: dict[str, set[ColumnType]] = {}
    for table, column in wanted:
        found = schema.table(table).column(column)
        if not found.labels:
            kinds.setdefault(table, set()).add(found.type)
    fresh = read_labels(client, [(schema.table(name), of_table) for name, of_table in sorted(kinds.items())])
    _remember(mirror, fresh, now)
    return Schema.of([*schema.tables.values(), *fresh])


def oldest_definition(mirror: Mirror) -> dt.datetime | None:
    """Return when the oldest remembered definition was read, None when none is."""
    return min((read_at for name, (_, read_at) in mirror.definitions().items() if name in BOOK_COLUMNS), default=None)


def remembered(mirror: Mirror) -> Schema:
    """Return every definition the mirror remembers, however old."""
    tables = (_read(document) for document, _ in mirror.definitions().values())
    return Schema.of(table for table in tables if table is not None)


def _remember(mirror: Mirror, tables: Iterable[Table], now: dt.datetime) -> None:
    documents = {one.logical_name: msgspec.json.encode(one).decode() for one in tables}
    if documents:
        mirror.save_definitions(documents, now)


def _read(document: str) -> Table | None:
    try:
        return msgspec.json.decode(document, type=Table)
    except msgspec.DecodeError:
        return None
