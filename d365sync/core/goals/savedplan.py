"""A plan that was saved as a document, read back and compared with the goals as they are now.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from d365sync.core.goals.goal import VALUE_COLUMNS, Goal, Number
from d365sync.core.goals.modes import COLUMNS, OVERRIDE, RECALCULATE
from d365sync.core.goals.writes import PERCENTAGE, ColumnChange, GoalWrite, WritePlan
from d365sync.core.values import is_etag, parse_guid
from d365sync.errors import UsageError

HINT = "make it with `d365sync plan --output FILE`"


@dataclass(frozen=True, slots=True)
class SavedGoal:
    """One goal of a saved plan: the etag it holds for, and the columns to write."""

    goal_id: str
    title: str
    etag: str
    changes: tuple[ColumnChange, ...]


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A saved plan: the organization, the run and the write mode it was made in."""

    organization_id: str
    run_id: str
    goals: tuple[SavedGoal, ...]
    mode: str = OVERRIDE

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it writes to."""
        return tuple(dict.fromkeys(change.column for goal in self.goals for change in goal.changes))


def read_saved_plan(document: object) -> SavedPlan:
    """Read a plan document; numbers with a fraction must be Decimals.

    Raises:
        UsageError: it is not one, or not of this version, or there is nothing in it to be written.
    """
    if isinstance(document, dict) and document.get("mode") == RECALCULATE:
        raise UsageError(
            "a plan made in mode recalculate says what the platform shall compute, and holds nothing to write",
            hint='set writeback.mode to "override" or "columns" and make another',
        )
    try:
        return _plan(document)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UsageError(f"this is not a saved plan ({type(error).__name__}: {error})", hint=HINT) from None


def differences(plan: SavedPlan, organization_id: str, goals: Mapping[str, Goal]) -> tuple[str, ...]:
    """Return why a plan may not be applied any more, one sentence each; none when it may."""
    if plan.organization_id != organization_id:
        return (f"it is of organization {plan.organization_id}, not {organization_id}",)
    return tuple(
        f"'{one.title}' was {'changed' if one.goal_id in goals else 'deleted'} since"
        for one in plan.goals
        if one.goal_id not in goals or goals[one.goal_id].etag != one.etag
    )


def as_write_plan(plan: SavedPlan, goals: Mapping[str, Goal], stamp: str = "") -> WritePlan:
    """Return the writes of a plan that fits the goals; ``stamp`` takes the time of a write in mode columns."""
    write = partial(_write_own, stamp) if plan.mode == COLUMNS else _write
    return WritePlan(tuple(write(one, goals[one.goal_id]) for one in plan.goals), (), 0)


def _write_own(stamp: str, saved: SavedGoal, goal: Goal) -> GoalWrite:
    after = {change.column: change.ours for change in saved.changes}
    return GoalWrite(goal.id, goal.title, goal.etag, saved.changes, after, None, stamp)


def _write(saved: SavedGoal, goal: Goal) -> GoalWrite:
    ours = {change.column: change.ours for change in saved.changes if change.column != PERCENTAGE}
    return GoalWrite(goal.id, goal.title, goal.etag, saved.changes, {**goal.native, **ours})


def _plan(document: Any) -> SavedPlan:
    mode = document.get("mode", OVERRIDE)
    if mode not in (OVERRIDE, COLUMNS):
        raise ValueError(f"the mode {mode!r} is not one that writes numbers")
    goals = tuple(_goal(entry, mode) for entry in document["goals"])
    if len({goal.goal_id for goal in goals}) != len(goals):
        raise ValueError("a goal stands in it twice")
    return SavedPlan(parse_guid(document["organization"]), str(document["run"]), goals, mode)


def _goal(entry: Any, mode: str) -> SavedGoal:
    etag = entry["etag"]
    if not isinstance(etag, str) or not is_etag(etag):
        raise ValueError(f"the etag {etag!r} is none")
    changes = tuple(_change(change, mode) for change in entry["changes"])
    return SavedGoal(parse_guid(entry["goal"]), str(entry["title"]), etag, changes)


def _change(entry: Any, mode: str) -> ColumnChange:
    column = str(entry["column"])
    if mode == OVERRIDE and column not in (*VALUE_COLUMNS, PERCENTAGE):
        raise ValueError(f"{column!r} is not a column that is written")
    return ColumnChange(column, _number(entry["native"]), _number(entry["ours"]), str(entry["why"]))


def _number(value: Any) -> Number | None:
    if value is None or (isinstance(value, int | Decimal) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        return Decimal(value)
    raise ValueError(f"{value!r} is not a number")
