"""The sections for what no public document settles: how queries, fiscal calendars and goals are read.

Every key is listed in ``docs/assumptions.md`` with the assumption its default makes.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from d365sync.core.fetchxml.context import Context
from d365sync.core.fiscal import FiscalTemplate
from d365sync.core.goals.owncolumns import SOURCES
from d365sync.core.goals.rules import FiscalRules

WeekStart: TypeAlias = Literal[
    "organization", "sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"
]
WEEK_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
"""In the order of ``organization.weekstartdaycode``. Assumed: 0 is Sunday."""


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be an IANA time zone such as Europe/Berlin or Asia/Tehran") from None
    return value


_DURATION = re.compile(r"(\d+)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("must be a duration such as 30s, 5m, 2h or 1d")
    return int(match.group(1)) * _SECONDS[match.group(2)]


Duration = Annotated[int, BeforeValidator(_seconds), Field(ge=0)]
"""Seconds; written as a number of them or with a unit."""
ZoneName = Annotated[str, AfterValidator(_zone)]
OptionalZoneName = Annotated[str, AfterValidator(lambda value: _zone(value) if value else value)]
FiscalYear = Annotated[int, Field(ge=1753, le=9998)]
_MONTH_AND_DAY = re.compile(r"(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
_DAYS_OF = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _organization_or_day(value: str) -> str:
    match = _MONTH_AND_DAY.fullmatch(value)
    if value != "organization" and (match is None or int(match[2]) > _DAYS_OF[int(match[1]) - 1]):
        raise ValueError('must be "organization", or a month and a day such as 07-01')
    return value


def _in_order(years: tuple[int, int]) -> tuple[int, int]:
    if years[0] > years[1]:
        raise ValueError("must be the first year and then the last")
    return years


def _own_columns(columns: dict[str, str]) -> dict[str, str]:
    faults = [f"{source} is not a number that is written" for source in columns if source not in SOURCES]
    for source, target in columns.items():
        if not CUSTOM_NAME.fullmatch(target):
            faults.append(f"{source} names {target!r}, which is not the logical name of a column of your own")
        elif list(columns.values()).count(target) > 1:
            faults.append(f"{source} names {target}, and so does another")
    if faults:
        raise ValueError("; ".join(faults))
    return columns


CUSTOM_NAME = re.compile(r"(?!mscrm)[a-z][a-z0-9]{1,7}_[a-z0-9_]{1,100}")
"""A column that somebody made: its publisher's prefix, an underscore, a name.

Source: Create a solution publisher (prefixes have 2 to 8 letters or digits, begin with a letter, and not with mscrm).
"""
OwnColumnNames = Annotated[dict[str, str], AfterValidator(_own_columns)]
FiscalStart = Annotated[str, AfterValidator(_organization_or_day)]


class RuleSection(BaseModel):
    """One section of rules."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class FetchxmlSection(RuleSection):
    """How FetchXML is read; see :class:`~d365sync.core.fetchxml.context.Context` for what each key decides."""

    time_zone: OptionalZoneName = ""
    week_start: WeekStart = "organization"
    next_x_hours_whole: bool = True
    now_is_past: bool = False
    ne_keeps_null: bool = True
    not_in_keeps_null: bool = False
    not_begin_keeps_null: bool = True
    not_contain_keeps_null: bool = True
    not_under_keeps_null: bool = False
    not_under_keeps_anchor: bool = True
    valueof_ne_keeps_both_null: bool = False
    accents_count: bool = True
    trailing_blanks_count: bool = True
    between_to_end_of_day: bool = False
    literals_follow_zone: bool = False
    missing_period_refused: bool = False
    all_means_every: bool = False
    matchfirst_keeps_unmatched: bool = False
    inner_under_outer: Literal["refused", "flat", "nested"] = "refused"
    fiscal_years: Annotated[tuple[FiscalYear, FiscalYear], AfterValidator(_in_order)] = (1900, 2100)

    def settings(self) -> dict[str, Any]:
        """Return the keys that are fields of a query's context, under their names there."""
        known = {one.name for one in fields(Context)} - {"week_start", "time_zone"}
        return {name: getattr(self, name) for name in type(self).model_fields if name in known}

    def zone(self, of_goals: ZoneInfo) -> ZoneInfo:
        """Return the zone of whoever runs rollup queries; ``of_goals`` is the zone in which goal days begin."""
        return ZoneInfo(self.time_zone) if self.time_zone else of_goals

    def first_day_of_week(self, organizations: int) -> int:
        """Return the first day of the week, 0 Sunday to 6 Saturday; ``organizations`` is what the organization says."""
        return organizations if self.week_start == "organization" else WEEK_DAYS.index(self.week_start)


class FiscalSection(RuleSection):
    """How the organization's fiscal calendar is read."""

    year_named_by: Literal["start", "end", "organization"] = "start"
    leftover_days: Literal["own_period", "last_period"] = "own_period"
    month_codes: Literal["by_name", "by_position"] = "by_name"
    template: Literal["organization", "annual", "semiannual", "quarterly", "monthly", "four_week"] = "organization"
    start: FiscalStart = "organization"

    @property
    def rules(self) -> FiscalRules:
        """The section as the goals take it."""
        month, _, day = self.start.partition("-")
        return FiscalRules(
            year_named_by=self.year_named_by,
            leftover_days=self.leftover_days,
            month_codes=self.month_codes,
            template=None if self.template == "organization" else FiscalTemplate(self.template),
            start=None if self.start == "organization" else (int(month), int(day)),
        )
