"""The mirror: rows and bookmarks in, rows and sums out.

A page is applied in one transaction: rows are put under their key, what they replace is kept as a before-image, and
the change is noted. The bookmark is saved with the last page. What changed since the last recompute tells which goals
to compute again; :meth:`Mirror.settle` ends that stretch.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from sqlalchemy import Connection, Engine, text

from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.goals.participation import Group
from d365sync.core.goals.slices import Slice
from d365sync.core.rowshape import ETAG_KEY, StoredRow
from d365sync.core.storage import is_plain
from d365sync.core.values import Row, Value
from d365sync.database import (
    HINTS,
    connected,
    file_of,
    first_damage,
    for_writing,
    make_private,
    open_engine,
    transaction,
)
from d365sync.errors import Fault, MirrorError
from d365sync.mirror import bookmarks, documents, fence, gone, indexes, pages, slices, sums, unfit
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.damage import set_aside
from d365sync.mirror.given import NOTHING_GIVEN, Given
from d365sync.mirror.layout import is_laid_out, lay_out
from d365sync.mirror.tables import BEFORE_PREFIX, ETAG_COLUMN, Dialect, MirrorTable, quote
from d365sync.mirror.unfit import Unfit
from d365sync.mirror.visible import VisibleIds

PULSE = "SELECT COALESCE(SUM(pulse), 0) FROM _table"
MOST_WORKERS = 4
"""Statements at one time, each on a connection of its own; the pool holds five."""
DAILY = dt.timedelta(days=1)
HINT = "check storage.mirror; if the database is damaged, the next sync puts it aside and pulls everything again"


@dataclass(frozen=True, slots=True)
class TableChanges:
    """What happened to one table since the last recompute.

    ``everything`` means too much to tell. Otherwise ``columns`` are those in which some row differs; a row that came
    or went differs in all of them.
    """

    rows: int = 0
    everything: bool = False
    columns: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Withheld:
    """Rows that would have been removed from a table, of how many; and the bookmark that would have been saved."""

    ids: tuple[str, ...] = field(repr=False)
    known: int
    last: Position


Guard: TypeAlias = Callable[[int, int], bool]
"""Says whether so many of so many rows of a table may be removed."""


@dataclass(slots=True)
class Applied:
    """What one page did: rows that were new or changed, and rows removed; or withheld from that by a guard."""

    changed: int = 0
    deleted: int = 0
    seen: int = field(default=0)
    withheld: Withheld | None = None


class Mirror:
    """One mirror database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._epoch: int | None = None
        self.dialect: Dialect = cast("Dialect", engine.dialect.name)
        self.workers = 1 if engine.url.database in (None, "", ":memory:") else min(MOST_WORKERS, os.cpu_count() or 1)
        with self._transaction() as connection:
            there = is_laid_out(connection)
        if not there:
            with self._writing() as connection:
                lay_out(connection, self.dialect)

    @classmethod
    def open(cls, url: str) -> Mirror:
        """Open, or make, the mirror at a database URL.

        Raises:
            ConfigError: the URL cannot be used.
            MirrorError: the database cannot be opened.
        """
        engine = open_engine(url, durable=False)
        try:
            return cls(engine)
        except BaseException:
            engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def owner(self) -> tuple[str, str] | None:
        """Return address and id of the organization it belongs to, None when it has none yet."""
        with self._transaction() as connection:
            row = connection.execute(text("SELECT url, organization_id FROM _owner")).one_or_none()
        return None if row is None else (str(row[0]), str(row[1]))

    def belong_to(self, url: str, organization_id: str) -> None:
        """Note the organization it belongs to."""
        with self._writing() as connection:
            connection.exec_driver_sql("DELETE FROM _owner")
            values = {"url": url, "id": organization_id}
            connection.execute(text("INSERT INTO _owner (url, organization_id) VALUES (:url, :id)"), values)

    def epoch(self) -> int:
        """Return the greatest epoch that ever wrote here, 0 when none did."""
        with self._transaction() as connection:
            return fence.stored_epoch(connection)

    def fence(self, epoch: int) -> None:
        """Store the epoch of the lease; from now on every writing transaction of this object needs it to be there.

        Once another instance has stored a greater one, those transactions raise :class:`LeaseLostError`, and nothing
        of them is stored.

        Raises:
            LeaseLostError: a greater epoch is stored.
        """
        with self._transaction(writes=True, fenced=False) as connection:
            fence.raise_fence(connection, epoch)
        self._epoch = epoch

    def is_due(self, now: dt.datetime, *, every: dt.timedelta = DAILY) -> bool:
        """Say whether :meth:`verify` was last done longer ago than ``every``, or never."""
        with self._transaction() as connection:
            last = fence.checked_at(connection)
        return last is None or not last <= now < last + every

    def verify(self, now: dt.datetime) -> None:
        """Look the mirror through, and note that it was done.

        Raises:
            MirrorError: it is damaged.
        """
        with self._transaction() as connection:
            wrong = first_damage(connection)
        if wrong:
            raise MirrorError(f"the mirror is damaged: {wrong}", hint=HINT, fault=Fault.DAMAGED)
        with self._writing() as connection:
            fence.note_checked(connection, now)

    def make_again(self, now: dt.datetime) -> Path | None:
        """Put the files of a damaged mirror aside and begin an empty one; None where there is no file to put aside.

        Raises:
            MirrorError: they cannot be put aside.
        """
        path = file_of(self._engine)
        if path is None:
            return None
        self._engine.dispose()
        aside = set_aside(path, now)
        make_private(path)
        with self._transaction(writes=True, fenced=False) as connection:
            lay_out(connection, self.dialect)
            if self._epoch is not None:
                fence.raise_fence(connection, self._epoch)
        return aside

    # -- shape ---------------------------------------------------------------------------------------------------

    def ensure(self, table: MirrorTable) -> bool:
        """Make a table, or make it again if its shape is another; say whether it is empty and must be loaded.

        An empty one has no indexes yet: it is given rows by :meth:`append` and finished by :meth:`fill`. One whose
        filling was broken off is made again.
        """
        with self._writing() as connection:
            shape = connection.execute(
                text("SELECT shape FROM _table WHERE name = :name"), {"name": table.name}
            ).scalar_one_or_none()
            if shape == table.shape and indexes.exists(connection, self.dialect, table.key_index):
                return False
            for statement in (*table.drop(), *table.create(self.dialect)):
                connection.exec_driver_sql(statement)
            for own in ("_table", "_bookmark", "_changed"):
                connection.execute(text(f"DELETE FROM {own} WHERE name = :name"), {"name": table.name})
            connection.execute(
                text(
                    "INSERT INTO _table (name, shape, columns, all_changed, load_number, pulse, unreadable, mend) "
                    "VALUES (:name, :shape, :columns, :yes, 0, 0, '', '')"
                ),
                {"name": table.name, "shape": table.shape, "columns": " ".join(table.column_names), "yes": True},
            )
            return True

    def columns_of(self, name: str) -> frozenset[str]:
        """Return the logical names of the columns a table is mirrored with, none when it is not there."""
        with self._transaction() as connection:
            found = connection.execute(text("SELECT columns FROM _table WHERE name = :name"), {"name": name}).scalar()
        return frozenset(str(found or "").split())

    def forget_definitions(self) -> None:
        """Forget every metadata document, so that it is read again."""
        with self._writing() as connection:
            connection.exec_driver_sql("DELETE FROM _metadata")

    def is_pulled(self, table: MirrorTable) -> bool:
        """Say whether a table is there with these columns and was read to its end at least once."""
        sql = text(
            "SELECT 1 FROM _table t JOIN _bookmark b ON b.name = t.name WHERE t.name = :name AND t.shape = :shape"
        )
        with self._transaction() as connection:
            return connection.execute(sql, {"name": table.name, "shape": table.shape}).first() is not None

    def index(self, wanted: frozenset[sums.Index]) -> None:
        """Make the indexes that are not there, and drop those of ours that are not wanted any more."""
        with self._writing() as connection:
            indexes.ensure(connection, self.dialect, wanted)

    def definitions(self) -> dict[str, tuple[str, dt.datetime]]:
        """Return every table's metadata document and when it was read, by table name."""
        with self._transaction() as connection:
            return documents.read(connection)

    def save_definitions(self, found: Mapping[str, str], read_at: dt.datetime) -> None:
        """Keep metadata documents, by table name."""
        with self._writing() as connection:
            documents.save(connection, found, read_at)

    # -- rows in -------------------------------------------------------------------------------------------------

    def position(self, name: str) -> Position | None:
        """Return the bookmark of a table, None when it must be loaded in full."""
        with self._transaction() as connection:
            return bookmarks.read_one(connection, name)

    def bookmarks(self) -> dict[str, Position]:
        """Return every table's bookmark."""
        with self._transaction() as connection:
            return bookmarks.read(connection)

    def drop_positions(self) -> None:
        """Forget every bookmark, row and sum: the next pull makes the tables again and loads everything in full.

        Rows are not kept by their version: values can change without it (a column that may be read only now).
        """
        with self._writing() as connection:
            for own in ("_bookmark", "_metadata"):
                connection.exec_driver_sql(f"DELETE FROM {own}")
            connection.exec_driver_sql("UPDATE _table SET shape = ''")
            slices.forget_all(connection)

    def forget_positions(self, names: Iterable[str]) -> None:
        """Forget the bookmarks of tables that are not needed any more; read again, they are loaded in full."""
        with self._writing() as connection:
            bookmarks.forget(connection, names)

    def begin_load(self, name: str) -> int:
        """Return the number of a new full load: rows it does not see are removed by :meth:`apply` with ``last``."""
        with self._writing() as connection:
            connection.execute(
                text("UPDATE _table SET load_number = load_number + 1 WHERE name = :name"), {"name": name}
            )
            return int(self._scalar(connection, "SELECT load_number FROM _table WHERE name = :name", name=name))

    def append(self, table: MirrorTable, rows: Sequence[StoredRow], load_number: int) -> None:
        """Add a page to a table that :meth:`ensure` has just made, in one transaction.

        Raises:
            MirrorError: the database failed; none of these rows is kept.
        """
        with self._writing() as connection:
            pages.append_rows(pages.Writer(connection, self.dialect, table), rows, load_number)

    def fill(self, table: MirrorTable, last: Position, deleted: Sequence[str] = ()) -> Applied:
        """End the first load of a table: make its indexes, and save the bookmark. Of rows seen twice the later stays.

        Raises:
            MirrorError: the database failed; the table will be made again.
        """
        with self._writing() as connection:
            writer = pages.Writer(connection, self.dialect, table)
            pages.make_unique(writer)
            removed = pages.remove_rows(writer, deleted)
            bookmarks.save(connection, table.name, last)
            count = self._rows_of(connection, table.name)
        return Applied(changed=count, deleted=removed, seen=count)

    def apply(
        self,
        table: MirrorTable,
        rows: Sequence[Row],
        deleted: Sequence[str] = (),
        *,
        load_number: int | None = None,
        last: Position | None = None,
    ) -> Applied:
        """Apply rows given by logical name; see :meth:`put`."""
        try:
            stored = [table.rows.stored(row) for row in rows]
        except ValueError as error:
            raise MirrorError(f"a row cannot be mirrored: {error}") from error
        return self.put(table, stored, deleted, load_number=load_number, last=last)

    def put(
        self,
        table: MirrorTable,
        rows: Sequence[StoredRow],
        deleted: Sequence[str] = (),
        *,
        load_number: int | None = None,
        last: Position | None = None,
        guard: Guard | None = None,
    ) -> Applied:
        """Apply one page in one transaction; with ``last``, save the bookmark too.

        ``load_number`` is given by a full load. With both, rows that the load did not see are removed. With ``last``
        and a ``guard`` that says no, nothing is removed, and the bookmark stays.

        Raises:
            MirrorError: the database failed; nothing of the page is kept.
        """
        with self._writing() as connection:
            number = load_number or int(
                self._scalar(connection, "SELECT load_number FROM _table WHERE name = :name", name=table.name)
            )
            writer = pages.Writer(connection, self.dialect, table)
            if not indexes.exists(connection, self.dialect, table.key_index):
                pages.make_unique(writer)
            applied = Applied(seen=len(rows))
            applied.changed = pages.put_rows(writer, rows, number)
            if last is None:
                applied.deleted = pages.remove_rows(writer, deleted)
            else:
                unseen = [] if load_number is None else pages.unseen_ids(writer, load_number)
                self._end(writer, [*dict.fromkeys((*deleted, *unseen))], last, guard, applied)
        return applied

    def remove_missing(
        self,
        table: MirrorTable,
        present: Iterable[Iterable[str]],
        last: Position,
        *,
        guard: Guard | None = None,
    ) -> Applied:
        """Remove the rows whose id is on none of the pages ``present`` (an id sweep); guard and bookmark as in put.

        A page is taken when the one before is stored, outside any transaction. Only ids that are withheld are all in
        memory.

        Raises:
            MirrorError: the database failed; nothing is removed.
        """
        with connected(self._engine, _failure) as connection:
            with connection.begin():
                gone.begin(connection, self.dialect)
            for ids in present:
                with connection.begin():
                    gone.note_present(connection, self.dialect, ids)
            with for_writing(connection).begin():
                self._check_fence(connection)
                applied = self._end_sweep(pages.Writer(connection, self.dialect, table), last, guard)
                gone.end(connection)
        return applied

    def _end_sweep(self, writer: pages.Writer, last: Position, guard: Guard | None) -> Applied:
        """Remove the rows that no page had and save the bookmark, unless a guard says no."""
        missing, rows = gone.count(writer), self._rows_of(writer.connection, writer.table.name)
        if guard is not None and missing and not guard(missing, rows):
            return Applied(withheld=Withheld(tuple(itertools.chain.from_iterable(gone.ids(writer))), rows, last))
        deleted = sum(pages.remove_rows(writer, some) for some in gone.ids(writer))
        bookmarks.save(writer.connection, writer.table.name, last)
        return Applied(deleted=deleted)

    def _end(
        self, writer: pages.Writer, ids: Sequence[str], last: Position, guard: Guard | None, applied: Applied
    ) -> None:
        """Remove rows and save the bookmark, unless a guard says no."""
        name = writer.table.name
        known = pages.known_ids(writer, ids) if guard and ids else []
        rows = self._rows_of(writer.connection, name) if known else 0
        if guard is not None and known and not guard(len(known), rows):
            applied.withheld = Withheld(tuple(known), rows, last)
            return
        applied.deleted += pages.remove_rows(writer, ids)
        bookmarks.save(writer.connection, name, last)

    def note_unreadable(self, name: str, reason: str, mend: str) -> None:
        """Note that a table may not be read; its rows stay as they are until it is read again."""
        with self._writing() as connection:
            bookmarks.note_unreadable(connection, name, reason, mend)

    def unreadable(self) -> dict[str, tuple[str, str]]:
        """Return, by table, why it could not be read the last time, and what mends that."""
        with self._transaction() as connection:
            return bookmarks.unreadable(connection)

    def count(self, name: str) -> int:
        """Return the number of rows of a mirrored table."""
        with self._transaction() as connection:
            return self._rows_of(connection, name)

    # -- rows out ------------------------------------------------------------------------------------------------

    def rows(self, table: MirrorTable) -> list[dict[str, Value]]:
        """Return every row, by key."""
        with self._transaction() as connection:
            return list(self._select(connection, table, f"ORDER BY {quote(table.table.primary_id)}"))

    def positions(self) -> dict[str, tuple[Position, int]]:
        """Return every table's bookmark and number of rows."""
        with self._transaction() as connection:
            found = bookmarks.read(connection)
            return {name: (position, self._rows_of(connection, name)) for name, position in found.items()}

    def participants(self, table: MirrorTable, group: Group, predicate: Predicate, one: Slice) -> list[Row]:
        """Return the records that count in one slice, in the order of the group's date, then key."""
        dates = [
            c.attribute for c in (group.fetch.filter.conditions if group.fetch.filter else ()) if c.operator != "eq"
        ]
        order = ", ".join(f"r.{quote(name)}" for name in [*dict.fromkeys(dates), group.primary_id])
        with self._transaction() as connection:
            given = slices.wanted(connection, self.dialect, [one])
            clause = f"CROSS JOIN {sums.WANTED_TABLE} s WHERE {predicate.sql} ORDER BY {order}"
            return list(self._select(connection, table, clause, predicate.parameters, given))

    def unfit(self, tables: Iterable[MirrorTable]) -> dict[tuple[str, str], list[Unfit]]:
        """Return the columns of which values were left out; see :func:`d365sync.mirror.unfit.left_out`."""
        with self._transaction() as connection:
            return unfit.left_out(connection, tables)

    def has_values(self, table: MirrorTable, column: str) -> bool:
        """Say whether any row has a value in a column, or there is no row at all."""
        with self._transaction() as connection:
            return unfit.has_values(connection, table, column)

    # -- sums ----------------------------------------------------------------------------------------------------

    def adder(
        self, connection: Connection, group: Group, predicate: Predicate, through: Predicate | None = None
    ) -> slices.Adder:
        """Return what adds up a group inside a transaction of :meth:`connection`."""
        missing = sums.unpriced_statement(group)
        unpriced = missing is not None and connection.exec_driver_sql(missing).first() is not None
        return slices.Adder(connection, self.dialect, group, predicate, unpriced, through)

    def pulse(self) -> int:
        """Return a number that differs once rows of any table change; see :meth:`settle`."""
        with self._transaction() as connection:
            return int(self._scalar(connection, PULSE))

    def settle(self, groups: Sequence[slices.GroupSums], *, pulse: int | None = None) -> None:
        """Keep the sums of these groups and no others, and forget what changed: it is in them now.

        ``pulse`` is what :meth:`pulse` gave before the changes were read.

        Raises:
            MirrorError: rows changed since then, which the sums do not know of; nothing is kept.
        """
        with self._writing() as connection:
            connection.exec_driver_sql("UPDATE _table SET pulse = pulse")  # nobody else changes rows from here on
            if pulse is not None and int(self._scalar(connection, PULSE)) != pulse:
                raise MirrorError(
                    "another sync changed the mirror meanwhile", hint="let syncs run one after the other, and run again"
                )
            slices.keep(connection, self.dialect, groups)
            for name in [row[0] for row in connection.exec_driver_sql("SELECT DISTINCT name FROM _changed")]:
                connection.exec_driver_sql(f"DELETE FROM {quote(BEFORE_PREFIX + name)}")
            connection.exec_driver_sql("DELETE FROM _changed")
            connection.execute(text("UPDATE _table SET all_changed = :no WHERE all_changed"), {"no": False})

    def changes(self, table: MirrorTable, *, up_to: int) -> TableChanges:
        """Return what happened to a table since :meth:`settle`; ``everything`` beyond ``up_to`` rows."""
        with self._transaction() as connection:
            everything = self._scalar(connection, "SELECT all_changed FROM _table WHERE name = :name", name=table.name)
            rows = int(self._scalar(connection, "SELECT COUNT(*) FROM _changed WHERE name = :name", name=table.name))
            if everything or rows > up_to:
                return TableChanges(rows, everything=True)
            if rows == 0:
                return TableChanges()
            return TableChanges(rows, columns=pages.differing_columns(pages.Writer(connection, self.dialect, table)))

    @contextmanager
    def connection(self, *, writes: bool = False) -> Iterator[Connection]:
        """Give one transaction to another module of the mirror; it stores something only if it ``writes``.

        Raises:
            MirrorError: the database failed; nothing of the transaction is kept.
        """
        with self._transaction(writes=writes) as connection:
            yield connection

    @contextmanager
    def visible(self) -> Iterator[VisibleIds]:
        """Open the ids that goal managers may see, in one transaction."""
        with self._writing() as connection:
            yield VisibleIds(connection, self.dialect)

    # -- inside --------------------------------------------------------------------------------------------------

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._transaction(writes=True)

    @contextmanager
    def _transaction(self, *, writes: bool = False, fenced: bool = True) -> Iterator[Connection]:
        try:
            with transaction(self._engine, _failure, writes=writes) as one:
                if writes and fenced:
                    self._check_fence(one)
                yield one
        except ValueError as error:
            raise MirrorError(f"a row cannot be mirrored: {error}") from error

    def _check_fence(self, connection: Connection) -> None:
        if self._epoch is not None:
            fence.check(connection, self._epoch)

    def _rows_of(self, connection: Connection, name: str) -> int:
        return int(self._scalar(connection, f"SELECT COUNT(*) FROM {quote(name)}"))

    @staticmethod
    def _scalar(connection: Connection, sql: str, **parameters: object) -> Any:
        return connection.execute(text(sql), parameters).scalar_one()

    def _select(
        self,
        connection: Connection,
        table: MirrorTable,
        clause: str,
        parameters: Mapping[str, Any] | None = None,
        given: Given = NOTHING_GIVEN,
    ) -> Iterator[dict[str, Value]]:
        companions = [column.type_name for column in table.columns if column.is_polymorphic]
        names = [*table.column_names, *companions, ETAG_COLUMN]
        selected = ", ".join(f"r.{quote(name)}" for name in names)
        sql = f"SELECT {selected} FROM {quote(table.name)} r {clause}"
        as_stored = frozenset({*companions, ETAG_COLUMN, *(c.logical_name for c in table.columns if is_plain(c))})
        keys = [ETAG_KEY if name == ETAG_COLUMN else name for name in names]
        decoded = [(at, column) for at, column in enumerate(table.columns) if column.logical_name not in as_stored]
        for stored in connection.execute(text(given.before + sql), {**(parameters or {}), **given.parameters}):
            row = dict(zip(keys, stored, strict=True))
            for at, column in decoded:
                if stored[at] is not None:
                    row[column.logical_name] = table.decode(column, stored[at])
            yield row


def _failure(message: str, fault: Fault) -> MirrorError:
    return MirrorError(f"the mirror failed: {message}", hint=HINTS.get(fault, HINT), fault=fault)
