"""The Web API as different users see it: who may read, write and roll up what, and the headers that impersonate."""

from __future__ import annotations

import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.security import APPLICATION_USER, BASIC, GLOBAL, LOCAL, Security, amend, object_id
from tests.unit.emulating import ANN, ANNS, BOB, COMPANY, DESK, SMALL, Org, code, deal, made_id

AS_ANN = {"CallerObjectId": object_id(ANN)}
AS_BOB = {"MSCRMCallerID": BOB}
SELLER = {"prvReadOpportunity": BASIC, "prvWriteOpportunity": BASIC, "prvReadGoal": GLOBAL, "prvReadUser": BASIC}


@pytest.fixture
def security() -> Security:
    found = Security()
    found.role("seller", **SELLER)
    found.give("seller", user=ANN)
    found.give("seller", user=BOB)
    return found


def served(folder: Path, security: Security) -> Org:
    shutil.copytree(SMALL, folder / "org")
    amend(folder / "org", "systemusers", lambda row: {"azureactivedirectoryobjectid": object_id(row["systemuserid"])})
    security.write(folder / "org")
    return Org(folder=folder / "org")


@pytest.fixture
def org(tmp_path: Path, security: Security) -> Org:
    return served(tmp_path, security)


def names(org: Org, headers: dict[str, str], path: str = "opportunities?$select=name") -> list[str]:
    response = org.call("GET", path, headers=headers)
    assert response.status_code == 200, response.text
    return [row["name"] for row in response.json()["value"]]


def test_a_collection_holds_what_the_user_may_read(org: Org) -> None:
    assert names(org, {}) == ["Alpha", "beta", "Gamma", "alpha two", "50% off"]
    assert names(org, AS_ANN) == ["Alpha"]
    assert names(org, AS_BOB) == ["beta", "alpha two", "50% off"]
    assert names(org, AS_BOB, "opportunities?$select=name&$filter=statecode eq 0&$orderby=name desc") == [
        "beta",
        "alpha two",
        "50% off",
    ]


def fetched(org: Org, headers: dict[str, str], inside: str, of: str = "") -> Any:
    text = f'<fetch{of}><entity name="opportunity">{inside}</entity></fetch>'
    response = org.call("GET", f"opportunities?fetchXml={quote(text)}", headers=headers)
    assert response.status_code == 200, response.text
    return response.json()["value"]


def test_a_fetchxml_query_holds_what_the_user_may_read_of_every_table(org: Org) -> None:
    named = '<attribute name="name"/>'
    assert [row["name"] for row in fetched(org, AS_ANN, named)] == ["Alpha"]
    assert [row["name"] for row in fetched(org, AS_BOB, named)] == ["beta", "alpha two", "50% off"]
    count = '<attribute name="opportunityid" alias="n" aggregate="count"/>'
    assert [fetched(org, who, count, ' aggregate="true"') for who in ({}, AS_BOB)] == [[{"n": 5}], [{"n": 3}]]


def test_rows_linked_in_a_fetchxml_query_are_those_within_sight(org: Org) -> None:
    """Of the users Bob reads his own row only, not that of Ann, who changed a deal of his."""
    org.emulator.store.change("opportunity", made_id("e", 2), {"modifiedby": ANN})
    link = (
        '<link-entity name="systemuser" from="systemuserid" to="modifiedby" link-type="{}" alias="who">{}</link-entity>'
    )
    shown = '<attribute name="name"/>' + link.format("outer", '<attribute name="fullname"/>')
    assert {row["name"]: row.get("who.fullname") for row in fetched(org, {}, shown)}["beta"] == "Ann Lee"
    assert {row["name"]: row.get("who.fullname") for row in fetched(org, AS_BOB, shown)}["beta"] is None
    within = link.format("any", "").replace(' alias="who"', "")
    for joined in (link.format("inner", ""), f"<filter>{within}</filter>"):
        inside = f'<attribute name="name"/>{joined}'
        assert "beta" in [row["name"] for row in fetched(org, {}, inside)]
        assert "beta" not in [row["name"] for row in fetched(org, AS_BOB, inside)]


def test_pages_and_counts_follow_what_is_seen(org: Org) -> None:
    assert org.call("GET", "opportunities/$count", headers=AS_BOB).text == "3"
    page = org.call("GET", "opportunities?$count=true", headers={**AS_BOB, "Prefer": "odata.maxpagesize=2"}).json()
    assert (page["@odata.count"], len(page["value"])) == (3, 2)
    rest = org.call("GET", page["@odata.nextLink"], headers={**AS_BOB, "Prefer": "odata.maxpagesize=2"}).json()
    assert [row["name"] for row in rest["value"]] == ["50% off"]


def test_a_row_out_of_sight_is_refused_by_name(org: Org) -> None:
    assert org.call("GET", deal(1), headers=AS_ANN).status_code == 200
    response = org.call("GET", deal(2), headers=AS_ANN)
    assert code(response) == (403, "0x80048306")
    assert f"(Id={ANN}, type=8, roleCount=1, privilegeCount=4" in response.text
    assert "does not have ReadAccess right(s)" in response.text


