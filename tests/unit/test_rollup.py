from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import DataType, Goal
from d365sync.core.goals.rollup import (
    ClosedChild,
    OverriddenChild,
    OwnPart,
    Rollup,
    RollupRules,
    Rounding,
    percentage_of,
    roll_up,
)
from d365sync.core.problems import Problem
from tests.unit.goals import CALLS, REVENUE, book, goal


def add_up(*goals: Goal, own: dict[str, str] | None = None, **options: object) -> Rollup:
    parts = {(goal_id, "actualmoney"): OwnPart(1, Decimal(amount)) for goal_id, amount in (own or {}).items()}
    one = book(*goals)
    return roll_up(one, build_forest(one.goals), parts, **options)  # type: ignore[arg-type]


def actual(rollup: Rollup, goal_id: str) -> object:
    return rollup.totals[goal_id].totals["actualmoney"]


def codes(rollup: Rollup) -> dict[str | None, str]:
    return {problem.goal_id: problem.code for problem in rollup.problems}


def test_a_parent_adds_its_own_records_and_its_childrens_totals() -> None:
    rollup = add_up(goal("root"), goal("a", "root"), goal("b", "root"), own={"root": "1", "a": "20.5", "b": "300"})
    assert actual(rollup, "root") == Decimal("321.5")
    assert rollup.totals["root"].own["actualmoney"] == 1
    assert rollup.totals["root"].children["actualmoney"] == Decimal("320.5")


def test_rolling_up_only_from_children_leaves_out_the_own_part() -> None:
    rollup = add_up(goal("root", only_from_children=True), goal("a", "root"), own={"root": "1", "a": "20"})
    assert actual(rollup, "root") == 20


def test_an_active_category_without_records_is_zero_and_one_without_rollup_field_is_null() -> None:
    totals = add_up(goal("root")).totals["root"].totals
    assert totals["actualmoney"] == 0
    assert totals["inprogressmoney"] == 0
    assert totals["customrollupfieldmoney"] is None
    assert totals["actualinteger"] is None


def test_a_closed_child_adds_what_dataverse_holds() -> None:
    closed = goal("a", "root", is_open=False, native={"actualmoney": Decimal(70)})
    assert actual(add_up(goal("root"), closed, own={"a": "20"}), "root") == 70


def test_a_closed_child_can_be_left_out() -> None:
    closed = goal("a", "root", is_open=False, native={"actualmoney": Decimal(70)})
    rules = RollupRules(closed_child=ClosedChild.EXCLUDED)
    assert actual(add_up(goal("root"), closed, rules=rules), "root") == 0


def test_a_closed_goal_itself_is_not_computed() -> None:
    assert "a" not in add_up(goal("a", is_open=False)).totals


@pytest.mark.parametrize(("rule", "expected"), [(OverriddenChild.STORED, 70), (OverriddenChild.RECOMPUTED, 20)])
def test_a_child_overridden_by_a_person_adds_by_the_rule(rule: OverriddenChild, expected: int) -> None:
    child = goal("a", "root", is_overridden=True, native={"actualmoney": Decimal(70)})
    rollup = add_up(
        goal("root"),
        child,
        own={"a": "20"},
        overridden_by_person=frozenset({"a"}),
        rules=RollupRules(overridden_child=rule),
    )
    assert actual(rollup, "root") == expected
    assert actual(rollup, "a") == 20


def test_a_problem_stops_the_goal_and_all_above_it_but_no_other() -> None:
    fault = Problem("rollup-query-unusable", "it is broken", "leaf")
    rollup = add_up(goal("root"), goal("mid", "root"), goal("leaf", "mid"), goal("other", "root"), problems=[fault])
    assert set(rollup.totals) == {"other"}
    assert codes(rollup) == {"leaf": "rollup-query-unusable", "mid": "child-blocked", "root": "child-blocked"}
    assert all("Goal leaf" in problem.message for problem in rollup.problems if problem.code == "child-blocked")


