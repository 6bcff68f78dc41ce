"""The fiscal calendar: years and periods as an organization has set them.

Goals with fiscal periods and the fiscal operators of FetchXML both ask here, so that "Q1 of 2024" means the
same days everywhere.

Pure.
"""

from __future__ import annotations

import calendar
import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

_DAY = dt.timedelta(days=1)
_FOUR_WEEKS = dt.timedelta(days=28)


class FiscalTemplate(StrEnum):
    """How a fiscal year is cut into periods. Source: Work with fiscal year settings."""

    ANNUAL = "annual"
    SEMIANNUAL = "semiannual"
    QUARTERLY = "quarterly"
    MONTHLY = "monthly"
    FOUR_WEEK = "four_week"


PERIOD_TYPE_CODES = {
    2000: FiscalTemplate.ANNUAL,
    2001: FiscalTemplate.SEMIANNUAL,
    2002: FiscalTemplate.QUARTERLY,
    2003: FiscalTemplate.MONTHLY,
    2004: FiscalTemplate.FOUR_WEEK,
}
"""``organization.fiscalperiodtype``. Assumed: the codes follow the fiscal calendar tables' type codes 2000 to 2004."""

_MONTHS = {
    FiscalTemplate.ANNUAL: 12,
    FiscalTemplate.SEMIANNUAL: 6,
    FiscalTemplate.QUARTERLY: 3,
    FiscalTemplate.MONTHLY: 1,
}
_PERIODS = {template: 12 // months for template, months in _MONTHS.items()} | {FiscalTemplate.FOUR_WEEK: 13}
_FAMILIES = (
    (range(1, 5), FiscalTemplate.QUARTERLY),
    (range(101, 113), FiscalTemplate.MONTHLY),
    (range(201, 203), FiscalTemplate.SEMIANNUAL),
    (range(301, 302), FiscalTemplate.ANNUAL),
    (range(401, 414), FiscalTemplate.FOUR_WEEK),
)


def add_months(day: dt.date, months: int) -> dt.date:
    """Move a date by whole months; a day the month does not have becomes its last day.

    Raises:
        ValueError: the result lies outside the years 1 to 9999.
    """
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if not dt.MINYEAR <= year <= dt.MAXYEAR:
        raise ValueError(f"{months} months from {day} is no date")
    return _clamped(year, month + 1, day.day)


def _clamped(year: int, month: int, day: int) -> dt.date:
    if day > 28:
        day = min(day, calendar.monthrange(year, month)[1])
    return dt.date(year, month, day)


@dataclass(frozen=True, slots=True)
class FiscalCalendar:
    """When fiscal years begin and how they are cut.

    ``named_by`` says whether a year takes the calendar year of its first or of its last day as its name;
    ``leftover_days`` where the one or two days go that thirteen four-week periods leave over; ``month_codes``
    whether fiscal period 101 is January by name or the first month of the year. A year that begins on 29 February
    begins on the 28th where there is none, and its periods with it. A calendar with a ``fault`` (the organization's
    settings cannot be read) answers no question.
    Assumed: years are named by their start (the platform's ``fiscalyeardisplaycode`` is not documented), leftover
    days form a period of their own that belongs to no period number, and months go by name.
    """

    start_month: int = 1
    start_day: int = 1
    template: FiscalTemplate = FiscalTemplate.QUARTERLY
    named_by: Literal["start", "end"] = "start"
    leftover_days: Literal["own_period", "last_period"] = "own_period"
    month_codes: Literal["by_name", "by_position"] = "by_name"
    fault: str = ""

    @property
    def periods_per_year(self) -> int:
        """How many numbered periods a year has: 1, 2, 4, 12 or 13."""
        return _PERIODS[self.template]

    def year_bounds(self, fiscal_year: int) -> tuple[dt.date, dt.date]:
        """Return the first and the last day of the fiscal year of that name, both inclusive.

        Raises:
            ValueError: the year lies outside the calendar.
        """
        start = self._year_start(fiscal_year)
        return start, self._year_start(fiscal_year + 1) - _DAY

    def year_of(self, day: dt.date) -> int:
        """Return the name of the fiscal year that holds a day.

        Raises:
            ValueError: the year lies outside the calendar, or the calendar has a fault.
        """
        name = day.year + self._name_shift()
        return name if day >= self._year_start(name) else name - 1

    def period_bounds(self, fiscal_year: int, fiscal_period: int) -> tuple[dt.date, dt.date]:
        """Return the first and the last day of a goal's fiscal period, both inclusive.

        ``fiscal_period`` is the goal's option value: 1-4 quarters, 101-112 January to December (the month of
        that name within the fiscal year), 201-202 semesters, 301 the year, 401-413 four-week periods. The
        value's own family decides, not the template in force: old goals keep the periods they were made with.
        Source: goal table reference, fiscalperiod choices; "Parent and child goals" (periods of existing goals
        stay). Assumed: ``fiscalyear`` follows the year's name, and 101 is January by name (``month_codes``).

        Raises:
            ValueError: the platform has no such period, or the year lies outside the calendar.
        """
        for codes, template in _FAMILIES:
            if fiscal_period in codes:
                number = fiscal_period - codes.start + 1
                if template is FiscalTemplate.MONTHLY and self.month_codes == "by_name":
                    number = (number - self.start_month) % 12 + 1
                start, end = self._cut(fiscal_year, number, template)
                return start, end - _DAY
        raise ValueError(f"there is no fiscal period {fiscal_period}")

    def numbered(self, fiscal_year: int, number: int) -> tuple[dt.date, dt.date] | None:
        """Return the half-open bounds of the n-th period (from 1) of the template; None if there is no n-th.

        Source: Use FetchXML fiscal date operators (a third semester returns nothing).

        Raises:
            ValueError: the year lies outside the calendar.
        """
        if not 1 <= number <= self.periods_per_year:
            return None
        return self._cut(fiscal_year, number, self.template)

    def period_from(self, day: dt.date, offset: int = 0) -> tuple[dt.date, dt.date]:
        """Return the half-open bounds of the period ``offset`` periods after the one that holds a day.

        Raises:
            ValueError: the period lies outside the calendar.
        """
        year = self.year_of(day)
        slots = self._slots()
        number = next(n for n in range(slots, 0, -1) if self._cut(year, n, self.template)[0] <= day)
        years, index = divmod(number - 1 + offset, slots)
        return self._cut(year + years, index + 1, self.template)

    def _slots(self) -> int:
        stub = self.template is FiscalTemplate.FOUR_WEEK and self.leftover_days == "own_period"
        return self.periods_per_year + (1 if stub else 0)

    def _name_shift(self) -> int:
        starts_the_year = (self.start_month, self.start_day) == (1, 1)
        return 1 if self.named_by == "end" and not starts_the_year else 0

    def _year_start(self, fiscal_year: int) -> dt.date:
        if self.fault:
            raise ValueError(self.fault)
        year = fiscal_year - self._name_shift()
        if not dt.MINYEAR <= year <= dt.MAXYEAR:
            raise ValueError(f"there is no fiscal year {fiscal_year}")
        return _clamped(year, self.start_month, self.start_day)

    def _cut(self, fiscal_year: int, number: int, template: FiscalTemplate) -> tuple[dt.date, dt.date]:
        first = self._year_start(fiscal_year)
        following = self._year_start(fiscal_year + 1)
        if template is not FiscalTemplate.FOUR_WEEK:
            step = _MONTHS[template]
            end = following if number * step == 12 else add_months(first, number * step)
            return add_months(first, (number - 1) * step), end
        start = first + (number - 1) * _FOUR_WEEKS
        absorbs = number == 13 and self.leftover_days == "last_period"
        return start, following if absorbs or number > 13 else start + _FOUR_WEEKS
