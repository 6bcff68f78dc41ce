"""The goals as trees: children, an order from the leaves upward, and what is wrong with the shape.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from d365sync.core.goals.goal import Goal
from d365sync.core.problems import Problem, Severity


@dataclass(frozen=True, slots=True)
class Forest:
    """The parent and child relations of one snapshot.

    ``children`` holds direct children, by id, in id order. ``bottom_up`` holds every goal that is not on a cycle,
    each after all its children. ``problems`` names the goals on cycles (blocking) and those whose parent is not
    there (a warning: they are roots).
    """

    children: Mapping[str, tuple[str, ...]]
    bottom_up: tuple[str, ...]
    problems: tuple[Problem, ...]

    def tree_of(self, goals: Mapping[str, Goal], goal_id: str) -> str:
        """Return the id of the root above a goal (of the first repeated goal, on a cycle)."""
        seen: set[str] = set()
        current = goal_id
        while current not in seen:
            seen.add(current)
            parent = goals[current].parent_id
            if parent is None or parent not in goals:
                return current
            current = parent
        return current


def build_forest(goals: Mapping[str, Goal]) -> Forest:
    """Arrange the goals; any depth, and in the same order for the same goals."""
    children: dict[str, list[str]] = {goal_id: [] for goal_id in goals}
    for goal_id in sorted(goals):
        parent = goals[goal_id].parent_id
        if parent in children:
            children[parent].append(goal_id)
    bottom_up = _leaves_first(goals, children)
    cyclic = _on_a_cycle(goals, set(goals) - set(bottom_up))
    return Forest(
        children={goal_id: tuple(ids) for goal_id, ids in children.items()},
        bottom_up=tuple(bottom_up),
        problems=tuple(_cycle_problem(goals[goal_id]) for goal_id in sorted(cyclic))
        + tuple(_orphan_problem(goal) for goal in goals.values() if goal.parent_id and goal.parent_id not in goals),
    )


def _leaves_first(goals: Mapping[str, Goal], children: Mapping[str, list[str]]) -> list[str]:
    """Peel leaves until none is left; what hangs above or on a cycle is never peeled."""
    waiting = {goal_id: len(ids) for goal_id, ids in children.items()}
    ready = sorted(goal_id for goal_id, count in waiting.items() if count == 0)
    order: list[str] = []
    while ready:
        goal_id = ready.pop()
        order.append(goal_id)
        parent = goals[goal_id].parent_id
        if parent in waiting:
            waiting[parent] -= 1
            if waiting[parent] == 0:
                ready.append(parent)
    return order


def _on_a_cycle(goals: Mapping[str, Goal], unpeeled: set[str]) -> set[str]:
    """Every unpeeled goal is on a cycle: a goal has one parent, so nothing can stand above a cycle."""
    return {goal_id for goal_id in unpeeled if goals[goal_id].parent_id in unpeeled}


def _cycle_problem(goal: Goal) -> Problem:
    return Problem(
        code="goal-cycle",
        message=f"'{goal.title}' is its own ancestor: its parents form a circle",
        goal_id=goal.id,
        hint="set the parent goal of one goal in the circle to another goal, or to none",
    )


def _orphan_problem(goal: Goal) -> Problem:
    return Problem(
        code="goal-orphan",
        message=f"the parent of '{goal.title}' is not there (deleted, or not readable); it is rolled up as a root",
        goal_id=goal.id,
        severity=Severity.WARNING,
    )
