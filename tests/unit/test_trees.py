"""Trees of goals: what stops whom, what is added all the same, and what the columns can hold."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fiscal import FiscalCalendar
from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import DataType, Goal, GoalBook, Metric, Organization
from d365sync.core.goals.periods import differing_periods
from d365sync.core.goals.rollup import ClosedChild, EmptyCategory, OwnPart, Rollup, RollupRules, roll_up
from d365sync.core.problems import Problem, Severity
from tests.unit.goals import CALLS, REVENUE, book, field, goal

UNITS = Metric("units", "Units", is_amount=True, data_type=DataType.DECIMAL, fields=(field("actualdecimal"),))
UTC = ZoneInfo("UTC")


def rolled(*goals: Goal, problems: tuple[Problem, ...] = (), rules: RollupRules = RollupRules(), **own: int) -> Rollup:  # noqa: B008
    one = book(*goals)
    parts = {(goal_id, "actualmoney"): OwnPart(1, Decimal(amount)) for goal_id, amount in own.items()}
    return roll_up(one, build_forest(one.goals), parts, problems=problems, rules=rules)


def actual(rollup: Rollup, goal_id: str) -> object:
    return rollup.totals[goal_id].totals["actualmoney"]


def test_a_chain_of_ten_thousand_goals_adds_up() -> None:
    depth = 10_000
    goals = [goal(str(n), str(n - 1) if n else None) for n in range(depth)]
    rollup = rolled(*goals, **{str(n): 1 for n in range(depth)})
    assert actual(rollup, "0") == depth
    assert rollup.problems == ()


def test_a_problem_at_the_end_of_a_long_chain_stops_all_of_it() -> None:
    goals = [goal(str(n), str(n - 1) if n else None) for n in range(5_000)]
    rollup = rolled(*goals, problems=(Problem("goal-period", "none", "4999"),))
    assert rollup.totals == {}
    assert {problem.code for problem in rollup.problems} == {"goal-period", "child-blocked"}
    assert all("Goal 4999" in problem.message for problem in rollup.problems if problem.code == "child-blocked")


def test_what_hangs_below_a_circle_is_computed() -> None:
    rollup = rolled(goal("a", "b"), goal("b", "a"), goal("child", "a"), goal("grandchild", "child"), grandchild=7)
    assert set(rollup.totals) == {"child", "grandchild"}
    assert actual(rollup, "child") == 7
    assert {problem.goal_id for problem in rollup.problems} == {"a", "b"}


def test_a_closed_child_with_a_problem_stops_nobody() -> None:
    closed = goal("leaf", "root", is_open=False, native={"actualmoney": Decimal(70)})
    assert actual(rolled(goal("root"), closed, problems=(Problem("goal-period", "none", "leaf"),)), "root") == 70


def test_a_closed_child_of_another_metric_stops_its_parent_only_if_it_is_added() -> None:
    goals = goal("root"), goal("leaf", "root", is_open=False, metric_id=CALLS.id)
    assert rolled(*goals).problems[0].code == "child-metric-differs"
    assert actual(rolled(*goals, rules=RollupRules(closed_child=ClosedChild.EXCLUDED), root=1), "root") == 1


def test_a_fault_of_one_branch_leaves_the_others_alone() -> None:
    goals = goal("root"), goal("bad", "root"), goal("worse", "bad"), goal("good", "root"), goal("better", "good")
    rollup = rolled(*goals, problems=(Problem("goal-period", "none", "worse"),), better=3)
    assert set(rollup.totals) == {"good", "better"}


@pytest.mark.parametrize(
    ("metric", "column", "limit", "code", "says"),
    [
        (CALLS, "actualinteger", 2**31 - 1, "number-too-large", "use a money metric"),
        (UNITS, "actualdecimal", 10**11, "number-too-large", "use a money metric"),
        (REVENUE, "actualmoney", 922_337_203_685_477, "money-too-large", "split the goal"),
    ],
)
def test_a_total_its_column_cannot_hold_is_a_problem(
    metric: Metric, column: str, limit: int, code: str, says: str
) -> None:
    one = book(goal("root", metric_id=metric.id), goal("leaf", "root", metric_id=metric.id), metrics=[metric])
    forest = build_forest(one.goals)
    held = roll_up(one, forest, {("root", column): OwnPart(1, limit - 1), ("leaf", column): OwnPart(1, 1)})
    assert held.totals["root"].totals[column] == limit
    over = roll_up(one, forest, {("root", column): OwnPart(1, limit), ("leaf", column): OwnPart(1, 1)})
    assert set(over.totals) == {"leaf"}
    (problem,) = over.problems
    assert (problem.code, problem.goal_id) == (code, "root")
    assert says in problem.hint
    assert str(limit + 1) in problem.message


def test_a_negative_total_is_held_to_the_same_limit() -> None:
    one = book(goal("a"))
    parts = {("a", "actualmoney"): OwnPart(1, Decimal("-922337203685478"))}
    assert roll_up(one, build_forest(one.goals), parts).problems[0].code == "money-too-large"


def test_an_empty_category_may_be_null_all_the_way_up() -> None:
    rules = RollupRules(empty_category=EmptyCategory.NULL)
    rollup = rolled(goal("root"), goal("mid", "root"), goal("leaf", "mid"), goal("other", "root"), rules=rules, other=0)
    assert (actual(rollup, "mid"), actual(rollup, "leaf")) == (None, None)
    assert actual(rollup, "root") == 0
    assert rollup.totals["root"].totals["inprogressmoney"] is None


FISCAL = {"is_fiscal": True, "fiscal_year": 2026, "fiscal_period": 4}
BARE = {"starts_at": None, "ends_at": None}


def warned(*goals: Goal, rule: ClosedChild = ClosedChild.STORED) -> list[str | None]:
    one: GoalBook = replace(book(*goals), organization=Organization(fiscal=FiscalCalendar()))
    problems = list(differing_periods(one, build_forest(one.goals), UTC, rule))
    assert {(problem.code, problem.severity) for problem in problems} <= {("child-period-differs", Severity.WARNING)}
    return [problem.goal_id for problem in problems]


def test_a_child_of_another_period_is_named_and_added() -> None:
    child = goal("leaf", "root", ends_at=dt.datetime(2026, 11, 30, tzinfo=dt.UTC))
    assert warned(goal("root"), child, goal("same", "root")) == ["leaf"]
    assert actual(rolled(goal("root"), child, leaf=5), "root") == 5


def test_a_custom_and_a_fiscal_period_of_the_same_days_do_not_differ() -> None:
    assert warned(goal("root"), goal("leaf", "root", **FISCAL, **BARE)) == []
    assert warned(goal("root", **FISCAL, **BARE), goal("leaf", "root")) == []


def test_two_fiscal_periods_differ() -> None:
    assert warned(goal("root", **FISCAL, **BARE), goal("leaf", "root", **{**FISCAL, "fiscal_period": 3}, **BARE)) == [
        "leaf"
    ]


def test_only_children_that_are_added_are_compared() -> None:
    late = {"ends_at": dt.datetime(2026, 11, 30, tzinfo=dt.UTC)}
    closed = goal("leaf", "root", is_open=False, **late)
    assert warned(goal("root"), closed) == ["leaf"]
    assert warned(goal("root"), closed, rule=ClosedChild.EXCLUDED) == []
    assert warned(goal("root", is_open=False), goal("leaf", "root", **late)) == []


def test_a_child_without_a_period_has_its_own_problem() -> None:
    assert warned(goal("root"), goal("leaf", "root", **BARE)) == []
