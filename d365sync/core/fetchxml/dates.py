"""Date operators and date literals, resolved to bounds: the one place where zones and calendars matter.

Every range is half open, ``[start, end)``. Calendar arithmetic happens on the caller's wall clock; then each
bound is converted on its own, because a local day may have 23 or 25 hours. What a bound is depends on the
column: an instant in UTC (UserLocal), a wall-clock time tagged UTC (TimeZoneIndependent) or a date (DateOnly).
Source: FetchXML operators reference; "Behavior and format of the date and time column". The exact ends of the
relative ranges are those observed and published by practitioners (rolling ranges begin at a local midnight).

Pure.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from d365sync.core.fetchxml.ast import Condition
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.fiscal import add_months
from d365sync.core.schema import Column, DateBehavior

_DAY = dt.timedelta(days=1)
_SECOND = dt.timedelta(seconds=1)
_EARLIEST = dt.date(1753, 1, 1)
"""Source: behavior-format-date-time-attribute (the platform's dates begin on 1753-01-01)."""

Bound: TypeAlias = dt.date | dt.datetime
_Local: TypeAlias = dt.datetime  # aware, in the caller's zone
_Pair: TypeAlias = tuple[_Local | None, _Local | None]

_LITERAL = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?)(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A half-open range of column values; None is unbounded."""

    start: Bound | None
    end: Bound | None


def date_bounds(condition: Condition, column: Column, context: Context) -> tuple[Bounds, ...]:
    """Return the ranges a date operator stands for; a value matches if it lies in any of them.

    None of them (an empty tuple) means that no row matches: there is no such fiscal period.

    Raises:
        FetchXmlError: a value is not what the operator needs, or the range leaves the platform's dates.
    """
    try:
        pairs = _pairs(condition, column, context)
        if not pairs and context.missing_period_refused:
            raise refusal("the fiscal year has no such period", condition, code="0x80044814")
        return tuple(Bounds(_for_column(a, column), _for_column(b, column)) for a, b in pairs)
    except (ValueError, OverflowError) as error:
        raise refusal(f"{condition.operator}: {error}", condition) from error


def date_literal(text: str, column: Column, context: Context) -> Bound:
    """Read a date value as a value of the column.

    UserLocal: an instant; without zone it is the caller's wall clock. TimeZoneIndependent: the wall clock as
    written; DateOnly: the date as written. Assumed: the last two ignore a time in the text, and its zone unless
    the context says otherwise.

    Raises:
        ValueError: the text is not an ISO 8601 date or date and time, or lies outside the platform's dates.
    """
    wall, zone = _read(text)
    try:
        if zone is not None and context.literals_follow_zone:
            wall = wall.replace(tzinfo=zone).astimezone(context.time_zone).replace(tzinfo=dt.UTC)
            zone = None
        if column.date_behavior is DateBehavior.DATE_ONLY:
            return wall.date()
        if column.date_behavior is DateBehavior.TIME_ZONE_INDEPENDENT:
            return wall
        return wall.replace(tzinfo=zone or context.time_zone).astimezone(dt.UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} lies outside the platform's dates") from error


def end_literal(text: str, column: Column, context: Context) -> Bound:
    """Read the upper end of a range, which is included: a text without a time may mean the last second of its day.

    Raises:
        ValueError: as for :func:`date_literal`.
    """
    has_time = (match := _LITERAL.fullmatch(text.strip())) is not None and match["time"]
    if has_time or not context.between_to_end_of_day or column.date_behavior is DateBehavior.DATE_ONLY:
        return date_literal(text, column, context)
    wall, _ = _read(text)
    following = (wall.date() + _DAY).isoformat()
    return date_literal(following, column, context) - _SECOND


def check_date_text(text: str) -> None:
    """Refuse a text that is no date value, whatever the column and the zone.

    Raises:
        ValueError: the text is not an ISO 8601 date or date and time, or lies before 1753.
    """
    _read(text)


def _read(text: str) -> tuple[dt.datetime, dt.tzinfo | None]:
    match = _LITERAL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:60]!r} is not a date (YYYY-MM-DD, with or without a time)")
    try:
        wall = dt.datetime.fromisoformat(f"{match['day']}T{match['time'] or '00:00'}").replace(tzinfo=dt.UTC)
        zone = dt.datetime.fromisoformat(f"2000-01-01T00:00{match['zone']}").tzinfo if match["zone"] else None
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is no date: {error}") from None
    if wall.date() < _EARLIEST:
        raise ValueError(f"{text!r} lies before the platform's first date, {_EARLIEST}")
    return wall, zone


class _Clock:
    """The caller's present: now, this hour, this minute and today, on the wall."""

    def __init__(self, context: Context) -> None:
        now = context.now.astimezone(dt.UTC).replace(microsecond=0)
        self.context = context
        self.instant = now
        self.wall = now.astimezone(context.time_zone)
        self.today = self.wall.date()

    @property
    def now(self) -> _Local:
        """The end of the past: ``now`` itself, or a second later if ``now`` counts as past."""
        shift = _SECOND if self.context.now_is_past else dt.timedelta(0)
        return (self.instant + shift).astimezone(self.context.time_zone)

    def midnight(self, day: dt.date) -> _Local:
        """The start of a local day."""
        return dt.datetime.combine(day, dt.time(0), tzinfo=self.context.time_zone)

    def hour(self, offset: int) -> _Local:
        """The start of this hour on the wall, moved by elapsed hours."""
        into = dt.timedelta(minutes=self.wall.minute, seconds=self.wall.second)
        return (self.instant - into + dt.timedelta(hours=offset)).astimezone(self.context.time_zone)

    def minute(self, offset: int) -> _Local:
        """The start of this minute, moved by elapsed minutes."""
        into = dt.timedelta(seconds=self.wall.second)
        return (self.instant - into + dt.timedelta(minutes=offset)).astimezone(self.context.time_zone)


def _pairs(condition: Condition, column: Column, context: Context) -> list[_Pair]:
    clock, name = _Clock(context), condition.operator
    values = [_text(condition, value) for value in condition.values]
    if name in ("on", "on-or-after", "on-or-before"):
        return [_day_pair(name, _day_of(values[0], column, context), clock)]
    if name in _CALENDAR:
        first, after = _CALENDAR[name](clock)
        return [(clock.midnight(first), clock.midnight(after))]
    if name == "last-seven-days":
        return [_rolling("last", "days", 7, clock)]
    if name == "next-seven-days":
        return [_rolling("next", "days", 7, clock)]
    if "-x-" in name:
        side, unit = name.split("-x-")
        return [_rolling(side, unit, int(values[0]), clock)]
    return [_dated(pair, clock) for pair in _fiscal(name, [int(value) for value in values], context)]


def _text(condition: Condition, value: object) -> str:
    if not isinstance(value, str):
        raise refusal(f"a placeholder cannot stand in for a value of {condition.operator}", condition)
    return value


def _day_of(text: str, column: Column, context: Context) -> dt.date:
    """The calendar day a literal names: in the caller's zone if it names an instant."""
    value = date_literal(text, column, context)
    if isinstance(value, dt.datetime) and column.date_behavior is DateBehavior.USER_LOCAL:
        return value.astimezone(context.time_zone).date()
    return value.date() if isinstance(value, dt.datetime) else value


def _day_pair(name: str, day: dt.date, clock: _Clock) -> _Pair:
    start = None if name == "on-or-before" else clock.midnight(day)
    unbounded = name == "on-or-after" or day == dt.date.max
    return start, None if unbounded else clock.midnight(day + _DAY)


def _rolling(side: str, unit: str, count: int, clock: _Clock) -> _Pair:
    if side == "next":
        return clock.now, _ahead(unit, count, clock)
    back = _back(unit, count, clock)
    return (None, back) if side == "olderthan" else (back, clock.now)


def _back(unit: str, count: int, clock: _Clock) -> _Local:
    if unit == "minutes":
        return clock.minute(-count)
    if unit == "hours":
        return clock.hour(-count)
    fiscal = clock.context.fiscal
    if unit == "fiscal-years":
        return clock.midnight(fiscal.year_bounds(fiscal.year_of(clock.today) - count)[0])
    if unit == "fiscal-periods":
        return clock.midnight(fiscal.period_from(clock.today, -count)[0])
    return clock.midnight(_moved(clock.today, unit, -count))


def _ahead(unit: str, count: int, clock: _Clock) -> _Local:
    if unit == "hours":
        if clock.context.next_x_hours_whole:
            return clock.hour(count + 1)
        return (clock.instant + dt.timedelta(hours=count)).astimezone(clock.context.time_zone)
    fiscal = clock.context.fiscal
    if unit == "fiscal-years":
        return clock.midnight(fiscal.year_bounds(fiscal.year_of(clock.today) + count)[1] + _DAY)
    if unit == "fiscal-periods":
        return clock.midnight(fiscal.period_from(clock.today, count)[1])
    return clock.midnight(_moved(clock.today + _DAY, unit, count))


def _moved(day: dt.date, unit: str, count: int) -> dt.date:
    if unit in ("days", "weeks"):
        return day + dt.timedelta(days=count * (7 if unit == "weeks" else 1))
    return add_months(day, count * (12 if unit == "years" else 1))


def _week(clock: _Clock, offset: int) -> tuple[dt.date, dt.date]:
    into = (clock.today.isoweekday() - clock.context.week_start) % 7
    first = clock.today - dt.timedelta(days=into) + dt.timedelta(days=7 * offset)
    return first, first + dt.timedelta(days=7)


def _month(clock: _Clock, offset: int, length: int = 1) -> tuple[dt.date, dt.date]:
    first = clock.today.replace(day=1) if length == 1 else clock.today.replace(month=1, day=1)
    return add_months(first, offset * length), add_months(first, (offset + 1) * length)


def _fiscal_year(clock: _Clock, offset: int) -> tuple[dt.date, dt.date]:
    fiscal = clock.context.fiscal
    first, last = fiscal.year_bounds(fiscal.year_of(clock.today) + offset)
    return first, last + _DAY


def _days(clock: _Clock, offset: int) -> tuple[dt.date, dt.date]:
    first = clock.today + dt.timedelta(days=offset)
    return first, first + _DAY


_CALENDAR: dict[str, Callable[[_Clock], tuple[dt.date, dt.date]]] = {
    "yesterday": lambda clock: _days(clock, -1),
    "today": lambda clock: _days(clock, 0),
    "tomorrow": lambda clock: _days(clock, 1),
    "last-week": lambda clock: _week(clock, -1),
    "this-week": lambda clock: _week(clock, 0),
    "next-week": lambda clock: _week(clock, 1),
    "last-month": lambda clock: _month(clock, -1),
    "this-month": lambda clock: _month(clock, 0),
    "next-month": lambda clock: _month(clock, 1),
    "last-year": lambda clock: _month(clock, -1, 12),
    "this-year": lambda clock: _month(clock, 0, 12),
    "next-year": lambda clock: _month(clock, 1, 12),
    "last-fiscal-year": lambda clock: _fiscal_year(clock, -1),
    "this-fiscal-year": lambda clock: _fiscal_year(clock, 0),
    "next-fiscal-year": lambda clock: _fiscal_year(clock, 1),
    "last-fiscal-period": lambda clock: clock.context.fiscal.period_from(clock.today, -1),
    "this-fiscal-period": lambda clock: clock.context.fiscal.period_from(clock.today),
    "next-fiscal-period": lambda clock: clock.context.fiscal.period_from(clock.today, 1),
}


def _fiscal(name: str, values: list[int], context: Context) -> list[tuple[dt.date | None, dt.date | None]]:
    """The ranges of the operators that name a fiscal year or period; the period comes before the year.

    Source: Use FetchXML fiscal date operators.
    """
    fiscal = context.fiscal
    if name == "in-fiscal-year":
        first, last = fiscal.year_bounds(values[0])
        return [(first, last + _DAY)]
    if name == "in-fiscal-period":
        first_year, last_year = context.fiscal_years
        found = [fiscal.numbered(year, values[0]) for year in range(first_year, last_year + 1)]
        return [pair for pair in found if pair is not None]
    period = fiscal.numbered(values[1], values[0])
    if period is None:
        return []
    if name == "in-or-before-fiscal-period-and-year":
        return [(None, period[1])]
    return [(period[0], None)] if name == "in-or-after-fiscal-period-and-year" else [period]


def _dated(pair: tuple[dt.date | None, dt.date | None], clock: _Clock) -> _Pair:
    start, end = pair
    return None if start is None else clock.midnight(start), None if end is None else clock.midnight(end)


def _for_column(bound: _Local | None, column: Column) -> Bound | None:
    if bound is None:
        return None
    if bound.date() < _EARLIEST:
        raise ValueError(f"{bound.date()} lies before the platform's first date, {_EARLIEST}")
    if column.date_behavior is DateBehavior.USER_LOCAL:
        return bound.astimezone(dt.UTC)
    wall = bound.replace(tzinfo=dt.UTC)
    if column.date_behavior is DateBehavior.TIME_ZONE_INDEPENDENT:
        return wall
    return wall.date() if wall.time() == dt.time(0) else wall.date() + _DAY
