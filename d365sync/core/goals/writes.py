"""What to write back, as a value: the plan that is printed, tested, guarded and then applied.

Pure.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import TypeAlias

from d365sync.core.goals.goal import VALUE_COLUMNS, Goal, GoalBook, Number
from d365sync.core.goals.rollup import GoalTotals, Rollup
from d365sync.core.problems import Severity
from d365sync.core.values import is_etag

PERCENTAGE = "percentage"
STAMP = "lastrolledupdate"
OVERRIDE = "isoverride"
OVERRIDDEN = "isoverridden"
SENT = "sent."
"""Prefix of what was sent for a column that Dataverse stored otherwise (rounded, or recomputed by itself)."""
MONEY_SCALES = range(5)
"""Decimal places to which an organization may round. Source: transactioncurrency.currencyprecision, 0 to 4."""


class SkipReason(StrEnum):
    """Why a goal is left alone."""

    OVERRIDDEN = "overridden by a person"
    CLOSED = "closed"
    PROBLEM = "problem"
    CONFLICT = "changed meanwhile"
    GONE = "deleted meanwhile"
    OURS = "overridden by d365sync"
    LATER = "waiting"
    DIFFERS = "differs natively"


@dataclass(frozen=True, slots=True)
class ColumnChange:
    """One column that differs: what Dataverse holds, what we computed, and why they differ in one phrase.

    ``difference`` is ours minus native with a missing native value taken as 0; None when we write no value.
    """

    column: str
    native: Number | None
    ours: Number | None
    why: str

    @property
    def difference(self) -> Number | None:
        """Return ours minus native; None when ours is None."""
        return None if self.ours is None else self.ours - (self.native or 0)


@dataclass(frozen=True, slots=True)
class GoalWrite:
    """The changes of one goal, to be sent as one request that holds only if the goal still has ``etag``.

    ``after`` are the nine columns, and ``overridden`` the flag, as they shall be; with ``overridden`` None it is about
    columns of the organization's own, and ``after`` are those. ``stamp`` is the column that takes the time of the
    write, empty for none.
    """

    goal_id: str
    title: str
    etag: str
    changes: tuple[ColumnChange, ...]
    after: Mapping[str, Number | None] = field(repr=False)
    overridden: bool | None = True
    stamp: str = STAMP


@dataclass(frozen=True, slots=True)
class Skip:
    """A goal left alone, with the reason in a word and in a sentence."""

    goal_id: str
    title: str
    reason: SkipReason
    message: str


@dataclass(frozen=True, slots=True)
class WritePlan:
    """Everything one push would do. ``unchanged`` counts the goals whose columns are right already."""

    writes: tuple[GoalWrite, ...]
    skips: tuple[Skip, ...]
    unchanged: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.writes


Planner: TypeAlias = Callable[[Goal, GoalTotals, Mapping[str, Number | None] | None], GoalWrite | Skip | None]
"""Compares one goal with our numbers; the last are its ``kept`` columns (see :func:`plan_writes`)."""


def is_ours(goal: Goal, written: Sequence[Mapping[str, Number | None]]) -> bool:
    """Say whether an override on a goal is one that we wrote and nobody changed since.

    ``written`` holds the nine columns as our writes may have left them, empty when we never wrote the goal.
    """
    return any(all(_same(goal.native.get(name), one.get(name)) for name in VALUE_COLUMNS) for one in written)


def as_stored(sent: Mapping[str, Number | None]) -> tuple[Mapping[str, Number | None], ...]:
    """Return what columns may hold after they were sent: as they are, or rounded to a currency's precision.

    Assumed: that Dataverse rounds on save is not documented for goals, nor how halves go; both ways are looked for, and
    only where it is not known what it stored. A percentage is no amount of money, and is rounded by itself.
    """
    apart = {name: value for name, value in sent.items() if name == PERCENTAGE}
    amounts = _roundings({name: value for name, value in sent.items() if name != PERCENTAGE})
    return tuple(one | other for one in amounts for other in _roundings(apart))


def held(write: GoalWrite, goal: Goal) -> dict[str, Number | None]:
    """Return what a goal holds of what a write is about: its own columns, or the nine, the percentage and the flag."""
    if write.overridden is None:
        return {name: goal.own.get(name) for name in write.after}
    return {**goal.native, PERCENTAGE: goal.percentage, OVERRIDDEN: int(goal.is_overridden)}


def sent(write: GoalWrite) -> dict[str, Number | None]:
    """Return the columns as they shall be, and the percentage if it is to change."""
    return {**write.after, **{change.column: change.ours for change in write.changes if change.column == PERCENTAGE}}


def telling(before: Mapping[str, Number | None], after: Mapping[str, Number | None]) -> Mapping[str, Number | None]:
    """Return what of ``after`` tells whether a write arrived: its percentage only where it is all that changes.

    Dataverse may compute a percentage anew by itself; then the nine columns have to tell.
    """
    same = all(_same(before.get(name), after.get(name)) for name in VALUE_COLUMNS)
    return after if same else {name: value for name, value in after.items() if name != PERCENTAGE}


def arrived(write: GoalWrite, before: Goal, goal: Goal) -> bool:
    """Say whether a goal holds what was written, as it is or rounded; ``before`` is what it was planned from."""
    if write.overridden is None:
        return any(not differing(goal.own, one, {}) for one in as_stored(write.after))
    tells = telling(before.native, sent(write)) if before.is_overridden == write.overridden else write.after
    now = held(write, goal)
    return goal.is_overridden == write.overridden and any(not differing(now, one, {}) for one in as_stored(tells))


def stored(write: GoalWrite, goal: Goal) -> dict[str, Number | None]:
    """Return what a goal :func:`held` after a write, and what was sent where it differs from that.

    ``goal`` is what the answer to the write says. Where it holds what we cannot have written, somebody was quicker than
    the answer: then it is what was sent, so that the goal does not count as ours.
    """
    now = held(write, goal)
    if any(differing(now, one, {}) == () for one in as_stored(write.after)):
        return now | {SENT + name: value for name, value in sent(write).items() if not _same(now.get(name), value)}
    return {**sent(write), **({} if write.overridden is None else {OVERRIDDEN: int(write.overridden)})}


def overridden_by_person(
    goals: Iterable[Goal], written: Mapping[str, Sequence[Mapping[str, Number | None]]]
) -> frozenset[str]:
    """Return the open goals that somebody else overrode: their columns are never touched."""
    return frozenset(
        goal.id for goal in goals if goal.is_open and goal.is_overridden and not is_ours(goal, written.get(goal.id, ()))
    )


def plan_writes(
    book: GoalBook,
    rollup: Rollup,
    theirs: frozenset[str],
    kept: Mapping[str, Mapping[str, Number | None]] | None = None,
    planner: Planner | None = None,
) -> WritePlan:
    """Compare every goal with our numbers; goals in title order.

    ``theirs`` are the goals overridden by a person. ``kept`` are, per goal, the columns as :func:`stored` after our
    last write: a number that Dataverse stored otherwise than sent is not sent again. ``planner`` compares one goal.
    """
    kept = kept or {}
    blocked = {p.goal_id: p.message for p in rollup.problems if p.severity is Severity.BLOCKING}
    writes: list[GoalWrite] = []
    skips: list[Skip] = []
    unchanged = 0
    for goal in sorted(book.goals.values(), key=lambda one: (one.title, one.id)):
        step = _untouched(goal, rollup.totals, theirs, blocked.get(goal.id)) or (planner or plan_goal)(
            goal, rollup.totals[goal.id], kept.get(goal.id)
        )
        if isinstance(step, GoalWrite):
            writes.append(step)
        elif isinstance(step, Skip):
            skips.append(step)
        else:
            unchanged += 1
    return WritePlan(tuple(writes), tuple(skips), unchanged)


def plan_goal(
    goal: Goal, totals: GoalTotals, kept: Mapping[str, Number | None] | None = None
) -> GoalWrite | Skip | None:
    """Return the write that makes a goal's columns ours; None when they are already. ``kept``: :func:`plan_writes`.

    A goal without an etag that can be sent back is not written: a later edit could be overwritten.
    """
    ours = {**totals.totals, PERCENTAGE: totals.percentage}
    native = {**goal.native, PERCENTAGE: goal.percentage}
    changes = tuple(
        ColumnChange(name, native.get(name), ours[name], _why(goal, name, ours[name]))
        for name in differing(native, ours, kept or {})
    )
    if not changes:
        return None
    if not is_etag(goal.etag):
        return no_etag(goal)
    return GoalWrite(goal.id, goal.title, goal.etag, changes, dict(totals.totals))


def left_alone(goal: Goal, reason: SkipReason, tail: str) -> Skip:
    """Return a goal as left alone; ``tail`` goes on after its title."""
    return Skip(goal.id, goal.title, reason, f"'{goal.title}' {tail}")


def no_etag(goal: Goal) -> Skip:
    """Return the goal as left alone."""
    return left_alone(goal, SkipReason.PROBLEM, "came without an etag that can be sent back; left as it is")


def differing(
    now: Mapping[str, Number | None], ours: Mapping[str, Number | None], kept: Mapping[str, Number | None]
) -> tuple[str, ...]:
    """Return the columns that do not hold our number, nor what Dataverse made of it when it was sent."""
    return tuple(name for name, value in ours.items() if not _held(name, now.get(name), value, kept))


def write_body(write: GoalWrite, now: dt.datetime) -> dict[str, object]:
    """Return the columns to send: the changes, both override flags (unless it is about other columns), and the time.

    Source: Roll up goal totals (isoverride in the same request, isoverridden to keep the value).
    """
    flags: dict[str, object] = {} if write.overridden is None else {OVERRIDE: True, OVERRIDDEN: write.overridden}
    stamp: dict[str, object] = {write.stamp: now} if write.stamp else {}
    return flags | {change.column: change.ours for change in write.changes} | stamp


def _untouched(
    goal: Goal, totals: Mapping[str, GoalTotals], theirs: frozenset[str], blocked: str | None
) -> Skip | None:
    if not goal.is_open:
        return left_alone(goal, SkipReason.CLOSED, "is closed; Dataverse keeps it read-only")
    if goal.id in theirs:
        return left_alone(goal, SkipReason.OVERRIDDEN, "was overridden by a person; left as it is")
    if goal.id not in totals:
        return Skip(goal.id, goal.title, SkipReason.PROBLEM, blocked or f"'{goal.title}' could not be computed")
    return None


def _held(column: str, native: Number | None, ours: Number | None, kept: Mapping[str, Number | None]) -> bool:
    """Say whether a column holds our number, or what Dataverse made of it when it was sent."""
    if _same(native, ours):
        return True
    sent = SENT + column
    return sent in kept and _same(kept[sent], ours) and _same(kept.get(column), native)


def _roundings(sent: Mapping[str, Number | None]) -> list[dict[str, Number | None]]:
    ways = itertools.product(MONEY_SCALES, (ROUND_HALF_UP, ROUND_HALF_EVEN))
    found = [dict(sent), *({name: _rounded(value, *way) for name, value in sent.items()} for way in ways)]
    return [one for index, one in enumerate(found) if one not in found[:index]]


def _rounded(value: Number | None, scale: int, rounding: str) -> Number | None:
    return value.quantize(Decimal(1).scaleb(-scale), rounding) if isinstance(value, Decimal) else value


def _same(left: Number | None, right: Number | None) -> bool:
    if left is None or right is None:
        return left is right
    return left == right


def _why(goal: Goal, name: str, ours: Number | None) -> str:
    if name == PERCENTAGE:
        return "follows actual and target"
    if ours is None:
        return "no rollup field feeds this column"
    if goal.is_overridden:
        return "records changed since d365sync wrote it"
    if goal.rolled_up_at is None:
        return "never rolled up"
    return f"last rolled up {goal.rolled_up_at:%Y-%m-%d %H:%M}Z"
