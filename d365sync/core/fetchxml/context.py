"""Who asks, when and where: everything a query means beyond its text.

The platform reads these from the calling user and the organization; here they are values, so that a run is
repeatable. Each point the public documentation leaves open is one named setting with its default.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from zoneinfo import ZoneInfo

from d365sync.core.fiscal import FiscalCalendar
from d365sync.core.schema import Column, Table


@dataclass(frozen=True, slots=True)
class Context:
    """The caller's clock, zone, identity and the organization's settings.

    ``now`` is an aware instant, frozen once per run and cut to the second. ``week_start`` follows
    ``organization.weekstartdaycode``: 0 is Sunday, 6 Saturday. ``user_id`` None means that no user is known:
    operators that ask for the user are then refused. ``user_hierarchy`` maps a user to the direct reports,
    ``team_members`` a team to its users; guids are lower case without braces. ``option_labels`` maps a choice
    column to its labels by value, where they differ from the schema's; a key ``table.column`` goes before ``column``.

    The settings below stand for points Microsoft's documents leave open, hence ``Assumed:`` all of them:

    - ``week_start``: 0, as the SDK's description of the operators has it
    - ``next_x_hours_whole``: next-x-hours runs to the end of a whole hour, not to ``now`` plus x hours
    - ``now_is_past``: a value equal to ``now`` belongs to last-x and not to next-x
    - ``ne_keeps_null``: ne, neq, ne-userid and ne-businessid return rows whose column is empty
    - ``not_in_keeps_null``: not-in returns them
    - ``not_begin_keeps_null``: not-begin-with and not-end-with return them (as not-like does)
    - ``not_contain_keeps_null``: not-contain-values returns rows without a selection
    - ``not_under_keeps_null``: not-under on a lookup returns rows whose lookup is empty
    - ``not_under_keeps_anchor``: not-under returns the row it names as well
    - ``valueof_ne_keeps_both_null``: ne with valueof returns rows where both columns are empty
    - ``accents_count``: text that differs in accents differs (it depends on the organization's base language)
    - ``trailing_blanks_count``: text that differs in blanks at its end is not equal (patterns always see them)
    - ``between_to_end_of_day``: an upper end of between without a time means the end of that day, not its midnight
    - ``literals_follow_zone``: a literal with a zone, on a DateOnly or TimeZoneIndependent column, is turned into
      the caller's wall clock; otherwise its zone is ignored
    - ``missing_period_refused``: a fiscal period number the template does not have is refused, not without rows
    - ``all_means_every``: all and not all quantify as their names say; otherwise as Microsoft's document has it
    - ``matchfirst_keeps_unmatched``: matchfirstrowusingcrossapply keeps rows without a linked row
    - ``inner_under_outer``: a link that is not outer inside one that is: refused, ``flat`` (it drops rows, as a
      chain of joins does) or ``nested`` (it only narrows which rows the outer link finds)
    - ``integer_avg_rounds``: the average of whole numbers is rounded half away from zero, not cut
    - ``fiscal_years``: the fiscal years, first and last, that in-fiscal-period looks at
    """

    now: dt.datetime
    time_zone: ZoneInfo
    week_start: int = 0
    fiscal: FiscalCalendar = field(default_factory=FiscalCalendar)
    user_id: str | None = None
    business_unit_id: str | None = None
    user_team_ids: tuple[str, ...] = ()
    user_language: int | None = None
    user_hierarchy: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    team_members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    option_labels: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
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
    integer_avg_rounds: bool = False
    fiscal_years: tuple[int, int] = (1900, 2100)

    def __post_init__(self) -> None:
        if self.now.tzinfo is None:
            raise ValueError("the context's clock needs a zone")
        if not 0 <= self.week_start <= 6:
            raise ValueError(f"week_start {self.week_start} is not a day of the week (0 Sunday to 6 Saturday)")

    def labels_of(self, table: Table, column: Column) -> Mapping[int, str]:
        """Return the labels of a choice by value: those given here, else the schema's; empty when not known."""
        name = column.logical_name
        given = self.option_labels.get(f"{table.logical_name}.{name}") or self.option_labels.get(name)
        return given or dict(column.labels)