def test_a_child_of_another_metric_stops_the_parent_only() -> None:
    rollup = add_up(goal("root"), goal("a", "root", metric_id=CALLS.id))
    assert codes(rollup) == {"root": "child-metric-differs"}
    assert "a" in rollup.totals


def test_a_metric_without_data_type_and_rollup_fields_clears_no_column() -> None:
    bare = replace(REVENUE, data_type=None, fields=())
    one = book(goal("root", only_from_children=True), metrics=[bare])
    rollup = roll_up(one, build_forest(one.goals), {})
    assert rollup.totals == {}
    assert codes(rollup) == {"root": "metric-rollup-field"}


def test_records_without_base_amount_are_never_left_out_silently() -> None:
    one = book(goal("a"))
    rollup = roll_up(one, build_forest(one.goals), {("a", "actualmoney"): OwnPart(3, Decimal(5), unpriced=2)})
    assert codes(rollup) == {"a": "record-without-base-amount"}


def test_a_count_beyond_the_column_says_use_a_money_metric() -> None:
    one = book(goal("a", metric_id=CALLS.id))
    parts = {("a", "actualinteger"): OwnPart(2**31, 2**31)}
    problem = roll_up(one, build_forest(one.goals), parts).problems[0]
    assert problem.code == "number-too-large"
    assert "money metric" in problem.hint
    largest = roll_up(one, build_forest(one.goals), {("a", "actualinteger"): OwnPart(1, 2**31 - 1)})
    assert largest.totals["a"].totals["actualinteger"] == 2**31 - 1


@pytest.mark.parametrize(
    ("value", "target", "rounding", "expected"),
    [
        ("425", "1000", Rounding.HALF_UP, "43"),
        ("425", "1000", Rounding.HALF_EVEN, "42"),
        ("1", "3", Rounding.HALF_UP, "33"),
        ("-425", "1000", Rounding.HALF_UP, "-43"),
        ("0", "1000", Rounding.HALF_UP, "0"),
        ("922337203685477", "0.0001", Rounding.HALF_UP, "0"),
    ],
)
def test_percentage(value: str, target: str, rounding: Rounding, expected: str) -> None:
    assert percentage_of(Decimal(value), Decimal(target), rounding) == Decimal(expected)


@pytest.mark.parametrize(("value", "target"), [(5, None), (5, 0), (None, 5)])
def test_no_percentage_without_target_or_actual(value: int | None, target: int | None) -> None:
    assert percentage_of(value, target, Rounding.HALF_UP) is None


def test_the_percentage_takes_the_target_of_the_metrics_type() -> None:
    one = goal("a", targets={DataType.MONEY: Decimal(50), DataType.INTEGER: 10})
    assert add_up(one, own={"a": "20"}).totals["a"].percentage == 40


amounts = st.decimals(Decimal("-1000000000"), Decimal("1000000000"), places=4)


@given(st.lists(st.tuples(st.integers(0, 9) | st.none(), amounts), min_size=1, max_size=10))
def test_totals_of_roots_conserve_the_sum_of_all_records(tree: list[tuple[int | None, Decimal]]) -> None:
    goals = [
        goal(str(n), str(parent) if parent is not None and parent < n else None) for n, (parent, _) in enumerate(tree)
    ]
    rollup = add_up(*goals, own={str(n): str(amount) for n, (_, amount) in enumerate(tree)})
    roots = [one for one in goals if one.parent_id is None]
    total = sum(rollup.totals[one.id].totals["actualmoney"] or 0 for one in roots)
    assert total == sum(amount for _, amount in tree)


def test_the_same_goals_in_another_order_give_the_same_totals() -> None:
    goals = [goal("root"), goal("a", "root"), replace(goal("b", "a"), title="x")]
    own = {"root": "1", "a": "2", "b": "4"}
    assert add_up(*goals, own=own).totals == add_up(*reversed(goals), own=own).totals
