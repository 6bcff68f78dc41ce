"""``explain`` and ``--why-not`` over what a sync mirrored: numbers with their records, records with their tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from d365sync.core.values import Value
from d365sync.emulator import Emulator
from d365sync.errors import UsageError
from d365sync.sync.explain import ColumnExplanation, Explanation, Extent, exact_sum, explain, find_goal
from d365sync.sync.offline import computed, mirrored
from d365sync.sync.snapshot import Line, Snapshot
from d365sync.sync.whynot import Answer, ColumnVerdict, why_not
from tests.emulated import NOW, application
from tests.golden.casebook import made_id
from tests.integration.test_line import CASES, load

ALL = Extent(depth=9, child_records=True)


@contextmanager
def synced(folder: Path, name: str = "tree", *, write: bool = False, **options: Any) -> Iterator[tuple[Line, Snapshot]]:
    """Sync a case, and yield line and snapshot as offline commands have them."""
    emulator = load(folder, name, **options)
    with synced_with(emulator, folder, write=write) as found:
        yield found


@contextmanager
def synced_with(emulator: Emulator, folder: Path, *, write: bool = False) -> Iterator[tuple[Line, Snapshot]]:
    with application(emulator, folder) as app:
        app.sync(write=write)
        yield app.line, mirrored(app.line, NOW)


def told(found: tuple[Line, Snapshot], goal: str, extent: Extent = ALL) -> Explanation:
    line, snapshot = found
    rollup, plan = computed(line, snapshot)
    return explain(line, snapshot, rollup, find_goal(snapshot, goal), plan=plan, extent=extent)


def actual(found: Explanation, column: str = "actualmoney") -> ColumnExplanation:
    return next(one for one in found.columns if one.column == column)


def asked(found: tuple[Line, Snapshot], goal: str, record: str) -> Answer:
    line, snapshot = found
    return why_not(line, snapshot, find_goal(snapshot, goal), record)


def verdict(found: tuple[Line, Snapshot], goal: str, record: str, column: str = "actualmoney") -> ColumnVerdict:
    return next(one for one in asked(found, goal, record).columns if one.column == column)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_sum_shown_is_the_number_written(tmp_path: Path, name: str) -> None:
    with synced(tmp_path, name) as found:
        for goal in found[1].book.goals.values():
            for column in told(found, goal.id).columns:
                below = exact_sum(child.amount or 0 for child in column.children)
                records = exact_sum(record.counts_for for record in column.records)
                assert column.own == records
                assert column.record_count == len(column.records)
                assert not goal.is_open or goal.is_overridden or column.own + below == column.ours


def test_a_record_is_told_with_both_currencies_and_its_rate(tmp_path: Path) -> None:
    with synced(tmp_path, "currencies") as found:
        record = next(one for one in actual(told(found, "Ann")).records if one.name == "uneven")
    assert (record.amount, record.currency, record.exchange_rate) == (100, "USD", Decimal("1.07"))
    assert (record.counts_for, record.base_currency) == (Decimal("93.4579"), "EUR")
    assert record.date == dt.date(2026, 11, 20)
    assert [test.sentence for test in record.tests] == [
        "won (statecode 1)",
        "owner Ann",
        "actualclosedate 2026-11-20, within 2026-10-01 to 2026-12-31",
    ]


def test_a_rate_too_large_for_64_bits_stops_nothing(tmp_path: Path) -> None:
    emulator = load(tmp_path, "currencies")
    rate = Decimal("98765432109.123456789012")
    emulator.store.change("opportunity", made_id("deal", "euros"), {"exchangerate": rate})
    with synced_with(emulator, tmp_path) as found:
        rates = {one.name: one.exchange_rate for one in actual(told(found, "Ann")).records}
    assert rates["euros"] == rate


def test_children_are_nested_with_own_and_total(tmp_path: Path) -> None:
    with synced(tmp_path) as found:
        company = actual(told(found, "Company"))
        shallow = actual(told(found, "Company", Extent(depth=1)))
    north, south = company.children
    assert (north.title, north.own, north.amount) == ("North", Decimal("0.25"), 301)
    assert [(one.title, one.own, one.record_count) for one in north.children] == [
        ("Ann", Decimal("100.25"), 1),
        ("Bob", Decimal("200.5"), 1),
    ]
    assert [record.name for record in north.children[0].records] == ["1"]
    assert south.children == []
    assert [(one.title, list(one.children), list(one.records)) for one in shallow.children] == [
        ("North", [], []),
        ("South", [], []),
    ]
    assert "only from its child goals" in told(found, "Company").notes[0]


def test_records_are_limited_but_all_are_summed(tmp_path: Path) -> None:
    with synced(tmp_path, "currencies") as found:
        column = actual(told(found, "Ann", Extent(limit=1)))
    assert (len(column.records), column.record_count, column.own) == (1, 4, Decimal("393.4579"))


def test_closed_and_overridden_goals_say_so(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    emulator.store.change("goal", made_id("goal", "Ann"), {"statecode": 1, "statuscode": 1, "actualmoney": Decimal(7)})
    emulator.store.change("goal", made_id("goal", "Bob"), {"isoverridden": True, "actualmoney": Decimal(8)})
    with synced_with(emulator, tmp_path, write=True) as found:
        ann, bob, north, south = (told(found, name) for name in ("Ann", "Bob", "North", "South"))
    assert "closed" in ann.notes[0]
    assert (actual(ann).native, actual(ann).ours, list(actual(ann).records)) == (7, None, [])
    assert "overridden by a person" in bob.notes[0]
    assert (actual(bob).native, actual(bob).ours) == (8, Decimal("200.5"))
    assert [(one.title, one.source, one.amount) for one in actual(north).children] == [
        ("Ann", "stored", 7),
        ("Bob", "stored", 8),
    ]
    assert south.notes == ("overridden by d365sync: it wrote these numbers",)


def test_a_goal_with_a_problem_shows_it_and_what_can_be_told(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    emulator.store.change("opportunity", made_id("deal", "1"), {"actualvalue_base": None})
    with synced_with(emulator, tmp_path) as found:
        ann, north = told(found, "Ann"), told(found, "North")
    assert "no base-currency amount" in ann.problems[0]
    assert [record.name for record in actual(ann).records] == ["1"]
    assert "'Ann' below it has a problem" in north.problems[0]
    assert actual(north).ours is None
    assert actual(north).own == Decimal("0.25")
    assert [(one.title, one.source, one.amount) for one in actual(north).children] == [
        ("Ann", "not computed", None),
        ("Bob", "computed", Decimal("200.5")),
    ]


def change(emulator: Emulator, **columns: Value) -> None:
    emulator.store.change("opportunity", made_id("deal", "1"), columns)


@pytest.mark.parametrize(
    ("columns", "summary"),
    [
        ({}, "counts for 100.25 EUR"),
        ({"statecode": 2, "statuscode": 4}, "lost (statecode 2), not won (statecode 1)"),
        ({"ownerid": made_id("user", "Bob")}, "owner Bob, not Ann"),
        (
            {"actualclosedate": dt.date(2027, 1, 1)},
            "actualclosedate 2027-01-01, outside 2026-10-01 to 2026-12-31",
        ),
        ({"actualvalue": None, "actualvalue_base": None}, "counts, but its actualvalue is empty: it adds 0"),
        (
            {"actualvalue_base": None},
            "counts, but it has no amount in base currency (actualvalue_base): the goal cannot be computed",
        ),
    ],
)
def test_why_a_record_counts_or_not(tmp_path: Path, columns: dict[str, Value], summary: str) -> None:
    emulator = load(tmp_path)
    change(emulator, **columns)
    with synced_with(emulator, tmp_path) as found:
        answer = verdict(found, "Ann", made_id("deal", "1"))
    assert answer.summary == summary
    assert answer.counts is summary.startswith("counts")


def test_a_record_is_found_by_name_id_or_the_beginning_of_its_id(tmp_path: Path) -> None:
    with synced(tmp_path, "query") as found:
        key = made_id("deal", "New nail")
        for text in (key, key.upper(), key[:8], "NEW NAIL", " new nail "):
            answer = asked(found, "Ann", text)
            assert (answer.record_id, answer.name, answer.table) == (key, "New nail", "opportunity")
        summary = verdict(found, "Ann", key).summary
    assert summary == "query 'big and new': actualvalue ge 100 (it is 99.99)"


def test_several_records_of_a_name_must_be_told_apart(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    change(emulator, name="2")
    with synced_with(emulator, tmp_path) as found, pytest.raises(UsageError, match="2 records of 'opportunity'"):
        asked(found, "Ann", "2")


def test_a_record_that_is_not_mirrored_or_of_another_table_is_said_so(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with synced_with(emulator, tmp_path) as found:
        where = "among the 5 rows of 'opportunity' mirrored at 2026-11-20T09:00:00Z: deleted"
        with pytest.raises(UsageError, match=f"no record 'nobody's deal' {where}") as refused:
            asked(found, "Ann", "nobody's deal")
        user = asked(found, "Ann", made_id("user", "Ann"))
    assert "d365sync sync" in refused.value.hint
    assert {one.summary for one in user.columns} == {
        "actualmoney counts 'opportunity' records; this is one of 'systemuser'",
        "inprogressmoney counts 'opportunity' records; this is one of 'systemuser'",
    }


def test_where_every_goal_is_closed_a_record_is_not_said_to_be_missing(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    for goal_id in list(emulator.store.rows("goal")):
        emulator.store.change("goal", goal_id, {"statecode": 1, "statuscode": 1})
    with synced_with(emulator, tmp_path) as found, pytest.raises(UsageError, match="no goal is computed") as refused:
        asked(found, "Ann", "1")
    assert "goals lint" in refused.value.hint


def test_a_deleted_record_is_said_so(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=False)
        emulator.store.remove("opportunity", made_id("deal", "1"))
        app.sync(write=False)
        found = app.line, mirrored(app.line, NOW)
        with pytest.raises(UsageError, match="among the 4 rows"):
            asked(found, "Ann", made_id("deal", "1"))


def test_a_record_that_counts_for_a_goal_below_is_said_so(tmp_path: Path) -> None:
    with synced(tmp_path) as found:
        answer = verdict(found, "Company", "1")
        closed = verdict(found, "North", "1")
    assert (answer.counts, answer.summary) == (False, "the goal is rolled up only from its child goals")
    assert list(answer.counts_for_children) == ["Ann"]
    assert (closed.summary, list(closed.counts_for_children)) == ("owner Ann, not Nina", ["Ann"])


def test_a_product_line_is_told_with_its_deals_date(tmp_path: Path) -> None:
    with synced(tmp_path, "units") as found:
        goals = found[1].book.goals.values()
        records = [record for goal in goals for record in actual(told(found, goal.id), "actualdecimal").records]
    assert records
    assert all(isinstance(record.date, dt.date) for record in records)
