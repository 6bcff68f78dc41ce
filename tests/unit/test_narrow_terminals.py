"""No number is cut, on a narrow terminal either."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal

import pytest
from rich.console import Console

from d365sync.cli.backfill import print_years
from d365sync.cli.goals_shown import GoalLine, print_goals
from d365sync.cli.output import print_plan
from d365sync.core.goals.backfill import Sums, Window, Year
from d365sync.core.goals.goal import DataType
from d365sync.core.goals.progress import progress_of
from d365sync.core.goals.writes import ColumnChange, GoalWrite, WritePlan
from d365sync.core.period import DaySpan
from tests.unit.goals import goal

TITLE = "Revenue with committed pipeline, every region and every desk - Demo Company"
WIDTHS = [40, 80, 100, 120, 140, 180]
SPAN = DaySpan(dt.date(2026, 9, 15), dt.date(2026, 11, 15))
BIG = Decimal("922337203685477.58")


def printed(width: int) -> tuple[Console, io.StringIO]:
    kept = io.StringIO()
    return Console(width=width, file=kept, highlight=False, markup=False, emoji=False), kept


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("native", [Decimal("1187568.96"), -BIG])
def test_a_plan_shows_every_digit(width: int, native: Decimal) -> None:
    out, kept = printed(width)
    changes = (
        ColumnChange("actualmoney", native, Decimal("1630803.47"), "last rolled up 2026-11-11 01:00Z"),
        ColumnChange("customrollupfielddecimal", None, Decimal(2), "records changed since d365sync wrote it"),
    )
    print_plan(WritePlan((GoalWrite("1", TITLE, "", changes, {}),), (), 0), out, title="Plan")
    text = kept.getvalue()
    for whole in (f"{native:,}", "1,630,803.47", f"{Decimal('1630803.47') - native:,}", "customrollupfielddecimal"):
        assert whole in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("ours", [Decimal(704628), BIG])
def test_a_list_of_goals_shows_every_number(width: int, ours: Decimal) -> None:
    out, kept = printed(width)
    line = GoalLine(
        goal=goal("1", title=TITLE),
        depth=2,
        owner="Helen Marsh",
        metric="Revenue",
        span=SPAN,
        data_type=DataType.MONEY,
        target=Decimal(1345000),
        native=Decimal(729628),
        held=Decimal(729628),
        ours=ours,
        progress=progress_of(Decimal(704628), Decimal(1345000), SPAN, dt.date(2026, 11, 1)),
        note="overridden by a person",
    )
    print_goals([line], "EUR", out)
    text = kept.getvalue()
    for whole in ("1,345,000", "729,628", f"{ours:,.0f}", "52 %", "2026-09-15", "overridden", "EUR"):
        assert whole in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_years_of_a_backfill_show_every_digit(width: int) -> None:
    out, kept = printed(width)
    years = [Year(2025, 1200, 61, 60, 31, (Sums(TITLE, -BIG, BIG, BIG + 1), Sums("Calls", *[Decimal(5)] * 3)))]
    print_years(years, Window(dt.date(2025, 1, 1), dt.date(2025, 12, 31)), out)
    text = kept.getvalue()
    for number in ("1,200", "61", "60", "31", "-922,337,203,685,477.58", "922,337,203,685,478.58"):
        assert number in text
    assert max(map(len, text.splitlines())) <= width
