"""What is unwise about goals that can be computed all the same: no target, no measure, two goals for one thing.

Source: Create goal hierarchy, goals, and targets; Add complex goal criteria (one goal per person and period; at most
5,000 records through a rollup query).

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo

from d365sync.core.goals.bounds import owner_span
from d365sync.core.goals.forest import Forest
from d365sync.core.goals.goal import Goal, GoalBook
from d365sync.core.goals.participation import slots_of
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem, Severity

NATIVE_LIMIT = 5_000
"""Records of a rollup query beyond which native totals are wrong. Source: Add complex goal criteria."""


def lint_goals(
    book: GoalBook, forest: Forest, zone: ZoneInfo, own: Mapping[tuple[str, str], OwnPart]
) -> Iterator[Problem]:
    """Yield a warning for everything unwise about the open goals, goals in id order.

    ``own`` holds the own parts by goal id and column. What stops a goal from being computed is not said again here.
    """
    for goal_id in sorted(book.goals):
        goal = book.goals[goal_id]
        if goal.is_open:
            yield from _measure(book, goal)
            yield from _queries(book, goal, own)
    for parent_id in sorted(forest.children):
        children = [book.goals[one] for one in forest.children[parent_id] if book.goals[one].is_open]
        yield from _same_thing_twice(book, children, zone)


def _measure(book: GoalBook, goal: Goal) -> Iterator[Problem]:
    metric = book.metric_of(goal)
    if metric is None or metric.data_type is None:
        return
    if not metric.fields:
        message = f"'{goal.title}' measures nothing: goal metric '{metric.name}' has no rollup field"
        yield _warning("metric-without-rollup-field", message, goal, "add a rollup field to the metric")
    if not goal.targets.get(metric.data_type):
        yield _warning("goal-target-missing", f"'{goal.title}' has no target", goal, f"set target{metric.data_type}")


def _queries(book: GoalBook, goal: Goal, own: Mapping[tuple[str, str], OwnPart]) -> Iterator[Problem]:
    """Queries that do nothing, and those through which more records count than the platform can take."""
    metric = book.metric_of(goal)
    try:
        fed = frozenset(slots_of(metric)) if metric else frozenset()
    except ValueError:
        return
    for slot, query_id in sorted(goal.queries.items()):
        query = book.queries.get(query_id)
        if query is None:
            continue
        part = own.get((goal.id, slot.column))
        if slot not in fed:
            message = (
                f"rollup query '{query.name}' of '{goal.title}' does nothing: its metric does not feed {slot.column}"
            )
            yield _warning("rollup-query-unused", message, goal, f"remove {slot.query_lookup}, or add a rollup field")
        elif part is not None and part.records > NATIVE_LIMIT:
            message = (
                f"{part.records} records count in {slot.column} of '{goal.title}' through rollup query '{query.name}': "
                f"the native rollup takes {NATIVE_LIMIT} at most and would be wrong"
            )
            yield _warning("native-rollup-wrong", message, goal, "let d365sync write the goal")


def _same_thing_twice(book: GoalBook, children: list[Goal], zone: ZoneInfo) -> Iterator[Problem]:
    """Goals of one parent that set the same owner the same measure over overlapping days."""
    alike: defaultdict[tuple[str | None, str | None], list[tuple[DaySpan, Goal]]] = defaultdict(list)
    for goal in children:
        try:
            span = owner_span(goal, book, zone)
        except (ValueError, OverflowError):
            continue
        if goal.owner_id is not None and goal.metric_id is not None:
            alike[goal.owner_id, goal.metric_id].append((span, goal))
    for goals in alike.values():
        goals.sort(key=lambda one: (one[0].first_on, one[1].id))
        latest = goals[0]
        for span, goal in goals[1:]:
            if span.first_on <= latest[0].last_on:
                message = f"'{goal.title}' and '{latest[1].title}' give one owner the same measure for overlapping days"
                yield _warning("sibling-goals-overlap", message, goal, "keep one goal per owner and period")
            latest = max(latest, (span, goal), key=lambda one: one[0].last_on)


def _warning(code: str, message: str, goal: Goal, hint: str) -> Problem:
    return Problem(code, message, goal.id, Severity.WARNING, hint)
