from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from d365sync.core.goals.forest import build_forest
from d365sync.core.problems import Severity
from tests.unit.goals import goal


def test_children_come_before_their_parents() -> None:
    goals = {one.id: one for one in (goal("root"), goal("region", "root"), goal("seller", "region"))}
    assert build_forest(goals).bottom_up == ("seller", "region", "root")


def test_a_circle_is_a_problem_on_exactly_its_goals() -> None:
    goals = {one.id: one for one in (goal("a", "b"), goal("b", "a"), goal("hanging", "a"), goal("free"))}
    forest = build_forest(goals)
    assert {problem.goal_id for problem in forest.problems if problem.code == "goal-cycle"} == {"a", "b"}
    assert set(forest.bottom_up) == {"hanging", "free"}


def test_a_goal_that_is_its_own_parent_is_a_circle_of_one() -> None:
    forest = build_forest({"a": goal("a", "a")})
    assert [problem.code for problem in forest.problems] == ["goal-cycle"]


def test_an_orphan_is_a_root_with_a_warning() -> None:
    forest = build_forest({"a": goal("a", "gone")})
    assert forest.bottom_up == ("a",)
    assert [(problem.code, problem.severity) for problem in forest.problems] == [("goal-orphan", Severity.WARNING)]


def test_the_tree_of_a_goal_is_its_root() -> None:
    goals = {one.id: one for one in (goal("root"), goal("region", "root"), goal("seller", "region"))}
    assert build_forest(goals).tree_of(goals, "seller") == "root"


def test_a_very_deep_tree_is_no_recursion() -> None:
    goals = {str(n): goal(str(n), str(n - 1) if n else None) for n in range(20_000)}
    assert build_forest(goals).bottom_up[-1] == "0"


@given(st.lists(st.integers(0, 11) | st.none(), min_size=1, max_size=12))
def test_every_goal_is_ordered_after_its_children_or_on_a_circle(parents: list[int | None]) -> None:
    goals = {str(n): goal(str(n), None if parent is None else str(parent)) for n, parent in enumerate(parents)}
    forest = build_forest(goals)
    place = {goal_id: n for n, goal_id in enumerate(forest.bottom_up)}
    cyclic = {problem.goal_id for problem in forest.problems if problem.code == "goal-cycle"}
    assert set(place) | cyclic == set(goals)
    assert not set(place) & cyclic
    assert all(
        place[one.id] < place[one.parent_id] for one in goals.values() if one.id in place and one.parent_id in place
    )
