"""Backfill: the goals whose period touches a window of days, in batches by period, and what came of them by year.

Closed goals are computed too, as if they were open again; their numbers are shown beside the stored ones and never
written (Source: goal table reference, closed and discarded goals are read-only). What a closed goal adds to an open
parent is decided by the same rule as ever, so the numbers of open goals are those that a sync gives.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from zoneinfo import ZoneInfo

from d365sync.core.goals.bounds import owner_span
from d365sync.core.goals.goal import Category, Goal, GoalBook, Number, Slot
from d365sync.core.goals.rollup import GoalTotals, Rollup
from d365sync.core.goals.writes import WritePlan
from d365sync.core.period import DaySpan
from d365sync.core.problems import Severity

Columns = Mapping[str, Number | None]


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Days from ``first_on`` to ``last_on``, both included.

    Raises:
        ValueError: the first is after the last.
    """

    first_on: dt.date
    last_on: dt.date

    def __post_init__(self) -> None:
        if self.last_on < self.first_on:
            raise ValueError(f"the window ends ({self.last_on}) before it starts ({self.first_on})")

    def touches(self, span: DaySpan) -> bool:
        """Say whether a period has a day in the window."""
        return span.first_on <= self.last_on and self.first_on <= span.last_on

    def __str__(self) -> str:
        return f"{self.first_on} to {self.last_on}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Goals that are written together: some of those of one period, which ``period`` names."""

    number: int
    period: str
    goal_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unwritable:
    """A closed goal: what is stored of its metric's columns, and what we come to; None where a ``problem`` says why."""

    goal_id: str
    title: str
    stored: Columns
    ours: Columns | None
    problem: str = ""

    @property
    def differs(self) -> bool:
        """Whether we come to another number."""
        return self.ours is not None and any(self.stored.get(name) != value for name, value in self.ours.items())


@dataclass(frozen=True, slots=True)
class Sums:
    """The actuals of one metric's goals: as stored before, as stored after, and as computed.

    A goal below another goal of the list is not added: its number is in that one's.
    """

    metric: str
    before: Decimal
    after: Decimal
    computed: Decimal


@dataclass(frozen=True, slots=True)
class Year:
    """What came of the goals whose period begins in a calendar year."""

    year: int
    goals: int
    changed: int
    written: int
    unwritable: int
    sums: tuple[Sums, ...]


def goals_in(book: GoalBook, window: Window, zone: ZoneInfo) -> dict[str, DaySpan]:
    """Return the goals whose period touches a window, with their days; those without a usable period are left out."""
    found: dict[str, DaySpan] = {}
    for goal in book.goals.values():
        try:
            span = owner_span(goal, book, zone)
        except (ValueError, OverflowError):
            continue
        if window.touches(span):
            found[goal.id] = span
    return found


def reopened(book: GoalBook, goal_ids: Collection[str]) -> GoalBook:
    """Return a book in which these goals are open, so that they are computed."""
    goals = {
        goal_id: replace(goal, is_open=True) if goal_id in goal_ids else goal for goal_id, goal in book.goals.items()
    }
    return replace(book, goals=goals)


def only(plan: WritePlan, goal_ids: Collection[str], of: int) -> WritePlan:
    """Return the part of a plan that is about these goals, of which there are so many."""
    writes = tuple(write for write in plan.writes if write.goal_id in goal_ids)
    skips = tuple(skip for skip in plan.skips if skip.goal_id in goal_ids)
    return WritePlan(writes, skips, of - len(writes) - len(skips))


