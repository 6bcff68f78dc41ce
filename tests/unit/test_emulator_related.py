"""Single values, related rows, references and rows created together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from d365sync.emulator.rowpaths import ADDRESSES
from tests.security import BASIC, Security, amend, object_id
from tests.unit.emulating import (
    ANN,
    ANNS,
    BOB,
    COMPANY,
    DESK,
    DESKS,
    REVENUE,
    ROOT,
    Org,
    code,
    deal,
    keyed_folder,
    made_id,
)

CHILDREN = f"{COMPANY}/goal_parent_goal"
LINE = f"opportunityproducts({made_id('f', 1)})"


@pytest.fixture
def org() -> Org:
    return Org()


@pytest.fixture
def keyed(tmp_path: Path) -> Org:
    return Org(folder=keyed_folder(tmp_path / "org"))


def references(org: Org, path: str) -> set[str]:
    return {one["@odata.id"].removeprefix(ROOT) for one in org.get(f"{path}/$ref")["value"]}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("name", "x y", "x y"),
        ("estimatedvalue", 12.5, "12.5000"),
        ("closeprobability", 40, "40"),
        ("actualclosedate", "2026-04-01", "2026-04-01"),
    ],
)
def test_one_value_is_set_read_and_cleared(org: Org, name: str, value: Any, text: str) -> None:
    address = f"{deal(2)}/{name}"
    changed = org.call("PUT", address, {"value": value})
    assert (changed.status_code, changed.content) == (204, b"")
    assert org.get(address) == {"@odata.context": f"{ROOT}$metadata#{address}", "value": value}
    bare = org.call("GET", f"{address}/$value")
    assert (bare.status_code, bare.text, bare.headers["Content-Type"]) == (200, text, "text/plain; charset=utf-8")
    assert org.get(deal(2))[name] == value
    assert org.call("DELETE", address).status_code == 204
    for path in (address, f"{address}/$value"):
        empty = org.call("GET", path)
        assert (empty.status_code, empty.content) == (204, b"")


def test_values_of_every_kind_are_read(org: Org) -> None:
    row = org.get(deal(1))
    for name, value in row.items():
        if "@" not in name:
            response = org.call("GET", f"{deal(1)}/{name}")
            assert (response.json()["value"] if value is not None else response.content) == (
                b"" if value is None else value
            )
            assert org.call("GET", f"{deal(1)}/{name}/$value").status_code == (200 if value is not None else 204)
    assert org.call("GET", f"goals({ANNS[6:-1]})/isoverridden/$value").text in ("true", "false")


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("PUT", f"{deal(1)}/name", {"value": 5}, (400, "0x80048d19")),
        ("PUT", f"{deal(1)}/name", {"name": "x"}, (400, "0x80040203")),
        ("PUT", f"{deal(1)}/name", {"value": "x", "other": 1}, (400, "0x80040203")),
        ("PUT", f"{deal(1)}/createdon", {"value": None}, (400, "0x80048d19")),
        ("PUT", f"{deal(1)}/_ownerid_value", {"value": BOB}, (400, "0x80048d19")),
        ("DELETE", f"{deal(1)}/_ownerid_value", None, (400, "0x80048d19")),
        ("DELETE", f"{deal(1)}/opportunityid", None, (400, "0x80040203")),
        ("PUT", f"{deal(1)}/nosuch", {"value": 1}, (404, "0x80060888")),
        ("PATCH", f"{deal(1)}/name", {"value": "x"}, (405, "0x80060888")),
        ("PUT", f"{deal(1)}/name/$value", {"value": "x"}, (405, "0x80060888")),
        ("GET", f"{deal(1)}/name/more", None, (501, "")),
        ("GET", f"{deal(1)}/name?$select=name", None, (400, "0x80060888")),
        ("GET", f"opportunities({made_id('9', 9)})/name", None, (404, "0x80040217")),
        ("PUT", f"opportunities({made_id('9', 9)})/name", {"value": "x"}, (404, "0x80040217")),
        ("DELETE", f"opportunities({made_id('9', 9)})/name", None, (404, "0x80040217")),
        ("GET", f"opportunities({made_id('9', 9)})/ownerid", None, (404, "0x80040217")),
        ("GET", f"{deal(1)}/ownerid/fullname", None, (501, "")),
        ("PUT", f"{deal(1)}/ownerid", {}, (405, "0x80060888")),
    ],
)
def test_what_has_no_such_value_is_refused(
    org: Org, method: str, path: str, body: dict[str, Any] | None, error: tuple[int, str]
) -> None:
    assert code(org.call(method, path, body)) == error


def test_conditions_hold_for_one_value(org: Org) -> None:
    tag = org.get(deal(1))["@odata.etag"]
    assert org.call("PUT", f"{deal(1)}/name", {"value": "mine"}, {"If-Match": tag}).status_code == 204
    stale = org.call("PUT", f"{deal(1)}/name", {"value": "again"}, {"If-Match": tag})
    assert code(stale) == (412, "0x80060882")
    assert code(org.call("DELETE", f"{deal(1)}/name", headers={"If-Match": tag})) == (412, "0x80060882")


def test_a_conditional_read_with_annotations_or_expand_is_answered(org: Org) -> None:
    tag = org.get(deal(1))["@odata.etag"]
    condition = {"If-None-Match": tag}
    assert org.call("GET", deal(1), headers=condition).status_code == 304
    assert org.call("GET", f"{deal(1)}?$expand=owninguser", headers=condition).status_code == 200
    annotated = {**condition, "Prefer": 'odata.include-annotations="*"'}
    assert org.call("GET", deal(1), headers=annotated).status_code == 200


def test_a_lookup_leads_to_its_row(org: Org) -> None:
    assert org.get(f"{deal(1)}/ownerid?$select=fullname")["fullname"] == "Ann Lee"
    assert org.get(f"{deal(1)}/ownerid/$ref") == {
        "@odata.context": f"{ROOT}$metadata#$ref",
        "@odata.id": f"{ROOT}systemusers({ANN})",
    }
    for path in (f"{COMPANY}/parentgoalid", f"{COMPANY}/parentgoalid/$ref", f"{ANNS}/goalownerid_team"):
        assert org.call("GET", path).status_code == 204, path


def test_a_lookup_is_set_and_cleared_by_reference(org: Org) -> None:
    address = f"{deal(1)}/ownerid/$ref"
    assert org.call("PUT", address, {"@odata.id": f"{ROOT}systemusers({BOB})"}).status_code == 204
    row = org.get(deal(1))
    assert (row["_ownerid_value"], row["_owninguser_value"]) == (BOB, BOB)
    assert org.call("PUT", address, {"@odata.id": f"{ROOT}teams({DESK})"}).status_code == 204
    row = org.get(deal(1))
    assert (row["_ownerid_value"], row["_owningteam_value"]) == (DESK, DESK)
    parent = f"{ANNS}/parentgoalid/$ref"
    assert org.call("DELETE", parent).status_code == 204
    assert org.get(ANNS)["_parentgoalid_value"] is None
    assert org.call("DELETE", parent).status_code == 204, "what is empty stays so"


def test_a_reference_through_another_target_is_left_alone(org: Org) -> None:
    before = org.get(ANNS)
    assert org.call("DELETE", f"{ANNS}/goalownerid_team/$ref").status_code == 204
    assert org.get(ANNS) == before
    assert org.call("DELETE", f"{ANNS}/goalownerid_systemuser/$ref").status_code == 204
    assert org.get(ANNS)["_goalownerid_value"] is None


def test_a_collection_is_read_as_a_collection(org: Org) -> None:
    assert org.get(f"{CHILDREN}?$select=title&$orderby=title desc")["value"][0]["title"] > "B"
    found = {row["goalid"] for row in org.get(CHILDREN)["value"]}
    assert found == {row["goalid"] for row in org.get(f"goals?$filter=_parentgoalid_value eq {COMPANY[6:-1]}")["value"]}
    assert len(found) > 1
    assert org.call("GET", f"{CHILDREN}/$count").text == str(len(found))
    assert org.call("GET", f"{CHILDREN}/$count?$filter=title eq 'nobody'").text == "0"
    first = org.get(f"{CHILDREN}?$select=title", "odata.maxpagesize=1")
    assert first["@odata.nextLink"].startswith(f"{ROOT}{CHILDREN}?$select=title&$skiptoken=")
    pages, following = [first], first.get("@odata.nextLink")
    while following:
        pages.append(org.get(following, "odata.maxpagesize=1"))
        following = pages[-1].get("@odata.nextLink")
    assert {row["goalid"] for page in pages for row in page["value"]} == found
    assert len(pages) == len(found)


def test_collections_change_by_reference(org: Org) -> None:
    before = references(org, CHILDREN)
    assert DESKS in before
    assert org.call("DELETE", f"{COMPANY}/goal_parent_goal({DESKS[6:-1]})/$ref").status_code == 204
    assert references(org, CHILDREN) == before - {DESKS}
    assert org.get(DESKS)["_parentgoalid_value"] is None
    assert org.post(f"{CHILDREN}/$ref", {"@odata.id": ROOT + DESKS}).status_code == 204
    assert references(org, CHILDREN) == before
    assert org.call("DELETE", f"{CHILDREN}/$ref?$id={ROOT}{DESKS}").status_code == 204
    assert org.call("DELETE", f"{CHILDREN}/$ref?$id={DESKS}").status_code == 204, "what is not there stays away"
    assert references(org, CHILDREN) == before - {DESKS}


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("PUT", f"{deal(1)}/ownerid/$ref", {}, (400, "0x80040203")),
        ("PUT", f"{deal(1)}/ownerid/$ref", {"@odata.id": 5}, (400, "0x80040203")),
        ("PUT", f"{deal(1)}/ownerid/$ref", {"@odata.id": f"systemusers({BOB})"}, (400, "0x80048d19")),
        ("PUT", f"{deal(1)}/ownerid/$ref", {"@odata.id": f"{ROOT}accounts({BOB})"}, (400, "0x80048d19")),
        ("PUT", f"{deal(1)}/ownerid/$ref", {"@odata.id": f"{ROOT}systemusers({REVENUE})"}, (404, "0x80040217")),
        ("PUT", f"{deal(1)}/createdby/$ref", {"@odata.id": f"{ROOT}systemusers({BOB})"}, (400, "0x80048d19")),
        ("PUT", f"{CHILDREN}/$ref", {"@odata.id": ROOT + DESKS}, (405, "0x80060888")),
        ("POST", f"{deal(1)}/ownerid/$ref", {"@odata.id": ROOT + DESKS}, (405, "0x80060888")),
        ("POST", f"{CHILDREN}/$ref", {"@odata.id": f"{ROOT}systemusers({BOB})"}, (400, "0x80048d19")),
        ("POST", f"{CHILDREN}/$ref", {"@odata.id": f"{ROOT}goals({BOB})"}, (404, "0x80040217")),
        ("POST", f"{CHILDREN}/$ref", {"@odata.id": ROOT + COMPANY}, (400, "0x80040203")),
        ("DELETE", f"{CHILDREN}/$ref", None, (400, "0x80060888")),
        ("DELETE", f"{CHILDREN}/$ref?$id=x", None, (400, "0x80060888")),
        ("DELETE", f"{CHILDREN}/$ref?$id={ROOT}systemusers({BOB})", None, (400, "0x80060888")),
        ("DELETE", f"{COMPANY}/goal_parent_goal(x)/$ref", None, (400, "0x80060888")),
        ("DELETE", f"{COMPANY}/goal_parent_goal({BOB})/$ref", None, (404, "0x80040217")),
        ("GET", f"{COMPANY}/goal_parent_goal({DESKS[6:-1]})", None, (501, "")),
        ("GET", f"{CHILDREN}?$deltatoken=1", None, (400, "0x80060888")),
        ("GET", f"{CHILDREN}/$ref?$select=title", None, (400, "0x80060888")),
        ("GET", f"{deal(1)}/nosuch/$ref", None, (404, "0x80060888")),
        ("GET", f"{deal(1)}/name/$ref", None, (501, "")),
    ],
)
def test_references_that_are_not_right(
    org: Org, method: str, path: str, body: dict[str, Any] | None, error: tuple[int, str]
) -> None:
    before = org.get("goals"), org.get(deal(1))
    response = org.call(method, path, body)
    assert code(response) == error, response.text
    assert (org.get("goals"), org.get(deal(1))) == before


def test_relative_references_go_with_a_context_or_a_setting(org: Org) -> None:
    address, body = f"{deal(1)}/ownerid/$ref", {"@odata.id": f"systemusers({BOB})"}
    assert org.call("PUT", address, {**body, "@odata.context": f"{ROOT}$metadata#$ref"}).status_code == 204
    assert Org(relative_references=True).call("PUT", address, body).status_code == 204


def test_a_row_is_made_with_its_related_rows(keyed: Org) -> None:
    body = {
        "name": "Parent",
        "primarycontactid": {"firstname": "Ada", "lastname": "Lee"},
        "account_parent_account": [{"name": "One", "account_parent_account": [{"name": "Below"}]}, {"name": "Two"}],
    }
    made = keyed.post("accounts", body)
    assert made.status_code == 204
    (parent,) = re.findall(r"accounts\((.*)\)$", made.headers["OData-EntityId"])
    assert keyed.get(f"accounts({parent})/primarycontactid?$select=fullname")["fullname"] == "Ada Lee"
    assert keyed.names(f"accounts({parent})/account_parent_account?$orderby=name") == ["One", "Two"]
    assert keyed.names("accounts?$filter=parentaccountid/name eq 'One'") == ["Below"]


def test_the_sample_of_the_documents_is_one_request(org: Org) -> None:
    body = {
        "name": "Sample Account",
        "primarycontactid": {"firstname": "John", "lastname": "Smith"},
        "opportunity_customer_accounts": [{"name": "Opportunity associated to Sample Account"}],
    }
    address = org.post("accounts", body).headers["OData-EntityId"]
    shown = "$select=name&$expand=primarycontactid($select=fullname),opportunity_customer_accounts($select=name)"
    row = org.get(f"{address}?{shown}")
    assert row["primarycontactid"]["fullname"] == "John Smith"
    assert [one["name"] for one in row["opportunity_customer_accounts"]] == ["Opportunity associated to Sample Account"]
    contact = f"contacts({row['primarycontactid']['contactid']})"
    assert org.post(f"{address}/contact_customer_accounts/$ref", {"@odata.id": ROOT + contact}).status_code == 204
    assert references(org, f"{address}/contact_customer_accounts") == {contact}
    assert org.names(f"{contact}/account_primary_contact") == ["Sample Account"]
    kept = "$filter=contact_customer_accounts/any(c:c/lastname eq 'Smith')"
    assert org.names(f"accounts?{kept}") == ["Sample Account"]


def test_a_folder_adds_collections_to_those_that_are_shipped(tmp_path: Path) -> None:
    folder = keyed_folder(tmp_path / "org")
    added = {"account": {"columns": {}, "collections": {"new_children": ["account", "parentaccountid"]}}}
    (folder / "schema.json").write_text(json.dumps(added), encoding="utf-8")
    org = Org(folder=folder)
    address = org.post("accounts", {"new_children": [{}], "account_parent_account": [{}]}).headers["OData-EntityId"]
    for name in ("new_children", "account_parent_account"):
        assert org.call("GET", f"{address}/{name}/$count").text == "2"


def test_existing_rows_join_a_collection_when_it_is_made(keyed: Org) -> None:
    keyed.patch("accounts(accountnumber='1')", {"name": "there"})
    body = {"name": "new", "account_parent_account@odata.bind": ["accounts(accountnumber='1')"]}
    assert keyed.post("accounts", body).status_code == 204
    assert keyed.get("accounts(accountnumber='1')/parentaccountid?$select=name")["name"] == "new"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"primarycontactid": {"lastname": 5}}, (400, "0x80048d19")),
        ({"primarycontactid": {"nosuch": 5}}, (400, "0x80048d19")),
        ({"primarycontactid": [{}]}, (501, "")),
        ({"account_parent_account": {}}, (400, "0x80048d19")),
        ({"account_parent_account": [5]}, (400, "0x80048d19")),
        ({"account_parent_account": [{"name": "a"}, {"name": 5}]}, (400, "0x80048d19")),
        ({"account_parent_account@odata.bind": "accounts(1)"}, (400, "0x80048d19")),
        ({"account_parent_account@odata.bind": ["x"]}, (400, "0x80048d19")),
        ({"account_parent_account@odata.bind": [f"accounts({BOB})"]}, (404, "0x80040217")),
        ({"account_parent_account@odata.bind": [f"contacts({BOB})"]}, (400, "0x80048d19")),
        ({"ownerid": {"fullname": "x"}}, (400, "0x80048d19")),
        ({"ownerid": {"@odata.type": "Microsoft.Dynamics.CRM.account"}}, (400, "0x80048d19")),
    ],
)
def test_one_row_that_is_refused_takes_the_others_with_it(
    keyed: Org, body: dict[str, Any], error: tuple[int, str]
) -> None:
    response = keyed.post("accounts", {"name": "Parent", **body})
    assert code(response) == error, response.text
    assert keyed.names("accounts") == []
    assert keyed.get("contacts")["value"] == []


def test_rows_nest_only_so_deep(keyed: Org) -> None:
    body: dict[str, Any] = {"name": "deepest"}
    for _ in range(12):
        body = {"account_parent_account": [body]}
    assert code(keyed.post("accounts", body)) == (400, "0x80040203")
    assert keyed.names("accounts") == []
    text = '{"account_parent_account":[' * 450 + "{}" + "]}" * 450
    headers = {"Content-Type": "application/json"}
    assert code(keyed.session.post(f"{ROOT}accounts", data=text, headers=headers)) == (400, "0x80040203")


def test_related_rows_need_privileges_of_their_own(tmp_path: Path) -> None:
    org = Org(folder=keyed_folder(tmp_path / "org"), missing_privileges=frozenset({"prvCreateContact", "prvReadGoal"}))
    assert org.post("accounts", {"primarycontactid": {"lastname": "x"}}).status_code == 403
    assert org.names("accounts") == []
    for path in (CHILDREN, f"{CHILDREN}/$ref", f"{CHILDREN}/$count", f"{ANNS}/title", f"{ANNS}/metricid/$ref"):
        assert org.call("GET", path).status_code == 403, path


def test_a_lines_deal_is_read_through_the_line(org: Org) -> None:
    assert org.get(f"{LINE}/opportunityid?$select=name")["name"] == org.get(deal(2))["name"]


@pytest.fixture
def secured(tmp_path: Path) -> Org:
    """The organization with alternate keys, in which Ann sees and writes her own rows."""
    folder = keyed_folder(tmp_path / "org")
    security = Security()
    security.role("seller", **{f"prv{verb}{table}": BASIC for verb in ("Read", "Write") for table in TABLES})
    security.give("seller", user=ANN)
    amend(folder, "systemusers", lambda row: {"azureactivedirectoryobjectid": object_id(row["systemuserid"])})
    security.write(folder)
    return Org(folder=folder)


TABLES = ("Opportunity", "Account")
AS_ANN = {"CallerObjectId": object_id(ANN)}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{deal(2)}/name", None),
        ("GET", f"{deal(2)}/name/$value", None),
        ("PUT", f"{deal(2)}/name", {"value": "x"}),
        ("DELETE", f"{deal(2)}/name", None),
        ("GET", f"{deal(2)}/product_opportunities", None),
        ("GET", f"{deal(2)}/product_opportunities/$ref", None),
        ("PUT", f"{deal(2)}/parentaccountid/$ref", {"@odata.id": f"{ROOT}accounts({BOB})"}),
        ("DELETE", f"{deal(2)}/parentaccountid/$ref", None),
        ("GET", f"{deal(1)}/ownerid", None),
        ("POST", f"{deal(1)}/product_opportunities/$ref", {"@odata.id": ROOT + LINE}),
        ("DELETE", f"{deal(1)}/product_opportunities{LINE[19:]}/$ref", None),
        ("POST", f"{deal(2)}/product_opportunities/$ref", {"@odata.id": ROOT + LINE}),
    ],
)
def test_rows_out_of_reach_are_refused_by_every_way(
    secured: Org, method: str, path: str, body: dict[str, Any] | None
) -> None:
    response = secured.call(method, path, body, AS_ANN)
    assert code(response)[0] == 403, response.text
    assert secured.call("GET", f"{deal(1)}/name", headers=AS_ANN).status_code == 200


def test_collections_hold_what_the_caller_may_read(secured: Org) -> None:
    own = {"ownerid@odata.bind": f"systemusers({ANN})"}
    children = [{"name": "Ann's", **own}, {"name": "other"}]
    parent = secured.post("accounts", {**own, "account_parent_account": children}).headers["OData-EntityId"]
    path = f"{parent}/account_parent_account"
    assert secured.names(f"{path}?$orderby=name") == ["Ann's", "other"]
    assert [row["name"] for row in secured.call("GET", path, headers=AS_ANN).json()["value"]] == ["Ann's"]
    assert secured.call("GET", f"{path}/$count", headers=AS_ANN).text == "1"
    assert len(secured.call("GET", f"{path}/$ref", headers=AS_ANN).json()["value"]) == 1
    assert len(secured.get(f"{path}/$ref")["value"]) == 2


def test_taking_a_row_out_of_a_collection_it_is_not_in_leaves_it_where_it_is(org: Org) -> None:
    assert org.call("DELETE", f"{COMPANY}/goal_parent_goal({COMPANY[6:-1]})/$ref").status_code == 204
    assert org.call("DELETE", f"{ANNS}/goal_parent_goal({DESKS[6:-1]})/$ref").status_code == 204
    assert org.get(DESKS)["_parentgoalid_value"] == COMPANY[6:-1]


FORMS = {
    "set": "goals",
    "key": COMPANY[6:-1],
    "column": "title",
    "lookup": "metricid",
    "collection": "goal_parent_goal",
}


@pytest.mark.parametrize(("form", "methods"), ADDRESSES.items())
def test_every_address_that_is_written_down_has_its_methods_and_no_others(form: str, methods: tuple[str, ...]) -> None:
    path = re.sub(r"(?<![$\w])(\w+)", lambda match: FORMS[match[1]], form)
    org = Org()
    for method in ("GET", "POST", "PATCH", "PUT", "DELETE"):
        response = org.call(method, path, {})
        assert (response.status_code == 405) is (method not in methods), (method, path)
        if method == "GET" and method in methods:
            assert response.status_code == 200, (path, response.text)
