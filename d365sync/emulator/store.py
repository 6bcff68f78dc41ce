"""The rows: typed, versioned, and never changed in place, with a log of what was deleted.

A row is replaced on update, so a reader may keep what it was given. Columns without a value are absent from
a row. The lock makes one request one step; whoever calls holds it (:meth:`Store.locked`).

Pure (one lock).
"""

from __future__ import annotations

import bisect
import datetime as dt
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from d365sync.core.values import Row, Value
from d365sync.emulator.clock import Clock
from d365sync.emulator.facts import Catalogue
from d365sync.emulator.keyindex import KeyIndex
from d365sync.emulator.settings import EmulatorSettings

VERSION = "versionnumber"
FIRST_VERSION = 1_000_000


@dataclass(frozen=True, slots=True)
class Deletion:
    """A row that is gone: when, and at which version."""

    version: int
    id: str
    deleted_at: dt.datetime


@dataclass(slots=True)
class Rows:
    """One table's rows by id, its deletions by id, and the ids in key order while that is known.

    ``indexes`` are those of alternate keys that were looked for, by columns.
    """

    by_id: dict[str, Row] = field(default_factory=dict)
    deleted: dict[str, Deletion] = field(default_factory=dict)
    order: list[str] | None = None
    indexes: dict[tuple[str, ...], KeyIndex] = field(default_factory=dict)

    def place(self, row_id: str, row: Row | None) -> None:
        """Let the id have this row, or none."""
        for index in self.indexes.values():
            index.move(row_id, self.by_id.get(row_id), row)
        if row is None:
            self.by_id.pop(row_id, None)
        else:
            self.by_id[row_id] = row


@dataclass(frozen=True, slots=True)
class _Before:
    """One row as it was before a change: the row, or its deletion, or neither."""

    rows: Rows
    id: str
    row: Row | None
    deleted: Deletion | None


Definitions = tuple[Catalogue, dict[str, Rows]]
"""The tables there are, and their rows."""


class Transaction:
    """Changes that can be taken back together; versions they used are not used again."""

    def __init__(self, store: Store, mark: int, definitions: Definitions) -> None:
        self._store = store
        self._mark = mark
        self._definitions = definitions

    def roll_back(self) -> None:
        """Take back what was changed since the transaction began, definitions too."""
        self._store.take_back(self._mark, self._definitions)


