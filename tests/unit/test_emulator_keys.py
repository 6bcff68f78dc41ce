"""Alternate keys: rows addressed, written and bound by them; their definitions; what breaks them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from d365sync.emulator import Emulator
from d365sync.errors import OrgFolderError
from tests.unit.emulating import ANN, DESK, ROOT, Org, code, keyed_folder, made_id

NUMBERED = "accounts(accountnumber='A''1')"
OBJECT = "azureactivedirectoryobjectid"
KEYS = "EntityDefinitions(LogicalName='account')/Keys"


@pytest.fixture
def org(tmp_path: Path) -> Org:
    return Org(folder=keyed_folder(tmp_path / "org"))


def test_an_upsert_by_key_makes_the_row_with_the_keys_values_then_changes_it(org: Org) -> None:
    made = org.patch(NUMBERED, {"name": "first"})
    assert (made.status_code, made.headers["OData-EntityId"]) == (204, ROOT + NUMBERED)
    row = org.get(f"{NUMBERED}?$select=name,accountnumber")
    assert (row["name"], row["accountnumber"]) == ("first", "A'1")
    changed = org.patch(NUMBERED, {"name": "second", "accountnumber": "ignored"})
    assert (changed.status_code, changed.headers["OData-EntityId"]) == (204, ROOT + NUMBERED)
    again = org.get(NUMBERED)
    assert (again["accountid"], again["name"], again["accountnumber"]) == (row["accountid"], "second", "A'1")


def test_the_bodys_key_values_win_when_the_row_is_made(org: Org) -> None:
    assert org.patch("accounts(accountnumber='x')", {"accountnumber": "y"}).status_code == 204
    assert org.call("GET", "accounts(accountnumber='x')").status_code == 404
    assert org.get("accounts(accountnumber='y')")["accountnumber"] == "y"


def test_a_representation_says_whether_the_row_was_made(org: Org) -> None:
    prefer = {"Prefer": "return=representation"}
    assert [org.patch(f"{NUMBERED}?$select=name", {"name": "n"}, prefer).status_code for _ in range(2)] == [201, 200]


def test_conditions_hold_for_keys_too(org: Org) -> None:
    assert code(org.patch(NUMBERED, {}, {"If-Match": "*"})) == (404, "0x80060891")
    assert org.patch(NUMBERED, {"name": "n"}, {"If-None-Match": "*"}).status_code == 204
    assert code(org.patch(NUMBERED, {}, {"If-None-Match": "*"})) == (412, "0x80040237")
    tag = org.get(NUMBERED)["@odata.etag"]
    assert org.call("GET", NUMBERED, headers={"If-None-Match": tag}).status_code == 304
    assert org.patch(NUMBERED, {"name": "m"}, {"If-Match": tag}).status_code == 204
    assert code(org.patch(NUMBERED, {"name": "m"}, {"If-Match": tag})) == (412, "0x80060882")
    assert code(org.call("DELETE", NUMBERED, headers={"If-Match": tag})) == (412, "0x80060882")
    assert org.call("DELETE", NUMBERED).status_code == 204
    assert code(org.call("DELETE", NUMBERED)) == (404, "0x80060891")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("accounts(address1_city='Bonn',numberofemployees=5)", {}),
        ("accounts(numberofemployees=5,address1_city='bonn')", {}),
        (f"accounts(_territoryid_value={made_id('7', 1)})", {}),
        ("new_visits(new_fee=1.5)", {"new_name": "v"}),
        ("new_visits(new_when=2026-05-01T10:00:00Z)", {"new_name": "v"}),
    ],
)
def test_columns_of_every_kind_address_a_row(org: Org, path: str, body: dict[str, str]) -> None:
    assert org.post("territories", {"territoryid": made_id("7", 1), "name": "T"}).status_code == 204
    assert org.patch(path, body).status_code == 204
    assert org.call("GET", path).status_code == 200
    assert org.patch(path, body, {"If-Match": "*"}).status_code == 204


def test_values_may_stand_in_parameters(org: Org) -> None:
    org.patch("accounts(accountnumber='a%2Fb')", {"name": "slash"})
    assert org.get("accounts(accountnumber=@p)/name?@p='A/B'")["value"] == "slash"
    assert org.call("GET", "accounts(accountnumber=@q)?@p='A'").status_code == 400


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("accounts(name='x')", "0x80060890"),
        ("accounts(nosuch=1)", "0x80060890"),
        ("accounts(address1_city='x')", "0x80060890"),
        ("goals(title='x')", "0x80060890"),
        ("accounts(accountnumber=5)", "0x80060888"),
        ("accounts(accountnumber='')", "0x80060888"),
        ("accounts(accountnumber=null)", "0x80060888"),
        ("accounts(accountnumber='a',accountnumber='b')", "0x80060888"),
        ("accounts(accountnumber='a',)", "0x80060888"),
        ("accounts(accountnumber='a'numberofemployees=1)", "0x80060888"),
        ("accounts(address1_city='x',numberofemployees=1.5)", "0x80060888"),
        ("new_visits(new_fee='1')", "0x80060888"),
        ("new_visits(new_fee=1e999999999)", "0x80060888"),
        (f"new_visits(new_fee={'9' * 500})", "0x80060888"),
        ("new_visits(new_when=2026-05-01)", "0x80060888"),
        ("accounts(nothing)", "0x80060888"),
        ("accounts()", "0x80060888"),
        ("accounts(=)", "0x80060888"),
    ],
)
def test_what_is_no_key_is_refused(org: Org, path: str, error: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        assert code(org.call(method, path, {})) == (400, error), path


def test_a_key_has_one_row(org: Org) -> None:
    org.post("accounts", {"accountnumber": "one", "name": "first"})
    org.post("accounts", {"accountnumber": "two", "name": "second"})
    taken = org.post("accounts", {"accountnumber": "ONE"})
    assert code(taken) == (412, "0x80060892")
    assert "Entity Key new_number violated." in taken.json()["error"]["message"]
    assert code(org.patch("accounts(accountnumber='two')/accountnumber", {})) == (405, "0x80060888")
    second = f"accounts({org.get('''accounts(accountnumber='two')''')['accountid']})"
    assert code(org.patch(second, {"accountnumber": "one"})) == (412, "0x80060892")
    assert org.patch(second, {"accountnumber": "two", "name": "again"}).status_code == 204
    for _ in range(2):
        assert org.post("accounts", {"address1_city": "Bonn"}).status_code == 204, "a key with an empty column is open"


def test_the_status_of_refused_keys_is_a_setting(tmp_path: Path) -> None:
    org = Org(folder=keyed_folder(tmp_path / "org"), duplicate_key_status=409, undefined_key_status=404)
    org.post("accounts", {"accountnumber": "one"})
    assert code(org.post("accounts", {"accountnumber": "one"})) == (409, "0x80060892")
    assert code(org.call("GET", "accounts(name='x')")) == (404, "0x80060890")


@pytest.mark.parametrize(
    "form", ["/{}", "{}", "/api/data/v9.2/{}", ROOT + "{}", "HTTPS://Emulator.test/api/data/v9.2/{}"]
)
@pytest.mark.parametrize("key", ["accountnumber='A''1'", "accountnumber='a%27%271'"])
def test_lookups_are_bound_by_key(org: Org, form: str, key: str) -> None:
    org.patch(NUMBERED, {"name": "parent"})
    body = {"name": "child", "parentaccountid@odata.bind": form.format(f"accounts({key})")}
    made = org.post(
        "accounts?$select=name&$expand=parentaccountid($select=name)", body, {"Prefer": "return=representation"}
    )
    assert made.json()["parentaccountid"]["name"] == "parent"


FOREIGN = [
    "https://other.test/api/data/v9.2/",
    "https://emulator.test.evil.test/api/data/v9.2/",
    "https://emulator.test@evil.test/api/data/v9.2/",
    "https://emulator.test:8443/api/data/v9.2/",
    "http://emulator.test/api/data/v9.2/",
    "https://emulator.test/other/api/data/v9.2/",
    "https://emulator.test/api/data/v9.1/",
    "https://emulator.test/",
    "https://emulator.test",
    "/other/api/data/v9.2/",
    "/api/data/v9.1/",
]


@pytest.mark.parametrize("root", FOREIGN)
def test_an_address_of_another_service_is_refused(org: Org, root: str) -> None:
    org.patch(NUMBERED, {"name": "parent"})
    address = root + NUMBERED
    goal = {"@odata.id": address, "@odata.type": "Microsoft.Dynamics.CRM.account"}
    for response in (
        org.post("accounts", {"parentaccountid@odata.bind": address}),
        org.post("accounts", {"account_parent_account@odata.bind": [address]}),
        org.post("accounts/Microsoft.Dynamics.CRM.UpsertMultiple", {"Targets": [goal]}),
        org.call("PUT", f"{NUMBERED}/parentaccountid/$ref", {"@odata.id": address, "@odata.context": "x"}),
        org.call("DELETE", f"{NUMBERED}/account_parent_account/$ref?$id={quote(address)}"),
        org.post("WinOpportunity", {"Status": -1, "OpportunityClose": {"opportunityid@odata.bind": address}}),
    ):
        assert code(response) == (400, "0x80060888"), response.text
        assert f"is not based on '{ROOT}'" in response.json()["error"]["message"]


def test_a_service_below_a_path_has_addresses_below_that_path(org: Org) -> None:
    org.patch(NUMBERED, {"name": "parent"})
    root = "https://emulator.test/contoso/api/data/v9.1/"
    for address in (root + NUMBERED, f"/contoso/api/data/v9.1/{NUMBERED}", NUMBERED):
        body = {"name": "child", "parentaccountid@odata.bind": address}
        assert org.post(f"{root}accounts", body).status_code == 204
    assert code(org.post(f"{root}accounts", {"parentaccountid@odata.bind": ROOT + NUMBERED})) == (400, "0x80060888")


def test_a_lookup_bound_to_a_key_that_no_row_has_is_not_found(org: Org) -> None:
    body = {"parentaccountid@odata.bind": "/accounts(accountnumber='nobody')"}
    assert code(org.post("accounts", body)) == (404, "0x80060891")


def test_keys_are_defined_read_and_removed_over_the_api() -> None:
    org = Org()
    assert org.get(KEYS)["value"] == []
    made = org.post(KEYS, {"SchemaName": "new_Number", "KeyAttributes": ["accountnumber"]})
    assert made.status_code == 204
    (key,) = org.get(f"{KEYS}?$select=KeyAttributes,EntityKeyIndexStatus,SchemaName")["value"]
    assert (key["KeyAttributes"], key["EntityKeyIndexStatus"]) == (["accountnumber"], "Active")
    assert made.headers["OData-EntityId"].endswith(f"Keys({key['MetadataId']})")
    expanded = org.get("EntityDefinitions(LogicalName='account')?$select=LogicalName&$expand=Keys($select=LogicalName)")
    assert [one["LogicalName"] for one in expanded["Keys"]] == ["new_number"]
    assert org.get(f"{KEYS}({key['MetadataId']})") == org.get(f"{KEYS}(LogicalName='new_number')")
    assert org.patch("accounts(accountnumber='1')", {"name": "by key"}).status_code == 204
    assert org.call("DELETE", "EntityDefinitions(LogicalName='account')/Attributes(LogicalName='accountnumber')").status_code == 405  # fmt: skip  # noqa: E501
    assert org.call("DELETE", f"{KEYS}({key['MetadataId']})").status_code == 204
    assert code(org.call("GET", "accounts(accountnumber='1')")) == (400, "0x80060890")
    assert org.call("DELETE", f"{KEYS}({key['MetadataId']})").status_code == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "SchemaName"),
        ({"SchemaName": "Number", "KeyAttributes": ["accountnumber"]}, "prefix"),
        ({"SchemaName": "new_K"}, "KeyAttributes"),
        ({"SchemaName": "new_K", "KeyAttributes": []}, "needs columns"),
        ({"SchemaName": "new_K", "KeyAttributes": ["nosuch"]}, "'nosuch'"),
        ({"SchemaName": "new_K", "KeyAttributes": ["revenue"]}, "'revenue'"),
        ({"SchemaName": "new_K", "KeyAttributes": ["ownerid"]}, "'ownerid'"),
        ({"SchemaName": "new_K", "KeyAttributes": ["name", "name"]}, "each once"),
        ({"SchemaName": "new_number", "KeyAttributes": ["name"]}, "already exists"),
        ({"SchemaName": "new_K", "KeyAttributes": ["accountnumber"]}, "already exists"),
        ({"SchemaName": "new_K", "KeyAttributes": ["name"]}, "same values"),
    ],
)
def test_keys_that_cannot_be(org: Org, body: dict[str, object], says: str) -> None:
    for _ in range(2):
        org.post("accounts", {"name": "twice"})
    response = org.post(KEYS, body)
    assert code(response) == (400, "0x80040203")
    assert says in response.json()["error"]["message"]


def test_a_folder_with_broken_keys_is_refused(tmp_path: Path) -> None:
    folder = keyed_folder(tmp_path / "org")
    rows = [{"accountid": made_id("9", number), "accountnumber": "same"} for number in (1, 2)]
    (folder / "accounts.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(OrgFolderError, match="two rows have the same key 'new_number': same"):
        Emulator.load(folder)
    (folder / "schema.json").write_text('{"account": {"columns": {}, "keys": {"k": ["revenue"]}}}', encoding="utf-8")
    with pytest.raises(OrgFolderError, match="'revenue'"):
        Emulator.load(folder)


def test_privileges_hold_before_a_key_tells_anything(tmp_path: Path) -> None:
    folder = keyed_folder(tmp_path / "org")
    lacking = frozenset({"prvReadAccount", "prvWriteAccount", "prvCreateAccount", "prvDeleteAccount"})
    org = Org(folder=folder, missing_privileges=lacking)
    for method in ("GET", "PATCH", "DELETE"):
        assert org.call(method, NUMBERED, {}).status_code == 403


@pytest.mark.parametrize("rolled_back", [False, True])
def test_keys_are_found_whatever_happened_to_the_rows_before(org: Org, rolled_back: bool) -> None:
    store = org.emulator.store
    facts = store.catalogue.tables["account"]

    def numbered(number: int, text: str | None) -> None:
        store.put("account", {"accountid": made_id("9", number), "accountnumber": text})

    def found() -> dict[str, object]:
        named = {text: store.find("account", {"accountnumber": text}) for text in ("A", "b", "C")}
        return {text: row[facts.key] for text, row in named.items() if row is not None}

    numbered(1, "a")
    numbered(2, "B")
    before = {"A": made_id("9", 1), "b": made_id("9", 2)}
    assert found() == before
    with store.transaction() as transaction:
        numbered(1, "c")
        store.remove("account", made_id("9", 2))
        numbered(3, "A")
        assert found() == {"A": made_id("9", 3), "C": made_id("9", 1)}
        numbered(3, None)
        assert found() == {"C": made_id("9", 1)}
        if rolled_back:
            transaction.roll_back()
    assert found() == (before if rolled_back else {"C": made_id("9", 1)})


def test_a_thousand_upserts_by_key_do_not_look_through_the_table(org: Org) -> None:
    store = org.emulator.store
    for number in range(20_000):
        store.put("account", {"accountid": made_id("9", number), "accountnumber": f"n{number}"})
    same = {"@odata.type": "Microsoft.Dynamics.CRM.account", "name": "x"}
    targets = [{**same, "@odata.id": f"accounts(accountnumber='n{number}')"} for number in range(19_500, 20_500)]
    began = time.process_time()
    assert org.post("accounts/Microsoft.Dynamics.CRM.UpsertMultiple", {"Targets": targets}).status_code == 204
    assert time.process_time() - began < 5, "0.1 s where this was written, 28 s with a scan for each target"
    assert org.call("GET", "accounts/$count?$filter=name eq 'x'").text == "1000"


def test_a_table_has_ten_keys_at_most(org: Org) -> None:
    made = [org.post(KEYS, {"SchemaName": f"new_k{name}", "KeyAttributes": [name, "name"]}) for name in TEXTS]
    assert [one.status_code for one in made] == [204] * 7 + [400]
    assert "10 keys" in made[-1].text


TEXTS = (
    *("telephone1", "emailaddress1", "address1_city", "address1_country", "accountnumber"),
    *("industrycode", "numberofemployees", "primarycontactid"),
)


def test_what_a_key_found_is_forgotten_with_the_key(org: Org) -> None:
    org.patch(NUMBERED, {"name": "one"})
    (key,) = [one["MetadataId"] for one in org.get(KEYS)["value"] if one["LogicalName"] == "new_number"]
    assert org.call("DELETE", f"{KEYS}({key})").status_code == 204
    twin = org.post("accounts", {"accountnumber": "A'1", "name": "twin"}).headers["OData-EntityId"]
    again = {"SchemaName": "new_Number", "KeyAttributes": ["accountnumber"]}
    assert code(org.post(KEYS, again)) == (400, "0x80040203")
    assert org.call("DELETE", twin).status_code == 204
    assert org.post(KEYS, again).status_code == 204
    assert org.get(NUMBERED)["name"] == "one"


@pytest.mark.parametrize(
    "other", [("account", "nosuch"), ("nosuch", "x"), ("account", "primarycontactid"), ("account", "name")]
)
def test_a_collection_that_no_lookup_makes_is_refused(tmp_path: Path, other: tuple[str, str]) -> None:
    folder = keyed_folder(tmp_path / "org")
    schema = {"account": {"columns": {}, "collections": {"all": other}}}
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    with pytest.raises(OrgFolderError, match="the collection 'all' of 'account' needs a table and its lookup"):
        Emulator.load(folder)


ENTRA = "12345678-aaaa-4bbb-8ccc-123456789012"
USER = f"systemusers(azureactivedirectoryobjectid={ENTRA})"
TEAM = f"teams(azureactivedirectoryobjectid={ENTRA},membershiptype=0)"


@pytest.fixture
def directory() -> Org:
    org = Org()
    with org.emulator.store.transaction():
        org.emulator.store.put("systemuser", {**org.emulator.store.rows("systemuser")[ANN], OBJECT: ENTRA})
    team = {"name": "Group", "teamtype": 2, OBJECT: ENTRA, "membershiptype": 0}
    assert org.post("teams", team).status_code == 204
    return org


def test_users_and_teams_are_found_by_their_ids_in_the_directory(directory: Org) -> None:
    assert directory.get(f"{USER}?$select=fullname")["systemuserid"] == ANN
    assert directory.get(f"{TEAM}?$select=name")["name"] == "Group"
    for owner in (f"/{USER}", ROOT + TEAM):
        assert directory.post("accounts", {"ownerid@odata.bind": owner}).status_code == 204
    missing = f"systemusers(azureactivedirectoryobjectid={made_id('0', 0)})"
    assert code(directory.call("GET", missing)) == (404, "0x80060891")
    taken = {"name": "Other", OBJECT: ENTRA, "membershiptype": 0}
    assert code(directory.post("teams", taken)) == (412, "0x80060892")
    assert directory.post("teams", {**taken, "membershiptype": 1}).status_code == 204


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        (f"systemusers(systemuserid={ANN})", "0x80060888", "'Microsoft.Dynamics.CRM.systemuser'"),
        (f"systemusers(ownerid={ANN})", "0x80060888", "'Microsoft.Dynamics.CRM.systemuser'"),
        (f"teams(teamid={DESK})", "0x80060888", "'Microsoft.Dynamics.CRM.team'"),
        (f"teams(ownerid={DESK})", "0x80060888", "'Microsoft.Dynamics.CRM.team'"),
        ("systemusers(domainname='ann')", "0x80060890", "systemuser entity: domainname"),
        (f"systemusers(applicationid={ANN})", "0x80060890", "applicationid"),
        (f"teams(azureactivedirectoryobjectid={ENTRA})", "0x80060890", "azureactivedirectoryobjectid"),
        ("teams(name='Group',membershiptype=0)", "0x80060890", "name, membershiptype"),
    ],
)
def test_users_and_teams_have_no_other_keys(directory: Org, path: str, error: str, says: str) -> None:
    for response in (directory.call("GET", path), directory.post("accounts", {"ownerid@odata.bind": path})):
        assert code(response) == (400, error)
        assert says in response.json()["error"]["message"]


def test_other_rows_may_be_addressed_by_the_name_of_their_id(org: Org) -> None:
    row_id = made_id("9", 1)
    assert org.patch(f"accounts(accountid={row_id})", {"name": "named"}).status_code == 204
    assert org.get(f"accounts(accountid={row_id})")["accountid"] == row_id


def test_the_platforms_own_keys_are_told_and_stay(directory: Org) -> None:
    path = "EntityDefinitions(LogicalName='team')/Keys"
    (key,) = directory.get(path)["value"]
    assert (key["KeyAttributes"], key["IsManaged"]) == ([OBJECT, "membershiptype"], True)
    assert code(directory.call("DELETE", f"{path}({key['MetadataId']})")) == (405, "0x8004023b")
    assert 'PropertyPath="membershiptype"' in directory.call("GET", "$metadata").text
