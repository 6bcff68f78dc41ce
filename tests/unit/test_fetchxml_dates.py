from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.ast import Condition
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.dates import Bounds, date_bounds, date_literal
from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.core.schema import Column, ColumnType, DateBehavior
from d365sync.errors import FetchXmlError

SEEN = Column("seen", ColumnType.DATETIME, DateBehavior.USER_LOCAL)
WALL = Column("wall", ColumnType.DATETIME, DateBehavior.TIME_ZONE_INDEPENDENT)
DUE = Column("due", ColumnType.DATETIME, DateBehavior.DATE_ONLY)


def _at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def _context(now: str = "2024-05-15T10:30:45", zone: str = "UTC", **settings: Any) -> Context:
    return Context(now=_at(now), time_zone=ZoneInfo(zone), **settings)


def _bounds(operator: str, *values: str, column: Column = SEEN, context: Context | None = None) -> list[Bounds]:
    return list(date_bounds(Condition("x", operator, values), column, context or _context()))


def test_a_day_of_23_hours_keeps_its_ends() -> None:
    context = _context("2024-03-10T16:00:00", "America/New_York")
    assert _bounds("today", context=context) == [Bounds(_at("2024-03-10T05:00:00"), _at("2024-03-11T04:00:00"))]


def test_a_midnight_that_does_not_exist_is_the_first_instant_after_it() -> None:
    context = _context("2024-09-08T16:00:00", "America/Santiago")  # clocks went from 24:00 to 01:00
    assert _bounds("today", context=context)[0].start == _at("2024-09-08T04:00:00")


def test_the_hour_of_a_zone_with_half_hours_begins_on_its_own_clock() -> None:
    context = _context("2024-05-15T10:50:00", "Asia/Kolkata")  # 16:20 there
    assert _bounds("last-x-hours", "1", context=context)[0].start == _at("2024-05-15T09:30:00")


def test_hours_are_elapsed_time_across_a_clock_change() -> None:
    context = _context("2024-11-03T07:10:00", "America/New_York")  # 02:10, an hour after the clock went back
    assert _bounds("last-x-hours", "2", context=context)[0].start == _at("2024-11-03T05:00:00")


def test_now_is_cut_to_the_second() -> None:
    now = _at("2024-05-15T10:30:45") + dt.timedelta(microseconds=900_000)
    context = Context(now=now, time_zone=ZoneInfo("UTC"))
    assert _bounds("last-x-days", "1", context=context)[0].end == _at("2024-05-15T10:30:45")


def test_a_value_equal_to_now_is_past_or_not_by_setting() -> None:
    for setting, at in [(False, "2024-05-15T10:30:45"), (True, "2024-05-15T10:30:46")]:
        context = _context(now_is_past=setting)
        assert _bounds("last-x-days", "1", context=context)[0].end == _at(at)
        assert _bounds("next-x-days", "1", context=context)[0].start == _at(at)


def test_a_wall_clock_column_gets_local_bounds() -> None:
    context = _context("2024-05-15T02:30:00", "America/New_York")
    assert _bounds("today", column=WALL, context=context) == [
        Bounds(_at("2024-05-14T00:00:00"), _at("2024-05-15T00:00:00"))
    ]


def test_a_date_column_gets_dates_and_today_belongs_to_the_past() -> None:
    assert _bounds("last-x-days", "2", column=DUE) == [Bounds(dt.date(2024, 5, 13), dt.date(2024, 5, 16))]
    assert _bounds("next-x-days", "2", column=DUE) == [Bounds(dt.date(2024, 5, 16), dt.date(2024, 5, 18))]


def test_the_week_begins_where_the_organization_says() -> None:
    starts = [_bounds("this-week", context=_context(week_start=n))[0].start for n in range(7)]
    assert starts == [_at(f"2024-05-{day:02}T00:00:00") for day in (12, 13, 14, 15, 9, 10, 11)]


def test_next_hours_end_whole_or_exact_by_setting() -> None:
    assert _bounds("next-x-hours", "2")[0].end == _at("2024-05-15T13:00:00")
    exact = _context(next_x_hours_whole=False)
    assert _bounds("next-x-hours", "2", context=exact)[0].end == _at("2024-05-15T12:30:45")


def test_in_fiscal_period_holds_in_every_year_looked_at() -> None:
    context = _context(fiscal_years=(2023, 2024), fiscal=FiscalCalendar(4, 1, FiscalTemplate.QUARTERLY))
    assert _bounds("in-fiscal-period", "4", column=DUE, context=context) == [
        Bounds(dt.date(2024, 1, 1), dt.date(2024, 4, 1)),
        Bounds(dt.date(2025, 1, 1), dt.date(2025, 4, 1)),
    ]


def test_a_period_and_year_follows_the_years_name() -> None:
    context = _context(fiscal=FiscalCalendar(7, 1, named_by="end"))
    assert _bounds("in-fiscal-period-and-year", "1", "2024", column=DUE, context=context) == [
        Bounds(dt.date(2023, 7, 1), dt.date(2023, 10, 1))
    ]


def test_a_period_that_does_not_exist_has_no_bounds() -> None:
    for operator in ("in-fiscal-period-and-year", "in-or-before-fiscal-period-and-year"):
        assert _bounds(operator, "5", "2024") == []


def test_the_last_day_of_the_calendar_is_not_bounded() -> None:
    assert _bounds("on-or-before", "9999-12-31", column=DUE) == [Bounds(None, None)]


@pytest.mark.parametrize(
    ("operator", "value"),
    [("last-x-days", "200000"), ("next-x-years", "9000"), ("last-x-hours", "99999999999"), ("in-fiscal-year", "1700")],
)
def test_a_range_beyond_the_platforms_dates_is_refused(operator: str, value: str) -> None:
    with pytest.raises(FetchXmlError, match=operator):
        _bounds(operator, value)


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        (SEEN, "2024-05-15", _at("2024-05-15T04:00:00")),
        (SEEN, "2024-05-15 08:00", _at("2024-05-15T12:00:00")),
        (SEEN, "2024-05-15T08:00:00Z", _at("2024-05-15T08:00:00")),
        (SEEN, "2024-05-15T08:00:00+0330", _at("2024-05-15T04:30:00")),
        (WALL, "2024-05-15T08:00:00Z", _at("2024-05-15T08:00:00")),
        (DUE, "2024-05-15T23:00:00Z", dt.date(2024, 5, 15)),
    ],
)
def test_a_literal_means_what_its_column_is(column: Column, text: str, value: dt.date) -> None:
    assert date_literal(text, column, _context(zone="America/New_York")) == value


def test_on_takes_the_callers_day_of_an_instant() -> None:
    context = _context(zone="America/New_York")
    assert _bounds("on", "2024-05-15T02:00:00Z", context=context)[0].start == _at("2024-05-14T04:00:00")


def test_a_context_needs_a_zone_and_a_weekday() -> None:
    with pytest.raises(ValueError, match="zone"):
        Context(now=dt.datetime(2024, 1, 1), time_zone=ZoneInfo("UTC"))  # noqa: DTZ001
    with pytest.raises(ValueError, match="day of the week"):
        _context(week_start=7)
