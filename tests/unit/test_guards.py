"""Each guard, green and red: what it lets pass, where it stops, and that it can be switched off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d365sync.core.goals.goal import VALUE_COLUMNS, Goal
from d365sync.core.goals.guards import (
    Finding,
    GuardName,
    GuardRules,
    Losses,
    Proposal,
    judge_losses,
    judge_plan,
)
from d365sync.core.goals.writes import ColumnChange, GoalWrite
from tests.unit.goals import goal

RULES = GuardRules()
DEFAULT_GOALS = 100


def moved(
    values: Iterable[tuple[int | None, int | None]], column: str = "actualmoney", metric: str = "revenue"
) -> Proposal:
    """Return a plan that takes goals, all written before, from one value to another; the same twice is no change."""
    goals: dict[str, Goal] = {}
    writes: list[GoalWrite] = []
    for number, (before, after) in enumerate(values):
        native = {} if before is None else {column: Decimal(before)}
        one = goal(f"{number:04}", native=native, metric_id=metric)
        goals[one.id] = one
        if before != after:
            ours = None if after is None else Decimal(after)
            change = ColumnChange(column, one.native[column], ours, "records changed")
            writes.append(GoalWrite(one.id, one.title, one.etag, (change,), {**one.native, column: ours}))
    return Proposal(tuple(writes), goals, frozenset(goals), metrics={"revenue": "Revenue"})


def seen(proposal: Proposal, rules: GuardRules = RULES) -> dict[GuardName, Finding]:
    return {one.guard: one for one in judge_plan(proposal, rules)}


def some(count: int, before: int | None, after: int | None) -> list[tuple[int | None, int | None]]:
    return [(before, after)] * count


RED: dict[GuardName, Sequence[tuple[int | None, int | None]]] = {
    GuardName.CHANGES: [*some(81, 100, 101), *some(19, 100, 100)],
    GuardName.ZEROED: [*some(21, 1, 0), *some(79, 1000, 1000)],
    GuardName.JUMPS: [*some(21, 1, 11), *some(79, 1000, 1000)],
    GuardName.TOTALS: [*some(40, 100, 151), *some(39, 1, 1)],
    GuardName.NEGATIVE: [*some(6, 1, -1), *some(94, 1000, 1000)],
}
GREEN: dict[GuardName, Sequence[tuple[int | None, int | None]]] = {
    GuardName.CHANGES: [*some(80, 100, 101), *some(20, 100, 100)],
    GuardName.ZEROED: [*some(20, 1, 0), *some(80, 1000, 1000)],
    GuardName.JUMPS: [*some(21, 1, 10), *some(79, 1000, 1000)],
    GuardName.TOTALS: [*some(40, 100, 149), *some(39, 1, 1)],
    GuardName.NEGATIVE: [*some(5, 1, -1), *some(95, 1000, 1000)],
}


@pytest.mark.parametrize("guard", RED)
def test_each_guard_stops_beyond_its_percentage_alone_and_can_be_switched_off(guard: GuardName) -> None:
    assert list(seen(moved(RED[guard]))) == [guard]
    assert seen(moved(RED[guard]), replace(RULES, off=frozenset({guard}))) == {}


@pytest.mark.parametrize("guard", GREEN)
def test_each_guard_lets_its_percentage_pass(guard: GuardName) -> None:
    assert seen(moved(GREEN[guard])) == {}


@pytest.mark.parametrize(
    ("guard", "values"),
    [
        (GuardName.CHANGES, some(49, 100, 101)),
        (GuardName.ZEROED, some(9, 1, 0)),
        (GuardName.JUMPS, some(9, 1, 11)),
        (GuardName.TOTALS, some(19, 100, 151)),
        (GuardName.NEGATIVE, some(4, 1, -1)),
    ],
)
def test_a_few_goals_are_never_many_whatever_part_they_are(
    guard: GuardName, values: list[tuple[int | None, int | None]]
) -> None:
    assert guard not in seen(moved(values))
    assert guard in seen(moved([*values, values[0]]))


def test_a_finding_says_how_many_of_how_many_and_which_setting() -> None:
    found = seen(moved([*some(1204, 100, 101), *some(96, 100, 100)]))[GuardName.CHANGES]
    assert (found.number, found.of) == (1204, 1300)
    assert found.message == "1,204 of 1,300 goals would change (guards.changes_percent is 80)"


def test_a_total_is_told_with_its_metric_and_both_numbers() -> None:
    found = seen(moved(some(30, 1000, 2000)))[GuardName.TOTALS]
    assert "of metric 'Revenue' would go from 30,000 to 60,000" in found.message


def test_goals_taken_over_are_no_mass_change() -> None:
    onboarding = replace(moved(some(300, None, 5)), known=frozenset())
    assert seen(onboarding) == {}
    near = replace(moved(some(300, 100, 103)), known=frozenset())
    assert seen(near) == {}, "native numbers a day old differ a little"


@pytest.mark.parametrize(
    ("after", "guards"),
    [
        (0, {GuardName.ZEROED, GuardName.TOTALS}),
        (None, {GuardName.ZEROED, GuardName.TOTALS}),
        (100_000, {GuardName.JUMPS, GuardName.TOTALS}),
        (-100, {GuardName.NEGATIVE, GuardName.TOTALS}),
    ],
)
def test_goals_taken_over_whose_native_numbers_ours_contradict_massively_are_seen(
    after: int | None, guards: set[GuardName]
) -> None:
    assert set(seen(replace(moved(some(300, 100, after)), known=frozenset()))) == guards


def test_goals_taken_over_do_not_hide_a_mass_change_of_the_others() -> None:
    both = moved([*some(60, 100, 101), *some(400, None, 5)])
    assert seen(replace(both, known=frozenset(sorted(both.goals)[:60])))[GuardName.CHANGES].of == 60


def test_columns_of_the_organizations_own_are_guarded_in_their_place() -> None:
    goals = {one.id: one for one in (goal(f"{n:03}", own={"new_actual": Decimal(5)}) for n in range(40))}
    writes = [
        GoalWrite(one.id, one.title, one.etag, (), {"new_actual": Decimal(0)}, overridden=None)
        for one in goals.values()
    ]
    assert GuardName.ZEROED in seen(Proposal(writes, goals, frozenset(), ("new_actual",)))
    assert seen(Proposal(writes, goals, frozenset(), VALUE_COLUMNS)) == {}


values = st.one_of(st.none(), st.integers(-10, 1000))
plans = st.lists(st.tuples(values, values), max_size=60)
strict = GuardRules(
    changes_goals=1, zeroed_goals=1, jumps_goals=1, totals_goals=1, negative_goals=1, emptied_rows=1, deletions_rows=1
)


@given(plans)
def test_what_a_guard_sees_is_within_what_there_is_and_beyond_its_thresholds(
    drawn: list[tuple[int | None, int | None]],
) -> None:
    for rules in (RULES, strict):
        for one in judge_plan(moved(drawn), rules):
            assert 0 < one.number <= one.of <= len(drawn)
            if one.guard is not GuardName.TOTALS:
                assert one.number * 100 > one.of * getattr(rules, f"{one.guard}_percent")
            assert one.number >= getattr(rules, f"{one.guard}_goals")


@given(plans)
def test_an_empty_plan_a_plan_of_nothing_known_and_guards_all_off_find_no_mass_change(
    drawn: list[tuple[int | None, int | None]],
) -> None:
    still = moved([(before, before) for before, _ in drawn])
    assert judge_plan(still, strict) == ()
    taken_over = replace(moved(drawn), known=frozenset())
    assert GuardName.CHANGES not in {one.guard for one in judge_plan(taken_over, strict)}
    assert judge_plan(moved(drawn), replace(strict, off=frozenset(GuardName))) == ()


@given(plans, st.sampled_from([one.name for one in fields(GuardRules) if one.name != "off"]))
def test_a_threshold_raised_never_finds_more(drawn: list[tuple[int | None, int | None]], name: str) -> None:
    raised = replace(strict, **{name: getattr(strict, name) + 5})
    assert {one.guard for one in judge_plan(moved(drawn), raised)} <= {
        one.guard for one in judge_plan(moved(drawn), strict)
    }


@pytest.mark.parametrize(
    ("missing", "known", "guard"),
    [
        (0, 1000, None),
        (49, 49, GuardName.EMPTIED),
        (9, 9, None),
        (10, 10, GuardName.EMPTIED),
        (48, 49, None),
        (25, 50, None),
        (26, 50, GuardName.DELETIONS),
        (10_000, 1_000_000, None),
        (10_001, 1_000_000, GuardName.DELETIONS),
    ],
)
def test_a_table_may_lose_some_rows_not_most_nor_all(missing: int, known: int, guard: GuardName | None) -> None:
    found = judge_losses([Losses("opportunity", missing, known)], RULES)
    assert [one.guard for one in found] == ([guard] if guard else [])


def test_loss_guards_are_switched_off_one_by_one() -> None:
    emptied = [Losses("opportunity", 60, 60)]
    without = replace(RULES, off=frozenset({GuardName.EMPTIED}))
    assert [one.guard for one in judge_losses(emptied, without)] == [GuardName.DELETIONS]
    assert judge_losses(emptied, replace(RULES, off=frozenset({GuardName.EMPTIED, GuardName.DELETIONS}))) == ()
    unlimited = replace(RULES, deletions_at_most=0)
    assert judge_losses([Losses("opportunity", 10_001, 1_000_000)], unlimited) == ()


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 100))
def test_more_rows_lost_are_never_more_plausible(missing: int, kept: int, more: int) -> None:
    known = missing + kept
    if judge_losses([Losses("t", missing, known)], RULES):
        assert judge_losses([Losses("t", min(missing + more, known), known)], RULES)
