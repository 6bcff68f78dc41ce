"""What the emulator holds goals, metrics and rollup queries to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emulating import ANN, ANNS, CLOSED, COMPANY, DESK, DESKS, OLD_METRIC, REVENUE, Org, code, made_id

CALLS_METRIC = f"/metrics({made_id('b', 2)})"
CUSTOM = {
    "isfiscalperiodgoal": False,
    "goalstartdate": "2026-01-01T00:00:00Z",
    "goalenddate": "2026-12-31T00:00:00Z",
    "metricid@odata.bind": f"/metrics({REVENUE})",
}
FISCAL = {"fiscalyear": 2026, "fiscalperiod": 2, "metricid@odata.bind": f"/metrics({REVENUE})"}
FULL_YEAR = {"parentgoalid@odata.bind": f"/{COMPANY}"}


@pytest.fixture
def org() -> Org:
    return Org()


@pytest.mark.parametrize(
    "column",
    [f"{category}{kind}" for category in ("actual", "inprogress", "customrollupfield") for kind in ("money", "decimal")]
    + ["actualinteger", "inprogressinteger", "customrollupfieldinteger"],
)
def test_rollup_columns_need_isoverride_in_the_same_request(org: Org, column: str) -> None:
    assert code(org.patch(ANNS, {column: 5})) == (400, "0x80044911")
    assert org.patch(ANNS, {column: 5, "isoverride": True}).status_code == 204
    assert org.get(ANNS)[column] == 5
    assert code(org.patch(ANNS, {column: None})) == (400, "0x80044911"), "an earlier isoverride does not count"
    assert code(org.patch(ANNS, {column: 6, "isoverride": False})) == (400, "0x80044911")


def test_percentage_and_base_follow_an_override(org: Org) -> None:
    org.patch(ANNS, {"actualmoney": 43.5, "isoverride": True, "isoverridden": True})
    goal = org.get(ANNS)
    assert (goal["actualmoney_base"], goal["percentage"]) == (43.5, 9)
    org.patch(ANNS, {"actualmoney": 252.62625, "isoverride": True})
    assert org.get(ANNS)["percentage"] == 51, "50.5 is rounded half up"
    org.patch(ANNS, {"actualmoney": 1, "percentage": 33, "isoverride": True})
    assert org.get(ANNS)["percentage"] == 33, "what the request says itself stays"
    org.patch(ANNS, {"targetmoney": None})
    assert org.get(ANNS)["percentage"] is None
    org.patch(ANNS, {"targetmoney": 0})
    assert org.get(ANNS)["percentage"] is None


def test_percentage_can_be_guarded_or_left_alone() -> None:
    assert code(Org(guard_percentage=True).patch(ANNS, {"percentage": 5})) == (400, "0x80044911")
    org = Org(keep_percentage=False)
    org.patch(ANNS, {"actualmoney": 5, "isoverride": True})
    assert org.get(ANNS)["percentage"] is None


def test_a_closed_goal_is_read_only_until_it_is_reopened(org: Org) -> None:
    assert code(org.patch(CLOSED, {"title": "x"})) == (400, "0x80040230")
    assert code(org.patch(CLOSED, {"actualmoney": 1, "isoverride": True})) == (400, "0x80040230")
    assert org.patch(CLOSED, {"statecode": 0, "statuscode": 0}).status_code == 204
    assert org.patch(CLOSED, {"title": "x"}).status_code == 204
    assert org.patch(CLOSED, {"statecode": 1, "statuscode": 2}).status_code == 204
    assert org.get(CLOSED)["statuscode"] == 2


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"isamount": False}, "0x80048d19"),
        ({"amountdatatype": 1}, "0x80048d19"),
        ({"treeid": made_id("d", 1)}, "0x80048d19"),
        ({"depth": 3}, "0x80048d19"),
        ({"computedtargetasoftodaymoney": 3}, "0x80048d19"),
        ({"actualstring": "5"}, "0x80048d19"),
        ({"transactioncurrencyid@odata.bind": f"/transactioncurrencies({made_id('c', 2)})"}, "0x80048d19"),
        ({"metricid@odata.bind": CALLS_METRIC}, "0x80044900"),
        ({"goalenddate": "2026-06-30T00:00:00Z"}, "0x80044901"),
        ({"goalenddate": "2026-06-30T00:00:00Z", "parentgoalid@odata.bind": None}, "0x8004480c"),
        ({"ownerid@odata.bind": f"/teams({DESK})"}, "0x8004f684"),
        ({"rollupqueryactualmoneyid@odata.bind": f"/goalrollupqueries({made_id('b', 22)})"}, "0x8004f685"),
        ({"rollupqueryactualmoneyid@odata.bind": f"/goalrollupqueries({made_id('b', 23)})"}, "0x8004f683"),
        ({"targetmoney": -1}, "0x80044330"),
        ({"fiscalyear": 2039}, "0x8004431a"),
    ],
)
def test_a_child_goal_cannot_be_changed_like_this(org: Org, body: dict[str, Any], error: str) -> None:
    assert code(org.patch(ANNS, body)) == (400, error)


def test_a_fitting_query_may_be_set(org: Org) -> None:
    body = {"rollupqueryactualmoneyid@odata.bind": f"/goalrollupqueries({made_id('b', 21)})"}
    assert org.patch(ANNS, body).status_code == 204
    assert org.get(ANNS)["_rollupqueryactualmoneyid_value"] == made_id("b", 21)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({**FISCAL, "fiscalperiod": None}, "0x80044903"),
        ({"title": "no period"}, "0x80044903"),
        ({**CUSTOM, "fiscalyear": 2026}, "0x80044904"),
        ({**CUSTOM, "goalenddate": None}, "0x80044907"),
        ({**FISCAL, "isfiscalperiodgoal": None}, "0x80044908"),
        ({**CUSTOM, **FULL_YEAR, "metricid@odata.bind": CALLS_METRIC}, "0x80044905"),
        ({**CUSTOM, **FULL_YEAR, "goalenddate": "2026-06-30T00:00:00Z"}, "0x80044906"),
        ({**FISCAL, **FULL_YEAR}, "0x80044906"),
        ({**CUSTOM, "metricid@odata.bind": f"/metrics({OLD_METRIC})"}, "0x8004f686"),
        ({**CUSTOM, "actualmoney": 1}, "0x80044911"),
        ({**CUSTOM, "statecode": 1}, "0x80048d19"),
    ],
)
def test_a_goal_cannot_be_made_like_this(org: Org, body: dict[str, Any], error: str) -> None:
    count = len(org.emulator.store.rows("goal"))
    assert code(org.post("goals", body)) == (400, error)
    assert len(org.emulator.store.rows("goal")) == count


def test_a_new_goal_takes_type_currency_place_and_period(org: Org) -> None:
    made = org.post(
        "goals", {**CUSTOM, **FULL_YEAR, "title": "n", "targetmoney": 5}, {"Prefer": "return=representation"}
    )
    goal = made.json()
    assert (goal["isamount"], goal["amountdatatype"]) == (True, 0)
    assert (goal["_transactioncurrencyid_value"], goal["exchangerate"]) == (made_id("c", 1), 1)
    assert (goal["treeid"], goal["depth"]) == (made_id("d", 1), 1)
    assert goal["targetmoney_base"] == 5
    fiscal = org.post("goals", {**FISCAL, "title": "q2"}, {"Prefer": "return=representation"}).json()
    assert (fiscal["goalstartdate"], fiscal["goalenddate"]) == ("2026-04-01T00:00:00Z", "2026-06-30T00:00:00Z")
    assert (fiscal["consideronlygoalownersrecords"], fiscal["rolluponlyfromchildgoals"]) == (True, False)


def test_a_count_metric_makes_integer_goals(org: Org) -> None:
    body = {**CUSTOM, "metricid@odata.bind": CALLS_METRIC}
    goal = org.post("goals", body, {"Prefer": "return=representation"}).json()
    assert (goal["isamount"], goal["amountdatatype"]) == (False, 2)


def test_a_roots_metric_and_period(org: Org) -> None:
    assert code(org.patch(COMPANY, {"metricid@odata.bind": CALLS_METRIC})) == (400, "0x80044902")
    assert org.patch(COMPANY, {"goalenddate": "2026-06-30T00:00:00Z"}).status_code == 204
    assert org.get(ANNS)["goalenddate"] == "2026-06-30T00:00:00Z", "children take the root's period"
    org.patch(ANNS, {"statecode": 1})
    assert code(org.patch(COMPANY, {"goalenddate": "2026-09-30T00:00:00Z"})) == (400, "0x80044910")


def test_a_goal_cannot_stand_below_itself(org: Org) -> None:
    assert code(org.patch(COMPANY, {"parentgoalid@odata.bind": f"/{ANNS}"})) == (400, "0x80040203")


def test_moving_a_goal_moves_its_tree(org: Org) -> None:
    below = {**CUSTOM, "goalid": made_id("d", 8), "parentgoalid@odata.bind": f"/{DESKS}"}
    org.post("goals", below)
    org.patch(DESKS, {"parentgoalid@odata.bind": f"/{ANNS}"})
    leaf = org.get(f"goals({made_id('d', 8)})")
    assert (leaf["treeid"], leaf["depth"]) == (made_id("d", 1), 3)
    org.call("DELETE", ANNS)
    desk = org.get(DESKS)
    assert (desk["_parentgoalid_value"], desk["treeid"], desk["depth"]) == (None, made_id("d", 3), 0)
    assert org.get(f"goals({made_id('d', 8)})")["treeid"] == made_id("d", 3)


def field(attribute: str) -> dict[str, Any]:
    return {"goalattribute": attribute, "sourceentity": "opportunity", "metricid@odata.bind": f"/metrics({REVENUE})"}


def test_a_metric_has_room_for_three_fitting_rollup_fields(org: Org) -> None:
    assert code(org.post("rollupfields", field("actualmoney"))) == (400, "0x80044807")
    assert code(org.post("rollupfields", field("inprogressdecimal"))) == (400, "0x8004480b")
    assert org.post("rollupfields", field("inprogressmoney")).status_code == 204
    assert org.post("rollupfields", field("customrollupfieldmoney")).status_code == 204
    assert code(org.post("rollupfields", field("actualmoney"))) == (400, "0x8004480a")
    assert code(org.patch(f"rollupfields({made_id('b', 11)})", {"sourcestate": 0})) == (400, "0x80044801")
    assert code(org.patch(f"rollupfields({made_id('b', 11)})", {"sourceentity": "lead"})) == (400, "0x80048d19")


def test_metrics_have_one_name_and_one_type_while_in_use(org: Org) -> None:
    assert code(org.post("metrics", {"name": "revenue"})) == (400, "0x80044802")
    assert code(org.patch(f"metrics({REVENUE})", {"amountdatatype": 1})) == (400, "0x80044803")
    assert org.patch(f"metrics({REVENUE})", {"description": "x"}).status_code == 204
    assert org.call("DELETE", f"metrics({made_id('b', 2)})").status_code == 204


def test_a_query_must_be_over_its_table(org: Org) -> None:
    body = {"name": "q", "queryentitytype": "lead", "fetchxml": "<fetch><entity name='opportunity'/></fetch>"}
    assert code(org.post("goalrollupqueries", body)) == (400, "0x80044909")
    assert org.post("goalrollupqueries", {**body, "fetchxml": "<fetch"}).status_code == 400
    assert org.post("goalrollupqueries", {**body, "queryentitytype": "opportunity"}).status_code == 204


def test_a_user_owns_a_goal_as_manager(org: Org) -> None:
    assert org.patch(ANNS, {"ownerid@odata.bind": f"/systemusers({ANN})"}).status_code == 204
