"""The mirror on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.participation import Group, group_goals, stored_bounds
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.period import DaySpan
from d365sync.core.values import Row, Value
from d365sync.errors import MirrorError
from d365sync.mirror.store import Mirror, Position, StoredPart, TableChanges
from d365sync.mirror.sums import group_predicate
from d365sync.mirror.tables import MirrorTable
from tests.unit.goals import CALLS, book, goal
from tests.unit.schemas import SCHEMA

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
HERE = Position(NOW, delta_link="https://x/delta")
DEALS = MirrorTable(
    SCHEMA.table("opportunity"),
    frozenset({"name", "statecode", "ownerid", "actualvalue", "actualvalue_base", "actualclosedate", "modifiedon"}),
)
ANN, BOB = "a0000000-0000-0000-0000-000000000001", "b0000000-0000-0000-0000-000000000002"


def row_id(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


def deal(number: int, amount: str | None, *, version: int = 1, **changes: Value) -> Row:
    value = None if amount is None else Decimal(amount)
    values: dict[str, Value] = {
        "opportunityid": row_id(number),
        "name": f"Deal {number}",
        "statecode": 1,
        "ownerid": ANN,
        "owneridtype": "systemuser",
        "actualvalue": value,
        "actualvalue_base": value,
        "actualclosedate": dt.date(2026, 10, 15),
        "modifiedon": NOW,
        "versionnumber": version,
        "@odata.etag": f'W/"{version}"',
    }
    return values | changes


@pytest.fixture
def mirror(database_url: str) -> Iterator[Mirror]:
    opened = Mirror.open(database_url)
    opened.ensure(DEALS)
    yield opened
    opened.close()


def group_of(one: GoalBook, column: str = "actualmoney") -> Group:
    return next(group for group in group_goals(one, SCHEMA, one.goals.values()).groups if group.slot.column == column)


def bounds(one: GoalBook) -> list[Mapping[str, str | None]]:
    span = stored_bounds(DaySpan(dt.date(2026, 10, 1), dt.date(2026, 12, 31)), ZoneInfo("UTC"))
    return [
        {**span, "goal_id": g.id, "owner": g.owner_id if g.only_owners_records else None} for g in one.goals.values()
    ]


def sums(mirror: Mirror, one: GoalBook) -> dict[str, OwnPart]:
    group = group_of(one)
    predicate = group_predicate(group, SCHEMA, Context(now=NOW, time_zone=ZoneInfo("UTC")), mirror.dialect)
    return mirror.own_parts(group, predicate, bounds(one))


def touched(mirror: Mirror, one: GoalBook) -> set[str]:
    group = group_of(one)
    predicate = group_predicate(group, SCHEMA, Context(now=NOW, time_zone=ZoneInfo("UTC")), mirror.dialect)
    return mirror.touched_goals(group, predicate, bounds(one))


TWO = book(goal("ann", owner_id=ANN), goal("bob", owner_id=BOB))


def test_rows_come_back_as_they_went_in(mirror: Mirror) -> None:
    rows = [deal(1, "922337203685477.5807"), deal(2, None, ownerid=None, owneridtype=None, name="Ünïcödé ß")]
    mirror.apply(DEALS, rows)
    assert mirror.rows(DEALS) == rows


def test_a_bookmark_is_saved_only_with_the_last_page(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(1, "1")])
    assert mirror.position("opportunity") is None
    mirror.apply(DEALS, [deal(2, "1")], last=HERE)
    assert mirror.position("opportunity") == HERE


def test_a_page_that_cannot_be_stored_leaves_nothing(mirror: Mirror) -> None:
    with pytest.raises(MirrorError, match="decimal places"):
        mirror.apply(DEALS, [deal(1, "1"), deal(2, "0.00001")], last=HERE)
    assert mirror.count("opportunity") == 0
    assert mirror.position("opportunity") is None


def test_a_full_load_removes_what_it_did_not_see(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(n, "1") for n in range(5)], load_number=mirror.begin_load("opportunity"), last=HERE)
    number = mirror.begin_load("opportunity")
    mirror.apply(DEALS, [deal(1, "1")], load_number=number)
    mirror.apply(DEALS, [deal(3, "1")], load_number=number, last=HERE)
    assert [row["opportunityid"] for row in mirror.rows(DEALS)] == [row_id(1), row_id(3)]


def test_a_deletion_of_a_row_never_seen_is_no_error(mirror: Mirror) -> None:
    assert mirror.apply(DEALS, [], [row_id(9)]).deleted == 0


def test_another_set_of_columns_makes_the_table_again(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(1, "1")], last=HERE)
    assert mirror.ensure(DEALS) is False
    assert mirror.ensure(MirrorTable(DEALS.table, DEALS.wanted | {"salesstage"})) is True
    assert mirror.position("opportunity") is None
    assert mirror.count("opportunity") == 0


def test_sums_are_exact_where_floats_and_64_bits_are_not(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(n, "922337203685477.5807") for n in range(1, 4)] + [deal(4, "0.0001"), deal(5, "-5.5")])
    assert sums(mirror, TWO) == {
        "ann": OwnPart(5, 3 * Decimal("922337203685477.5807") + Decimal("0.0001") - Decimal("5.5"))
    }


def test_records_with_an_amount_but_no_base_amount_are_counted(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(1, "5"), deal(2, "7", actualvalue_base=None), deal(3, None)])
    assert sums(mirror, TWO)["ann"] == OwnPart(3, Decimal(5), unpriced=1)


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"actualclosedate": dt.date(2026, 10, 1)}, True),
        ({"actualclosedate": dt.date(2026, 12, 31)}, True),
        ({"actualclosedate": dt.date(2026, 9, 30)}, False),
        ({"actualclosedate": dt.date(2027, 1, 1)}, False),
        ({"actualclosedate": None}, False),
        ({"statecode": 0}, False),
        ({"ownerid": BOB}, False),
        ({"ownerid": None}, False),
    ],
)
def test_who_counts(mirror: Mirror, changes: dict[str, Value], *, counts: bool) -> None:
    mirror.apply(DEALS, [deal(1, "5", **changes)])
    assert ("ann" in sums(mirror, TWO)) is counts


def test_all_records_count_whoever_owns_them(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(1, "5"), deal(2, "6", ownerid=BOB), deal(3, "7", ownerid=None)])
    assert sums(mirror, book(goal("all", only_owners_records=False)))["all"].amount == 18


def settled(mirror: Mirror, *rows: Row) -> None:
    mirror.apply(DEALS, rows, last=HERE)
    mirror.settle({})


def test_a_changed_row_touches_the_goals_it_counted_for_and_counts_for(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"), deal(2, "6", ownerid=BOB))
    assert touched(mirror, TWO) == set()
    mirror.apply(DEALS, [deal(1, "9", version=2)])
    assert touched(mirror, TWO) == {"ann"}
    mirror.apply(DEALS, [deal(1, "9", version=3, ownerid=BOB)])
    assert touched(mirror, TWO) == {"ann", "bob"}


def test_a_deleted_row_touches_the_goal_it_counted_for(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"))
    mirror.apply(DEALS, [], [row_id(1)])
    assert touched(mirror, TWO) == {"ann"}


def test_a_row_seen_again_unchanged_is_no_change(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"))
    assert mirror.apply(DEALS, [deal(1, "5")]).changed == 0
    assert mirror.changes(DEALS, up_to=10) == TableChanges()


def test_changes_name_the_columns_that_differ(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"), deal(2, "6"))
    mirror.apply(DEALS, [deal(1, "5", version=2, name="Renamed")])
    changes = mirror.changes(DEALS, up_to=10)
    assert changes.columns == {"name", "versionnumber"}
    mirror.apply(DEALS, [deal(3, "5")])
    assert changes.columns < mirror.changes(DEALS, up_to=10).columns
    assert mirror.changes(DEALS, up_to=1).everything


def test_own_parts_are_kept_to_the_last_digit_until_settled_again(mirror: Mirror) -> None:
    parts = {"ann": StoredPart("d1", OwnPart(2, Decimal("1.0001"), 1)), "bob": StoredPart("d2", OwnPart(3, 3))}
    mirror.settle({"group": parts})
    assert mirror.stored_parts("group") == parts
    mirror.settle({})
    assert mirror.stored_parts("group") == {}


def test_the_index_of_a_group_can_be_made_twice(mirror: Mirror) -> None:
    group = group_of(TWO)
    mirror.index(group)
    mirror.index(group)


def test_a_count_has_no_sum(mirror: Mirror) -> None:
    calls = book(goal("ann", owner_id=ANN, metric_id=CALLS.id))
    group = group_of(calls, "actualinteger")
    assert group.value is None


def test_a_damaged_mirror_says_delete_it(tmp_path: object) -> None:
    path = f"{tmp_path}/broken.db"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"this is no database" * 100)
    with pytest.raises(MirrorError) as caught:
        Mirror.open(f"sqlite:///{path}")
    assert "delete it" in caught.value.hint
