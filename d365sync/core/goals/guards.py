"""Guards: is what a cycle is about to do plausible? They look at rows that are gone and at the plan, before a write.

A guard that stops says what it saw, how much of how much, and the number that a person names to accept it. None of
them looks at a single goal's number: a wrong deal is the business's, a wrong half of all goals is not.

===========  ====================================================================================================
deletions    a table lost more rows, or a greater part of them, than tables lose
emptied      a table that had rows has none
changes      most of the goals that we wrote before would change
zeroed       a column falls to nothing in many of the goals in which it had a value
jumps        a column becomes many times as large, or as small, in many of them
totals       the total of a metric's column moves by more than a part of it, in many goals
negative     a column becomes negative in many of the goals in which it was positive
===========  ====================================================================================================

Goals that are written for the first time are no mass change: taking an organization over writes them all once. The
other guards hold for them too, so numbers that Dataverse had and that ours contradict massively are seen.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from d365sync.core.counts import by_count, counted
from d365sync.core.goals.goal import VALUE_COLUMNS, Goal, Number
from d365sync.core.goals.writes import GoalWrite
from d365sync.core.values import plain


class GuardName(StrEnum):
    """The guards, by the name under which each is configured and can be switched off."""

    DELETIONS = "deletions"
    EMPTIED = "emptied"
    CHANGES = "changes"
    ZEROED = "zeroed"
    JUMPS = "jumps"
    TOTALS = "totals"
    NEGATIVE = "negative"


@dataclass(frozen=True, slots=True)
class GuardRules:
    """The thresholds. A guard stops at its count or more and beyond its percentage; ``off`` names those that never do.

    ``deletions_at_most`` is a number of rows beyond which it stops whatever part of the table they are, 0 for none.
    """

    off: frozenset[GuardName] = frozenset()
    deletions_rows: int = 50
    deletions_percent: int = 50
    deletions_at_most: int = 10_000
    emptied_rows: int = 10
    changes_goals: int = 50
    changes_percent: int = 80
    zeroed_goals: int = 10
    zeroed_percent: int = 20
    jumps_goals: int = 10
    jumps_percent: int = 20
    jumps_factor: int = 10
    totals_goals: int = 20
    totals_percent: int = 50
    negative_goals: int = 5
    negative_percent: int = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What one guard saw: ``number`` of ``of`` rows or goals, in a sentence's words; rows are those of ``table``."""

    guard: GuardName
    message: str
    number: int
    of: int
    table: str = ""


