"""A cycle with a hundred changed rows: recomputing against merely upserting them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from itertools import count
from pathlib import Path

from d365sync.core.values import Value
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.tables import MirrorTable
from tests.bench import data, ours
from tests.bench.data import Size
from tests.bench.report import measured, told, within
from tests.bench.rollup import same, working_copy

CHANGED_ROWS = 100
Row = dict[str, Value]


def small_change(part: str, size: Size, folder: Path, rounds: int) -> list[object]:
    """Measure; what was recomputed by changes is compared with a full recompute at the end."""
    with working_copy(size, folder) as plain, working_copy(size, folder) as file, ours.opened(file) as bench:
        table = bench.snapshot.tables["opportunity"]
        bench.recompute()
        with closing(sqlite3.connect(plain, isolation_level=None)) as connection:
            _index_alike(connection, file)
            picked, numbers = pick(file, table), count(1)
            pending: list[Row] = []

            def change() -> None:
                pending[:] = [changed(row, n, next(numbers), picked) for n, row in enumerate(picked)]

            def apply() -> None:
                change()
                bench.line.mirror.apply(table, pending, last=Position(data.NOW, delta_link="next"))

            def upsert() -> None:
                stored = [table.rows.stored(row) for row in pending]
                connection.execute("BEGIN")
                connection.executemany(table.upsert("sqlite", 0), stored)
                connection.execute("COMMIT")

            ways = {"follow": bench.follow, "apply": apply, "upsert": upsert, "recompute": bench.recompute}
            times = measured(ways, rounds, before={"follow": apply, "apply": change, "upsert": change})
        _check(bench)
    title = f"{part}: {CHANGED_ROWS} of {size.rows:,} rows, {size.goals:,} goals"
    upserted = ("upserting those rows", times["upsert"])
    return [
        within(title, ("recompute what they touch, and keep it", times["follow"]), upserted, 3),
        told(title, "applying the page, before-images kept", times["apply"]),
        told(title, "giving every goal its own part from what is kept", times["recompute"]),
    ]


def _check(bench: ours.Bench) -> None:
    followed = ours.sums_of_recompute(bench, bench.recompute())
    bench.forget()
    same("following changes", followed, ours.sums_of_recompute(bench, bench.recompute()))


def pick(file: Path, table: MirrorTable) -> list[Row]:
    """Return rows spread over the table, as values."""
    names = [name for name, _ in table.stored_columns]
    with closing(sqlite3.connect(file)) as connection:
        last = connection.execute("SELECT MAX(rowid) FROM opportunity").fetchone()[0]
        step = max(1, last // CHANGED_ROWS)
        statement = "SELECT * FROM opportunity WHERE rowid % ? = 1 LIMIT ?"
        found = connection.execute(statement, (step, CHANGED_ROWS)).fetchall()
    return [_values(table, dict(zip(names, row, strict=True))) for row in found]


def _values(table: MirrorTable, stored: Mapping[str, int | float | str | None]) -> Row:
    row: Row = {one.logical_name: table.decode(one, stored[one.logical_name]) for one in table.columns}
    companions = (one.type_name for one in table.columns if one.is_polymorphic)
    return {**row, **{name: stored[name] for name in companions}}


def changed(row: Row, n: int, number: int, others: list[Row]) -> Row:
    """Return another version of a row: in turn another amount, another date and another owner."""
    other = others[(n + number) % len(others)]
    columns = (
        ("actualvalue_base", "estimatedvalue_base"),
        ("actualclosedate", "estimatedclosedate"),
        ("ownerid",),
    )[n % 3]
    return {**row, **{name: other[name] for name in columns}, "versionnumber": 10**9 + number}


def _index_alike(connection: sqlite3.Connection, file: Path) -> None:
    """Make the other file's indexes, and settings like the mirror's."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    with closing(sqlite3.connect(file)) as other:
        statements = other.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'opportunity' AND name LIKE '_ix%'"
        ).fetchall()
    for (statement,) in statements:
        connection.execute(statement)
