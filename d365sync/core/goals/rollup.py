"""Totals: each goal's own part plus its children's totals, from the leaves upward.

``roll_up`` takes what the records gave each goal and goes from the leaves to the roots; ``_add_up`` does one goal. What
cannot be added is never guessed: the goal, and every goal above it, gets a problem and no number.

Source: Roll up goal totals; Create goal hierarchy, goals, and targets.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Literal

from d365sync.core.counts import by_count, counted
from d365sync.core.goals.forest import Forest
from d365sync.core.goals.goal import LIMITS, VALUE_COLUMNS, Category, DataType, Goal, GoalBook, Metric, Number, Slot
from d365sync.core.goals.participation import slots_of
from d365sync.core.problems import Problem, Severity
from d365sync.core.storage import EXACT
from d365sync.core.values import plain


class ClosedChild(StrEnum):
    """What a closed or discarded goal adds to its parent."""

    STORED = "stored"
    EXCLUDED = "excluded"


class OverriddenChild(StrEnum):
    """What a goal that a person overrode adds to its parent."""

    STORED = "stored"
    RECOMPUTED = "recomputed"


class Rounding(StrEnum):
    """How ``percentage`` becomes a whole number."""

    HALF_UP = "half_up"
    HALF_EVEN = "half_even"


class EmptyCategory(StrEnum):
    """What a category with a rollup field stores when no record counts, in the goal or below it."""

    ZERO = "zero"
    NULL = "null"


class NoTarget(StrEnum):
    """What ``percentage`` is without a target, or with the target 0."""

    NULL = "null"
    ZERO = "zero"


ROUNDINGS = {Rounding.HALF_UP: ROUND_HALF_UP, Rounding.HALF_EVEN: ROUND_HALF_EVEN}


@dataclass(frozen=True, slots=True)
class RollupRules:
    """The points no public document settles, each with its default.

    Assumed: a closed child's stored value flows into an open parent (closing does not clear it).
    Assumed: an overridden child's stored value is what its parent adds (totals are added from children).
    Assumed: percentage rounds half up, and is empty without a target.
    Assumed: a category with a rollup field but no records is 0.
    """

    closed_child: ClosedChild = ClosedChild.STORED
    overridden_child: OverriddenChild = OverriddenChild.STORED
    percentage_rounding: Rounding = Rounding.HALF_UP
    empty_category: EmptyCategory = EmptyCategory.ZERO
    percentage_without_target: NoTarget = NoTarget.NULL


@dataclass(frozen=True, slots=True)
class OwnPart:
    """What a goal's own records give for one slot.

    ``amount`` is the exact sum (the number of records, for a count); ``unpriced`` counts the records that have an
    amount but no base-currency amount, which makes the sum unusable.
    """

    records: int
    amount: Number
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one child adds to its parent: the amount per column, and where it comes from."""

    source: Literal["computed", "stored", "excluded"]
    amounts: Mapping[str, Number]


@dataclass(frozen=True, slots=True)
class GoalTotals:
    """The numbers of one goal: our nine columns, the percentage, and how they came about.

    ``totals`` has all nine columns; those without a rollup field are None. ``own`` and ``children`` have only the
    columns the metric feeds, and add up to ``totals``.
    """

    totals: Mapping[str, Number | None]
    own: Mapping[str, Number]
    children: Mapping[str, Number]
    percentage: Decimal | None


@dataclass(frozen=True, slots=True)
class Rollup:
    """The outcome: totals of every goal that could be computed, and every problem met.

    ``contributions`` says, by parent and child id, what each child added per column and whether that was computed
    here or is what Dataverse holds.
    """

    totals: Mapping[str, GoalTotals]
    problems: tuple[Problem, ...]
    contributions: Mapping[str, Mapping[str, Contribution]] = field(default_factory=dict)


@dataclass(slots=True)
class _Work:
    book: GoalBook
    rules: RollupRules
    theirs: frozenset[str]
    own: Mapping[tuple[str, str], OwnPart]
    problems: list[Problem]
    totals: dict[str, GoalTotals] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    contributions: dict[str, Mapping[str, Contribution]] = field(default_factory=dict)
    slots: dict[str, tuple[Slot, ...]] = field(default_factory=dict)

    def slots_of(self, metric: Metric) -> tuple[Slot, ...]:
        """The slots of a metric, looked up once."""
        if metric.id not in self.slots:
            self.slots[metric.id] = tuple(slots_of(metric))
        return self.slots[metric.id]