@dataclass(frozen=True, slots=True)
class Losses:
    """How many of the rows known of one table are gone."""

    table: str
    missing: int
    known: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a plan would do to the numbers.

    ``goals`` are those that could be written, changed or not, as they are now; ``known`` those that d365sync wrote
    before. ``columns`` are the columns that take amounts: the nine, or the organization's own. ``metrics`` gives names.
    """

    writes: Sequence[GoalWrite]
    goals: Mapping[str, Goal]
    known: Collection[str]
    columns: Sequence[str] = VALUE_COLUMNS
    metrics: Mapping[str, str] = field(default_factory=dict)


def judge_losses(losses: Iterable[Losses], rules: GuardRules) -> tuple[Finding, ...]:
    """Return the tables whose losses are not believed."""
    found = (_judge_table(one, rules) for one in losses)
    return tuple(one for one in found if one is not None)


def judge_plan(proposal: Proposal, rules: GuardRules) -> tuple[Finding, ...]:
    """Return what is not plausible about a plan, in the order of the guards; nothing for an empty plan.

    Goals that the plan does not write are looked at only where those it writes are enough for a guard.
    """
    moves = list(_moves(proposal))
    by_column: dict[str, list[_Move]] = defaultdict(list)
    for move in moves:
        by_column[move.column].append(move)
    found = [*_changes(proposal, rules)]
    for column, ones in by_column.items():
        found += _of_column(proposal, column, ones, rules)
    found += _totals(proposal, moves, rules)
    order = list(GuardName)
    return tuple(sorted((one for one in found if one.guard not in rules.off), key=lambda one: order.index(one.guard)))


@dataclass(frozen=True, slots=True)
class _Move:
    """One column of one goal that has a value, not 0, now; and what it shall hold."""

    metric_id: str
    column: str
    before: Number
    after: Number

    @property
    def is_zeroed(self) -> bool:
        return not self.after

    def jumps(self, factor: int) -> bool:
        before, after = Decimal(self.before).copy_abs(), Decimal(self.after).copy_abs()
        return bool(after) and (after > before * factor or before > after * factor)


def _judge_table(one: Losses, rules: GuardRules) -> Finding | None:
    lost = f"{one.table} lost {one.missing:,} of {counted(one.known, 'row')}"
    if one.missing == one.known and one.known >= max(rules.emptied_rows, 1) and GuardName.EMPTIED not in rules.off:
        message = f"{one.table} came back empty, {counted(one.known, 'row')} {by_count(one.known, 'was', 'were')} known"
        return Finding(GuardName.EMPTIED, message, one.missing, one.known, one.table)
    if GuardName.DELETIONS in rules.off or not one.missing:
        return None
    if 0 < rules.deletions_at_most < one.missing:
        message = f"{lost} (guards.deletions_at_most is {rules.deletions_at_most:,})"
        return Finding(GuardName.DELETIONS, message, one.missing, one.known, one.table)
    if one.known >= rules.deletions_rows and one.missing * 100 > one.known * rules.deletions_percent:
        message = f"{lost} (guards.deletions_percent is {rules.deletions_percent})"
        return Finding(GuardName.DELETIONS, message, one.missing, one.known, one.table)
    return None


def _changes(proposal: Proposal, rules: GuardRules) -> Iterator[Finding]:
    changed = sum(write.goal_id in proposal.known for write in proposal.writes)
    of = len(proposal.goals) - (len(proposal.writes) - changed)
    if _beyond(changed, of, rules.changes_goals, rules.changes_percent):
        message = (
            f"{changed:,} of {counted(of, 'goal')} would change (guards.changes_percent is {rules.changes_percent})"
        )
        yield Finding(GuardName.CHANGES, message, changed, of)


def _of_column(proposal: Proposal, column: str, moves: Sequence[_Move], rules: GuardRules) -> Iterator[Finding]:
    zeroed = sum(move.is_zeroed for move in moves)
    jumping = sum(move.jumps(rules.jumps_factor) for move in moves)
    negative = sum(move.before > 0 > move.after for move in moves)
    if zeroed < rules.zeroed_goals and jumping < rules.jumps_goals and negative < rules.negative_goals:
        return
    values = [value for goal in proposal.goals.values() if (value := _held(goal, column))]
    positive = sum(value > 0 for value in values)
    of = f"{counted(len(values), 'goal')} in which it has a value"
    if _beyond(zeroed, len(values), rules.zeroed_goals, rules.zeroed_percent):
        message = (
            f"{column} would fall to nothing in {zeroed:,} of {of} (guards.zeroed_percent is {rules.zeroed_percent})"
        )
        yield Finding(GuardName.ZEROED, message, zeroed, len(values))
    if _beyond(jumping, len(values), rules.jumps_goals, rules.jumps_percent):
        message = (
            f"{column} would become more than {rules.jumps_factor} times as large or as small in {jumping:,} of {of} "
            f"(guards.jumps_percent is {rules.jumps_percent})"
        )
        yield Finding(GuardName.JUMPS, message, jumping, len(values))
    if _beyond(negative, positive, rules.negative_goals, rules.negative_percent):
        message = (
            f"{column} would become negative in {negative:,} of {counted(positive, 'goal')} in which it is "
            f"positive (guards.negative_percent is {rules.negative_percent})"
        )
        yield Finding(GuardName.NEGATIVE, message, negative, positive)


def _totals(proposal: Proposal, moves: Iterable[_Move], rules: GuardRules) -> Iterator[Finding]:
    parts: dict[tuple[str, str], list[_Move]] = defaultdict(list)
    for move in moves:
        if move.before != move.after:
            parts[move.metric_id, move.column].append(move)
    for (metric_id, column), ones in parts.items():
        if len(ones) < rules.totals_goals:
            continue
        goals = (goal for goal in proposal.goals.values() if (goal.metric_id or "") == metric_id)
        values = [Decimal(value) for goal in goals if (value := _held(goal, column))]
        before = sum(values, Decimal(0))
        after = before + sum((Decimal(move.after) - Decimal(move.before) for move in ones), Decimal(0))
        if abs(after - before) * 100 > abs(before) * rules.totals_percent:
            message = (
                f"{column} of all goals of metric '{proposal.metrics.get(metric_id, metric_id)}' would go from "
                f"{Decimal(plain(before)):,f} to {Decimal(plain(after)):,f} "
                f"(guards.totals_percent is {rules.totals_percent})"
            )
            yield Finding(GuardName.TOTALS, message, len(ones), len(values))


def _moves(proposal: Proposal) -> Iterator[_Move]:
    """Yield every column that has a value in a goal that is written, whether that column changes or not."""
    for write in proposal.writes:
        goal = proposal.goals[write.goal_id]
        for column in proposal.columns:
            before = _held(goal, column)
            if before:
                yield _Move(goal.metric_id or "", column, before, write.after.get(column, before) or 0)


def _held(goal: Goal, column: str) -> Number | None:
    return goal.native.get(column) if column in VALUE_COLUMNS else goal.own.get(column)


def _beyond(count: int, of: int, least: int, percent: int) -> bool:
    return count >= max(least, 1) and count * 100 > of * percent
