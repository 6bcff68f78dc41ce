"""The fast fiscal calendar against the emulator's, which walks through the days of a year; and what both must keep."""

from __future__ import annotations

import datetime as dt
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.emulator.fiscalperiods import FiscalYears

DAY = dt.timedelta(days=1)
FAMILIES = {
    FiscalTemplate.ANNUAL: [301],
    FiscalTemplate.SEMIANNUAL: [201, 202],
    FiscalTemplate.QUARTERLY: [1, 2, 3, 4],
    FiscalTemplate.MONTHLY: list(range(101, 113)),
    FiscalTemplate.FOUR_WEEK: list(range(401, 414)),
}
starts = st.dates(dt.date(2024, 1, 1), dt.date(2024, 12, 31))
edges = st.sampled_from([dt.date(2024, 2, 29), dt.date(2024, 1, 31), dt.date(2024, 8, 31), dt.date(2024, 1, 1)])
years = st.integers(1970, 2037)
templates = st.sampled_from(FiscalTemplate)


@st.composite
def calendars(draw: st.DrawFn) -> tuple[FiscalCalendar, FiscalYears]:
    """Draw the same calendar in both readings."""
    start = draw(starts | edges)
    by_end, by_position, absorbs = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    fast = FiscalCalendar(
        start.month,
        start.day,
        draw(templates),
        named_by="end" if by_end else "start",
        month_codes="by_position" if by_position else "by_name",
        leftover_days="last_period" if absorbs else "own_period",
    )
    return fast, FiscalYears(start.month, start.day, by_end, by_position, absorbs)


@given(calendars(), years)
@settings(deadline=None)
def test_both_readings_give_every_period_the_same_days(pair: tuple[FiscalCalendar, FiscalYears], year: int) -> None:
    fast, slow = pair
    for code in itertools.chain.from_iterable(FAMILIES.values()):
        assert fast.period_bounds(year, code) == slow.days(year, code), code


@given(calendars(), years)
def test_the_periods_of_a_year_tile_it(pair: tuple[FiscalCalendar, FiscalYears], year: int) -> None:
    calendar = pair[0]
    first, last = calendar.year_bounds(year)
    for template, codes in FAMILIES.items():
        periods = sorted(calendar.period_bounds(year, code) for code in codes)
        assert periods[0][0] == first
        assert all(before[1] + DAY == after[0] for before, after in itertools.pairwise(periods))
        leftover = template is FiscalTemplate.FOUR_WEEK and calendar.leftover_days == "own_period"
        left = (last - periods[-1][1]).days
        assert left in ((1, 2) if leftover else (0,))


@given(calendars(), years)
def test_years_follow_each_other_and_hold_their_days(pair: tuple[FiscalCalendar, FiscalYears], year: int) -> None:
    calendar = pair[0]
    first, last = calendar.year_bounds(year)
    assert calendar.year_bounds(year + 1)[0] == last + DAY
    assert [calendar.year_of(day) for day in (first - DAY, first, last, last + DAY)] == [year - 1, year, year, year + 1]


@given(calendars(), st.dates(dt.date(1980, 1, 1), dt.date(2030, 12, 31)), st.integers(-30, 30))
def test_periods_counted_from_a_day_follow_each_other(
    pair: tuple[FiscalCalendar, FiscalYears], day: dt.date, offset: int
) -> None:
    calendar = pair[0]
    begins, ends = calendar.period_from(day)
    assert begins <= day < ends
    assert calendar.period_from(day, offset)[1] == calendar.period_from(day, offset + 1)[0]
