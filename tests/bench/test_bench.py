"""Every benchmark in small: they run, and every way comes to the same numbers. Nothing is said of time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.bench import data, ours, rivals, rollup
from tests.bench.bench import measure
from tests.bench.changes import pick
from tests.bench.data import Size

SCALE = 0.0005
TINY = Size(400, teams=2, sellers=4, queries=6)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("a", (rollup.SCAN, rollup.SESSION, "load and group the goals", "roll up", "plan")),
        ("b", ("b, 6 queries", rollup.SCAN, rollup.SESSION)),
        ("c", ("time grew", "peak memory")),
        ("d", ("upserting those rows",)),
        ("e", ("100 values",)),
        ("throttled", ("asked to wait", "within 1.1x: yes")),
        ("demo", ("an idle cycle", "record by record")),
        ("start", ("--version", "complete an option", "an empty interpreter")),
        ("listing", ("Microsoft's client, listing", "Microsoft's async client, listing")),
        ("million", ("the bare loop", "peak memory")),
        ("ranges", ("pull and store by ranges",)),
    ],
)
def test_a_part_measures_ways_that_agree(part: str, told: tuple[str, ...], tmp_path: Path) -> None:
    """The parts compare the numbers themselves, and raise when they differ."""
    lines = "\n".join(str(line) for line in measure([part], SCALE, 1, tmp_path))
    for name in told:
        assert name in lines


def test_cycles_cost_the_minimum(tmp_path: Path) -> None:
    """Counts, unlike times, have to be right on any machine."""
    lines = [str(line) for line in measure(["wire"], SCALE, 1, tmp_path)]
    assert len(lines) >= 4
    for line in lines:
        assert "equal: yes" in line


@pytest.mark.skipif(not rivals.has_duckdb(), reason="duckdb is not installed; `make check` installs it")
def test_duckdb_comes_to_the_same_numbers_both_ways(tmp_path: Path) -> None:
    with rollup.working_copy(TINY, tmp_path) as file, ours.opened(file) as bench:
        expected = ours.sums_of_statements(bench.sums())
        with rivals.ducks(bench) as ducks:
            assert ducks.sums(ducks.own) == expected
            assert ducks.sums(ducks.attached) == expected


def test_the_generated_goals_count_something_in_every_column(tmp_path: Path) -> None:
    with rollup.working_copy(TINY, tmp_path) as file, ours.opened(file) as bench:
        sums = ours.sums_of_recompute(bench, bench.recompute())
    by_column = {column: [entry for (_, name), entry in sums.items() if name == column] for _, column in sums}
    assert by_column.keys() == {"actualmoney", "inprogressmoney", "actualinteger"}
    assert all(len(entries) > 20 for entries in by_column.values())
    assert any(amount % 100 for amount in by_column["actualmoney"])


def test_another_number_is_noticed() -> None:
    expected = {("goal", "actualmoney"): 150_000}
    rollup.same("right", dict(expected), expected)
    for found in ({}, {("goal", "actualmoney"): 150_001}, {**expected, ("other", "actualmoney"): 1}):
        with pytest.raises(rollup.DifferentNumbersError, match="of 1 numbers differ"):
            rollup.same("wrong", found, expected)
    with pytest.raises(rollup.DifferentNumbersError):
        rollup.same("nothing", {}, {})


def test_the_generated_rows_are_spelled_as_the_mirror_stores_them(tmp_path: Path) -> None:
    table = data.tables()["opportunity"]
    file = data.database(TINY, tmp_path)
    picked = pick(file, table)
    with closing(sqlite3.connect(file)) as connection:
        stored = {row[0]: row for row in connection.execute("SELECT * FROM opportunity")}
    assert len(picked) > 50
    etag, load = -2, -1
    for row in picked:
        mine = stored[str(row["opportunityid"])]
        assert table.stored_row(row, mine[load])[:etag] == mine[:etag]


def test_a_generated_mirror_is_kept_and_the_same(tmp_path: Path) -> None:
    first = data.database(TINY, tmp_path / "one")
    made_at = first.stat().st_mtime_ns
    assert data.database(TINY, tmp_path / "one") == first
    assert first.stat().st_mtime_ns == made_at
    second = data.database(TINY, tmp_path / "two")
    with closing(sqlite3.connect(first)) as one, closing(sqlite3.connect(second)) as two:
        for name in ("opportunity", "goal", "account"):
            statement = f"SELECT * FROM {name} ORDER BY 1"
            assert one.execute(statement).fetchall() == two.execute(statement).fetchall()
