"""The kept sums: groups of goals, their slices, and what the records in each slice give.

Totals are kept as text of the integer in the column's scale, so that no database's number type limits them.

IO: SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.goals.participation import Group
from d365sync.core.goals.slices import NO_SUMS, NOTHING, Slice, SliceSum, SliceSums
from d365sync.errors import MirrorError
from d365sync.mirror import sums
from d365sync.mirror.given import NOTHING_GIVEN, Given, Kind, give
from d365sync.mirror.tables import Dialect, mark, marks

OVERFLOW = "integer overflow"
"""Source: SQLite, aggregate functions (sum() raises "integer overflow")."""


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """A group as it was kept: its number, and the fingerprint of the query that its sums answer."""

    number: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class KeptSlices:
    """The kept slices of a group in order, with their ids and sums."""

    ids: Sequence[int] = ()
    slices: Sequence[Slice] = ()
    sums: SliceSums = NO_SUMS


@dataclass(frozen=True, slots=True)
class GroupSums:
    """What is to be kept of a group: new sums of slices by id, or (``slices`` not None) all of it anew."""

    key: str
    fingerprint: str
    updates: Mapping[int, SliceSum] = field(default_factory=dict)
    slices: Sequence[Slice] | None = None
    sums: SliceSums = NO_SUMS


@dataclass(frozen=True, slots=True)
class Adder:
    """Adds up one group within one transaction.

    ``unpriced`` False: no record lacks a base amount. ``through`` is the condition through the parent record, where
    its date decides; see :func:`~d365sync.mirror.sums.predicate_through_parent`.
    """

    connection: Connection
    dialect: Dialect
    group: Group
    predicate: Predicate
    unpriced: bool = True
    through: Predicate | None = None
    given: Given = NOTHING_GIVEN

    def wanted(self, slices: Sequence[Slice]) -> SliceSums:
        """Return the sums of any slices, in their order."""
        if not slices:
            return NO_SUMS
        given = wanted(self.connection, self.dialect, slices)
        adder = replace(self, given=given)
        return adder._sums(sums.WANTED_TABLE, range(len(slices)))  # noqa: SLF001 - its own kind

    def kept(self, ids: Sequence[int]) -> SliceSums:
        """Return the sums of kept slices with neighbouring ids, in their order."""
        return self._sums(sums.kept_slices(ids[0], ids[-1]), ids) if ids else NO_SUMS

    def changed(self, number: int) -> dict[int, SliceSum]:
        """Return by how much the changed records change the kept slices of a group, by id.

        A slice is there too if other records give the same as those before.
        """
        changes: dict[int, SliceSum] = {}
        now, before = sums.change_statements(self.group, self.predicate, number)
        for statement, sign in ((now, 1), (before, -1)):
            for slice_id, records, high, low, unpriced in self._run(statement):
                total = records if self.group.value is None else sums.joined(high, low)
                known = changes.get(slice_id, NOTHING)
                changes[slice_id] = SliceSum(
                    known.total + sign * total, known.records + sign * records, known.unpriced + sign * unpriced
                )
        return changes

    def _sums(self, source: str, ids: Sequence[int]) -> SliceSums:
        try:
            columns = self._columns(source, ids, halves=False)
        except DBAPIError as error:
            if OVERFLOW not in str(error):
                raise
            records, high, low, *missing = self._columns(source, ids, halves=True)
            columns = [records, list(map(sums.joined, high, low)), *missing]
        if self.group.value is None:
            return SliceSums(columns[0], columns[0])
        return SliceSums(columns[1], columns[0], columns[2] if self.unpriced else ())

    def _columns(self, source: str, ids: Sequence[int], *, halves: bool) -> list[Sequence[int]]:
        """Return what the statement gives, column by column, in the order of the ids."""
        if self.dialect == "sqlite" and self.through is None:
            return self._unpacked(self._run(self._statement(source, halves=halves)), len(ids))
        found = self._values(source, halves=halves)
        width = max(map(len, found.values()), default=3)
        values = [found.get(one, (0,) * width) for one in ids]
        return [list(column) for column in zip(*values, strict=True)]

    @staticmethod
    def _unpacked(rows: Sequence[tuple[Any, ...]], count: int) -> list[Sequence[int]]:
        """Return the columns of numbers that SQLite gave as one text, or one number, for each slice.

        Raises:
            MirrorError: the slices are not those that were asked for.
        """
        if len(rows) != count:
            raise MirrorError(f"{count} slices were to be summed and {len(rows)} were")
        numbers = list(map(int, " ".join([str(row[1]) for row in rows]).split()))
        width = len(numbers) // count
        return [numbers[at::width] for at in range(width)]

    def _values(self, source: str, *, halves: bool) -> Mapping[int, Sequence[int]]:
        if self.through is not None:
            rows = self._run(sums.sum_through_parent(self.group, self.through, halves=halves, unpriced=self.unpriced))
        else:
            rows = self._run(self._statement(source, halves=halves))
        return {slice_id: [int(value or 0) for value in values] for slice_id, *values in rows}

    def _statement(self, source: str, *, halves: bool) -> sums.Statement:
        return sums.sum_statement(
            self.group, self.predicate, source, self.dialect, halves=halves, unpriced=self.unpriced
        )

    def _run(self, statement: sums.Statement) -> Sequence[tuple[Any, ...]]:
        """Return the driver's own rows: SQLAlchemy's would cost more than the statement.

        Raises:
            DBAPIError: the database failed; SQLite computes each row only as it is fetched.
        """
        sql, parameters = self.given.before + statement.sql, {**statement.parameters, **self.given.parameters}
        result = self.connection.execute(text(sql), parameters)
        try:
            return result.cursor.fetchall() if result.cursor is not None else []
        except self.connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(statement.sql, None, error) from error


def wanted(connection: Connection, dialect: Dialect, slices: Sequence[Slice]) -> Given:
    """Give a statement slices, numbered in their order, as the table of wanted ones."""
    columns: dict[str, Kind] = {"id": "BIGINT", **sums.LANE_KINDS}
    rows = [(position, *one) for position, one in enumerate(slices)]
    return give(connection, dialect, sums.WANTED_TABLE, columns, rows, index=("owner", "starts"))


def kept_groups(connection: Connection) -> dict[str, KeptGroup]:
    """Return every kept group by key."""
    rows = connection.exec_driver_sql("SELECT key, number, fingerprint FROM _group")
    return {row[0]: KeptGroup(row[1], row[2]) for row in rows}


def kept_slices(connection: Connection, dialect: Dialect, number: int) -> KeptSlices:
    """Return the kept slices of a group."""
    columns = sums.named(["id", "total", "records", "unpriced", *sums.LANE_COLUMNS])
    where = f"WHERE group_number = {mark(dialect)} ORDER BY id"
    rows = connection.exec_driver_sql(f"SELECT {columns} FROM {sums.SLICE_TABLE} {where}", (number,)).all()
    return KeptSlices(
        [row[0] for row in rows],
        [Slice(*row[4:]) for row in rows],
        SliceSums.of([SliceSum(int(row[1]), row[2], row[3]) for row in rows]),
    )


def kept_sums(connection: Connection, dialect: Dialect, ids: Sequence[int]) -> dict[int, SliceSum]:
    """Return the kept sums of some slices, by id."""
    found: dict[int, SliceSum] = {}
    for start in range(0, len(ids), 500):
        batch = tuple(ids[start : start + 500])
        sql = f"SELECT id, total, records, unpriced FROM {sums.SLICE_TABLE} WHERE id IN {marks(dialect, batch)}"
        found.update({row[0]: SliceSum(int(row[1]), *row[2:]) for row in connection.exec_driver_sql(sql, batch)})
    return found


def keep(connection: Connection, dialect: Dialect, groups: Sequence[GroupSums]) -> None:
    """Keep these groups and no others."""
    known = kept_groups(connection)
    for key in known.keys() - {group.key for group in groups}:
        _forget(connection, known[key].number)
    for group in groups:
        if group.slices is not None:
            if group.key in known:
                _forget(connection, known[group.key].number)
            _insert(connection, dialect, group, group.slices)
        elif group.updates:
            one = mark(dialect)
            connection.exec_driver_sql(
                f"UPDATE {sums.SLICE_TABLE} SET total = {one}, records = {one}, unpriced = {one} WHERE id = {one}",
                [(str(new.total), new.records, new.unpriced, slice_id) for slice_id, new in group.updates.items()],
            )


def forget_all(connection: Connection) -> None:
    """Forget every kept sum."""
    for table in ("_group", sums.SLICE_TABLE):
        connection.exec_driver_sql(f"DELETE FROM {table}")


def _insert(connection: Connection, dialect: Dialect, group: GroupSums, slices: Iterable[Slice]) -> None:
    number = _following(connection, "number", "_group")
    first = _following(connection, "id", sums.SLICE_TABLE)
    connection.exec_driver_sql(
        f"INSERT INTO _group (number, key, fingerprint) VALUES {marks(dialect, (0, 0, 0))}",
        (number, group.key, group.fingerprint),
    )
    missing = group.sums.unpriced or repeat(0)
    entries = [
        (first + position, number, *one, str(total), records, unpriced)
        for position, (one, total, records, unpriced) in enumerate(
            zip(slices, group.sums.totals, group.sums.records, missing, strict=False)
        )
    ]
    if entries:
        names = sums.named(["id", "group_number", *sums.LANE_COLUMNS, "total", "records", "unpriced"])
        connection.exec_driver_sql(
            f"INSERT INTO {sums.SLICE_TABLE} ({names}) VALUES {marks(dialect, entries[0])}", entries
        )


def _forget(connection: Connection, number: int) -> None:
    for table, column in (("_group", "number"), (sums.SLICE_TABLE, "group_number")):
        connection.execute(text(f"DELETE FROM {table} WHERE {column} = :number"), {"number": number})


def _following(connection: Connection, column: str, table: str) -> int:
    return int(connection.exec_driver_sql(f"SELECT COALESCE(MAX({column}), 0) + 1 FROM {table}").scalar_one())
