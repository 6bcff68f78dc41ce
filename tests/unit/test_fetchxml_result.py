from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate, evaluate_result
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.fetchxml.result import Result
from d365sync.core.fiscal import FiscalCalendar
from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.values import Row
from d365sync.errors import FetchXmlError


def _table(name: str, *columns: Column, parent: str | None = None) -> Table:
    key = Column(f"{name}id", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True)
    found = {column.logical_name: column for column in (key, *columns)}
    return Table(name, f"{name}s", key.logical_name, "name", found, hierarchy_parent=parent)


SCHEMA = Schema.of(
    [
        _table(
            "deal",
            Column("name", ColumnType.STRING),
            Column("size", ColumnType.INTEGER),
            Column("amount", ColumnType.MONEY),
            Column("stage", ColumnType.PICKLIST),
            Column("seen", ColumnType.DATETIME, DateBehavior.USER_LOCAL),
            Column("ownerid", ColumnType.OWNER, targets=("person", "squad")),
            Column("parentid", ColumnType.LOOKUP, targets=("deal",)),
            parent="parentid",
        ),
        _table("person", Column("name", ColumnType.STRING)),
        _table("squad", Column("name", ColumnType.STRING)),
    ]
)
PEOPLE: Sequence[Row] = [{"personid": "p1", "name": "Zoe"}, {"personid": "p2", "name": "adam"}]


def _ask(inside: str, deals: Sequence[Row], fetch: str = "", **settings: Any) -> Result:
    context = Context(dt.datetime(2024, 5, 15, tzinfo=dt.UTC), ZoneInfo("America/New_York"), **settings)
    text = f'<fetch {fetch}><entity name="deal">{inside}</entity></fetch>'
    return evaluate_result(parse_fetch(text), {"deal": deals, "person": PEOPLE}, SCHEMA, context)


def _ids(result: Result) -> str:
    return "".join(str(row["dealid"]) for row in result.rows)


def _deals(column: str, *values: Any) -> list[Row]:
    return [{"dealid": str(n), column: value} for n, value in enumerate(values)]


def test_no_attribute_at_all_returns_every_column_and_nulls_are_absent() -> None:
    deal: Row = {"dealid": "1", "name": "A", "size": None, "ownerid": "p1", "owneridtype": "person"}
    assert _ask("", [deal]).rows == [{"dealid": "1", "name": "A", "ownerid": "p1", "owneridtype": "person"}]
    assert _ask("<no-attrs/>", [deal]).rows == [{"dealid": "1"}]
    assert _ask('<attribute name="name" alias="n"/>', [deal]).rows == [{"dealid": "1", "n": "A"}]


def test_linked_columns_carry_the_links_name() -> None:
    deals: list[Row] = [{"dealid": "1", "ownerid": "p1"}, {"dealid": "2"}]
    link = '<link-entity name="person" from="personid" to="ownerid" link-type="outer" {}><attribute name="name"/>'
    named = _ask("<no-attrs/>" + link.format('alias="o"') + "</link-entity>", deals)
    assert named.rows == [{"dealid": "1", "o.name": "Zoe"}, {"dealid": "2"}]
    twice = _ask(f"<no-attrs/>{link.format('')}</link-entity>" * 2, deals[:1])
    assert twice.rows == [{"dealid": "1", "person1.name": "Zoe", "person2.name": "Zoe"}]
    column = twice.columns["person2.name"]
    assert column is not None
    assert column.type is ColumnType.STRING


def test_columns_of_links_inside_links_are_returned() -> None:
    deals: list[Row] = [{"dealid": "1", "parentid": "2"}, {"dealid": "2", "ownerid": "p1"}]
    rows = _ask(
        '<link-entity name="deal" from="dealid" to="parentid" alias="up" link-type="outer"><link-entity name="person"'
        ' from="personid" to="ownerid" alias="o" link-type="outer"><attribute name="name"/></link-entity>'
        "</link-entity><no-attrs/>",
        deals,
    ).rows
    assert rows == [{"dealid": "1", "o.name": "Zoe"}, {"dealid": "2"}]


@pytest.mark.parametrize(("descending", "expected"), [("0", "1203"), ("1", "3021")])
def test_text_sorts_without_regard_to_case_and_nulls_count_as_least(descending: str, expected: str) -> None:
    deals = _deals("name", "b", None, "A", "C")
    assert _ids(_ask(f'<order attribute="name" descending="{descending}"/>', deals)) == expected


def test_lookups_sort_by_name_and_choices_by_label_unless_raw() -> None:
    owners = [{**row, "owneridtype": "person"} for row in _deals("ownerid", "p1", "p2")]
    assert _ids(_ask('<order attribute="ownerid"/>', owners)) == "10"
    assert _ids(_ask('<order attribute="ownerid"/>', owners, 'useraworderby="1"')) == "01"
    stages = _deals("stage", 1, 2)
    labels: Mapping[str, Mapping[int, str]] = {"stage": {1: "Won", 2: "Lost"}}
    assert _ids(_ask('<order attribute="stage"/>', stages, option_labels=labels)) == "10"
    assert _ids(_ask('<order attribute="stage"/>', stages, 'useraworderby="1"', option_labels=labels)) == "01"


def test_the_first_order_decides_first() -> None:
    deals: list[Row] = [{"dealid": str(n), "name": name, "size": n} for n, name in enumerate("abab")]
    orders = '<order attribute="name" descending="1"/><order attribute="size" descending="1"/>'
    assert _ids(_ask(orders, deals)) == "3120"


