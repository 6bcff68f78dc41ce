from __future__ import annotations

import datetime as dt
from decimal import Decimal

from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import VALUE_COLUMNS, Goal, Number
from d365sync.core.goals.rollup import OwnPart, Rollup, roll_up
from d365sync.core.goals.writes import (
    GoalWrite,
    SkipReason,
    WritePlan,
    is_ours,
    overridden_by_person,
    plan_goal,
    plan_writes,
    write_body,
)
from tests.unit.goals import book, goal

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)


def compute(one: Goal, amount: str) -> Rollup:
    shelf = book(one)
    return roll_up(shelf, build_forest(shelf.goals), {(one.id, "actualmoney"): OwnPart(1, Decimal(amount))})


def plan(one: Goal, amount: str, theirs: frozenset[str] = frozenset()) -> WritePlan:
    return plan_writes(book(one), compute(one, amount), theirs)


def columns(**values: Number | None) -> dict[str, Number | None]:
    return {**dict.fromkeys(VALUE_COLUMNS), **values}


def test_only_what_differs_is_written() -> None:
    one = goal("a", native={"actualmoney": Decimal(200), "inprogressmoney": Decimal(0)}, percentage=Decimal(20))
    (write,) = plan(one, "250").writes
    assert [(c.column, c.native, c.ours, c.difference) for c in write.changes] == [
        ("actualmoney", 200, 250, 50),
        ("percentage", 20, 25, 5),
    ]


def test_a_goal_that_is_right_is_not_written_whatever_its_scale() -> None:
    one = goal("a", native={"actualmoney": Decimal("250.0000"), "inprogressmoney": Decimal(0)}, percentage=Decimal(25))
    assert plan(one, "250").is_empty
    assert plan(one, "250").unchanged == 1


def test_a_column_without_rollup_field_is_emptied() -> None:
    one = goal("a", native={"actualmoney": Decimal(1), "inprogressmoney": Decimal(0), "actualinteger": 5}, targets={})
    (write,) = plan(one, "1").writes
    assert [(c.column, c.ours, c.difference) for c in write.changes] == [("actualinteger", None, None)]


def test_a_goal_overridden_by_a_person_is_left_alone_and_said_so() -> None:
    one = goal("a", is_overridden=True, native={"actualmoney": Decimal(1)})
    made = plan(one, "250", overridden_by_person([one], {}))
    assert made.is_empty
    assert [(skip.goal_id, skip.reason) for skip in made.skips] == [("a", SkipReason.OVERRIDDEN)]
    assert "Goal a" in made.skips[0].message


def test_an_override_of_ours_that_nobody_changed_is_written_again() -> None:
    one = goal("a", is_overridden=True, native={"actualmoney": Decimal(1)})
    assert overridden_by_person([one], {"a": [columns(actualmoney=Decimal("1.0000"))]}) == frozenset()


def test_an_override_of_ours_that_a_person_changed_is_theirs() -> None:
    one = goal("a", is_overridden=True, native={"actualmoney": Decimal(2)})
    assert overridden_by_person([one], {"a": [columns(actualmoney=Decimal(1))]}) == {"a"}


def test_a_write_whose_outcome_is_unknown_counts_as_ours_when_it_shows() -> None:
    one = goal("a", native={"actualmoney": Decimal(2)})
    assert is_ours(one, [columns(actualmoney=Decimal(1)), columns(actualmoney=Decimal(2))])


def test_a_closed_goal_is_not_written() -> None:
    one = goal("a", is_open=False)
    assert [skip.reason for skip in plan(one, "250").skips] == [SkipReason.CLOSED]


def test_the_body_carries_both_flags_and_only_the_changes() -> None:
    (write,) = plan(goal("a", native={"inprogressmoney": Decimal(0)}), "250").writes
    assert write_body(write, NOW) == {
        "isoverride": True,
        "isoverridden": True,
        "actualmoney": Decimal(250),
        "percentage": Decimal(25),
        "lastrolledupdate": NOW,
    }


def test_a_plan_applied_is_empty_the_second_time() -> None:
    one = goal("a", native={"actualmoney": Decimal(7), "customrollupfieldinteger": 3})
    rollup = compute(one, "250")
    write = plan_goal(one, rollup.totals["a"])
    assert isinstance(write, GoalWrite)
    after = {change.column: change.ours for change in write.changes}
    applied = goal(
        "a",
        native={**one.native, **{k: v for k, v in after.items() if k in VALUE_COLUMNS}},  # type: ignore[dict-item]
        percentage=after.get("percentage"),
    )
    assert plan_goal(applied, compute(applied, "250").totals["a"]) is None
