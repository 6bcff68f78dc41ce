"""The days of fiscal periods as the platform writes them on goals, found by walking through a fiscal year.

The judge of d365sync's own fast calendar, with which it shares nothing.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from d365sync.core.values import Row
from d365sync.emulator.refuse import invalid
from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.store import Store

_DAY = dt.timedelta(days=1)
_FAMILIES = {0: ("months", 3, 4), 1: ("months", 1, 12), 2: ("months", 6, 2), 3: ("months", 12, 1), 4: ("days", 28, 13)}
"""By hundreds of ``goal.fiscalperiod``: unit, units in a period, periods. Source: Goal table reference."""


@dataclass(frozen=True, slots=True)
class FiscalYears:
    """Fiscal years that begin on one day of the calendar year (on the month's last where it has no such day).

    Assumed: a year is named by the calendar year of its first day (else ``named_by_end``: of its last), fiscal period
    101 is the month that begins in January (else ``first_month_is_101``), and the days that thirteen times four weeks
    leave over belong to no period (else ``last_takes_leftover``: to the thirteenth).
    """

    month: int = 1
    day: int = 1
    named_by_end: bool = False
    first_month_is_101: bool = False
    last_takes_leftover: bool = False

    def days(self, year: int, code: int) -> tuple[dt.date, dt.date]:
        """Return the first and the last day of the fiscal period with this option value.

        Raises:
            ValueError: there is no such period, or the year leaves the calendar.
        """
        family, number = divmod(code, 100)
        unit, length, periods = _FAMILIES.get(family, ("", 1, 0))
        if not 1 <= number <= periods:
            raise ValueError(f"there is no fiscal period {code}")
        found: dict[int, list[dt.date]] = {}
        for index, (day, month) in enumerate(self._walk(year)):
            period = (month - 1 if unit == "months" else index) // length + 1
            if period > periods and self.last_takes_leftover:
                period = periods
            found.setdefault(period, []).append(day)
        if family == 1 and not self.first_month_is_101:
            found = {days[0].month: days for days in found.values()}
        return found[number][0], found[number][-1]

    def _walk(self, year: int) -> Iterator[tuple[dt.date, int]]:
        """Yield the days of a fiscal year, each with the number of its month: months begin as the year does."""
        first = self._first_day(year)
        after = self._first_day(year + 1)
        day, month = first, 0
        while day < after:
            if day.day == min(first.day, _last_of_month(day)):
                month = min(month + 1, 12)
            yield day, month
            day += _DAY

    def _first_day(self, year: int) -> dt.date:
        starts_on_new_year = (self.month, self.day) == (1, 1)
        if self.named_by_end and not starts_on_new_year:
            year -= 1
        return dt.date(year, self.month, min(self.day, _last_of_month(dt.date(year, self.month, 1))))


def fiscal_bounds(store: Store, year: int, period: int) -> tuple[dt.datetime, dt.datetime]:
    """Return the midnights, in the rollup's zone, that begin the first and the last day of a fiscal period.

    Assumed: the platform fills both columns of a fiscal goal, and reads the organization's start in that zone.

    Raises:
        Refusal: the calendar has no such period.
    """
    zone = store.settings.rollup_time_zone
    try:
        days = fiscal_years(store).days(year, period)
    except (ValueError, OverflowError) as error:
        raise invalid(f"The fiscal period is not valid: {error}.") from error
    first, last = (dt.datetime(one.year, one.month, one.day, tzinfo=zone).astimezone(dt.UTC) for one in days)
    return first, last


def fiscal_years(store: Store) -> FiscalYears:
    """Return the organization's fiscal years; from 1 January without a start."""
    organization = store.only("organization")
    day = fiscal_start(organization, store.settings.rollup_time_zone)
    return FiscalYears(day.month, day.day, named_by_end=are_named_by_end(organization, store.settings))


def are_named_by_end(organization: Row, settings: EmulatorSettings) -> bool:
    """Say whether fiscal years take the name of their last day. Assumed: which code says so."""
    return organization.get("fiscalyeardisplaycode") == settings.fiscal_year_end_code


def fiscal_start(organization: Row, zone: dt.tzinfo) -> dt.date:
    """Return a day on which a fiscal year begins; 1 January without a start.

    Assumed: a stored start that is no midnight in the zone means its date in UTC.
    """
    begins = organization.get("fiscalcalendarstart")
    if not isinstance(begins, dt.datetime):
        return dt.date(2000, 1, 1)
    local = begins.astimezone(zone)
    return local.date() if local.time() == dt.time(0) else begins.date()


def _last_of_month(day: dt.date) -> int:
    following = dt.date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return (following - _DAY).day
