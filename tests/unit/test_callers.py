from __future__ import annotations

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.caller import caller_operators, depends_on_caller
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.goals.callers import Caller, Callers, build_callers, caller_columns
from d365sync.core.goals.goal import Category, DataType, Goal, GoalBook, RollupQuery, Slot
from d365sync.core.goals.needs import columns_needed, goals_to_compute, tables_named
from d365sync.core.goals.participation import Grouping, group_goals
from d365sync.core.goals.rules import CallerIs, Hierarchy, ReadingRules
from d365sync.core.schema import Schema
from d365sync.core.values import Row
from tests.unit.goals import book, goal
from tests.unit.schemas import SCHEMA, column, table

ACTUAL = Slot(Category.ACTUAL, DataType.MONEY)
BASE = Context(now=dt.datetime(2026, 11, 20, tzinfo=dt.UTC), time_zone=ZoneInfo("UTC"))
USERS = table(
    "systemuser",
    "systemusers",
    "fullname",
    column("businessunitid", "lookup", "businessunit"),
    column("parentsystemuserid", "lookup", "systemuser"),
    column("positionid", "lookup", "position"),
)
WITH_USERS = Schema.of([*SCHEMA.tables.values(), USERS])


def asking(operator: str) -> RollupQuery:
    text = f'<fetch><entity name="opportunity"><filter><condition attribute="ownerid" operator="{operator}"/>'
    return RollupQuery("mine", "Mine", "opportunity", f"{text}</filter></entity></fetch>")


def asked(*goals: Goal, operator: str = "eq-userid", rules: ReadingRules = ReadingRules()) -> GoalBook:  # noqa: B008
    with_query = [replace(one, queries={ACTUAL: "mine"}) for one in goals]
    return replace(book(*with_query, queries=[asking(operator)]), rules=rules)


def grouped(one: GoalBook) -> Grouping:
    return group_goals(one, WITH_USERS, goals_to_compute(one))


@pytest.mark.parametrize(
    "inside",
    [
        '<filter><condition attribute="ownerid" operator="eq-userid"/></filter>',
        '<filter><filter type="or"><condition attribute="ownerid" operator="eq-userid"/></filter></filter>',
        (
            '<link-entity name="account" from="accountid" to="parentaccountid"><filter>'
            '<condition attribute="ownerid" operator="eq-userid"/></filter></link-entity>'
        ),
        (
            '<filter><link-entity name="account" from="accountid" to="parentaccountid" link-type="any"><filter>'
            '<condition attribute="ownerid" operator="eq-userid"/></filter></link-entity></filter>'
        ),
    ],
)
def test_an_operator_is_found_wherever_it_stands(inside: str) -> None:
    fetch = parse_fetch(f'<fetch><entity name="opportunity">{inside}</entity></fetch>')
    assert caller_operators(fetch) == {"eq-userid"}


def test_a_query_that_names_a_user_depends_on_nobody() -> None:
    text = '<condition attribute="ownerid" operator="eq" value="5b6d0000-0000-0000-0000-000000000001"/>'
    fetch = parse_fetch(f'<fetch><entity name="opportunity"><filter>{text}</filter></entity></fetch>')
    assert not depends_on_caller(fetch)


def test_goals_that_ask_are_grouped_by_their_manager() -> None:
    goals = [goal("a", manager_id="ann"), goal("b", manager_id="bob"), goal("c", manager_id="ann")]
    found = {(group.slot.column, group.caller_id): group.goal_ids for group in grouped(asked(*goals)).groups}
    assert found == {
        ("actualmoney", "ann"): ("a", "c"),
        ("actualmoney", "bob"): ("b",),
        ("inprogressmoney", None): ("a", "b", "c"),
    }


def test_the_caller_may_be_the_goal_owner() -> None:
    rules = ReadingRules(caller=CallerIs.OWNER)
    groups = grouped(asked(goal("a", owner_id="ann", manager_id="bob"), rules=rules)).groups
    assert {group.caller_id for group in groups if group.slot == ACTUAL} == {"ann"}


@pytest.mark.parametrize(
    ("changes", "rule", "code"),
    [
        ({"manager_id": None}, CallerIs.MANAGER, "caller-missing"),
        ({"manager_id": "north", "manager_type": "team"}, CallerIs.MANAGER, "caller-is-team"),
        ({"owner_id": "north", "owner_type": "team"}, CallerIs.OWNER, "caller-is-team"),
        ({"manager_id": "ann"}, CallerIs.REFUSE, "caller-refused"),
    ],
)
def test_a_goal_whose_caller_cannot_be_had_has_a_problem_by_name(
    changes: dict[str, object], rule: CallerIs, code: str
) -> None:
    (problem,) = grouped(asked(goal("a", **changes), rules=ReadingRules(caller=rule))).problems
    assert (problem.code, problem.goal_id) == (code, "a")
    assert "'Mine' of 'Goal a'" in problem.message