def test_expanded_rows_out_of_sight_are_not_there(org: Org) -> None:
    path = f"{ANNS}?$expand=goalownerid_systemuser($select=fullname)"
    assert org.call("GET", path, headers=AS_ANN).json()["goalownerid_systemuser"]["fullname"] == "Ann Lee"
    assert org.call("GET", path, headers=AS_BOB).json()["goalownerid_systemuser"] is None


def test_a_table_without_privilege_is_refused(org: Org) -> None:
    response = org.call("GET", "phonecalls", headers=AS_ANN)
    assert code(response) == (403, "0x80040220")
    assert "is missing prvReadActivity privilege" in response.text


def test_tracking_changes_needs_the_whole_organization(org: Org) -> None:
    tracked = {"Prefer": "odata.track-changes"}
    link = org.call("GET", "opportunities?$select=name", headers=tracked).json()["@odata.deltaLink"]
    assert org.call("GET", link).status_code == 200
    for path, headers in (("opportunities", {**AS_ANN, **tracked}), (link, AS_ANN)):
        assert code(org.call("GET", path, headers=headers)) == (403, "0x80040220")


def test_writing_needs_the_row_within_reach(org: Org) -> None:
    assert org.patch(deal(1), {"name": "Mine"}, AS_ANN).status_code == 204
    assert code(org.patch(deal(2), {"name": "Yours"}, AS_ANN)) == (403, "0x80048306")
    response = org.call("DELETE", deal(1), headers=AS_ANN)
    assert code(response) == (403, "0x80040220")
    assert "prvDeleteOpportunity" in response.text


def test_a_write_says_who_and_on_whose_behalf(org: Org) -> None:
    org.patch(deal(1), {"name": "Mine"}, AS_ANN)
    row = org.get(deal(1))
    assert row["_modifiedby_value"] == ANN
    assert row["_modifiedonbehalfby_value"] == APPLICATION_USER
    org.patch(deal(1), {"name": "Ours"})
    row = org.get(deal(1))
    assert row["_modifiedby_value"] == APPLICATION_USER
    assert row["_modifiedonbehalfby_value"] is None


def test_recalculate_needs_the_privilege_to_write_goals(org: Org) -> None:
    response = org.post(f"{COMPANY}/Microsoft.Dynamics.CRM.Recalculate", {}, AS_ANN)
    assert code(response) == (403, "0x80040220")
    assert "prvWriteGoal" in response.text


def test_who_am_i_is_the_impersonated_user(org: Org) -> None:
    assert org.call("GET", "WhoAmI", headers=AS_ANN).json()["UserId"] == ANN
    assert org.get("WhoAmI")["UserId"] == APPLICATION_USER


@pytest.mark.parametrize("headers", [{"CallerObjectId": made_id("f", 1)}, {"MSCRMCallerID": DESK}])
def test_a_user_nobody_knows_is_refused(org: Org, headers: dict[str, str]) -> None:
    assert code(org.call("GET", "opportunities", headers=headers)) == (403, "0x80072560")


def test_impersonating_needs_its_privilege(tmp_path: Path, security: Security) -> None:
    narrow = Security(administrator=False)
    narrow.role("reader", prvReadOpportunity=GLOBAL)
    narrow.give("reader", user=APPLICATION_USER)
    org = served(tmp_path, narrow)
    response = org.call("GET", "opportunities", headers=AS_ANN)
    assert code(response) == (403, "0x80040220")
    assert "prvActOnBehalfOfAnotherUser" in response.text


def actuals(org: Org) -> dict[str, Any]:
    return {str(row["title"]): row.get("actualmoney") for row in org.emulator.store.rows("goal").values()}


def test_the_native_rollup_counts_what_each_manager_may_read(tmp_path: Path, security: Security) -> None:
    security.role("lead", prvReadOpportunity=LOCAL)
    org = served(tmp_path, security)
    store = org.emulator.store
    for goal in list(store.rows("goal")):
        store.change("goal", goal, {"consideronlygoalownersrecords": False, "rolluponlyfromchildgoals": False})
    store.change("goal", made_id("d", 3), {"ownerid": BOB, "owneridtype": "systemuser"})
    org.post(f"{COMPANY}/Microsoft.Dynamics.CRM.Recalculate", {})
    assert actuals(org) == {
        "Company": Decimal("201"),
        "Ann": Decimal("100.5"),
        "Desk": Decimal(0),
        "Closed": Decimal("77.5"),
    }
    store.put("systemuserroles", {"systemuserroleid": "x", "systemuserid": BOB, "roleid": store_role(org, "lead")})
    org.post(f"{COMPANY}/Microsoft.Dynamics.CRM.Recalculate", {})
    assert actuals(org)["Desk"] == Decimal("300.5")


def store_role(org: Org, name: str) -> str:
    return next(str(row["roleid"]) for row in org.emulator.store.rows("role").values() if row["name"] == name)