def batches(goal_ids: Iterable[str], spans: Mapping[str, DaySpan], size: int, *, first: int = 0) -> tuple[Batch, ...]:
    """Put goals into batches of ``size`` at most, the earliest period first; a batch has goals of one period only.

    They are numbered from ``first`` on.
    """
    periods: dict[tuple[dt.date, dt.date], list[str]] = defaultdict(list)
    for goal_id in goal_ids:
        periods[spans[goal_id].first_on, spans[goal_id].last_on].append(goal_id)
    cut = [
        (f"{first_on} to {last_on}", tuple(ids[start : start + size]))
        for (first_on, last_on), ids in sorted(periods.items())
        for start in range(0, len(ids), size)
    ]
    return tuple(Batch(number, period, ids) for number, (period, ids) in enumerate(cut, first))


def unwritable(book: GoalBook, goal_ids: Iterable[str], closed: Rollup) -> tuple[Unwritable, ...]:
    """Return the closed ones of these goals, in title order; ``closed`` is the rollup that has them open."""
    problems = {str(one.goal_id): one.message for one in closed.problems if one.severity is Severity.BLOCKING}
    found: list[Unwritable] = []
    for goal in sorted((book.goals[one] for one in goal_ids), key=lambda one: (one.title, one.id)):
        totals = closed.totals.get(goal.id)
        if not goal.is_open and totals is not None:
            ours = {name: totals.totals[name] for name in totals.own}
            found.append(Unwritable(goal.id, goal.title, {name: goal.native.get(name) for name in ours}, ours))
        elif not goal.is_open:
            held = {name: value for name, value in goal.native.items() if value is not None}
            found.append(Unwritable(goal.id, goal.title, held, None, problems.get(goal.id, "it cannot be computed")))
    return tuple(found)


def years(
    book: GoalBook,
    spans: Mapping[str, DaySpan],
    totals: Mapping[str, GoalTotals],
    *,
    changed: Collection[str],
    written: Mapping[str, Columns],
    actuals: Mapping[str, str],
) -> tuple[Year, ...]:
    """Sum up by year: ``written`` are the columns as they were before, of the goals that were written.

    ``actuals`` says where the actual of each of the nine columns is kept: there, or in a column of the organization's
    own; a metric whose column is not kept has no sums.
    """
    by_year: dict[int, list[Goal]] = defaultdict(list)
    for goal_id, span in spans.items():
        by_year[span.first_on.year].append(book.goals[goal_id])
    return tuple(
        Year(
            year=year,
            goals=len(goals),
            changed=sum(goal.id in changed for goal in goals),
            written=sum(goal.id in written for goal in goals),
            unwritable=sum(not goal.is_open for goal in goals),
            sums=_sums(book, goals, totals, written, actuals),
        )
        for year, goals in sorted(by_year.items())
    )


def _sums(
    book: GoalBook,
    goals: Sequence[Goal],
    totals: Mapping[str, GoalTotals],
    written: Mapping[str, Columns],
    actuals: Mapping[str, str],
) -> tuple[Sums, ...]:
    listed = {goal.id for goal in goals}
    metrics: dict[tuple[str, str, str], list[Goal]] = defaultdict(list)
    for goal in goals:
        metric = book.metric_of(goal)
        if metric is None or metric.data_type is None or goal.parent_id in listed:
            continue
        source = Slot(Category.ACTUAL, metric.data_type).column
        if source in actuals:
            metrics[metric.name, metric.id, source].append(goal)
    return tuple(
        _sum(name, source, actuals[source], tops, totals, written)
        for (name, _, source), tops in sorted(metrics.items())
    )


def _sum(
    metric: str,
    source: str,
    kept: str,
    goals: Sequence[Goal],
    totals: Mapping[str, GoalTotals],
    written: Mapping[str, Columns],
) -> Sums:
    before = after = computed = Decimal(0)
    for goal in goals:
        held = goal.native.get(kept) if kept == source else goal.own.get(kept)
        ours = totals[goal.id].totals[source] if goal.id in totals else held
        was = written[goal.id].get(kept) if goal.id in written else held
        before += Decimal(was or 0)
        after += Decimal((ours if goal.id in written else held) or 0)
        computed += Decimal(ours or 0)
    return Sums(metric, before, after, computed)
