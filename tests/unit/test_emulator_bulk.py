"""Bulk messages: what they answer, one transaction for all rows, which tables have them and how to ask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import requests

from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import InProcessAdapter
from tests.unit.emulating import ANNS, ROOT, Org, code, keyed_folder, made_id

ONE, TWO, NOBODY = (made_id("9", number) for number in (1, 2, 3))
ASKED = (
    "sdkmessagefilters?$select=sdkmessagefilterid"
    "&$filter=sdkmessageid/name eq @message and primaryobjecttypecode eq @table"
)


@pytest.fixture
def org(tmp_path: Path) -> Org:
    return Org(folder=keyed_folder(tmp_path / "org"))


def bulk(org: Org, message: str, *targets: Mapping[str, Any], table: str = "accounts") -> requests.Response:
    kind = f"Microsoft.Dynamics.CRM.{'goal' if table == 'goals' else 'account'}"
    body = {"Targets": [{"@odata.type": kind, **target} for target in targets]}
    return org.post(f"{table}/Microsoft.Dynamics.CRM.{message}", body)


def has(org: Org, message: str, table: str) -> bool:
    return bool(org.get(f"{ASKED}&@message='{message}'&@table='{table}'")["value"])


def names(org: Org) -> dict[str, str]:
    return {row["accountid"]: row["name"] for row in org.get("accounts?$select=name")["value"]}


def test_rows_are_made_in_order(org: Org) -> None:
    answer = bulk(org, "CreateMultiple", {"name": "a"}, {"name": "b", "accountid": TWO}, {"name": "c"})
    assert answer.status_code == 200
    document = answer.json()
    assert document["@odata.context"] == f"{ROOT}$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse"
    assert [names(org)[row_id] for row_id in document["Ids"]] == ["a", "b", "c"]
    assert document["Ids"][1] == TWO


def test_rows_are_changed_and_the_first_of_several_for_one_row_is_carried_out(org: Org) -> None:
    bulk(org, "CreateMultiple", {"accountid": ONE, "accountnumber": "1"}, {"accountid": TWO})
    answer = bulk(
        org,
        "UpdateMultiple",
        {"accountid": ONE.upper(), "name": "first"},
        {"@odata.id": f"accounts({TWO})", "name": "by address"},
        {"@odata.id": "accounts(accountnumber='1')", "name": "ignored"},
    )
    assert (answer.status_code, answer.content) == (204, b"")
    assert names(org) == {ONE: "first", TWO: "by address"}


def test_an_upsert_makes_and_changes(org: Org) -> None:
    bulk(org, "CreateMultiple", {"accountid": ONE, "accountnumber": "1"})
    answer = bulk(
        org,
        "UpsertMultiple",
        {"@odata.id": "accounts(accountnumber='1')", "name": "changed"},
        {"@odata.id": "accounts(accountnumber='2')", "name": "by key"},
        {"@odata.id": f"{ROOT}accounts({TWO})", "name": "by address"},
        {"accountid": NOBODY, "name": "by id"},
        {"name": "without"},
    )
    assert answer.status_code == 204
    assert sorted(names(org).values()) == ["by address", "by id", "by key", "changed", "without"]
    assert org.get("accounts(accountnumber='2')")["name"] == "by key"
    assert names(org)[TWO] == "by address"


@pytest.mark.parametrize(
    ("message", "targets", "error", "says"),
    [
        ("CreateMultiple", [{"name": "x"}, {"nosuch": 1}], (400, "0x80048d19"), "'nosuch'"),
        ("CreateMultiple", [{"name": "x"}, {"accountid": ONE}], (412, "0x80040237"), "Cannot insert duplicate key."),
        ("CreateMultiple", [{"accountid": TWO}, {"accountid": TWO}], (412, "0x80040237"), "duplicate key"),
        ("CreateMultiple", [{"accountnumber": "2"}, {"accountnumber": "1"}], (412, "0x80060892"), "new_number"),
        ("CreateMultiple", [{"name": "x", "primarycontactid": {}}], (501, ""), "deep insert"),
        ("UpdateMultiple", [{"accountid": ONE, "name": "x"}, {"accountid": ONE, "name": 5}], (204, ""), ""),
        ("UpdateMultiple", [{"accountid": ONE, "name": "x"}, {"accountid": NOBODY}], (404, "0x80040217"), "With Ids"),
        ("UpdateMultiple", [{"@odata.id": "accounts(accountnumber='9')"}], (404, "0x80060891"), "key values"),
        ("UpdateMultiple", [{"name": "x"}], (400, "0x80040203"), "accountid"),
        ("UpdateMultiple", [{"accountid": "x"}], (400, "0x80048d19"), "guid"),
        ("UpdateMultiple", [{"@odata.id": f"contacts({ONE})"}], (400, "0x80048d19"), "not the address"),
        ("UpdateMultiple", [{"@odata.id": 7}], (400, "0x80048d19"), "not the address"),
        ("UpdateMultiple", [{"@odata.id": "accounts(name='x')"}], (400, "0x80060890"), "not a defined key"),
        ("UpsertMultiple", [{"accountid": TWO}, {"accountid": TWO}], (412, "0x80040237"), "duplicate key"),
        ("UpsertMultiple", [{"@odata.id": "accounts(accountnumber='9')"}] * 2, (412, "0x80040237"), "duplicate"),
        (
            "UpsertMultiple",
            [{"@odata.id": "accounts(accountnumber='9')", "accountnumber": "9"}],
            (400, "0x80040216"),
            "An",
        ),
        ("UpsertMultiple", [{"@odata.id": "accounts(accountnumber='1')", "accountnumber": "9"}], (204, ""), ""),
        ("DeleteMultiple", [{"accountid": ONE}], (400, "0x80040203"), "DeleteMultiple has not yet been implemented."),
        ("CreateMultiple", [], (400, "0x80040203"), "'Targets'"),
        ("CreateMultiple", [{"@odata.type": None}], (400, "0x80048d19"), "'@odata.type' is required"),
        ("CreateMultiple", [{"@odata.type": "Microsoft.Dynamics.CRM.nosuch"}], (400, "0x80048d19"), "'Microsoft.D"),
        ("CreateMultiple", [{"@odata.type": "#Microsoft.Dynamics.CRM.contact"}], (400, "0x80040203"), "'contact'"),
        ("UpdateMultiple", [{"@odata.type": "Microsoft.Dynamics.CRM.contact"}], (400, "0x80041103"), "'contact'"),
    ],
)
def test_the_first_row_that_is_refused_takes_the_others_with_it(
    org: Org, message: str, targets: list[dict[str, Any]], error: tuple[int, str], says: str
) -> None:
    bulk(org, "CreateMultiple", {"accountid": ONE, "accountnumber": "1", "name": "before"})
    before = org.get("accounts")
    response = bulk(org, message, *targets)
    if error[0] == 204:
        assert response.status_code == 204
        return
    assert code(response) == error
    assert says in response.json()["error"]["message"]
    assert org.get("accounts") == before


@pytest.mark.parametrize("body", [{}, {"Targets": {}}, {"Targets": [1]}, {"Targets": "x"}])
def test_targets_are_a_list_of_rows(org: Org, body: dict[str, Any]) -> None:
    assert code(org.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple", body)) == (400, "0x80040203")


def test_the_key_in_the_columns_too_is_a_setting(tmp_path: Path) -> None:
    org = Org(folder=keyed_folder(tmp_path / "org"), upsert_key_in_body_fails=False)
    target = {"@odata.id": "accounts(accountnumber='9')", "accountnumber": "9"}
    assert bulk(org, "UpsertMultiple", target).status_code == 204


def test_goals_have_no_bulk_messages_unless_a_setting_gives_them() -> None:
    org = Org()
    assert (has(org, "CreateMultiple", "goal"), has(org, "Update", "goal")) == (False, True)
    for message in ("CreateMultiple", "UpdateMultiple", "UpsertMultiple"):
        response = bulk(org, message, {"title": "x"}, table="goals")
        assert code(response) == (400, "0x80040800")
        assert f"The '{message}' method does not support entities of type 'goal'." in response.text
    org = Org(bulk_messages={"goal": True, "account": False})
    assert (has(org, "UpdateMultiple", "goal"), has(org, "UpdateMultiple", "account")) == (True, False)
    target = {"goalid": ANNS[6:-1], "title": "bulk"}
    assert bulk(org, "UpdateMultiple", target, table="goals").status_code == 204
    assert org.get(ANNS)["title"] == "bulk"


def test_an_org_folder_gives_goals_bulk_messages(tmp_path: Path) -> None:
    folder = keyed_folder(tmp_path / "org")
    (folder / "schema.json").write_text('{"goal": {"columns": {}, "bulk_messages": true}}', encoding="utf-8")
    org = Org(folder=folder)
    assert has(org, "CreateMultiple", "goal")
    target = {"goalid": ANNS[6:-1], "title": "bulk"}
    assert bulk(org, "UpdateMultiple", target, table="goals").status_code == 204


def test_a_client_finds_out_which_tables_have_them() -> None:
    org = Org()
    assert has(org, "CreateMultiple", "account")
    assert has(org, "UpdateMultiple", "account")
    assert not has(org, "UpsertMultiple", "account"), "documented: there is no row for it"
    assert not has(org, "DeleteMultiple", "account")
    assert "CreateMultiple" in {row["name"] for row in org.get("sdkmessages")["value"]}
    xml = (
        '<fetch><entity name="sdkmessagefilter"><attribute name="sdkmessagefilterid"/>'
        '<filter><condition attribute="primaryobjecttypecode" operator="eq" value="account"/></filter>'
        '<link-entity name="sdkmessage" from="sdkmessageid" to="sdkmessageid"><filter>'
        '<condition attribute="name" operator="eq" value="UpdateMultiple"/></filter></link-entity></entity></fetch>'
    )
    assert len(org.get(f"sdkmessagefilters?fetchXml={xml}")["value"]) == 1


def test_tables_that_are_made_have_them_until_they_go() -> None:
    org = Org()
    name = {
        "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata",
        "SchemaName": "new_Name",
        "IsPrimaryName": True,
    }
    assert org.post("EntityDefinitions", {"SchemaName": "new_Visit", "Attributes": [name]}).status_code == 204
    assert has(org, "CreateMultiple", "new_visit")
    target = {"@odata.type": "Microsoft.Dynamics.CRM.new_visit", "new_name": "n"}
    assert org.post("new_visits/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": [target]}).status_code == 200
    assert org.call("DELETE", "EntityDefinitions(LogicalName='new_visit')").status_code == 204
    assert not has(org, "CreateMultiple", "new_visit")


@pytest.mark.parametrize(
    ("lacking", "message"), [("prvCreateAccount", "CreateMultiple"), ("prvWriteAccount", "UpdateMultiple")]
)
def test_privileges_are_those_of_single_writes(tmp_path: Path, lacking: str, message: str) -> None:
    org = Org(folder=keyed_folder(tmp_path / "org"), missing_privileges=frozenset({lacking}))
    assert code(bulk(org, message, {"accountid": ONE})) == (403, "0x80040220")
    if lacking == "prvCreateAccount":
        assert code(bulk(org, "UpsertMultiple", {"accountid": ONE})) == (403, "0x80040220")


def test_only_post_carries_them_out(org: Org) -> None:
    assert org.call("GET", "accounts/Microsoft.Dynamics.CRM.CreateMultiple").status_code == 405
    assert org.post("accounts/Microsoft.Dynamics.CRM.Merge", {}).status_code == 501
    assert org.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple/x", {}).status_code == 501


@pytest.mark.parametrize(("close", "made"), [("before", 1), ("after", 2)])
def test_a_connection_lost_during_a_bulk_message(org: Org, close: Literal["before", "after"], made: int) -> None:
    faults = [Fault("POST accounts/*CreateMultiple", nth=(1,), close=close)]
    org.session.mount("https://", InProcessAdapter(FaultyApp(org.emulator.app, faults)))
    with pytest.raises(requests.ConnectionError):
        bulk(org, "CreateMultiple", {"accountid": ONE, "name": "a"}, {"accountid": TWO, "name": "a"})
    again = bulk(org, "CreateMultiple", {"accountid": ONE, "name": "b"}, {"accountid": TWO, "name": "b"})
    assert again.status_code == {1: 200, 2: 412}[made]
    assert names(org) == dict.fromkeys((ONE, TWO), {1: "b", 2: "a"}[made])


def test_an_upsert_whose_answer_was_lost_may_be_sent_again(org: Org) -> None:
    faults = [
        Fault("POST *UpsertMultiple", nth=(1,), close="after"),
        Fault("PUT *", nth=(1,), status=429, retry_after=3),
    ]
    org.session.mount("https://", InProcessAdapter(FaultyApp(org.emulator.app, faults)))
    targets = [{"@odata.id": f"accounts(accountnumber='{number}')", "name": "x"} for number in range(3)]
    with pytest.raises(requests.ConnectionError):
        bulk(org, "UpsertMultiple", *targets)
    assert bulk(org, "UpsertMultiple", *targets).status_code == 204
    assert len(names(org)) == 3
    throttled = org.call("PUT", "accounts(accountnumber='1')/name", {"value": "y"})
    assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "3")
    assert org.get("accounts(accountnumber='1')/name")["value"] == "x"
