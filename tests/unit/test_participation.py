from __future__ import annotations

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.write import write_fetch
from d365sync.core.goals.bounds import owner_span, stored_bounds
from d365sync.core.goals.goal import Category, DataType, Goal, GoalBook, Metric, RollupQuery, Slot
from d365sync.core.goals.needs import columns_needed, goals_to_compute, tables_named
from d365sync.core.goals.participation import Grouping, bind, group_goals
from d365sync.core.period import DaySpan
from tests.unit.goals import CALLS, REVENUE, book, field, goal
from tests.unit.schemas import SCHEMA

UTC = ZoneInfo("UTC")
ACTUAL = Slot(Category.ACTUAL, DataType.MONEY)
QUARTER = DaySpan(dt.date(2026, 10, 1), dt.date(2026, 12, 31))
BIG = RollupQuery(
    "q1",
    "Big deals",
    "opportunity",
    '<fetch><entity name="opportunity"><attribute name="name"/><order attribute="name"/>'
    '<filter><condition attribute="actualvalue" operator="ge" value="1000"/></filter></entity></fetch>',
)


def grouping(one: GoalBook) -> Grouping:
    return group_goals(one, SCHEMA, goals_to_compute(one))


def with_query(query: RollupQuery, **changes: object) -> GoalBook:
    return book(goal("a", queries={ACTUAL: query.id}, **changes), queries=[query])


def metric(**changes: object) -> Metric:
    return replace(REVENUE, fields=(field(**changes),))


def fault(one: GoalBook) -> tuple[str, str]:
    (problem,) = grouping(one).problems
    return problem.code, problem.message


def fetchxml(one: GoalBook, column: str = "actualmoney") -> str:
    (group,) = [group for group in grouping(one).groups if group.slot.column == column]
    values = {**stored_bounds(QUARTER, UTC), "owner": "5b6d0000-0000-0000-0000-000000000001"}
    return write_fetch(bind(group.fetch, values))


def test_goals_that_share_field_query_and_owner_mode_are_one_group() -> None:
    one = book(goal("a"), goal("b"), goal("all", only_owners_records=False), goal("none", only_from_children=True))
    found = {(group.slot.column, group.owned): group.goal_ids for group in grouping(one).groups}
    assert found == {
        ("actualmoney", True): ("a", "b"),
        ("actualmoney", False): ("all",),
        ("inprogressmoney", True): ("a", "b"),
        ("inprogressmoney", False): ("all",),
    }


def test_the_tests_of_a_goal_are_one_query_a_person_can_read() -> None:
    assert fetchxml(book(goal("a"))).splitlines() == [
        "<fetch>",
        '  <entity name="opportunity">',
        '    <filter type="and">',
        '      <condition attribute="statecode" operator="eq" value="1"/>',
        '      <condition attribute="ownerid" operator="eq" value="5b6d0000-0000-0000-0000-000000000001"/>',
        '      <condition attribute="actualclosedate" operator="ge" value="2026-10-01"/>',
        '      <condition attribute="actualclosedate" operator="lt" value="2027-01-01"/>',
        "    </filter>",
        "  </entity>",
        "</fetch>",
    ]


def test_a_column_with_time_gets_half_open_instants() -> None:
    text = fetchxml(book(goal("a", metric_id=CALLS.id)), "actualinteger")
    assert '"actualend" operator="ge" value="2026-10-01T00:00:00Z"' in text
    assert '"actualend" operator="lt" value="2027-01-01T00:00:00Z"' in text


def test_all_records_means_no_test_of_the_owner() -> None:
    assert "ownerid" not in fetchxml(book(goal("a", only_owners_records=False)))


def test_a_rollup_query_adds_to_the_tests_and_loses_its_columns_and_orders() -> None:
    text = fetchxml(with_query(BIG))
    assert '<condition attribute="actualvalue" operator="ge" value="1000"/>' in text
    assert '<condition attribute="statecode" operator="eq" value="1"/>' in text
    assert "<order" not in text
    assert "<attribute" not in text


def test_a_query_counts_only_for_its_own_category_and_type() -> None:
    assert "1000" not in fetchxml(with_query(BIG), "inprogressmoney")


