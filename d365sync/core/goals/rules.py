"""How goals are read where the platform's documents leave a choice: each point one named rule with its default.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal
from zoneinfo import ZoneInfo

from d365sync.core.fiscal import FiscalTemplate


class CallerIs(StrEnum):
    """Whom the user operators of a rollup query (``eq-userid``, ``eq-userteams``, …) mean."""

    MANAGER = "manager"
    """The goal's manager, the owner of its row."""
    OWNER = "owner"
    """The goal owner."""
    REFUSE = "refuse"
    """Nobody: the goals with such a query get a problem."""


class Hierarchy(StrEnum):
    """What ``eq-useroruserhierarchy`` goes down: the users' managers, or their positions."""

    MANAGER = "manager"
    POSITION = "position"


class Bounds(StrEnum):
    """Which days a fiscal goal has when its stored dates differ from its fiscal year and period."""

    STORED = "stored"
    COMPUTED = "computed"


@dataclass(frozen=True, slots=True)
class FiscalRules:
    """How the organization's fiscal settings become a calendar.

    ``year_named_by`` "organization" follows ``fiscalyeardisplaycode``. ``template`` and ``start`` (month and day) None
    are the organization's. See :class:`~d365sync.core.fiscal.FiscalCalendar` for the rest.
    """

    year_named_by: Literal["start", "end", "organization"] = "start"
    leftover_days: Literal["own_period", "last_period"] = "own_period"
    month_codes: Literal["by_name", "by_position"] = "by_name"
    template: FiscalTemplate | None = None
    start: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What a goal's columns mean where no public document settles it.

    Assumed: all of them.

    - ``caller``: the platform switches to each goal's own manager while it walks a tree (Source: Roll up goal totals);
      that the user operators of rollup queries follow that switch is the assumption
    - ``hierarchy``: the hierarchy model of the organization, which no goal names
    - ``bounds``: stored start and end dates win, since goals keep their periods when fiscal settings change
    - ``end_of_day``: the last day counts to its end for columns with a time; False ends it with its first instant
    - ``bounds_zone``: zone in which the stored dates are midnights; None is the zone in which goal days begin and end
    - ``fiscal``: see :class:`FiscalRules`
    """

    caller: CallerIs = CallerIs.MANAGER
    hierarchy: Hierarchy = Hierarchy.MANAGER
    bounds: Bounds = Bounds.STORED
    end_of_day: bool = True
    bounds_zone: ZoneInfo | None = None
    fiscal: FiscalRules = field(default_factory=FiscalRules)


AS_ASSUMED = ReadingRules()
"""Every point as assumed."""
