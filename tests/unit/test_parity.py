"""Every class of difference between the platform's number and ours, from facts alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.goals.goal import Number
from d365sync.core.goals.parity import ChildFact, Comparison, Finding, Kind, Limits, RecordFact, classify
from d365sync.core.period import DaySpan
from d365sync.core.values import Value

AT = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
LATER, EARLIER = AT + dt.timedelta(days=1), AT - dt.timedelta(days=1)
SPAN = DaySpan(dt.date(2026, 10, 1), dt.date(2026, 12, 31))
INSIDE = dt.date(2026, 11, 15)


def record(name: str, amount: Number, **changes: object) -> RecordFact:
    counting = RecordFact(name, name, "Ann", amount, counts=True, fits=True, moment=INSIDE, changed_at=EARLIER)
    return replace(counting, **changes)  # type: ignore[arg-type]


def case(native: Number | None, *records: RecordFact, children: Sequence[ChildFact] = (), **more: object) -> Comparison:
    own = sum((one.amount for one in records if one.counts), start=Decimal(0))
    base = Comparison(native, own, AT, SPAN, ZoneInfo("UTC"), records=records, children=children)
    return replace(base, **more)  # type: ignore[arg-type]


def names(finding: Finding) -> list[str]:
    return [one.name for one in finding.records]


@pytest.mark.parametrize("native", [Decimal("12.5"), Decimal("12.5000")])
def test_equal_numbers(native: Decimal) -> None:
    assert classify(case(native, record("a", Decimal("12.5")))).kind is Kind.EQUAL


def test_nothing_there_is_equal_to_nothing() -> None:
    assert classify(case(None)).kind is Kind.EQUAL


def test_a_record_that_came_after_the_rollup_is_stale_to_the_last_digit() -> None:
    found = classify(case(Decimal("10"), record("a", 10), record("new", Decimal("2.0001"), changed_at=LATER)))
    assert (found.kind, found.certain, found.amount, names(found)) == (Kind.STALE, True, Decimal("2.0001"), ["new"])
    assert "1 record changed after the rollup of 2026-11-01 00:00Z" in found.words


def test_a_record_that_left_is_stale_too() -> None:
    gone = record("gone", 7, counts=False, fits=False, likely=True, changed_at=LATER)
    found = classify(case(17, record("a", 10), gone))
    assert (found.kind, found.certain, found.amount, names(found)) == (Kind.STALE, True, -7, ["gone"])


def test_one_came_and_one_left() -> None:
    came = record("came", 5, changed_at=LATER)
    gone = record("gone", 7, counts=False, fits=False, likely=True, changed_at=LATER)
    found = classify(case(17, record("a", 10), came, gone))
    assert (found.kind, names(found)) == (Kind.STALE, ["came", "gone"])


def test_a_record_whose_amount_changed_is_possibly_stale() -> None:
    found = classify(case(9, record("a", 10, changed_at=LATER)))
    assert (found.kind, found.certain, found.amount, names(found)) == (Kind.STALE, False, None, ["a"])


def test_which_of_several_like_records_came_is_not_certain() -> None:
    records = [record(name, 1, changed_at=LATER) for name in "abc"]
    found = classify(case(2, *records))
    assert (found.kind, found.certain) == (Kind.STALE, False)


def test_a_change_before_the_rollup_explains_nothing() -> None:
    found = classify(case(9, record("a", 10, changed_at=AT)))
    assert (found.kind, found.is_explained) == (Kind.UNKNOWN, False)


def test_records_that_never_could_count_explain_nothing() -> None:
    assert (
        classify(case(17, record("a", 10), record("x", 7, counts=False, fits=False, changed_at=LATER))).kind
        is Kind.UNKNOWN
    )


@pytest.mark.parametrize(
    ("inside", "edge", "words"),
    [
        (False, dt.date(2026, 9, 30), "2026-09-30 to 2026-12-30"),
        (False, dt.date(2027, 1, 1), "2026-10-02 to 2027-01-01"),
        (True, dt.date(2026, 12, 31), "2026-09-30 to 2026-12-30"),
        (True, dt.date(2026, 10, 1), "2026-10-02 to 2027-01-01"),
    ],
)
def test_a_day_at_the_edge(inside: bool, edge: dt.date, words: str) -> None:
    at_edge = record("edge", 5, counts=inside, moment=edge)
    found = classify(case(10 if inside else 15, record("a", 10), at_edge))
    assert (found.kind, found.certain, names(found)) == (Kind.EDGE_DAY, True, ["edge"])
    assert words in found.words
    assert found.setting == "rollup.time_zone"


@pytest.mark.parametrize(
    ("moment", "counts", "words"),
    [
        (dt.datetime(2027, 1, 1, 4, 50, tzinfo=dt.UTC), False, "begins its days +5 hours from ours"),
        (dt.datetime(2026, 9, 30, 20, 30, tzinfo=dt.UTC), False, "begins its days -3.5 hours from ours"),
        (dt.datetime(2026, 12, 31, 9, 0, tzinfo=dt.UTC), True, "does not count the last day"),
    ],
)
def test_an_instant_at_the_edge(moment: dt.datetime, counts: bool, words: str) -> None:
    inside: Value = dt.datetime(2026, 11, 15, tzinfo=dt.UTC)
    records = record("a", 1, moment=inside), record("edge", 1, moment=moment, counts=counts)
    found = classify(case(1 if counts else 2, *records, instants=True))
    assert (found.kind, names(found)) == (Kind.EDGE_DAY, ["edge"])
    assert words in found.words


def test_a_record_two_days_off_is_no_edge() -> None:
    far = record("far", 5, counts=False, fits=False, moment=dt.date(2026, 9, 29))
    assert classify(case(15, record("a", 10), far)).kind is Kind.UNKNOWN


def test_records_the_manager_may_not_read() -> None:
    hidden = record("hidden", 5, readable=False)
    found = classify(case(10, record("a", 10, readable=True), hidden))
    assert (found.kind, found.certain, found.amount, names(found)) == (Kind.VISIBILITY, True, 5, ["hidden"])


def test_all_records_of_one_owner_missing_looks_like_visibility() -> None:
    records = record("a", 10), record("b", 3, owner="Bob"), record("c", 4, owner="Bob")
    found = classify(case(10, *records))
    assert (found.kind, found.certain, names(found)) == (Kind.VISIBILITY, False, ["b", "c"])
    assert "every record of Bob" in found.words


def test_owners_that_cannot_be_told_apart_prove_nothing() -> None:
    records = [record(name, 1, owner=name) for name in ("Ann", "Bob", "Cleo")]
    assert classify(case(2, *records)).kind is Kind.UNKNOWN


def test_more_records_than_a_rollup_query_may_return() -> None:
    found = classify(case(10, record("a", 10), record("b", 5), query_rows=5001))
    assert (found.kind, found.certain) == (Kind.LIMIT, False)
    assert "5001 records, the platform counts 5000" in found.words
    assert classify(case(10, record("a", 10), record("b", 5), query_rows=5000)).kind is Kind.UNKNOWN
    assert classify(case(20, record("a", 10), record("b", 5), query_rows=5001)).kind is Kind.UNKNOWN


def test_more_records_than_the_platform_adds_up() -> None:
    records = [record(str(n), 1, owner="Ann") for n in range(3)]
    assert classify(case(10, *records, limits=Limits(aggregate=2))).kind is Kind.LIMIT


def child(title: str, native: Number, added: Number, computed: Number | None = None, **more: object) -> ChildFact:
    return replace(ChildFact(title, native, added, computed), **more)  # type: ignore[arg-type]


def test_a_difference_of_a_child_is_told_at_the_child() -> None:
    found = classify(case(17, record("a", 10), children=[child("North", 7, 9, 9)]))
    assert (found.kind, found.amount) == (Kind.CHILDREN, 2)
    assert "'North'" in found.words


@pytest.mark.parametrize(
    ("native", "added", "kind", "setting"),
    [
        (10, 7, Kind.CLOSED_CHILD, 'rollup.closed_child = "excluded"'),
        (17, 0, Kind.CLOSED_CHILD, 'rollup.closed_child = "stored"'),
    ],
)
def test_a_closed_child_is_added_or_not(native: Number, added: Number, kind: Kind, setting: str) -> None:
    found = classify(case(native, record("a", 10), children=[child("North", 7, added, closed=True)]))
    assert (found.kind, found.certain, found.setting) == (kind, True, setting)


@pytest.mark.parametrize(
    ("native", "added", "setting"),
    [(19, 7, 'rollup.overridden_child = "recomputed"'), (17, 9, 'rollup.overridden_child = "stored"')],
)
def test_an_overridden_child_adds_what_it_holds_or_what_it_would_be(
    native: Number, added: Number, setting: str
) -> None:
    found = classify(case(native, record("a", 10), children=[child("North", 7, added, 9, overridden=True)]))
    assert (found.kind, found.setting) == (Kind.OVERRIDDEN_CHILD, setting)


def test_a_child_rolled_up_later_is_possibly_why() -> None:
    found = classify(case(11, record("a", 10), children=[child("North", 7, 7, 7, rolled_up_at=LATER)]))
    assert (found.kind, found.certain) == (Kind.STALE, False)
    assert "rolled up later: 'North'" in found.words


def test_a_difference_without_evidence_is_unknown() -> None:
    found = classify(case(Decimal("123.45"), record("a", 10), record("b", 20)))
    assert (found.kind, found.is_explained, found.difference) == (Kind.UNKNOWN, False, Decimal("-93.45"))
