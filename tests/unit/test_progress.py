from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from d365sync.core.goals.progress import Pace, elapsed_fraction, progress_of
from d365sync.core.period import DaySpan

NOVEMBER = DaySpan(dt.date(2026, 11, 1), dt.date(2026, 11, 30))


def november(day: int) -> dt.date:
    return dt.date(2026, 11, day)


@pytest.mark.parametrize(
    ("today", "fraction"),
    [(november(1), 0), (november(30), 1), (dt.date(2026, 10, 1), 0), (dt.date(2027, 1, 1), 1)],
)
def test_the_first_day_counts_as_nothing_and_the_last_as_all(today: dt.date, fraction: int) -> None:
    assert elapsed_fraction(NOVEMBER, today) == fraction


def test_the_platform_divides_by_end_less_start() -> None:
    assert elapsed_fraction(DaySpan(november(1), november(11)), november(6)) == Decimal("0.5")


def test_half_way_with_half_the_target_is_on_pace() -> None:
    progress = progress_of(Decimal(500), Decimal(1000), DaySpan(november(1), november(11)), november(6))
    assert (progress.attainment, progress.today_target, progress.pace_index) == (
        Decimal("0.5"),
        Decimal(500),
        Decimal(1),
    )
    assert progress.gap == 500
    assert progress.pace is Pace.ON_PACE


@pytest.mark.parametrize(
    ("actual", "today", "pace"),
    [
        (600, november(6), Pace.AHEAD),
        (400, november(6), Pace.BEHIND),
        (1000, november(2), Pace.REACHED),
        (999, dt.date(2026, 12, 1), Pace.MISSED),
        (0, dt.date(2026, 10, 31), Pace.NOT_STARTED),
        (0, november(1), Pace.ON_PACE),
        (1, november(1), Pace.AHEAD),
        (None, november(6), Pace.BEHIND),
    ],
)
def test_pace_in_words(actual: int | None, today: dt.date, pace: Pace) -> None:
    assert progress_of(actual, 1000, DaySpan(november(1), november(11)), today).pace is pace


@pytest.mark.parametrize("target", [None, 0, Decimal(0)])
def test_without_a_target_there_is_no_attainment(target: Decimal | None) -> None:
    progress = progress_of(Decimal(5), target, NOVEMBER, november(6))
    assert progress.attainment is None
    assert progress.pace is Pace.NO_TARGET
