"""When a goal's period begins and ends: its days, and the bounds its records' dates are compared with.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.ast import Placeholder
from d365sync.core.goals.goal import Goal, GoalBook
from d365sync.core.goals.rules import Bounds
from d365sync.core.period import DaySpan, day_of
from d365sync.core.schema import DateBehavior
from d365sync.core.values import format_instant

BOUNDS: Mapping[DateBehavior, tuple[tuple[str, Placeholder], tuple[str, Placeholder]]] = {
    DateBehavior.DATE_ONLY: (("ge", Placeholder("from_on")), ("lt", Placeholder("until_on"))),
    DateBehavior.USER_LOCAL: (("ge", Placeholder("from_at")), ("lt", Placeholder("until_at"))),
    DateBehavior.TIME_ZONE_INDEPENDENT: (("ge", Placeholder("wall_from")), ("lt", Placeholder("wall_until"))),
}
"""The half-open bounds of a goal's period, by what the date column holds."""
EARLIEST_YEAR, LATEST_YEAR = 1753, 9998
"""Source: column date range of the platform; a day and a zone must fit beyond the last year."""


def owner_span(goal: Goal, book: GoalBook, zone: ZoneInfo) -> DaySpan:
    """Return the days of a goal, both ends included.

    The stored bounds are turned into calendar days in ``zone`` (the book's rules may name another zone); a fiscal goal
    without them takes the days of its fiscal year and period.
    Source: goal-date columns are UserLocal with date-only format (goal table reference).
    Assumed: stored bounds win over computed ones (periods are kept on the goal when fiscal settings change).

    Raises:
        ValueError: the goal has neither bounds nor a fiscal year and period, or its bounds are reversed.
    """
    rules = book.rules
    first_on, last_on = (_bound_day(one, rules.bounds_zone or zone) for one in (goal.starts_at, goal.ends_at))
    has_period = goal.fiscal_year is not None and goal.fiscal_period is not None
    if goal.is_fiscal and rules.bounds is Bounds.COMPUTED and has_period:
        first_on = last_on = None
    if (first_on is None or last_on is None) and goal.is_fiscal:
        if goal.fiscal_year is None or goal.fiscal_period is None:
            raise ValueError("it has neither start and end dates nor a fiscal year and period")
        computed = book.organization.fiscal.period_bounds(goal.fiscal_year, goal.fiscal_period)
        first_on, last_on = first_on or computed[0], last_on or computed[1]
    if first_on is None or last_on is None:
        raise ValueError("it has a custom period without a start or end date")
    if last_on < first_on:
        raise ValueError(f"its period ends ({last_on}) before it starts ({first_on})")
    if first_on.year < EARLIEST_YEAR or last_on.year > LATEST_YEAR:
        raise ValueError(f"its period ({first_on} to {last_on}) leaves the years {EARLIEST_YEAR} to {LATEST_YEAR}")
    return DaySpan(first_on, last_on, rules.end_of_day)


def stored_bounds(span: DaySpan, zone: ZoneInfo) -> Mapping[str, str]:
    """Return the values of all bound placeholders, as text that sorts like time."""
    return {
        bound.name: text
        for dates, named in BOUNDS.items()
        for (_, bound), text in zip(named, bounds_in(dates, span, zone), strict=True)
    }


def bounds_in(dates: DateBehavior, span: DaySpan, zone: ZoneInfo) -> tuple[str, str]:
    """Return the half-open bounds of a period for columns of one behaviour, as text that sorts like time.

    DateOnly: the first day and the day after the last. UserLocal: the instants at which those days begin in
    ``zone``. TimeZoneIndependent: their midnights as wall-clock time.
    """
    if dates is DateBehavior.DATE_ONLY:
        return span.first_on.isoformat(), (span.last_on + dt.timedelta(days=1)).isoformat()
    starts, ends = span.instants(zone) if dates is DateBehavior.USER_LOCAL else span.wall_clock()
    return format_instant(starts), format_instant(ends)


@lru_cache(maxsize=4096)
def _bound_day(bound: dt.datetime | dt.date | None, zone: ZoneInfo) -> dt.date | None:
    return day_of(bound, zone) if isinstance(bound, dt.datetime) else bound
