"""Counts in what people read: one record, two records."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from rich.console import Console

from d365sync.cli.output import print_plan
from d365sync.core.counts import by_count, counted
from d365sync.core.goals.writes import ColumnChange, GoalWrite, Skip, SkipReason, WritePlan


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 records"), (1, "1 record"), (2, "2 records"), (1000, "1,000 records")]
)
def test_a_noun_follows_its_count(count: int, expected: str) -> None:
    assert counted(count, "record") == expected


def test_nouns_and_verbs_may_have_forms_of_their_own() -> None:
    assert [counted(count, "child", "children") for count in (1, 2)] == ["1 child", "2 children"]
    assert [by_count(count, "counts", "count") for count in (0, 1, 2)] == ["count", "counts", "count"]


@pytest.mark.parametrize(
    ("writes", "expected"),
    [
        (1, "1 goal differs, 1 is right already, 1 is closed"),
        (2, "2 goals differ, 2 are right already, 2 are closed"),
    ],
)
def test_the_last_line_of_a_plan_agrees_with_its_counts(writes: int, expected: str) -> None:
    change = ColumnChange("actualmoney", None, Decimal(1), "never rolled up")
    changed = tuple(GoalWrite(str(one), "Goal", "", (change,), {}) for one in range(writes))
    closed = tuple(Skip(str(one), "Goal", SkipReason.CLOSED, "closed") for one in range(writes))
    kept = io.StringIO()
    out = Console(width=120, file=kept, highlight=False, markup=False, emoji=False)
    print_plan(WritePlan(changed, closed, writes), out, title="Plan", most=writes)
    assert kept.getvalue().splitlines()[-1] == expected
    print_plan(WritePlan((*changed, changed[0]), closed, writes), out, title="Plan", most=writes)
    assert "... and 1 more goal (--json" in kept.getvalue()