def roll_up(
    book: GoalBook,
    forest: Forest,
    own: Mapping[tuple[str, str], OwnPart],
    *,
    problems: Sequence[Problem] = (),
    overridden_by_person: frozenset[str] = frozenset(),
    rules: RollupRules = RollupRules(),
) -> Rollup:
    """Add up the forest.

    ``own`` is keyed by goal id and column; a missing entry is nothing (no records, or roll up only from children).
    ``problems`` are those met before (grouping, periods); a goal with a blocking one is not computed, nor is any
    goal above it. ``overridden_by_person`` are goals whose columns somebody else keeps by hand.
    """
    work = _Work(book, rules, overridden_by_person, own, [*problems, *forest.problems])
    for problem in work.problems:
        if problem.severity is Severity.BLOCKING and problem.goal_id:
            work.blocked.setdefault(problem.goal_id, problem.goal_id)
    for goal_id in forest.bottom_up:
        _add_up(work, book.goals[goal_id], [book.goals[child] for child in forest.children[goal_id]])
    return Rollup(work.totals, tuple(work.problems), work.contributions)


def percentage_of(
    actual: Number | None, target: Number | None, rounding: Rounding, without_target: NoTarget = NoTarget.NULL
) -> Decimal | None:
    """Return ``actual / target x 100`` as a whole number; None without a target (or with 0), or without an actual.

    A value beyond 10**11 becomes 0, as on the platform.
    Source: Create goal hierarchy, goals, and targets (formula); error 0x8004F682 (set to 0 when out of range).
    Assumed: no target, or 0, gives no percentage (``without_target``).
    """
    if not target:
        return Decimal(0) if without_target is NoTarget.ZERO else None
    if actual is None:
        return None
    quotient = EXACT.divide(EXACT.multiply(Decimal(actual), Decimal(100)), Decimal(target))
    percentage = quotient.quantize(Decimal(1), rounding=ROUNDINGS[rounding], context=EXACT)
    return percentage if abs(percentage) <= LIMITS[DataType.DECIMAL] else Decimal(0)


def _add_up(work: _Work, goal: Goal, children: Sequence[Goal]) -> None:
    """Add one open goal up: per column its own part and what each child adds; or a problem, and the goal is blocked."""
    if not goal.is_open:
        return
    metric = work.book.metric_of(goal)
    if goal.id in work.blocked or not _children_usable(work, goal, children):
        work.blocked.setdefault(goal.id, goal.id)
        return
    if metric is None:
        work.problems.append(
            Problem("goal-metric-missing", f"'{goal.title}' has no goal metric that can be read", goal.id)
        )
        work.blocked[goal.id] = goal.id
        return
    try:
        slots = work.slots_of(metric)
    except ValueError as error:
        work.problems.append(_metric_problem(goal, metric, error))
        work.blocked[goal.id] = goal.id
        return
    own = {slot.column: _own_amount(work, goal, slot) for slot in slots}
    parts = {child.id: _contribution(work, slots, child) for child in children}
    work.contributions[goal.id] = parts
    below = {
        slot.column: sum((part.amounts[slot.column] for part in parts.values()), start=_zero(slot)) for slot in slots
    }
    totals: dict[str, Number | None] = dict.fromkeys(VALUE_COLUMNS)
    for slot in slots:
        if work.rules.empty_category is EmptyCategory.ZERO or _takes_part(work, goal, slot, children):
            totals[slot.column] = _typed(slot, own[slot.column] + below[slot.column])
    problem = _numbers_problem(work, goal, metric, slots, totals)
    if problem is not None:
        work.problems.append(problem)
        work.blocked[goal.id] = goal.id
        return
    work.totals[goal.id] = GoalTotals(totals, own, below, _percentage(work, goal, metric, totals))


def _metric_problem(goal: Goal, metric: Metric, error: ValueError) -> Problem:
    return Problem("metric-rollup-field", f"metric '{metric.name}' cannot be used: {error}", goal.id)


def _children_usable(work: _Work, goal: Goal, children: Sequence[Goal]) -> bool:
    for child in children:
        fault = None if _adds_nothing(work, child) else _child_fault(work, goal, child)
        if fault is not None:
            work.problems.append(fault)
            return False
    return True


