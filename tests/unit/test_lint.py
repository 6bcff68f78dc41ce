from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from zoneinfo import ZoneInfo

from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import Category, DataType, Goal, Metric, RollupQuery, Slot
from d365sync.core.goals.lint import NATIVE_LIMIT, lint_goals
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.problems import Severity
from tests.unit.goals import CALLS, REVENUE, book, goal

ACTUAL, CUSTOM = (Slot(category, DataType.MONEY) for category in (Category.ACTUAL, Category.CUSTOM))
QUERY = RollupQuery("q", "Big", "opportunity", '<fetch><entity name="opportunity"/></fetch>')
NEXT_YEAR = {"starts_at": dt.datetime(2027, 1, 1, tzinfo=dt.UTC), "ends_at": dt.datetime(2027, 12, 31, tzinfo=dt.UTC)}


def said(*goals: Goal, records: int = 0, metrics: tuple[Metric, ...] = (REVENUE, CALLS)) -> set[tuple[str, str | None]]:
    one = book(*goals, metrics=metrics, queries=[QUERY])
    own = {(one_id, "actualmoney"): OwnPart(records, Decimal(0)) for one_id in one.goals}
    problems = list(lint_goals(one, build_forest(one.goals), ZoneInfo("UTC"), own))
    assert all(problem.severity is Severity.WARNING and problem.hint for problem in problems)
    return {(problem.code, problem.goal_id) for problem in problems}


def test_a_goal_as_it_should_be_gives_no_word() -> None:
    assert said(goal("root"), goal("a", "root", queries={ACTUAL: "q"}), records=NATIVE_LIMIT) == set()


def test_a_goal_without_a_target_of_its_type() -> None:
    assert said(goal("a", targets={DataType.INTEGER: 5})) == {("goal-target-missing", "a")}
    assert said(goal("a", targets={DataType.MONEY: Decimal(0)})) == {("goal-target-missing", "a")}


def test_a_metric_that_measures_nothing() -> None:
    assert said(goal("a"), metrics=(replace(REVENUE, fields=()),)) == {("metric-without-rollup-field", "a")}


def test_a_query_for_a_column_nothing_feeds() -> None:
    assert said(goal("a", queries={CUSTOM: "q"})) == {("rollup-query-unused", "a")}


def test_more_records_through_a_query_than_the_platform_takes() -> None:
    assert said(goal("a", queries={ACTUAL: "q"}), records=NATIVE_LIMIT + 1) == {("native-rollup-wrong", "a")}
    assert said(goal("a"), records=NATIVE_LIMIT + 1) == set()


def test_siblings_of_one_owner_and_measure_over_overlapping_days() -> None:
    ann = {"owner_id": "ann"}
    assert said(goal("root"), goal("a", "root", **ann), goal("b", "root", **ann)) == {("sibling-goals-overlap", "b")}
    assert said(goal("root"), goal("a", "root", **ann), goal("b", "root", **ann, **NEXT_YEAR)) == set()
    assert said(goal("root"), goal("a", "root", **ann), goal("b", "a", **ann)) == set()
    calls = goal("b", "root", **ann, metric_id=CALLS.id, targets={DataType.INTEGER: 1})
    assert said(goal("root"), goal("a", "root", **ann), calls) == set()


def test_closed_goals_are_left_in_peace() -> None:
    assert said(goal("a", is_open=False, targets={})) == set()
