"""Who asks, when and where: everything a query means beyond its text.

The platform reads these from the calling user and the organization; here they are values, so that a run is
repeatable. Each point the public documentation leaves open is one named setting with its default.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from d365sync.core.fiscal import FiscalCalendar


@dataclass(frozen=True, slots=True)
class Context:
    """The caller's clock, zone, identity and the organization's settings.

    ``now`` is an aware instant, frozen once per run and cut to the second. ``week_start`` follows
    ``organization.weekstartdaycode``: 0 is Sunday, 6 Saturday. ``user_id`` None means that no user is known:
    operators that ask for the user are then refused. ``user_hierarchy`` maps a user to the direct reports,
    ``team_members`` a team to its users; guids are lower case without braces. ``option_labels`` maps a choice
    column to its labels by value.

    The settings below stand for points Microsoft's documents leave open, hence ``Assumed:`` all of them:

    - ``week_start``: 0, as the SDK's description of the operators has it
    - ``next_x_hours_whole``: next-x-hours runs to the end of a whole hour, not to ``now`` plus x hours
    - ``now_is_past``: a value equal to ``now`` belongs to last-x and not to next-x
    - ``not_in_keeps_null``: not-in returns rows whose column is empty
    - ``not_begin_keeps_null``: not-begin-with and not-end-with return them (as not-like does)
    - ``not_under_keeps_null``: not-under on a lookup returns rows whose lookup is empty
    - ``valueof_ne_keeps_both_null``: ne with valueof returns rows where both columns are empty
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
    not_in_keeps_null: bool = False
    not_begin_keeps_null: bool = True
    not_under_keeps_null: bool = False
    valueof_ne_keeps_both_null: bool = False
    integer_avg_rounds: bool = False
    fiscal_years: tuple[int, int] = (1970, 2070)

    def __post_init__(self) -> None:
        if self.now.tzinfo is None:
            raise ValueError("the context's clock needs a zone")
        if not 0 <= self.week_start <= 6:
            raise ValueError(f"week_start {self.week_start} is not a day of the week (0 Sunday to 6 Saturday)")