def test_state_and_date_of_the_parent_are_asked_of_the_parent() -> None:
    units = replace(
        REVENUE,
        id="units",
        data_type=DataType.DECIMAL,
        fields=(
            field(
                "actualdecimal",
                metric_id="units",
                source_entity="opportunityproduct",
                source_attribute="quantity",
                date_entity="opportunity",
                state_of_parent=True,
            ),
        ),
    )
    one = book(goal("a", metric_id="units"), metrics=[units])
    text = fetchxml(one, "actualdecimal")
    link, inside = text.split("<link-entity")
    assert 'attribute="ownerid"' in link
    assert 'from="opportunityid" to="opportunityid"' in inside
    assert 'attribute="statecode" operator="eq" value="1"' in inside
    assert 'attribute="actualclosedate" operator="ge"' in inside
    assert columns_needed(grouping(one).groups, SCHEMA)["opportunity"] >= {"statecode", "actualclosedate"}


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (book(goal("a", metric_id="gone")), "goal-metric-missing", "no goal metric"),
        (book(goal("a", owner_id=None)), "goal-owner-missing", "no goal owner"),
        (book(goal("a"), metrics=[replace(REVENUE, data_type=None)]), "metric-data-type", "amount data type"),
        (book(goal("a"), metrics=[metric(goal_attribute="actualinteger")]), "metric-rollup-field", "does not fit"),
        (book(goal("a"), metrics=[metric(goal_attribute="title")]), "metric-rollup-field", "does not fit"),
        (
            book(goal("a"), metrics=[replace(REVENUE, fields=(field(), field(id="2")))]),
            "metric-rollup-field",
            "two of its",
        ),
        (
            book(goal("a"), metrics=[metric(source_entity="gone", date_entity="gone")]),
            "rollup-field-unusable",
            "'gone'",
        ),
        (book(goal("a"), metrics=[metric(source_attribute="gone")]), "rollup-field-unusable", "gone"),
        (book(goal("a"), metrics=[metric(source_attribute="name")]), "rollup-field-unusable", "cannot be summed"),
        (book(goal("a"), metrics=[metric(source_attribute="score")]), "rollup-field-unusable", "cannot be summed"),
        (book(goal("a"), metrics=[metric(source_attribute="naked")]), "rollup-field-unusable", "base-currency"),
        (book(goal("a"), metrics=[metric(source_attribute=None)]), "rollup-field-unusable", "no source column"),
        (book(goal("a"), metrics=[metric(date_attribute="name")]), "rollup-field-unusable", "not a date"),
        (book(goal("a"), metrics=[metric(date_attribute=None)]), "rollup-field-unusable", "no date column"),
        (book(goal("a"), metrics=[metric(date_entity="account", date_attribute="modifiedon")]), "", ""),
        (book(goal("a"), metrics=[metric(state_of_parent=True)]), "rollup-field-unusable", "no parent table is named"),
        (book(goal("a", queries={ACTUAL: "gone"})), "rollup-query-missing", "cannot be read"),
        (with_query(replace(BIG, fetchxml="<fetch")), "rollup-query-unusable", "Big deals"),
        (with_query(replace(BIG, fetchxml=BIG.fetchxml.replace('"ge"', '"near"'))), "rollup-query-unusable", "near"),
        (
            with_query(replace(BIG, fetchxml=BIG.fetchxml.replace('"actualvalue"', '"gone"'))),
            "rollup-query-unusable",
            "gone",
        ),
        (with_query(replace(BIG, fetchxml='<fetch><entity name="lead"/></fetch>')), "rollup-query-unusable", "'lead'"),
    ],
)
def test_what_cannot_be_used_is_a_problem_by_name(made: GoalBook, code: str, words: str) -> None:
    if not code:
        assert grouping(made).problems == ()
        return
    assert fault(made)[0] == code
    assert words in fault(made)[1]


def test_one_broken_query_stops_only_the_goals_that_use_it() -> None:
    broken = replace(BIG, fetchxml="<fetch")
    one = book(goal("a", queries={ACTUAL: broken.id}), goal("b"), queries=[broken])
    found = grouping(one)
    assert {problem.goal_id for problem in found.problems} == {"a"}
    assert [group.goal_ids for group in found.groups if group.slot == ACTUAL] == [("b",)]


def test_several_lookups_to_the_parent_are_not_guessed_between() -> None:
    visits = replace(
        REVENUE,
        is_amount=False,
        data_type=DataType.INTEGER,
        fields=(field("actualinteger", source_entity="new_visit", date_entity="account", date_attribute="modifiedon"),),
    )
    assert "2 lookups to 'account'" in fault(book(goal("a"), metrics=[visits]))[1]


def test_the_goals_name_the_tables_to_pull_and_closed_goals_name_none() -> None:
    linked = replace(
        BIG,
        fetchxml='<fetch><entity name="opportunity"><link-entity name="account" from="accountid" to="parentaccountid">'
        '<filter><condition attribute="name" operator="like" value="A%"/></filter></link-entity></entity></fetch>',
    )
    assert tables_named(with_query(linked)) == {"opportunity", "account"}
    assert tables_named(with_query(linked, is_open=False)) == frozenset()


def test_only_the_columns_that_matter_are_pulled() -> None:
    needed = columns_needed(grouping(with_query(BIG)).groups, SCHEMA)
    assert needed["opportunity"] - {"opportunityid"} == {
        "actualclosedate", "actualvalue", "actualvalue_base", "estimatedclosedate", "estimatedvalue",
        "estimatedvalue_base", "modifiedon", "name", "ownerid", "statecode", "transactioncurrencyid",
    }  # fmt: skip


def span(one: Goal, zone: str = "UTC") -> DaySpan:
    return owner_span(one, book(one), ZoneInfo(zone))


def test_stored_bounds_become_days_in_the_zone() -> None:
    mehr = goal(
        "a",
        starts_at=dt.datetime(2026, 9, 22, 20, 30, tzinfo=dt.UTC),
        ends_at=dt.datetime(2026, 12, 20, 20, 30, tzinfo=dt.UTC),
    )
    assert span(mehr, "Asia/Tehran") == DaySpan(dt.date(2026, 9, 23), dt.date(2026, 12, 21))


def test_a_fiscal_goal_without_bounds_takes_its_fiscal_period() -> None:
    fiscal = goal("a", is_fiscal=True, fiscal_year=2026, fiscal_period=4, starts_at=None, ends_at=None)
    assert span(fiscal) == QUARTER


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"starts_at": None}, "without a start or end"),
        ({"starts_at": dt.date(2027, 1, 1)}, "ends .* before"),
        ({"is_fiscal": True, "starts_at": None}, "fiscal year and period"),
        ({"is_fiscal": True, "starts_at": None, "fiscal_year": 2026, "fiscal_period": 7}, "no fiscal period 7"),
    ],
)
def test_a_goal_without_a_usable_period_says_why(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        span(goal("a", **changes))
