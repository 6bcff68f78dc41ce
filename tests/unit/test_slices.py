"""Cutting the time of an owner into slices, and adding slices up to goals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from d365sync.core.goals.slices import GoalBounds, Lane, Slice, SliceSum, SliceSums, goal_totals, goals_over, lay_out

ANN, BOB = Lane("ann"), Lane("bob")
DAYS = st.integers(0, 30)
LANES = st.sampled_from([ANN, BOB])


def goal(goal_id: str, starts: str, ends: str, lane: Lane = ANN) -> GoalBounds:
    return GoalBounds(goal_id, lane, starts, ends)


def test_a_quarter_and_its_months_share_three_slices() -> None:
    layout = lay_out([goal("q", "1", "4"), goal("feb", "2", "3"), goal("jan", "1", "2")])
    assert layout.slices == [
        Slice("ann", "", 0, "1", "2"),
        Slice("ann", "", 0, "2", "3"),
        Slice("ann", "", 0, "3", "4"),
    ]
    assert layout.spans == {"q": (0, 3), "feb": (1, 2), "jan": (0, 1)}


def test_what_no_goal_covers_is_no_slice() -> None:
    layout = lay_out([goal("old", "1", "2"), goal("new", "8", "9")])
    assert [(one.starts, one.ends) for one in layout.slices] == [("1", "2"), ("8", "9")]


def test_owners_do_not_share_slices() -> None:
    layout = lay_out([goal("b", "1", "2", BOB), goal("a", "1", "2")])
    assert [one.owner for one in layout.slices] == ["ann", "bob"]


def test_another_state_of_what_the_manager_sees_is_another_slice() -> None:
    before, after = (lay_out([goal("a", "1", "2", Lane("ann", "mia", seen))]).slices for seen in (1, 2))
    assert set(before).isdisjoint(after)


def test_a_goal_of_no_time_has_no_slice() -> None:
    layout = lay_out([goal("a", "1", "1"), goal("b", "1", "2")])
    assert goal_totals(layout, [5]) == {"a": 0, "b": 5}


def test_sums_brought_together_say_when_none_is_unpriced() -> None:
    assert SliceSums.of([SliceSum(5, 1), SliceSum(7, 2)]) == SliceSums([5, 7], [1, 2], ())
    assert SliceSums.of([SliceSum(5, 1), SliceSum(7, 2, 1)]).at(1) == SliceSum(7, 2, 1)
    assert SliceSums.of([]) == SliceSums((), ())


@given(
    st.lists(st.tuples(DAYS, DAYS, st.sampled_from([ANN, BOB]))), st.lists(st.tuples(DAYS, st.sampled_from([ANN, BOB])))
)
def test_goals_get_what_they_cover_and_know_what_touches_them(
    periods: list[tuple[int, int, Lane]], records: list[tuple[int, Lane]]
) -> None:
    goals = [goal(str(at), f"{min(a, b):02}", f"{max(a, b) + 1:02}", lane) for at, (a, b, lane) in enumerate(periods)]
    layout = lay_out(goals)
    counts = [
        sum(lane.owner == part.owner and part.starts <= f"{day:02}" < part.ends for day, lane in records)
        for part in layout.slices
    ]
    expected = {
        one.goal_id: sum(lane == one.lane and one.starts <= f"{day:02}" < one.ends for day, lane in records)
        for one in goals
    }
    assert goal_totals(layout, counts) == expected
    touched = goals_over(layout, [at for at, count in enumerate(counts) if count])
    assert touched == {goal_id for goal_id, count in expected.items() if count}
    assert lay_out(reversed(goals)).slices == layout.slices