def test_pages_follow_each_other() -> None:
    deals = _deals("size", 0, 1, 2, 3, 4)
    pages = [_ask("", deals, f'count="2" page="{page}"') for page in (1, 2, 3, 4)]
    assert [_ids(page) for page in pages] == ["01", "23", "4", ""]
    assert [page.more for page in pages] == [True, True, False, False]
    assert {page.total for page in pages} == {5}
    assert _ids(_ask("", deals, 'top="3"')) == "012"


def test_pages_beyond_50000_rows_need_a_cookie() -> None:
    with pytest.raises(FetchXmlError) as refused:
        _ask("", [], 'page="11"')
    assert refused.value.code == "0x8004430A"
    assert _ask("", [], 'page="11" paging-cookie="c"').rows == []


def test_distinct_compares_what_is_selected() -> None:
    deals = _deals("name", "b", "B", None, "a", None)
    assert _ask('<attribute name="name"/>', deals, 'distinct="1"').rows == [{"name": "b"}, {}, {"name": "a"}]


def test_participation_ignores_order_pages_and_aggregates() -> None:
    deals = _deals("size", 0, 1, 2)
    fetch = parse_fetch('<fetch top="1"><entity name="deal"><order attribute="size" descending="1"/></entity></fetch>')
    context = Context(dt.datetime(2024, 5, 15, tzinfo=dt.UTC), ZoneInfo("UTC"))
    assert evaluate(fetch, {"deal": deals}, SCHEMA, context) == deals


def test_children_are_counted_directly_below() -> None:
    deals: list[Row] = [{"dealid": "1"}, {"dealid": "2", "parentid": "1"}, {"dealid": "3", "parentid": "2"}]
    rows = _ask('<attribute name="dealid" rowaggregate="CountChildren" alias="n"/>', deals).rows
    assert [(row["dealid"], row["n"]) for row in rows] == [("1", 1), ("2", 1), ("3", 0)]


def _aggregate(function: str, column: str, deals: Sequence[Row], **settings: Any) -> Any:
    text = f'<attribute name="{column}" aggregate="{function}" alias="x"/>'
    return _ask(text, deals, 'aggregate="1"', **settings).rows[0].get("x")


def test_money_is_summed_and_averaged_exactly() -> None:
    deals = _deals("amount", Decimal("0.1"), Decimal("0.2"), None)
    assert _aggregate("sum", "amount", deals) == Decimal("0.3")
    assert _aggregate("avg", "amount", deals) == Decimal("0.15")
    assert _aggregate("max", "amount", deals) == Decimal("0.2")


def test_aggregates_over_nothing() -> None:
    assert _aggregate("sum", "amount", []) is None
    assert _aggregate("count", "amount", []) == 0
    assert _aggregate("countcolumn", "amount", _deals("amount", None)) == 0


@pytest.mark.parametrize(("rounds", "expected"), [(False, 1), (True, 2)])
def test_whole_numbers_average_to_a_whole_number(rounds: bool, expected: int) -> None:
    deals = _deals("size", 1, 2)
    assert _aggregate("avg", "size", deals, integer_avg_rounds=rounds) == expected
    assert _aggregate("avg", "size", _deals("size", -1, -2), integer_avg_rounds=rounds) == -expected


def test_groups_are_local_days_and_null_is_a_group_of_its_own() -> None:
    seen = [dt.datetime(2024, 1, 1, 3, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 6, tzinfo=dt.UTC), None]
    text = (
        '<attribute name="dealid" aggregate="count" alias="n"/>'
        '<attribute name="seen" groupby="1" dategrouping="year" {} alias="y"/>'
    )
    local = _ask(text.format(""), _deals("seen", *seen), 'aggregate="1"').rows
    assert local == [{"n": 1}, {"n": 1, "y": 2023}, {"n": 1, "y": 2024}]
    utc = _ask(text.format('usertimezone="0"'), _deals("seen", *seen), 'aggregate="1"').rows
    assert utc == [{"n": 1}, {"n": 2, "y": 2024}]


def test_a_fiscal_group_is_named_by_period_and_year() -> None:
    text = '<attribute name="seen" groupby="1" dategrouping="fiscal-period" alias="p"/>'
    deals = _deals("seen", dt.datetime(2024, 2, 1, tzinfo=dt.UTC))
    rows = _ask(text, deals, 'aggregate="1"', fiscal=FiscalCalendar(4, 1)).rows
    assert rows == [{"p": "Quarter 4 FY2023"}]


def test_groups_of_text_ignore_case_and_sort_by_alias() -> None:
    text = (
        '<attribute name="name" groupby="1" alias="g"/><attribute name="name" aggregate="count" alias="n"/>'
        '<order alias="n" descending="1"/>'
    )
    assert _ask(text, _deals("name", "a", "b", "B"), 'aggregate="1"').rows == [{"g": "b", "n": 2}, {"g": "a", "n": 1}]


def test_an_aggregate_reads_50000_rows_at_most() -> None:
    deals: list[Row] = [{"dealid": str(n)} for n in range(50_001)]
    with pytest.raises(FetchXmlError) as refused:
        _aggregate("count", "dealid", deals)
    assert refused.value.code == "0x8004E023"
    assert _aggregate("count", "dealid", deals[1:]) == 50_000