ROWS: dict[str, list[Row]] = {
    "systemuser": [
        {"systemuserid": "vera", "businessunitid": "north", "positionid": "head"},
        {"systemuserid": "ann", "businessunitid": "north", "parentsystemuserid": "vera", "positionid": "desk"},
        {"systemuserid": "bob", "businessunitid": "south", "parentsystemuserid": "ann", "positionid": "desk"},
    ],
    "teammembership": [{"teamid": "blue", "systemuserid": "ann"}, {"teamid": "blue", "systemuserid": "bob"}],
    "usersettings": [{"systemuserid": "ann", "uilanguageid": 1031}, {"systemuserid": "bob", "uilanguageid": 0}],
    "position": [
        {"positionid": "head", "parentpositionid": None},
        {"positionid": "vacant", "parentpositionid": "head"},
        {"positionid": "desk", "parentpositionid": "vacant"},
    ],
}


def test_what_is_known_of_a_user() -> None:
    callers = build_callers(ROWS, Hierarchy.MANAGER)
    assert callers.users["ann"] == Caller("north", ("blue",), 1031)
    assert callers.users["bob"].language is None
    assert callers.reports == {"vera": ("ann",), "ann": ("bob",)}
    assert callers.team_members == {"blue": ("ann", "bob")}


def test_a_vacant_position_hides_nobody_below_it() -> None:
    assert build_callers(ROWS, Hierarchy.POSITION).reports == {"vera": ("ann", "bob")}


def test_positions_in_a_circle_end() -> None:
    rows = {
        **ROWS,
        "position": [{"positionid": "a", "parentpositionid": "b"}, {"positionid": "b", "parentpositionid": "a"}],
    }
    rows["systemuser"] = [{"systemuserid": "ann", "positionid": "a"}]
    assert build_callers(rows, Hierarchy.POSITION).reports == {}


def test_the_context_is_the_users_and_nobodys_for_one_who_is_not_there() -> None:
    callers = build_callers(ROWS, Hierarchy.MANAGER)
    ann = callers.context_for(BASE, "ann")
    assert (ann.user_id, ann.business_unit_id, ann.user_team_ids, ann.user_language) == (
        "ann",
        "north",
        ("blue",),
        1031,
    )
    assert callers.context_for(BASE, "gone").user_id is None
    assert callers.context_for(BASE, None) is BASE
    assert Callers().context_for(BASE, "ann") is BASE


@pytest.mark.parametrize(
    ("operator", "hierarchy", "expected"),
    [
        ("eq-userid", Hierarchy.MANAGER, {}),
        ("eq-businessid", Hierarchy.MANAGER, {"systemuser": {"businessunitid"}}),
        ("eq-userteams", Hierarchy.MANAGER, {"teammembership": {"systemuserid", "teamid"}}),
        ("eq-useroruserhierarchy", Hierarchy.MANAGER, {"systemuser": {"parentsystemuserid"}}),
        (
            "eq-useroruserhierarchy",
            Hierarchy.POSITION,
            {"systemuser": {"positionid"}, "position": {"parentpositionid"}},
        ),
        ("eq-userlanguage", Hierarchy.MANAGER, {"usersettings": {"uilanguageid"}}),
    ],
)
def test_only_what_an_operator_needs_is_mirrored(
    operator: str, hierarchy: Hierarchy, expected: dict[str, set[str]]
) -> None:
    assert caller_columns([operator], hierarchy) == expected


def test_the_tables_of_callers_are_named_only_by_queries_that_ask() -> None:
    assert tables_named(asked(goal("a"), operator="eq-userteams")) == {"opportunity", "teammembership"}
    assert tables_named(asked(goal("a"), operator="not-null")) == {"opportunity"}
    groups = grouped(asked(goal("a", manager_id="ann"), operator="eq-useroruserhierarchy")).groups
    assert columns_needed(groups, WITH_USERS)["systemuser"] == {"parentsystemuserid"}
    assert columns_needed(groups, WITH_USERS, Hierarchy.POSITION)["systemuser"] == {"positionid"}
