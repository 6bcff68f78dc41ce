"""Which goals a window touches, how they are cut into batches, what is said of closed ones and of each year."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d365sync.cli.backfill import Lines
from d365sync.core.goals.backfill import Batch, Window, batches, goals_in, only, reopened, unwritable, years
from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import VALUE_COLUMNS, Goal
from d365sync.core.goals.rollup import GoalTotals, OwnPart, Rollup, roll_up
from d365sync.core.goals.writes import Skip, SkipReason, WritePlan
from d365sync.core.period import DaySpan
from tests.unit.goals import book, goal

UTC = ZoneInfo("UTC")
NINE = {name: name for name in VALUE_COLUMNS}


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


def lasting(goal_id: str, first: str, last: str, parent: str | None = None, **changes: object) -> Goal:
    bounds = {
        name: dt.datetime.combine(day(one), dt.time(), dt.UTC)
        for name, one in {"starts_at": first, "ends_at": last}.items()
    }
    return goal(goal_id, parent, **{**bounds, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "last", "touched"),
    [
        ("2025-01-01", "2025-03-30", False),
        ("2025-01-01", "2025-03-31", True),
        ("2025-05-01", "2025-05-31", True),
        ("2025-06-30", "2025-09-30", True),
        ("2025-07-01", "2025-09-30", False),
        ("2024-01-01", "2026-12-31", True),
    ],
)
def test_a_goal_is_in_the_window_if_one_of_its_days_is(first: str, last: str, touched: bool) -> None:
    window = Window(day("2025-03-31"), day("2025-06-30"))
    assert ("a" in goals_in(book(lasting("a", first, last)), window, UTC)) is touched


def test_a_goal_without_a_usable_period_is_in_no_window() -> None:
    broken = goal("a", starts_at=None, ends_at=None)
    assert goals_in(book(broken), Window(day("1900-01-01"), day("2100-01-01")), UTC) == {}


def test_a_window_is_not_reversed() -> None:
    with pytest.raises(ValueError, match=r"ends .* before it starts"):
        Window(day("2025-02-01"), day("2025-01-31"))


days = st.dates(dt.date(2024, 1, 1), dt.date(2025, 12, 31))


@given(days, days, days, days)
def test_touching_is_sharing_a_day(first: dt.date, last: dt.date, begins: dt.date, ends: dt.date) -> None:
    window, span = Window(*sorted((first, last))), DaySpan(*sorted((begins, ends)))
    shared = max(window.first_on, span.first_on) <= min(window.last_on, span.last_on)
    assert window.touches(span) is shared


@given(st.lists(st.tuples(days, st.integers(0, 100)), max_size=40), st.integers(1, 7))
def test_batches_hold_every_goal_once_by_period_the_earliest_first(drawn: list[tuple[dt.date, int]], size: int) -> None:
    spans = {f"{n:02}": DaySpan(on, on + dt.timedelta(days=more)) for n, (on, more) in enumerate(drawn)}
    found = batches(spans, spans, size)
    assert sorted(one for batch in found for one in batch.goal_ids) == sorted(spans)
    assert all(0 < len(batch.goal_ids) <= size for batch in found)
    assert [batch.number for batch in found] == list(range(len(found)))
    assert all(len({spans[one] for one in batch.goal_ids}) == 1 for batch in found)
    starts = [spans[batch.goal_ids[0]].first_on for batch in found]
    assert starts == sorted(starts)


def test_only_part_of_a_plan_is_about_the_window() -> None:
    skip = Skip("a", "A", SkipReason.CLOSED, "closed")
    part = only(WritePlan((), (skip, Skip("b", "B", SkipReason.CLOSED, "closed")), 7), {"a", "c"}, 2)
    assert part == WritePlan((), (skip,), 1)


def computed(*goals: Goal, amount: int) -> Rollup:
    shelf = reopened(book(*goals), {one.id for one in goals})
    own = {(one.id, "actualmoney"): OwnPart(1, Decimal(amount)) for one in goals}
    return roll_up(shelf, build_forest(shelf.goals), own)


def test_a_closed_goal_is_told_with_the_stored_number_and_ours() -> None:
    closed = goal("a", is_open=False, native={"actualmoney": Decimal(90), "inprogressmoney": Decimal(0)})
    (one,) = unwritable(book(closed, goal("b")), ["a", "b"], computed(closed, amount=100))
    assert (one.stored["actualmoney"], one.ours and one.ours["actualmoney"], one.differs) == (90, 100, True)
    (same,) = unwritable(book(closed), ["a"], computed(closed, amount=90))
    assert not same.differs


def test_a_closed_goal_that_cannot_be_computed_says_why() -> None:
    closed = goal("a", is_open=False, metric_id=None, native={"actualmoney": Decimal(90)})
    (one,) = unwritable(book(closed), ["a"], computed(closed, amount=1))
    assert (one.ours, one.differs, one.stored) == (None, False, {"actualmoney": 90})
    assert "has no goal metric" in one.problem


def totals(amount: int) -> GoalTotals:
    ours = {**dict.fromkeys(VALUE_COLUMNS), "actualmoney": Decimal(amount)}
    return GoalTotals(ours, {"actualmoney": Decimal(amount)}, {}, None)


def test_a_year_adds_up_the_tops_of_its_trees_as_they_were_are_and_should_be() -> None:
    shelf = book(
        lasting("team", "2024-01-01", "2024-12-31", native={"actualmoney": Decimal(300)}),
        lasting("ann", "2024-01-01", "2024-03-31", "team", native={"actualmoney": Decimal(100)}),
        lasting("old", "2024-04-01", "2024-06-30", is_open=False, native={"actualmoney": Decimal(50)}),
        lasting("new", "2025-01-01", "2025-03-31", native={}),
    )
    spans = goals_in(shelf, Window(day("2024-06-30"), day("2025-01-01")), UTC)
    assert spans.keys() == {"team", "old", "new"}
    first, second = years(
        shelf,
        spans,
        {"team": totals(400), "old": totals(60), "new": totals(7)},
        changed={"team", "new"},
        written={"team": {"actualmoney": Decimal(250)}},
        actuals=NINE,
    )
    assert (first.year, first.goals, first.changed, first.written, first.unwritable) == (2024, 2, 1, 1, 1)
    (sums,) = first.sums
    assert (sums.metric, sums.before, sums.after, sums.computed) == ("Revenue", 300, 450, 460)
    assert (second.year, second.sums[0].before, second.sums[0].after, second.sums[0].computed) == (2025, 0, 0, 7)


def test_children_of_goals_that_are_listed_are_not_added_twice() -> None:
    shelf = book(
        lasting("team", "2024-01-01", "2024-12-31", native={"actualmoney": Decimal(300)}),
        lasting("ann", "2024-01-01", "2024-12-31", "team", native={"actualmoney": Decimal(300)}),
    )
    spans = goals_in(shelf, Window(day("2024-06-30"), day("2024-06-30")), UTC)
    (year,) = years(shelf, spans, {}, changed=(), written={}, actuals=NINE)
    assert year.sums[0].before == 300


def test_sums_are_of_the_column_that_takes_the_number_and_left_out_where_none_does() -> None:
    one = lasting("a", "2024-01-01", "2024-12-31", own={"new_actual": Decimal(3)})
    spans = {"a": DaySpan(day("2024-01-01"), day("2024-12-31"))}
    (year,) = years(book(one), spans, {"a": totals(5)}, changed=(), written={}, actuals={"actualmoney": "new_actual"})
    assert (year.sums[0].before, year.sums[0].computed) == (3, 5)
    (bare,) = years(book(one), spans, {"a": totals(5)}, changed=(), written={}, actuals={})
    assert bare.sums == ()


def test_lines_of_progress_come_now_and_then_with_rate_and_time_left() -> None:
    said: list[str] = []
    at = iter([0.0, 0.0, 4.0, 12.0, 13.0, 24.0])
    steps = Lines(said.append, every_s=10, clock=lambda: next(at)).steps
    steps.on_begin(1000, 400)
    for number in range(4):
        steps.on_batch(Batch(number, "2024-01-01 to 2024-03-31", tuple(map(str, range(120)))))
    assert said == [
        "backfill: goes on; 400 of 1,000 goals were done before",
        "backfill: 640 of 1,000 goals (2024-01-01 to 2024-03-31), 20 a second, 18 s left",
        "backfill: 880 of 1,000 goals (2024-01-01 to 2024-03-31), 20 a second, 6 s left",
    ]
