"""Which trees the platform has to roll up again, by our numbers; and what became of that.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from d365sync.core.counts import counted
from d365sync.core.goals.forest import Forest
from d365sync.core.goals.goal import Goal, Number
from d365sync.core.goals.rollup import GoalTotals
from d365sync.core.goals.writes import GoalWrite, Skip, SkipReason, differing, held, plan_goal, sent
from d365sync.core.values import plain

NEVER = dt.datetime.min.replace(tzinfo=dt.UTC)
NAMED = 3
"""Columns that a goal that still differs is shown with."""


@dataclass(frozen=True, slots=True)
class StaleTree:
    """One tree: the goal to ask for, and what should come out of it.

    Source: Roll up goal totals (Recalculate on any goal rolls up its whole tree).
    """

    ask: Goal
    writes: tuple[GoalWrite, ...]


def plan_recalculation(
    goal: Goal, totals: GoalTotals, kept: Mapping[str, Number | None] | None = None
) -> GoalWrite | Skip | None:
    """Return what the platform should come to; None when it is there, or came to something else and will again.

    ``kept``: what it came to the last time, with our numbers of then. An overridden goal is not rolled up natively.
    """
    found = plan_goal(goal, totals, kept)
    if not isinstance(found, GoalWrite) or not goal.is_overridden:
        return found
    message = f"'{goal.title}' holds what d365sync wrote in mode override, and is not rolled up; undo those runs"
    return Skip(goal.id, goal.title, SkipReason.OURS, message)


def stale_trees(
    writes: Sequence[GoalWrite], goals: Mapping[str, Goal], forest: Forest, tried: Mapping[str, dt.datetime]
) -> list[StaleTree]:
    """Return the trees with stale goals, those first whose turn is longest ago (never is longest).

    A turn is a rollup, or an attempt of ours that came to nothing: ``tried`` is when goals were last asked for.
    """
    turns: dict[str, dt.datetime] = {}
    for goal_id, instant in tried.items():
        root = forest.tree_of(goals, goal_id)
        turns[root] = max(instant, turns.get(root, NEVER))
    by_root: dict[str, list[GoalWrite]] = defaultdict(list)
    for write in writes:
        by_root[forest.tree_of(goals, write.goal_id)].append(write)
    trees = [StaleTree(_to_ask(goals, root, some), tuple(some)) for root, some in by_root.items()]

    def turn(tree: StaleTree) -> tuple[dt.datetime, str, str]:
        root = forest.tree_of(goals, tree.ask.id)
        return max(tree.ask.rolled_up_at or NEVER, turns.get(root, NEVER)), tree.ask.title, tree.ask.id

    return sorted(trees, key=turn)


def waiting(tree: StaleTree) -> Skip:
    """Return a tree that is left to the next cycle."""
    goals = counted(len(tree.writes), "stale goal")
    message = f"the tree of '{tree.ask.title}' ({goals}) waits for the next sync"
    return Skip(tree.ask.id, tree.ask.title, SkipReason.LATER, message)


def still_differing(write: GoalWrite, goal: Goal) -> tuple[str, ...]:
    """Return the columns in which the platform came to another number."""
    return differing(held(write, goal), sent(write), {})


def differs(write: GoalWrite, goal: Goal, columns: Sequence[str]) -> Skip:
    """Return a goal that the platform rolled up to other numbers."""
    now, ours = held(write, goal), sent(write)
    named = [f"{name} {_shown(now.get(name))} (ours {_shown(ours[name])})" for name in columns[:NAMED]]
    message = f"'{goal.title}' differs after the platform's rollup too: {', '.join(named)}"
    return Skip(goal.id, goal.title, SkipReason.DIFFERS, message)


def _to_ask(goals: Mapping[str, Goal], root: str, writes: Sequence[GoalWrite]) -> Goal:
    """Return the root, or a stale goal below one that is closed and therefore read-only."""
    return goals[root] if goals[root].is_open else goals[writes[0].goal_id]


def _shown(value: Number | None) -> str:
    return "nothing" if value is None else plain(Decimal(value))