def _child_fault(work: _Work, goal: Goal, child: Goal) -> Problem | None:
    if child.metric_id != goal.metric_id:
        return Problem(
            code="child-metric-differs",
            message=f"'{goal.title}' and its child '{child.title}' have different goal metrics, which cannot be added",
            goal_id=goal.id,
            hint="give the child its parent's goal metric (Dataverse refuses the difference with 0x80044905)",
        )
    if child.id in work.blocked and not _adds_stored(work, child):
        cause = work.book.goals[work.blocked[child.id]]
        work.blocked[goal.id] = cause.id
        return Problem(
            code="child-blocked",
            message=f"'{goal.title}' cannot be added up because '{cause.title}' below it has a problem",
            goal_id=goal.id,
        )
    return None


def _adds_nothing(work: _Work, child: Goal) -> bool:
    return not child.is_open and work.rules.closed_child is ClosedChild.EXCLUDED


def _adds_stored(work: _Work, child: Goal) -> bool:
    """Say whether a child adds what Dataverse holds: it is closed, or a person keeps its numbers by hand."""
    if not child.is_open:
        return True
    return child.id in work.theirs and work.rules.overridden_child is OverriddenChild.STORED


def _contribution(work: _Work, slots: Sequence[Slot], child: Goal) -> Contribution:
    """Return what a child adds: nothing, what Dataverse holds for it, or the total computed here."""
    if _adds_nothing(work, child):
        return Contribution("excluded", {slot.column: _zero(slot) for slot in slots})
    if _adds_stored(work, child):
        return Contribution("stored", {slot.column: child.native.get(slot.column) or _zero(slot) for slot in slots})
    totals = work.totals[child.id].totals
    return Contribution("computed", {slot.column: totals[slot.column] or _zero(slot) for slot in slots})


def _takes_part(work: _Work, goal: Goal, slot: Slot, children: Sequence[Goal]) -> bool:
    """Say whether any record or any child's total is behind a column."""
    part = None if goal.only_from_children else work.own.get((goal.id, slot.column))
    if part is not None and part.records:
        return True
    for child in children:
        if _adds_nothing(work, child):
            continue
        of_child = child.native if _adds_stored(work, child) else work.totals[child.id].totals
        value = of_child.get(slot.column)
        if value is not None:
            return True
    return False


def _own_amount(work: _Work, goal: Goal, slot: Slot) -> Number:
    """Return what the goal's own records give: nothing when it is rolled up only from its children."""
    if goal.only_from_children:
        return _zero(slot)
    part = work.own.get((goal.id, slot.column))
    return _zero(slot) if part is None else _typed(slot, part.amount)


def _numbers_problem(
    work: _Work, goal: Goal, metric: Metric, slots: Sequence[Slot], totals: Mapping[str, Number | None]
) -> Problem | None:
    for slot in slots:
        part = None if goal.only_from_children else work.own.get((goal.id, slot.column))
        if part is not None and part.unpriced:
            records = f"{counted(part.unpriced, 'record')} of '{goal.title}' {by_count(part.unpriced, 'has', 'have')}"
            return Problem(
                code="record-without-base-amount",
                message=f"{records} an amount but no base-currency amount",
                goal_id=goal.id,
                hint="save them again in Dynamics 365, so that it computes the base amount",
            )
        value = totals[slot.column]
        if value is not None and not -LIMITS[slot.data_type] <= value <= LIMITS[slot.data_type]:
            return _too_large(goal, metric, slot, value)
    return None


def _too_large(goal: Goal, metric: Metric, slot: Slot, value: Number) -> Problem:
    """A number is never wrapped or clipped to what its column holds. Source: goal table reference (ranges)."""
    limit = LIMITS[slot.data_type]
    text = f"{slot.column} of '{goal.title}' would be {plain(Decimal(value))}, but the column holds at most {limit}"
    if slot.data_type is DataType.MONEY:
        hint = "no goal column holds more: split the goal, or sum in a base currency of greater value"
        return Problem("money-too-large", text, goal.id, hint=hint)
    return Problem("number-too-large", text, goal.id, hint=f"use a money metric instead of '{metric.name}'")


def _percentage(work: _Work, goal: Goal, metric: Metric, totals: Mapping[str, Number | None]) -> Decimal | None:
    if metric.data_type is None:
        return None
    actual = totals[Slot(Category.ACTUAL, metric.data_type).column]
    rules = work.rules
    target = goal.targets.get(metric.data_type)
    return percentage_of(actual, target, rules.percentage_rounding, rules.percentage_without_target)


def _zero(slot: Slot) -> Number:
    return 0 if slot.data_type is DataType.INTEGER else Decimal(0)


def _typed(slot: Slot, number: Number) -> Number:
    return int(number) if slot.data_type is DataType.INTEGER else Decimal(number)
