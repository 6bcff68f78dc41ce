"""Which goals may count the same record twice, without looking at one."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

from d365sync.core.goals.doubles import Candidates, Double, Doubles, Shared, candidates, double_problems
from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.needs import goals_to_compute
from d365sync.core.goals.participation import group_goals
from d365sync.core.goals.rollup import OverriddenChild
from d365sync.core.period import DaySpan
from d365sync.core.problems import Severity
from tests.unit.goals import CALLS, REVENUE, book, field, goal
from tests.unit.schemas import SCHEMA

QUARTER = DaySpan(dt.date(2026, 10, 1), dt.date(2026, 12, 31))
NEXT = DaySpan(dt.date(2027, 1, 1), dt.date(2027, 3, 31))
ALL = {"only_owners_records": False}


def found(*goals: Goal, spans: dict[str, DaySpan] | None = None, **options: object) -> Candidates:
    one = book(*goals)
    grouping = group_goals(one, SCHEMA, goals_to_compute(one))
    days = {goal_id: (spans or {}).get(goal_id, QUARTER) for goal_id in one.goals}
    return candidates(one, build_forest(one.goals), grouping, days, **options)  # type: ignore[arg-type]


def pairs(*goals: Goal, **options: object) -> set[tuple[str, str, str]]:
    chosen = found(*goals, **options)  # type: ignore[arg-type]
    assert len(chosen.pairs) == len({pair.key for pair in chosen.pairs})
    return {(pair.at, pair.first, pair.second) for pair in chosen.pairs if pair.column == "actualmoney"}


def test_a_goal_of_all_owners_may_share_records_with_every_goal_below() -> None:
    assert pairs(goal("root", **ALL), goal("a", "root"), goal("b", "a")) == {
        ("root", "root", "a"),
        ("root", "root", "b"),
    }


def test_a_goal_of_all_owners_may_share_records_with_those_above_and_beside_it() -> None:
    assert pairs(goal("root"), goal("a", "root"), goal("wide", "root", **ALL)) == {
        ("root", "root", "wide"),
        ("root", "a", "wide"),
    }


def test_goals_of_different_owners_share_nothing() -> None:
    assert pairs(goal("root"), goal("a", "root"), goal("b", "root")) == set()


def test_goals_of_one_owner_meet_where_their_totals_do() -> None:
    ann = {"owner_id": "ann"}
    tree = (
        goal("root"),
        goal("left", "root"),
        goal("right", "root"),
        goal("a", "left", **ann),
        goal("b", "right", **ann),
    )
    assert pairs(*tree) == {("root", "a", "b")}
    assert pairs(goal("root", **ann), goal("left", "root"), goal("a", "left", **ann)) == {("root", "root", "a")}


def test_goals_of_different_trees_share_no_total() -> None:
    assert pairs(goal("a", **ALL), goal("b", **ALL)) == set()


def test_days_that_do_not_overlap_share_nothing() -> None:
    assert pairs(goal("root", **ALL), goal("a", "root"), spans={"a": NEXT}) == set()
    touching = DaySpan(QUARTER.last_on, NEXT.last_on)
    assert pairs(goal("root", **ALL), goal("a", "root"), spans={"a": touching}) == {("root", "root", "a")}


def test_a_long_period_is_compared_with_all_later_ones_it_reaches() -> None:
    ann = {"owner_id": "ann"}
    year = DaySpan(dt.date(2026, 1, 1), dt.date(2027, 12, 31))
    goals = goal("root"), goal("a", "root", **ann), goal("b", "root", **ann), goal("c", "root", **ann)
    assert pairs(*goals, spans={"a": year, "c": NEXT}) == {("root", "a", "b"), ("root", "a", "c")}


def test_nothing_is_added_through_a_closed_child() -> None:
    closed = goal("mid", "root", is_open=False)
    assert pairs(goal("root", **ALL), closed, goal("leaf", "mid")) == set()


def test_an_overridden_child_adds_no_records_but_may_hold_some_twice_itself() -> None:
    tree = goal("root", **ALL), goal("mid", "root", **ALL), goal("leaf", "mid")
    theirs = frozenset({"mid"})
    assert pairs(*tree, theirs=theirs) == {("mid", "mid", "leaf")}
    assert ("root", "root", "leaf") in pairs(*tree, theirs=theirs, overridden_child=OverriddenChild.RECOMPUTED)


def test_a_goal_without_records_of_its_own_shares_none() -> None:
    assert pairs(goal("root", only_from_children=True, **ALL), goal("a", "root")) == set()


def test_goals_on_a_circle_are_left_out() -> None:
    assert pairs(goal("a", "b", **ALL), goal("b", "a", **ALL), goal("c", "a", **ALL)) == set()


def test_goals_of_different_metrics_share_no_total() -> None:
    other = replace(REVENUE, id="other", fields=(field(id="field-other", metric_id="other"),))
    one = book(goal("root", **ALL), goal("a", "root", metric_id="other"), metrics=[REVENUE, other])
    grouping = group_goals(one, SCHEMA, goals_to_compute(one))
    assert candidates(one, build_forest(one.goals), grouping, dict.fromkeys(one.goals, QUARTER)).pairs == ()


def test_different_columns_share_nothing() -> None:
    assert pairs(goal("root", **ALL), goal("a", "root", metric_id=CALLS.id)) == set()


def test_thirty_thousand_goals_in_three_levels_are_paired_in_one_pass() -> None:
    regions = [goal(f"r{n}", "root") for n in range(100)]
    sellers = [goal(f"s{n}", f"r{n % 100}", owner_id=f"o{n % 29_990}") for n in range(30_000)]
    chosen = found(goal("root"), *regions, *sellers)
    assert len(chosen.pairs) == 2 * 10  # ten owners have two goals, in two columns
    assert chosen.unchecked == ()


def test_trees_with_too_many_pairs_are_named() -> None:
    tree = [goal("root", only_from_children=True), *(goal(str(n), "root", **ALL) for n in range(3))]
    chosen = found(*tree, goal("small", **ALL), goal("leaf", "small", **ALL), most_wide=2)
    assert chosen.unchecked == ("root",)
    assert {pair.at for pair in chosen.pairs} == {"root", "small"}


def double(
    at: str, first: str, second: str, records: int = 2, amount: str = "1500", column: str = "actualmoney"
) -> Double:
    return Double(at, first, second, column, Shared(records, Decimal(amount)))


def said(*doubled: Double) -> list[str]:
    one = book(goal("root"), goal("a", "root"), goal("b", "root"), goal("c", "b"))
    return [problem.message for problem in double_problems(one, Doubles(doubled))]


def test_a_double_is_said_in_one_sentence() -> None:
    assert said(double("root", "root", "a")) == [
        "2 records worth 1500 count in 'Goal root' and again through its child 'Goal a'"
    ]
    assert said(double("root", "root", "c", 1, "0.5")) == [
        "1 record worth 0.5 counts in 'Goal root' and again through 'Goal c'"
    ]
    assert said(double("root", "a", "c")) == [
        "2 records worth 1500 count in 'Goal a' and again in 'Goal c', and both add to 'Goal root'"
    ]
    assert said(double("root", "root", "a", 3, "3", "actualinteger")) == [
        "3 records count in 'Goal root' and again through its child 'Goal a'"
    ]


def test_many_doubles_of_one_total_are_one_warning() -> None:
    (message,) = said(double("root", "root", "a", 1), double("root", "root", "b", 5), double("root", "root", "c", 1))
    assert message.startswith("5 records worth 1500 count in 'Goal root' and again through its child 'Goal b'")
    assert message.endswith("(so do others, through 2 more pairs of goals)")


def test_doubles_stop_nobody() -> None:
    one = book(goal("root"), goal("a", "root"))
    problems = list(double_problems(one, Doubles((double("root", "root", "a"),), ("root",))))
    assert {(problem.code, problem.goal_id, problem.severity) for problem in problems} == {
        ("double-count", "root", Severity.WARNING),
        ("double-count-unchecked", "root", Severity.WARNING),
    }
