"""Undoing: the plan that puts back what a run wrote, where nobody has changed it since.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from d365sync.core.goals.goal import VALUE_COLUMNS, Goal, Number
from d365sync.core.goals.writes import (
    OVERRIDDEN,
    PERCENTAGE,
    ColumnChange,
    GoalWrite,
    Skip,
    SkipReason,
    WritePlan,
    as_stored,
)

Columns = Mapping[str, Number | None]


@dataclass(frozen=True, slots=True)
class WrittenGoal:
    """What a run did to one goal: the columns before and after, and the etag it left.

    ``sure`` is False when it is not known whether the write arrived. ``later`` is the last run after it that wrote the
    goal again, None when none did.
    """

    goal_id: str
    title: str
    before: Columns
    after: Columns
    etag: str | None
    sure: bool
    later: str | None


def plan_undo(written: Iterable[WrittenGoal], goals: Mapping[str, Goal]) -> WritePlan:
    """Compare what a run wrote with the goals as they are now; goals in title order.

    A goal that a later run wrote, or that somebody changed, closed or deleted, is left alone. A rename is no change.
    """
    writes: list[GoalWrite] = []
    skips: list[Skip] = []
    unchanged = 0
    for one in sorted(written, key=lambda one: (one.title, one.goal_id)):
        step = _step(one, goals.get(one.goal_id))
        if isinstance(step, GoalWrite):
            writes.append(step)
        elif step is not None:
            skips.append(step)
        else:
            unchanged += 1
    return WritePlan(tuple(writes), tuple(skips), unchanged)


def _step(written: WrittenGoal, goal: Goal | None) -> GoalWrite | Skip | None:
    if goal is None:
        return Skip(written.goal_id, written.title, SkipReason.GONE, f"'{written.title}' was deleted since")
    if _holds(goal, written.before):
        return None
    if written.later is not None:
        return _skip(goal, SkipReason.CONFLICT, f"was written again by run {written.later}; undo that one first")
    if not goal.is_open:
        return _skip(goal, SkipReason.CLOSED, "is closed; Dataverse keeps it read-only")
    candidates = [written.after] if written.sure else as_stored(written.after)
    if goal.etag != written.etag and not any(_holds(goal, one) for one in candidates):
        return _skip(goal, SkipReason.CONFLICT, "was changed since by somebody else; left as it is")
    return _write(goal, written.before)


def _write(goal: Goal, before: Columns) -> GoalWrite:
    held: Columns = {**goal.native, PERCENTAGE: goal.percentage}
    changes = [
        ColumnChange(name, held.get(name), before[name], "as it was before the run")
        for name in (*VALUE_COLUMNS, PERCENTAGE)
        if name in before and held.get(name) != before[name]
    ]
    after = {name: before.get(name) for name in VALUE_COLUMNS}
    return GoalWrite(goal.id, goal.title, goal.etag, tuple(changes), after, overridden=bool(before.get(OVERRIDDEN, 0)))


def _holds(goal: Goal, columns: Columns) -> bool:
    """Say whether a goal has these nine columns and this override; an override that is not named is not compared."""
    flag = columns.get(OVERRIDDEN)
    return all(goal.native.get(name) == columns.get(name) for name in VALUE_COLUMNS) and (
        flag is None or goal.is_overridden == bool(flag)
    )


def _skip(goal: Goal, reason: SkipReason, tail: str) -> Skip:
    return Skip(goal.id, goal.title, reason, f"'{goal.title}' {tail}")
