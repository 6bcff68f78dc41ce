"""Undoing: the plan that puts back what a run wrote, where nobody has changed it since.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    left_alone,
    no_etag,
    telling,
)
from d365sync.core.values import is_etag

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


def plan_undo(
    written: Iterable[WrittenGoal], goals: Mapping[str, Goal], own: Sequence[str] = (), stamp: str = ""
) -> WritePlan:
    """Compare what a run wrote with the goals as they are now; goals in title order.

    A goal that holds what a later run wrote, or that somebody changed, closed or deleted, is left alone. A rename is no
    change, nor is a later run that was undone or whose writes never arrived.
    With ``own``, the run wrote these columns of the organization's own, and ``stamp`` takes the time of the undo.
    """
    kind = _OwnColumns(tuple(own), stamp) if own else _Override()
    writes: list[GoalWrite] = []
    skips: list[Skip] = []
    unchanged = 0
    for one in sorted(written, key=lambda one: (one.title, one.goal_id)):
        step = _step(one, goals.get(one.goal_id), kind)
        if isinstance(step, GoalWrite):
            writes.append(step)
        elif step is not None:
            skips.append(step)
        else:
            unchanged += 1
    return WritePlan(tuple(writes), tuple(skips), unchanged)


def _step(written: WrittenGoal, goal: Goal | None, kind: _Override | _OwnColumns) -> GoalWrite | Skip | None:
    if goal is None:
        return Skip(written.goal_id, written.title, SkipReason.GONE, f"'{written.title}' was deleted since")
    if kind.holds(goal, written.before):
        return None
    candidates = [written.after] if written.sure else as_stored(telling(written.before, written.after))
    as_left = goal.etag == written.etag or any(kind.holds(goal, one) for one in candidates)
    if not as_left and written.later is not None:
        return left_alone(goal, SkipReason.CONFLICT, f"was written again by run {written.later}; undo that one first")
    if not goal.is_open:
        return left_alone(goal, SkipReason.CLOSED, "is closed; Dataverse keeps it read-only")
    if not as_left:
        return left_alone(goal, SkipReason.CONFLICT, "was changed since by somebody else; left as it is")
    return kind.write(goal, written.before) if is_etag(goal.etag) else no_etag(goal)


@dataclass(frozen=True, slots=True)
class _Override:
    """A run that wrote the nine columns, the percentage and the override."""

    def holds(self, goal: Goal, columns: Columns) -> bool:
        """Say whether a goal has these nine columns; percentage and override are compared where they are named."""
        flag = columns.get(OVERRIDDEN)
        return (
            all(goal.native.get(name) == columns.get(name) for name in VALUE_COLUMNS)
            and (PERCENTAGE not in columns or goal.percentage == columns[PERCENTAGE])
            and (flag is None or goal.is_overridden == bool(flag))
        )

    def write(self, goal: Goal, before: Columns) -> GoalWrite:
        """Return the write that puts them back."""
        held: Columns = {**goal.native, PERCENTAGE: goal.percentage}
        changes = _back(held, before, [name for name in (*VALUE_COLUMNS, PERCENTAGE) if name in before])
        after = {name: before.get(name) for name in VALUE_COLUMNS}
        return GoalWrite(goal.id, goal.title, goal.etag, changes, after, bool(before.get(OVERRIDDEN, 0)))


@dataclass(frozen=True, slots=True)
class _OwnColumns:
    """A run that wrote columns of the organization's own."""

    names: tuple[str, ...]
    stamp: str

    def holds(self, goal: Goal, columns: Columns) -> bool:
        """Say whether a goal has these columns."""
        return all(goal.own.get(name) == columns[name] for name in self.names if name in columns)

    def write(self, goal: Goal, before: Columns) -> GoalWrite:
        """Return the write that puts them back."""
        after = {name: before[name] for name in self.names if name in before}
        return GoalWrite(goal.id, goal.title, goal.etag, _back(goal.own, before, list(after)), after, None, self.stamp)


def _back(held: Columns, before: Columns, names: Iterable[str]) -> tuple[ColumnChange, ...]:
    return tuple(
        ColumnChange(name, held.get(name), before[name], "as it was before the run")
        for name in names
        if held.get(name) != before[name]
    )
