"""How far along a goal is, and whether that is far enough for today.

Source: Create goal hierarchy, goals, and targets (today's target).

Pure.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from d365sync.core.goals.goal import Number
from d365sync.core.period import DaySpan

AHEAD = Decimal("1.05")
BEHIND = Decimal("0.95")


class Pace(StrEnum):
    """Actual against today's target, in words."""

    NOT_STARTED = "not started"
    AHEAD = "ahead"
    ON_PACE = "on pace"
    BEHIND = "behind"
    REACHED = "reached"
    MISSED = "missed"
    NO_TARGET = "no target"


@dataclass(frozen=True, slots=True)
class Progress:
    """One goal's progress on one day.

    ``attainment`` is actual over target (1 means reached), ``pace_index`` actual over today's target; both None
    without a target. ``today_target`` is in the unit of the target, ``gap`` what is missing to it (never negative).
    """

    attainment: Decimal | None
    today_target: Decimal | None
    pace_index: Decimal | None
    gap: Decimal | None
    pace: Pace


def elapsed_fraction(span: DaySpan, today: dt.date) -> Decimal:
    """Return the part of the period that has passed, as the platform counts it: ``(today - start) / (end - start)``.

    0 up to the first day, 1 from the last day on. Note the denominator is one day less than the period has days.
    Assumed: clamped to 0..1 outside the period; a period of one day counts as passed on its day.
    """
    if today >= span.last_on:
        return Decimal(1)
    if today <= span.first_on:
        return Decimal(0)
    return Decimal((today - span.first_on).days) / Decimal((span.last_on - span.first_on).days)


def progress_of(actual: Number | None, target: Number | None, span: DaySpan, today: dt.date) -> Progress:
    """Judge a goal on a day; a missing actual counts as 0."""
    done = Decimal(actual or 0)
    if not target:
        return Progress(None, None, None, None, Pace.NO_TARGET)
    aim = Decimal(target)
    today_target = aim * elapsed_fraction(span, today)
    index = done / today_target if today_target else None
    return Progress(done / aim, today_target, index, max(Decimal(0), aim - done), _pace(done, aim, index, span, today))


def _pace(done: Decimal, aim: Decimal, index: Decimal | None, span: DaySpan, today: dt.date) -> Pace:
    if done >= aim:
        return Pace.REACHED
    if today > span.last_on:
        return Pace.MISSED
    if today < span.first_on:
        return Pace.NOT_STARTED
    if index is None or index >= AHEAD:
        return Pace.AHEAD if index is not None or done > 0 else Pace.ON_PACE
    return Pace.BEHIND if index < BEHIND else Pace.ON_PACE
