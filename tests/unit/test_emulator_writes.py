"""Writing: conditions, lookups, checks, and what the platform keeps by itself."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.unit.emulating import ANN, ANNS, BOB, DESK, EUR, NOW, REVENUE, ROOT, USD, Org, code, deal, made_id

LINE = f"opportunityproducts({made_id('f', 1)})"


@pytest.fixture
def org() -> Org:
    return Org()


def test_a_create_answers_with_the_address_and_keeps_its_own_books(org: Org) -> None:
    response = org.post("opportunities", {"name": "New", "estimatedvalue": 12.34567})
    assert (response.status_code, response.content) == (204, b"")
    address = response.headers["OData-EntityId"]
    assert address == response.headers["Location"]
    assert address.startswith(f"{ROOT}opportunities(")
    row = org.get(address)
    me = org.get("WhoAmI")["UserId"]
    assert row["estimatedvalue"] == row["estimatedvalue_base"] == 12.3457
    assert row["createdon"] == row["modifiedon"] == "2026-05-01T12:00:00Z"
    assert row["_ownerid_value"] == row["_owninguser_value"] == row["_createdby_value"] == me
    assert (row["statecode"], row["statuscode"], row["_transactioncurrencyid_value"]) == (0, 1, EUR)


def test_a_representation_comes_when_preferred(org: Org) -> None:
    prefer = {"Prefer": "return=representation"}
    made = org.post("accounts?$select=name", {"name": "Acme", "accountid": made_id("9", 1)}, prefer)
    assert (made.status_code, made.headers["Preference-Applied"]) == (201, "return=representation")
    assert "OData-EntityId" not in made.headers
    assert {key: made.json()[key] for key in ("name", "accountid")} == {"name": "Acme", "accountid": made_id("9", 1)}
    changed = org.patch(f"accounts({made_id('9', 1)})?$select=name", {"name": "Acme 2"}, prefer)
    assert (changed.status_code, changed.json()["name"]) == (200, "Acme 2")


def test_a_taken_key_is_refused(org: Org) -> None:
    org.post("accounts", {"accountid": made_id("9", 1)})
    assert code(org.post("accounts", {"accountid": made_id("9", 1)})) == (412, "0x80040237")


def test_a_patch_without_condition_is_an_upsert(org: Org) -> None:
    path = f"accounts({made_id('9', 2)})"
    assert code(org.patch(path, {"name": "x"}, {"If-Match": "*"})) == (404, "0x80040217")
    assert org.patch(path, {"name": "x"}).status_code == 204
    assert org.get(path)["name"] == "x"
    assert code(org.patch(path, {"name": "y"}, {"If-None-Match": "*"})) == (412, "0x80040237")
    assert org.patch(path, {"name": "z"}, {"If-None-Match": "null"}).status_code == 204


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_stale_etag_is_refused_and_a_fresh_one_taken(org: Org, method: str) -> None:
    tag = org.get(deal(1))["@odata.etag"]
    org.patch(deal(1), {"name": "someone else"})
    body = {"name": "mine"} if method == "PATCH" else None
    stale = org.call(method, deal(1), body, {"If-Match": tag})
    assert code(stale) == (412, "0x80060882")
    fresh = org.get(deal(1))["@odata.etag"]
    assert fresh != tag
    assert org.call(method, deal(1), body, {"If-Match": fresh}).status_code == 204


@pytest.mark.parametrize(
    "reference",
    [f"/systemusers({BOB})", f"systemusers({BOB})", f"{ROOT}systemusers({BOB})", f"/systemusers%28{BOB}%29"],
)
def test_every_form_of_reference_is_taken(org: Org, reference: str) -> None:
    assert org.patch(deal(1), {"ownerid@odata.bind": reference}).status_code == 204
    assert org.get(deal(1))["_ownerid_value"] == BOB


def test_one_target_of_a_polymorphic_lookup_replaces_the_other(org: Org) -> None:
    org.patch(ANNS, {"goalownerid_team@odata.bind": f"/teams({DESK})"})
    name = "_goalownerid_value"
    row = org.get(f"{ANNS}?$select={name}", 'odata.include-annotations="Microsoft.Dynamics.CRM.lookuplogicalname"')
    assert (row[name], row[f"{name}@Microsoft.Dynamics.CRM.lookuplogicalname"]) == (DESK, "team")
    org.patch(ANNS, {"goalownerid_team@odata.bind": None})
    assert org.get(ANNS)[name] is None


@pytest.mark.parametrize(
    ("path", "body", "error", "says"),
    [
        (deal(1), {"nosuch": 1}, "0x80048d19", "'nosuch'"),
        (deal(1), {"name": 5}, "0x80048d19", "'name' holds 5"),
        (deal(1), {"estimatedvalue": "5"}, "0x80048d19", "'estimatedvalue'"),
        (deal(1), {"estimatedvalue": True}, "0x80048d19", "'estimatedvalue'"),
        (deal(1), {"closeprobability": 1.5}, "0x80048d19", "'closeprobability'"),
        (deal(1), {"actualclosedate": "2026-02-30"}, "0x80048d19", "'actualclosedate'"),
        (deal(1), {"actualclosedate": "2026-02-03T00:00:00Z"}, "0x80048d19", "'actualclosedate'"),
        (deal(1), {"_ownerid_value": BOB}, "0x80048d19", "Navigation properties"),
        (deal(1), {"owner@odata.bind": f"/systemusers({BOB})"}, "0x80048d19", "undeclared property 'owner'"),
        (deal(1), {"ownerid@odata.bind": f"/accounts({BOB})"}, "0x80048d19", "'accounts'"),
        (deal(1), {"ownerid@odata.bind": BOB}, "0x80048d19", "address of a row"),
        (deal(1), {"actualvalue_base": 1}, "0x80048d19", "not valid for update"),
        (deal(1), {"createdon": "2026-01-01T00:00:00Z"}, "0x80048d19", "not valid for update"),
        (deal(1), {"msdyn_forecastcategory": 7}, "0x8004431a", "outside the valid range"),
        (deal(1), {"closeprobability": 101}, "0x80044330", "'closeprobability'"),
        (deal(1), {"estimatedvalue": 1000000000000.01}, "0x80044330", "'estimatedvalue'"),
        (deal(1), {"name": "x" * 301}, "0x80044331", "'300'"),
        (deal(1), {"statuscode": 1}, "0x80048408", "1 is not a valid status code for state code 1"),
        (deal(2), {"statecode": 1}, "0x80100005", "use the WinOpportunity message"),
        (deal(1), {"opportunityid": made_id("e", 7)}, "0x80040203", "opportunityid"),
    ],
)
def test_a_body_that_is_not_right_is_refused(org: Org, path: str, body: dict[str, Any], error: str, says: str) -> None:
    before = org.get(path)
    response = org.patch(path, body)
    assert code(response) == (400, error)
    assert says in response.json()["error"]["message"]
    assert org.get(path) == before


def test_a_reference_to_no_row_is_not_found(org: Org) -> None:
    response = org.patch(deal(1), {"ownerid@odata.bind": f"/systemusers({made_id('1', 1)})"})
    assert code(response) == (404, "0x80040217")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", f"metrics({REVENUE})", {"metric_rollupfield": [{}]}),
        ("PATCH", deal(1), {"ownerid": {"fullname": "x"}}),
        ("POST", "CloseIncident", {}),
        ("POST", "goals/Microsoft.Dynamics.CRM.Rollup", {}),
        ("GET", "GlobalOptionSetDefinitions", None),
    ],
)
def test_what_the_emulator_does_not_do_it_says(org: Org, method: str, path: str, body: dict[str, Any] | None) -> None:
    response = org.call(method, path, body)
    assert response.status_code == 501
    assert response.json()["error"]["message"].startswith("d365sync emulator: ")
    assert response.json()["error"]["message"].endswith("is not implemented")


def test_money_in_another_currency_has_a_base_amount_at_the_rows_own_rate(org: Org) -> None:
    row = org.get(deal(2))
    assert (row["exchangerate"], row["estimatedvalue_base"]) == (1.25, 8)
    org.patch(f"transactioncurrencies({USD})", {"exchangerate": 2})
    org.patch(deal(2), {"estimatedvalue": 20})
    row = org.get(deal(2))
    assert (row["exchangerate"], row["estimatedvalue_base"]) == (1.25, 16), "the record keeps the rate it has"
    org.patch(deal(2), {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({EUR})"})
    org.patch(deal(2), {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({USD})"})
    row = org.get(deal(2))
    assert (row["exchangerate"], row["estimatedvalue_base"]) == (2, 10), "a change of currency takes today's rate"


def test_a_base_amount_is_rounded_half_up_to_four_places(org: Org) -> None:
    org.patch(deal(2), {"estimatedvalue": 0.0003})
    assert org.get(deal(2))["estimatedvalue_base"] == 0.0002


def test_lines_follow_their_opportunity(org: Org) -> None:
    line = org.get(LINE)
    assert (line["_ownerid_value"], line["opportunitystatecode"], line["exchangerate"]) == (BOB, 0, 1.25)
    assert line["priceperunit_base"] == 4
    org.patch(deal(2), {"ownerid@odata.bind": f"/teams({DESK})"})
    org.patch(deal(2), {"transactioncurrencyid@odata.bind": f"/transactioncurrencies({EUR})"})
    close = {"opportunityid@odata.bind": f"/{deal(2)}", "actualrevenue": 9}
    assert org.post("WinOpportunity", {"Status": 3, "OpportunityClose": close}).status_code == 204
    line = org.get(LINE)
    assert (line["_ownerid_value"], line["opportunitystatecode"], line["priceperunit_base"]) == (DESK, 1, 5)


def test_winning_and_losing_close_a_deal_once(org: Org) -> None:
    close = {"opportunityid": {"opportunityid": made_id("e", 4)}, "actualend": "2026-04-30T22:00:00Z"}
    assert org.post("LoseOpportunity", {"Status": 5, "OpportunityClose": close}).status_code == 204
    row = org.get(deal(4))
    assert (row["statecode"], row["statuscode"], row["actualclosedate"]) == (2, 5, "2026-04-30")
    assert code(org.post("WinOpportunity", {"OpportunityClose": close})) == (400, "0x80048408")
    assert org.patch(deal(4), {"statecode": 0}).status_code == 204
    assert org.get(deal(4))["statuscode"] == 1


def test_a_won_deals_value_may_be_corrected(org: Org) -> None:
    assert org.patch(deal(1), {"actualvalue": 77, "statecode": 1}).status_code == 204
    assert org.get(deal(1))["actualvalue_base"] == 77


def test_a_change_moves_the_clock_and_the_version(org: Org) -> None:
    before = org.get(deal(1))
    org.emulator.clock.freeze(NOW + dt.timedelta(hours=1))
    org.patch(deal(1), {"name": None})
    after = org.get(deal(1))
    assert (after["createdon"], after["modifiedon"]) == (before["createdon"], "2026-05-01T13:00:00Z")
    assert (after["name"], after["versionnumber"] > before["versionnumber"]) == (None, True)


def test_deleting_takes_what_belongs_and_clears_what_refers(org: Org) -> None:
    assert org.call("DELETE", deal(2)).status_code == 204
    assert org.call("GET", LINE).status_code == 404
    assert code(org.call("DELETE", deal(2))) == (404, "0x80040217")
    assert org.call("DELETE", f"teams({DESK})").status_code == 204
    assert org.get(deal(3))["_ownerid_value"] is None
    assert code(org.call("DELETE", f"metrics({REVENUE})")) == (405, "0x80040227")


def test_missing_privileges_stop_writes() -> None:
    org = Org(missing_privileges=frozenset({"prvwritegoal", "prvCreateAccount", "prvDeleteOpportunity"}))
    assert code(org.patch(ANNS, {"title": "x"})) == (403, "0x80040220")
    assert org.post("accounts", {}).status_code == 403
    assert org.patch(f"accounts({ANN})", {}).status_code == 403, "an upsert that creates needs to create"
    assert org.call("DELETE", deal(1)).status_code == 403


@pytest.mark.parametrize(("method", "path"), [("PUT", ANNS), ("POST", ANNS), ("DELETE", "goals"), ("POST", "WhoAmI")])
def test_a_method_an_address_has_not_is_refused(org: Org, method: str, path: str) -> None:
    assert org.call(method, path, {}).status_code == 405


def test_a_body_that_is_no_object_is_refused(org: Org) -> None:
    response = org.session.patch(ROOT + deal(1), data=b'[{"name": "x"}', headers={"Content-Type": "application/json"})
    assert code(response) == (400, "0x80040203")


def test_a_status_that_is_null_is_left_as_it_is() -> None:
    org = Org()
    made = org.post(
        "accounts", {"name": "x", "statuscode": None, "statecode": None}, {"Prefer": "return=representation"}
    )
    row = made.json()
    assert (row["statecode"], row["statuscode"]) == (0, 1)
    address = f"accounts({row['accountid']})"
    assert org.patch(address, {"statecode": 1, "statuscode": None}).status_code == 204
    assert org.patch(address, {"statuscode": None}).status_code == 204
    again = org.get(address)
    assert (again["statecode"], again["statuscode"]) == (1, 2)
