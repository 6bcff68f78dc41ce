"""The mirror on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import inspect

from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.goal import SLOT_BY_COLUMN, DataType, Goal, GoalBook, RollupQuery
from d365sync.core.goals.participation import Group, group_goals
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.schema import Column, ColumnType, Schema
from d365sync.core.values import Row, Value
from d365sync.errors import MirrorError
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.slices import kept_groups, kept_slices
from d365sync.mirror.store import Mirror, TableChanges
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.recompute import Recomputed, Recomputer
from tests.unit.goals import CALLS, REVENUE, book, field, goal
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


WON = replace(REVENUE, fields=(field("actualmoney"),))
ACTUAL_MONEY = SLOT_BY_COLUMN["actualmoney"]


def won(*goals: Goal, queries: Iterable[RollupQuery] = ()) -> GoalBook:
    return book(*goals, metrics=[WON, CALLS], queries=queries)


def group_of(one: GoalBook, column: str = "actualmoney") -> Group:
    return next(group for group in group_goals(one, SCHEMA, one.goals.values()).groups if group.slot.column == column)


def recomputer(mirror: Mirror, one: GoalBook) -> Recomputer:
    context = Context(now=NOW, time_zone=ZoneInfo("UTC"))
    return Recomputer(mirror, one, SCHEMA, {"opportunity": DEALS}, context, ZoneInfo("UTC"))


def recomputed(mirror: Mirror, one: GoalBook, *, settle: bool = False) -> Recomputed:
    return recomputer(mirror, one).recompute(group_goals(one, SCHEMA, one.goals.values()), settle=settle)


def sums(mirror: Mirror, one: GoalBook) -> dict[str, OwnPart]:
    own = recomputed(mirror, one).own
    return {goal_id: part for (goal_id, column), part in own.items() if column == "actualmoney"}


TWO = won(goal("ann", owner_id=ANN), goal("bob", owner_id=BOB))


def test_rows_come_back_as_they_went_in(mirror: Mirror) -> None:
    rows = [deal(1, "922337203685477.5807"), deal(2, None, ownerid=None, owneridtype=None, name="Ünïcödé ß")]
    mirror.apply(DEALS, rows)
    assert mirror.rows(DEALS) == rows


def test_a_number_too_large_to_be_mirrored_stops_the_goals_that_read_it_and_no_others(mirror: Mirror) -> None:
    """Source: decimal column type (up to 100,000,000,000 whatever its places); ten places leave 64 bits too few."""
    units = Column("units", ColumnType.DECIMAL, precision=10)
    table = replace(DEALS.table, columns={**DEALS.table.columns, "units": units})
    deals = MirrorTable(table, DEALS.wanted | {"units"})
    schema = Schema.of([*SCHEMA.tables.values(), table])
    metric = replace(
        REVENUE,
        id="units",
        data_type=DataType.DECIMAL,
        fields=(field("actualdecimal", metric_id="units", source_attribute="units"),),
    )
    one = book(goal("ann", owner_id=ANN), goal("units", owner_id=ANN, metric_id="units"), metrics=[WON, metric])
    mirror.ensure(deals)

    def found() -> Recomputed:
        context = Context(now=NOW, time_zone=ZoneInfo("UTC"))
        worker = Recomputer(mirror, one, schema, {"opportunity": deals}, context, ZoneInfo("UTC"))
        return worker.recompute(group_goals(one, schema, one.goals.values()))

    mirror.apply(
        deals, [deal(1, "5", units=Decimal("5000000000.0000000001")), deal(2, "6", units=Decimal(3))], last=HERE
    )
    (problem,) = found().problems
    assert (problem.code, problem.goal_id) == ("record-too-large", "units")
    assert row_id(1) in problem.message
    assert found().own["ann", "actualmoney"].amount == 11
    mirror.apply(deals, [deal(1, "5", units=Decimal("1.5"), version=2)])
    assert found().problems == []
    assert found().own["units", "actualdecimal"].amount == Decimal("4.5")


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
        "ann": OwnPart(5, 3 * Decimal("922337203685477.5807") + Decimal("0.0001") - Decimal("5.5")),
        "bob": OwnPart(0, Decimal(0)),
    }


def test_a_sum_beyond_64_bits_is_exact_whichever_goal_it_is_of(mirror: Mirror) -> None:
    largest = "922337203685477.5807"
    mirror.apply(DEALS, [deal(1, "1"), deal(2, largest, ownerid=BOB), deal(3, largest, ownerid=BOB)])
    assert sums(mirror, TWO)["bob"] == OwnPart(2, 2 * Decimal(largest))


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
    assert sums(mirror, TWO)["ann"].amount == (5 if counts else 0)


def test_all_records_count_whoever_owns_them(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(1, "5"), deal(2, "6", ownerid=BOB), deal(3, "7", ownerid=None)])
    assert sums(mirror, won(goal("all", only_owners_records=False)))["all"].amount == 18


def settled(mirror: Mirror, *rows: Row) -> None:
    mirror.apply(DEALS, rows, last=HERE)
    recomputed(mirror, TWO, settle=True)


def test_a_changed_row_touches_the_goals_it_counted_for_and_counts_for(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"), deal(2, "6", ownerid=BOB))
    assert recomputed(mirror, TWO).goals == set()
    mirror.apply(DEALS, [deal(1, "9", version=2)])
    assert recomputed(mirror, TWO).goals == {"ann"}
    mirror.apply(DEALS, [deal(1, "9", version=3, ownerid=BOB)])
    assert recomputed(mirror, TWO).goals == {"ann", "bob"}
    assert sums(mirror, TWO) == {"ann": OwnPart(0, Decimal(0)), "bob": OwnPart(2, Decimal(15))}


def test_a_deleted_row_touches_the_goal_it_counted_for(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"))
    mirror.apply(DEALS, [], [row_id(1)])
    assert recomputed(mirror, TWO).goals == {"ann"}
    assert sums(mirror, TWO)["ann"] == OwnPart(0, Decimal(0))


def test_no_unchanged_record_is_read_again(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"), deal(2, "6"))
    with mirror.connection() as connection:  # behind the mirror's back: no change is noted, so nobody may see it
        connection.exec_driver_sql(f"UPDATE opportunity SET actualvalue_base = 999 WHERE opportunityid = '{row_id(1)}'")
    mirror.apply(DEALS, [deal(2, "7", version=2)])
    assert sums(mirror, TWO)["ann"].amount == 12


def test_a_query_that_reads_other_rows_of_its_table_is_summed_again(mirror: Mirror) -> None:
    """A changed row may count for another row: it cannot be followed alone."""
    twin = RollupQuery(
        "twin",
        "Twins",
        "opportunity",
        '<fetch><entity name="opportunity"><link-entity name="opportunity" from="ownerid" to="ownerid"><filter>'
        '<condition attribute="name" operator="eq" value="key"/></filter></link-entity></entity></fetch>',
    )
    one = won(goal("ann", owner_id=ANN, queries={ACTUAL_MONEY: twin.id}), queries=[twin])
    mirror.apply(DEALS, [deal(1, "5"), deal(2, "6", name="key")], last=HERE)
    recomputed(mirror, one, settle=True)
    assert sums(mirror, one)["ann"].amount == 11
    mirror.apply(DEALS, [deal(2, "6", name="other", version=2)])
    assert sums(mirror, one)["ann"].amount == 0


def test_a_new_goal_takes_up_the_slices_that_are_there(mirror: Mirror) -> None:
    settled(mirror, deal(1, "5"), deal(2, "6", actualclosedate=dt.date(2026, 11, 2)))
    november = {"starts_at": dt.date(2026, 11, 1), "ends_at": dt.date(2026, 11, 30)}
    more = won(*TWO.goals.values(), goal("november", owner_id=ANN, **november))
    assert sums(mirror, more) == {
        "ann": OwnPart(2, Decimal(11)),
        "bob": OwnPart(0, Decimal(0)),
        "november": OwnPart(1, Decimal(6)),
    }
    recomputed(mirror, more, settle=True)
    assert recomputed(mirror, more).goals == set()
    assert sums(mirror, TWO)["ann"].amount == 11


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


def test_sums_are_kept_to_the_last_digit_until_their_group_is_gone(mirror: Mirror) -> None:
    settled(mirror, *[deal(n, "922337203685477.5807") for n in range(1, 4)], deal(4, "1", actualvalue_base=None))
    with mirror.connection() as connection:
        groups = kept_groups(connection)
        kept = [kept_slices(connection, mirror.dialect, one.number) for one in groups.values()]
    assert [total for slices in kept for total in slices.sums.totals if total] == [3 * (2**63 - 1)]
    assert sum(count for slices in kept for count in slices.sums.unpriced) == 1
    mirror.settle([])
    with mirror.connection() as connection:
        assert kept_groups(connection) == {}


def test_indexes_that_no_group_wants_any_more_are_dropped(mirror: Mirror) -> None:
    mirror.apply(DEALS, [deal(1, "1")], last=HERE)
    one = recomputer(mirror, TWO)
    one.index(group_goals(TWO, SCHEMA, TWO.goals.values()).groups)
    one.index(group_goals(TWO, SCHEMA, TWO.goals.values()).groups)
    with mirror.connection() as connection:
        made = {index["name"] for index in inspect(connection).get_indexes("opportunity")}
    assert len(made - {"_key_opportunity", "_unfit_opportunity"}) == 2
    one.index([])
    with mirror.connection() as connection:
        left = {index["name"] for index in inspect(connection).get_indexes("opportunity")}
    assert left == {"_key_opportunity", "_unfit_opportunity"}


def test_linked_rows_are_found_by_an_index(mirror: Mirror) -> None:
    """Without one, every record would be answered by a walk through the whole linked table."""
    twins = RollupQuery(
        "twins",
        "Twins",
        "opportunity",
        '<fetch><entity name="opportunity"><filter><link-entity name="opportunity" from="ownerid" to="ownerid" '
        'link-type="any"><filter><condition attribute="statecode" operator="eq" value="2"/></filter></link-entity>'
        "</filter></entity></fetch>",
    )
    one = won(goal("ann", owner_id=ANN, queries={ACTUAL_MONEY: twins.id}), queries=[twins])
    recomputer(mirror, one).index(group_goals(one, SCHEMA, one.goals.values()).groups)
    with mirror.connection() as connection:
        made = [index["column_names"] for index in inspect(connection).get_indexes("opportunity")]
    assert any(columns[0] == "ownerid" and "statecode" in columns for columns in made)


def test_a_mirror_of_another_layout_is_begun_anew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mirror.db"
    old = Mirror.open(url)
    old.ensure(DEALS)
    old.apply(DEALS, [deal(1, "5")], last=HERE)
    with old.connection() as connection:
        connection.exec_driver_sql("DROP TABLE _layout")
    old.close()
    new = Mirror.open(url)
    assert new.position("opportunity") is None
    assert new.ensure(DEALS) is True
    new.close()


def test_a_count_has_no_sum(mirror: Mirror) -> None:
    calls = book(goal("ann", owner_id=ANN, metric_id=CALLS.id))
    group = group_of(calls, "actualinteger")
    assert group.value is None


def test_a_damaged_mirror_says_what_becomes_of_it(tmp_path: object) -> None:
    path = f"{tmp_path}/broken.db"
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"this is no database" * 100)
    with pytest.raises(MirrorError) as caught:
        Mirror.open(f"sqlite:///{path}")
    assert "the next sync puts it aside" in caught.value.hint
