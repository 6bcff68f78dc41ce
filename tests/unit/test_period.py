from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d365sync.core.period import DaySpan, day_of, is_midnight, start_of_day

BERLIN = ZoneInfo("Europe/Berlin")
TEHRAN = ZoneInfo("Asia/Tehran")


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def test_a_quarter_in_berlin_spans_the_change_to_winter_time() -> None:
    span = DaySpan(dt.date(2026, 10, 1), dt.date(2026, 12, 31))
    assert span.instants(BERLIN) == (instant("2026-09-30T22:00:00+00:00"), instant("2026-12-31T23:00:00+00:00"))


def test_wall_clock_bounds_ignore_every_zone() -> None:
    span = DaySpan(dt.date(2026, 10, 1), dt.date(2026, 10, 1))
    assert span.wall_clock() == (instant("2026-10-01T00:00:00+00:00"), instant("2026-10-02T00:00:00+00:00"))


def test_a_day_with_a_change_of_clocks_has_25_hours() -> None:
    begins, ends = DaySpan(dt.date(2026, 10, 25), dt.date(2026, 10, 25)).instants(BERLIN)
    assert ends - begins == dt.timedelta(hours=25)


def test_a_day_without_midnight_begins_when_the_clocks_change() -> None:
    # In Tehran 2021-03-22 began at 01:00: clocks went from 00:00 to 01:00, at 20:30 UTC.
    assert start_of_day(dt.date(2021, 3, 22), TEHRAN) == instant("2021-03-21T20:30:00+00:00")


def test_tehran_midnight_is_the_evening_before_in_utc() -> None:
    stored = instant("2026-09-22T20:30:00+00:00")
    assert day_of(stored, TEHRAN) == dt.date(2026, 9, 23)
    assert is_midnight(stored, TEHRAN)
    assert not is_midnight(stored, ZoneInfo("UTC"))


def test_an_instant_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        day_of(dt.datetime(2026, 1, 1), BERLIN)  # noqa: DTZ001


def test_reversed_bounds_hold_no_day() -> None:
    span = DaySpan(dt.date(2026, 1, 2), dt.date(2026, 1, 1))
    assert span.days == 0
    assert dt.date(2026, 1, 1) not in span


zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "Asia/Tehran", "America/Sao_Paulo", "Pacific/Apia", "America/New_York"]
)


@given(st.dates(dt.date(1980, 1, 1), dt.date(2035, 12, 30)), st.integers(0, 400), zones)
def test_an_instant_is_in_the_span_exactly_when_its_day_is(first: dt.date, length: int, name: str) -> None:
    zone = ZoneInfo(name)
    span = DaySpan(first, first + dt.timedelta(days=length))
    begins, ends = span.instants(zone)
    second = dt.timedelta(seconds=1)
    assert day_of(begins, zone) in span or span.first_on == dt.date(2011, 12, 30)  # a day Samoa never had
    assert day_of(begins - second, zone) < span.first_on
    assert day_of(ends - second, zone) <= span.last_on
    assert day_of(ends, zone) > span.last_on
