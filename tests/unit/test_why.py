"""The tests of a goal in words: what admits a record, and what keeps it out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.joining import Joiner
from d365sync.core.fetchxml.verdict import verdict_of
from d365sync.core.goals.goal import Category, DataType, Metric, RollupQuery, Slot
from d365sync.core.goals.needs import goals_to_compute
from d365sync.core.goals.participation import group_goals
from d365sync.core.goals.why import Asking, Criterion, asked_words, branch_of, criteria_of, failures, typed_bounds
from d365sync.core.period import DaySpan
from d365sync.core.values import Row, Value
from tests.unit.goals import CALLS, REVENUE, book, field, goal
from tests.unit.schemas import SCHEMA

ANN, BOB, ACME = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
NAMES = {ANN: "Nancy Anderson", BOB: "Bob"}
QUARTER = DaySpan(dt.date(2026, 10, 1), dt.date(2026, 12, 31))
NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
PRODUCTS = Metric(
    "units",
    "Units",
    is_amount=True,
    data_type=DataType.DECIMAL,
    fields=(
        field(
            "actualdecimal",
            metric_id="units",
            source_entity="opportunityproduct",
            source_attribute="quantity",
            state_of_parent=True,
        ),
    ),
)


def put(
    row: Mapping[str, Value],
    query: str = "",
    *,
    metric: Metric = REVENUE,
    zone: str = "UTC",
    tables: Mapping[str, Sequence[Row]] | None = None,
) -> tuple[Criterion, ...]:
    """Judge a record against the first column of a goal of Nancy Anderson's, with a rollup query's inside."""
    slot = Slot(Category.ACTUAL, metric.data_type or DataType.INTEGER)
    entity = metric.fields[0].source_entity
    stored = RollupQuery("q", "Big deals", entity, f'<fetch><entity name="{entity}">{query}</entity></fetch>')
    one = goal("g", metric_id=metric.id, owner_id=ANN, queries={slot: "q"} if query else {})
    many = book(one, metrics=[metric], queries=[stored])
    grouping = group_goals(many, SCHEMA, goals_to_compute(many))
    assert not grouping.problems
    asking = Asking(grouping.groups[0], SCHEMA, QUARTER, ANN, NAMES, ZoneInfo(zone))
    joiner = Joiner(tables or {}, SCHEMA, Context(NOW, ZoneInfo(zone)), typed_bounds(asking))
    verdict = verdict_of(asking.group.fetch, row, joiner)
    found = criteria_of(verdict, asking)
    assert verdict.holds is all(test.holds for test in found)
    return found


def deal(**changes: Value) -> dict[str, Value]:
    won: dict[str, Value] = {
        "opportunityid": "d",
        "statecode": 1,
        "ownerid": ANN,
        "actualclosedate": dt.date(2026, 10, 3),
        "actualvalue": Decimal(12000),
        "name": "New roof",
    }
    return won | changes


def sentences(found: Sequence[Criterion]) -> list[str]:
    return [test.sentence for test in found]


def test_what_admits_a_record_is_told() -> None:
    assert sentences(put(deal())) == [
        "won (statecode 1)",
        "owner Nancy Anderson",
        "actualclosedate 2026-10-03, within 2026-10-01 to 2026-12-31",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"statecode": 2}, "lost (statecode 2), not won (statecode 1)"),
        ({"statecode": None}, "no state, not won (statecode 1)"),
        ({"ownerid": BOB}, "owner Bob, not Nancy Anderson"),
        ({"actualclosedate": dt.date(2027, 1, 1)}, "actualclosedate 2027-01-01, outside 2026-10-01 to 2026-12-31"),
        ({"actualclosedate": None}, "actualclosedate is empty, outside 2026-10-01 to 2026-12-31"),
    ],
)
def test_what_keeps_a_record_out_is_told(changes: dict[str, Value], sentence: str) -> None:
    assert failures(put(deal(**changes))) == (sentence,)


def test_the_first_and_the_last_day_are_in() -> None:
    for day in (QUARTER.first_on, QUARTER.last_on):
        assert failures(put(deal(actualclosedate=day))) == ()


def test_an_instant_is_told_in_the_goals_zone() -> None:
    call: dict[str, Value] = {"activityid": "c", "statecode": 1, "ownerid": ANN}
    late = call | {"actualend": dt.datetime(2026, 12, 31, 23, 30, tzinfo=dt.UTC)}
    assert failures(put(late, metric=CALLS)) == ()
    (sentence,) = failures(put(late, metric=CALLS, zone="Europe/Berlin"))
    assert sentence == (
        "actualend 2026-12-31T23:30:00Z (2027-01-01 00:30 Europe/Berlin), "
        "outside 2026-10-01 to 2026-12-31 (Europe/Berlin)"
    )


BIG = '<filter><condition attribute="actualvalue" operator="ge" value="10000"/></filter>'
EITHER = (
    '<filter type="or"><condition attribute="actualvalue" operator="ge" value="20000"/>'
    '<filter><condition attribute="name" operator="like" value="new%"/>'
    '<condition attribute="salesstage" operator="eq" value="3"/></filter></filter>'
)
LINKED = (
    '<link-entity name="account" from="accountid" to="parentaccountid"><filter>'
    '<condition attribute="name" operator="eq" value="Acme"/></filter></link-entity>'
)


def test_a_querys_condition_is_told_with_the_records_value() -> None:
    *_, query = put(deal(), BIG)
    assert query.sentence == "query 'Big deals': actualvalue ge 10000"
    (sentence,) = failures(put(deal(actualvalue=Decimal("9000.50")), BIG))
    assert sentence == "query 'Big deals': actualvalue ge 10000 (it is 9000.5)"
    (condition,) = query.parts
    assert condition.path == "/fetch/entity/filter[1]/condition[1]"


def test_the_alternative_that_held_is_told() -> None:
    assert branch_of(put(deal(actualvalue=Decimal(20000)), EITHER)) == "actualvalue ge 20000"
    assert branch_of(put(deal(salesstage=3), EITHER)) == "name like new% and salesstage eq 3"
    assert branch_of(put(deal(), BIG)) == ""


def test_of_alternatives_none_of_which_held_all_are_told() -> None:
    (sentence,) = failures(put(deal(salesstage=2), EITHER))
    assert sentence == "query 'Big deals': none of: actualvalue ge 20000 (it is 12000); salesstage eq 3 (it is 2)"
    *_, query = put(deal(), EITHER)
    assert asked_words(query) == ("query 'Big deals': (actualvalue ge 20000 or (name like new% and salesstage eq 3))")


def test_a_link_that_finds_no_row_is_told() -> None:
    (sentence,) = failures(put(deal(), LINKED))
    assert sentence == "query 'Big deals': no account through parentaccountid"


def test_a_linked_row_that_does_not_fit_is_told() -> None:
    accounts = {"account": [{"accountid": ACME, "name": "Other"}]}
    (sentence,) = failures(put(deal(parentaccountid=ACME), LINKED, tables=accounts))
    assert sentence == "query 'Big deals': account through parentaccountid: name eq Acme (it is Other)"
    accounts = {"account": [{"accountid": ACME, "name": "ACME"}]}
    assert failures(put(deal(parentaccountid=ACME), LINKED, tables=accounts)) == ()


def test_a_product_line_goes_by_its_deal() -> None:
    line: dict[str, Value] = {"opportunityproductid": "p", "ownerid": ANN, "opportunityid": "d"}
    assert sentences(put(line, metric=PRODUCTS, tables={"opportunity": [deal()]})) == [
        "owner Nancy Anderson",
        "won (statecode 1)",
        "opportunity.actualclosedate 2026-10-03, within 2026-10-01 to 2026-12-31",
    ]
    assert failures(put(line, metric=PRODUCTS, tables={"opportunity": [deal(statecode=0)]})) == (
        "open (statecode 0), not won (statecode 1)",
    )
    assert failures(put(line, metric=PRODUCTS)) == ("no opportunity through opportunityid",)
