"""Full recomputes and small changes, measured against the rivals; every way is compared number for number first."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from d365sync.core.goals.writes import plan_writes
from tests.bench import data, ours, rivals
from tests.bench.data import Size
from tests.bench.report import faster, measured, told, within

MOST_SESSION_QUERIES = 2000
MOST_ATTACHED_GROUPS = 12
SCAN, OWN_DUCK, ATTACHED, SESSION = (
    "one scan of each covering index",
    "DuckDB on its own tables",
    "DuckDB attached to the mirror",
    "a query for each goal through a session",
)
OURS, WHOLE = "every goal's amount, from the records", "the same with cutting, comparing and keeping"


class DifferentNumbersError(AssertionError):
    """Two ways did not come to the same numbers: nothing is worth measuring."""


@contextmanager
def working_copy(size: Size, folder: Path) -> Iterator[Path]:
    """Copy the generated mirror of a size, to be changed at will; nobody else's run has the same file."""
    source = data.database(size, folder)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        yield Path(shutil.copy(source, Path(own) / "mirror.db"))


def full(part: str, size: Size, folder: Path, rounds: int) -> list[object]:
    """Measure a full recompute and the rest of a cycle against every rival."""
    with ExitStack() as stack:
        bench = stack.enter_context(ours.opened(stack.enter_context(working_copy(size, folder))))
        title = f"{part}: {size.goals:,} goals, {size.rows:,} rows"
        expected = _checked_sums(bench)
        ways: dict[str, Any] = {OURS: bench.sums, WHOLE: bench.recompute}
        scales: dict[str, float] = {}
        _add_scan(stack, bench, ways)
        _add_session(bench, expected, ways, scales)
        if rivals.has_duckdb():
            _add_ducks(stack, bench, expected, ways, scales)
        times = measured(ways, rounds, before={WHOLE: bench.forget})
        times |= {name: times[name] * scale for name, scale in scales.items()}
        return [*_compared(title, times), *_rest(title, bench, rounds)]


def _compared(title: str, times: Mapping[str, float]) -> list[object]:
    mine = (OURS, times[OURS])
    lines: list[object] = [
        within(title, mine, (SCAN, times[SCAN]), 3),
        faster(title, mine, (SESSION, times[SESSION]), 50),
    ]
    if OWN_DUCK in times:
        lines += [
            faster(title, mine, (ATTACHED, times[ATTACHED])),
            within(title, mine, (OWN_DUCK, times[OWN_DUCK]), 3),
        ]
    else:
        lines.append(told(title, "DuckDB is not installed: left out", 0))
    return [*lines, told(title, WHOLE, times[WHOLE])]


def _rest(title: str, bench: ours.Bench, rounds: int) -> list[object]:
    """What a cycle does beside recomputing, and a recompute when nothing changed."""
    recomputed = bench.recompute()
    rollup = bench.roll_up(recomputed)
    steps = {
        "recompute when nothing changed": bench.recompute,
        "load and group the goals": bench.load,
        "roll up": lambda: bench.roll_up(recomputed),
        "plan": lambda: plan_writes(bench.snapshot.book, rollup, frozenset()),
    }
    return [told(title, name, seconds) for name, seconds in measured(steps, min(rounds, 3)).items()]


def _checked_sums(bench: ours.Bench) -> ours.Sums:
    recomputed = bench.recompute()
    if recomputed.problems:
        raise DifferentNumbersError(f"the goals have problems: {recomputed.problems[0]}")
    expected = ours.sums_of_recompute(bench, recomputed)
    same(OURS, ours.sums_of_statements(bench.sums()), expected)
    return expected


def same(name: str, found: ours.Sums, expected: ours.Sums) -> None:
    """Compare a way's numbers with ours.

    Raises:
        DifferentNumbersError: they differ, with an example.
    """
    differing = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
    if differing or not expected:
        example = [(key, found.get(key), expected.get(key)) for key in sorted(differing)[:1]]
        raise DifferentNumbersError(f"{name}: {len(differing)} of {len(expected)} numbers differ: {example}")


def _add_scan(stack: ExitStack, bench: ours.Bench, ways: dict[str, Any]) -> None:
    statements = stack.enter_context(rivals.scans(bench))
    connection = stack.enter_context(closing(sqlite3.connect(bench.file)))
    ways[SCAN] = lambda: rivals.run_scans(connection, statements)


def _add_session(bench: ours.Bench, expected: ours.Sums, ways: dict[str, Any], scales: dict[str, float]) -> None:
    """Measured on a sample of the goals, and scaled to all of them."""
    every = [(one, bound) for one in bench.prepared for bound in one.bounds]
    sample = every[:: max(1, len(every) // MOST_SESSION_QUERIES)]
    keys = {(bound["goal_id"], one.group.slot.column) for one, bound in sample}
    same(SESSION, rivals.by_session(bench, sample), {key: expected[key] for key in keys & expected.keys()})
    ways[SESSION] = lambda: rivals.by_session(bench, sample)
    scales[SESSION] = len(every) / len(sample)


def _add_ducks(
    stack: ExitStack, bench: ours.Bench, expected: ours.Sums, ways: dict[str, Any], scales: dict[str, float]
) -> None:
    """With many groups the attached way is measured on a sample of them, and scaled to all."""
    ducks = stack.enter_context(rivals.ducks(bench))
    same(OWN_DUCK, ducks.sums(ducks.own), expected)
    sample = ducks.attached[:: max(1, len(ducks.attached) // MOST_ATTACHED_GROUPS)]
    found = ducks.sums(sample)
    if len(sample) == len(ducks.attached):
        same(ATTACHED, found, expected)
    same(ATTACHED, found, {key: expected[key] for key in found.keys() & expected.keys()})
    ways[OWN_DUCK] = lambda: ducks.sums(ducks.own)
    ways[ATTACHED] = lambda: ducks.sums(sample)
    scales[ATTACHED] = len(ducks.attached) / len(sample)