class Store:
    """All tables of one organization."""

    def __init__(self, catalogue: Catalogue, clock: Clock, settings: EmulatorSettings) -> None:
        self.catalogue = catalogue
        self.loaded = catalogue
        self.clock = clock
        self.settings = settings
        self.locked = threading.RLock()
        self.version = FIRST_VERSION
        self._tables = {name: Rows() for name in catalogue.tables}
        self._before: list[_Before] = []
        self._open = 0

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Take back what the block changed when it raises; transactions may stand inside one another."""
        transaction = Transaction(self, len(self._before), (self.catalogue, self._tables))
        self._open += 1
        try:
            yield transaction
        except BaseException:
            transaction.roll_back()
            raise
        finally:
            self._open -= 1
            if not self._open:
                self._before.clear()

    def take_back(self, mark: int, definitions: Definitions) -> None:
        """Undo the changes of open transactions back to a mark; :class:`Transaction` calls it."""
        if self._tables is not definitions[1]:
            self.catalogue, self._tables = definitions
            self._forget_indexes()
        while len(self._before) > mark:
            before = self._before.pop()
            rows = before.rows
            rows.order = None
            rows.place(before.id, before.row)
            if before.deleted is None:
                rows.deleted.pop(before.id, None)
            else:
                rows.deleted[before.id] = before.deleted

    def _remember(self, table: str, row_id: str) -> None:
        if self._open:
            rows = self._tables[table]
            self._before.append(_Before(rows, row_id, rows.by_id.get(row_id), rows.deleted.get(row_id)))

    def redefine(self, catalogue: Catalogue) -> None:
        """Replace the tables: new ones are empty, those that are gone take their rows with them."""
        self.catalogue = catalogue
        self._tables = {name: self._tables.get(name) or Rows() for name in catalogue.tables}
        self._forget_indexes()

    def _forget_indexes(self) -> None:
        for rows in self._tables.values():
            rows.indexes.clear()

    def find(self, table: str, values: Row) -> Row | None:
        """Return the row that has these values in these columns, text compared without case; None when none has."""
        rows, columns = self._tables[table], tuple(sorted(values))
        if columns not in rows.indexes:
            rows.indexes[columns] = KeyIndex(columns, rows.by_id)
        row_id = rows.indexes[columns].find(values)
        return None if row_id is None else rows.by_id[row_id]

    def forget_columns(self, table: str, columns: Collection[str]) -> None:
        """Drop the values of columns from every row, without a new version."""
        by_id = self._tables[table].by_id
        for row_id, row in by_id.items():
            self._remember(table, row_id)
            by_id[row_id] = {name: value for name, value in row.items() if name not in columns}

    def rows(self, table: str) -> Mapping[str, Row]:
        """Return the rows by id, in the order they came."""
        return self._tables[table].by_id

    def get(self, table: str, row_id: str | Value) -> Row | None:
        """Return one row; None when there is none (or no such table)."""
        rows = self._tables.get(table)
        return rows.by_id.get(str(row_id)) if rows else None

    def ordered_ids(self, table: str) -> list[str]:
        """Return the ids in key order. Assumed: guids sort as text (SQL Server sorts their bytes otherwise)."""
        rows = self._tables[table]
        if rows.order is None:
            rows.order = sorted(rows.by_id)
        return rows.order

    def deletions(self, table: str, *, after: int) -> list[Deletion]:
        """Return the deletions above a version, oldest first."""
        log = self._tables[table].deleted.values()
        return sorted((one for one in log if one.version > after), key=lambda one: one.version)

    def all_deletions(self, table: str) -> Iterable[Deletion]:
        """Return every deletion known."""
        return self._tables[table].deleted.values()

    def put(self, table: str, row: Row) -> Row:
        """Insert the row or replace the one with its id, under a new version; return what is stored."""
        rows = self._tables[table]
        self.version += 1
        stored = {name: value for name, value in row.items() if value is not None}
        stored[VERSION] = self.version
        row_id = str(row[self.catalogue.tables[table].key])
        self._remember(table, row_id)
        if row_id not in rows.by_id and rows.order is not None:
            bisect.insort(rows.order, row_id)
        rows.place(row_id, stored)
        rows.deleted.pop(row_id, None)
        return stored

    def change(self, table: str, row_id: str, changes: Mapping[str, Value]) -> Row:
        """Change columns of a row; return what is stored."""
        return self.put(table, {**self._tables[table].by_id[row_id], **changes})

    def remove(self, table: str, row_id: str) -> None:
        """Delete a row and remember it."""
        rows = self._tables[table]
        self._remember(table, row_id)
        rows.place(row_id, None)
        if rows.order is not None:
            del rows.order[bisect.bisect_left(rows.order, row_id)]
        self.version += 1
        rows.deleted[row_id] = Deletion(self.version, row_id, self.clock.now())

    def restore(self, table: str, rows: Iterable[Row], deletions: Iterable[Deletion]) -> None:
        """Put back rows and deletions with the versions they carry."""
        key = self.catalogue.tables[table].key
        self._tables[table] = Rows({str(row[key]): row for row in rows}, {one.id: one for one in deletions})

    def only(self, table: str) -> Row:
        """Return the first row of a table that always has one (the organization)."""
        return next(iter(self._tables[table].by_id.values()))

    def referring(self, table: str, column: str, row_id: str) -> list[Row]:
        """Return the rows whose lookup names the row."""
        return [row for row in self._tables[table].by_id.values() if row.get(column) == row_id]
