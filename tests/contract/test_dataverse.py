"""What a Dataverse is, as far as d365sync relies on it: the same tests for the emulator and for a real environment.

Each test says one thing of the Web API that the client depends on, and passes on any organization whatever rows it
holds. Against a real environment (``pytest -m verified tests/contract``) only those that read are run, unless the
organization is the named sandbox; see :mod:`tests.contract.remotes`. Batches, goals and callers are beside this file.
"""

from __future__ import annotations

import uuid
from decimal import Decimal
from urllib.parse import quote, unquote

import msgspec
import pytest

from tests.contract.remotes import GUID, NAME, NOWHERE, Remote, error_of

EXACT = msgspec.json.Decoder(float_hook=Decimal)


# -- who asks ------------------------------------------------------------------------------------------------------


def test_who_am_i_tells_three_ids(remote: Remote) -> None:
    document = remote.get("WhoAmI")
    assert all(GUID.fullmatch(document[name]) for name in ("UserId", "BusinessUnitId", "OrganizationId"))
    assert document["@odata.context"].endswith("#Microsoft.Dynamics.CRM.WhoAmIResponse")


def test_without_a_token_there_is_a_challenge_that_names_authority_and_resource(remote: Remote) -> None:
    answer = remote.call("GET", "WhoAmI", headers={"Authorization": None})
    assert answer.status_code == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith("Bearer ")
    assert "authorization_uri=" in challenge
    assert "resource_id=" in challenge


def test_answers_carry_version_and_request_id(remote: Remote) -> None:
    answer = remote.call("GET", "WhoAmI")
    assert answer.headers["OData-Version"] == "4.0"
    assert answer.headers["Content-Type"].startswith("application/json")
    assert GUID.search(answer.headers["x-ms-service-request-id"])


# -- reading -------------------------------------------------------------------------------------------------------


def test_a_row_has_its_key_its_tag_and_what_was_selected(remote: Remote) -> None:
    document = remote.get("systemusers", select="fullname", top="1")
    (row,) = document["value"]
    assert {name for name in row if "@" not in name} <= {"fullname", "systemuserid", "ownerid"}
    assert GUID.fullmatch(row["systemuserid"])
    assert row["@odata.etag"].startswith('W/"')
    assert document["@odata.context"].endswith("#systemusers(fullname)")


def test_a_null_that_was_selected_is_there(remote: Remote) -> None:
    (row,) = remote.get("systemusers", select="fullname,firstname", top="1")["value"]
    assert "firstname" in row


def test_pages_follow_each_other_and_lose_nothing(remote: Remote) -> None:
    whole = [
        row["transactioncurrencyid"] for row in remote.get("transactioncurrencies", select="isocurrencycode")["value"]
    ]
    found: list[str] = []
    path, prefer = "transactioncurrencies?$select=isocurrencycode", "odata.maxpagesize=1"
    while path:
        answer = remote.call("GET", path, headers={"Prefer": prefer})
        assert answer.headers["Preference-Applied"] == prefer
        document = answer.json()
        assert len(document["value"]) <= 1
        found += [row["transactioncurrencyid"] for row in document["value"]]
        path = document.get("@odata.nextLink", "")
        assert not path or path.startswith(f"{remote.root}transactioncurrencies?")
    assert found == whole


def test_a_next_link_holds_a_paging_cookie(remote: Remote) -> None:
    document = remote.get("systemusers", select="fullname", prefer="odata.maxpagesize=1")
    if "@odata.nextLink" not in document:
        pytest.skip("this organization has one user only")
    assert '<cookie pagenumber="2"' in unquote(document["@odata.nextLink"])


def test_filters_compare_text_without_case(remote: Remote) -> None:
    (one,) = remote.get("transactioncurrencies", select="isocurrencycode", top="1")["value"]
    code = one["isocurrencycode"]
    rows = remote.get("transactioncurrencies", select="isocurrencycode", filter=f"isocurrencycode eq '{code.lower()}'")
    assert one["transactioncurrencyid"] in [row["transactioncurrencyid"] for row in rows["value"]]


def test_lookups_are_read_as_value_with_the_table_they_point_to_when_asked(remote: Remote) -> None:
    prefer = 'odata.include-annotations="Microsoft.Dynamics.CRM.lookuplogicalname"'
    rows = remote.get("goals", select="title,_goalownerid_value", top="1", prefer=prefer)["value"]
    for row in rows:
        assert row["_goalownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] in ("systemuser", "team")
        assert GUID.fullmatch(row["_goalownerid_value"])


def test_money_is_a_bare_number_that_keeps_its_scale(remote: Remote) -> None:
    answer = remote.call("GET", "goals?$select=targetmoney&$filter=targetmoney ne null&$top=1")
    for row in EXACT.decode(answer.content)["value"]:
        assert isinstance(row["targetmoney"], Decimal)


def test_a_count_comes_beside_the_rows_when_asked(remote: Remote) -> None:
    document = remote.get("systemusers", select="fullname", count="true", prefer="odata.maxpagesize=1")
    assert isinstance(document["@odata.count"], int)
    assert document["@odata.count"] >= len(document["value"])


def test_fetchxml_is_answered_like_the_same_query(remote: Remote) -> None:
    fetch = '<fetch><entity name="transactioncurrency"><attribute name="isocurrencycode"/></entity></fetch>'
    answer = remote.call("GET", f"transactioncurrencies?fetchXml={quote(fetch)}")
    assert answer.status_code == 200, answer.text
    plain = remote.get("transactioncurrencies", select="isocurrencycode")
    assert sorted(row["isocurrencycode"] for row in answer.json()["value"]) == sorted(
        row["isocurrencycode"] for row in plain["value"]
    )


def test_one_value_is_read_alone_and_bare(remote: Remote) -> None:
    (row,) = remote.get("transactioncurrencies", select="isocurrencycode", top="1")["value"]
    address = f"transactioncurrencies({row['transactioncurrencyid']})/isocurrencycode"
    assert remote.get(address)["value"] == row["isocurrencycode"]
    bare = remote.call("GET", f"{address}/$value")
    assert (bare.text, bare.headers["Content-Type"].partition(";")[0]) == (row["isocurrencycode"], "text/plain")


def test_a_lookup_leads_to_its_row_and_to_its_address(remote: Remote) -> None:
    me = f"systemusers({remote.get('WhoAmI')['UserId']})"
    unit = remote.get(f"{me}/businessunitid", select="name")
    assert unit["@odata.context"].endswith("#businessunits(name)/$entity")
    reference = remote.get(f"{me}/businessunitid/$ref")
    assert reference["@odata.id"].endswith(f"/businessunits({unit['businessunitid']})")


def test_a_row_that_is_as_known_is_not_sent_again(remote: Remote) -> None:
    address = f"systemusers({remote.get('WhoAmI')['UserId']})?$select=fullname"
    tag = remote.call("GET", address).json()["@odata.etag"]
    answer = remote.call("GET", address, headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize("message", ["CreateMultiple", "UpdateMultiple"])
def test_a_client_can_ask_whether_a_table_has_bulk_messages(remote: Remote, message: str) -> None:
    query = "$select=sdkmessagefilterid&$filter=sdkmessageid/name eq @m and primaryobjecttypecode eq @t"
    answer = remote.call("GET", f"sdkmessagefilters?{query}&@m='{message}'&@t='account'")
    assert len(answer.json()["value"]) == 1


# -- refusals ------------------------------------------------------------------------------------------------------


def test_a_row_that_is_not_there_is_404_with_its_code(remote: Remote) -> None:
    answer = remote.call("GET", f"goals({NOWHERE})?$select=title")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "0x80040217")


def test_a_set_that_is_not_there_is_404(remote: Remote) -> None:
    answer = remote.call("GET", "nosuchthings")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "0x80060888")


@pytest.mark.parametrize("query", ["$select=nosuchcolumn", "$filter=nosuchcolumn eq 1", "$orderby=nosuchcolumn asc"])
def test_a_column_that_is_not_there_is_400_and_named(remote: Remote, query: str) -> None:
    answer = remote.call("GET", f"goals?{query}")
    assert answer.status_code == 400
    assert "nosuchcolumn" in error_of(answer)["message"]


def test_columns_that_are_no_key_name_no_row(remote: Remote) -> None:
    answer = remote.call("GET", "goals(depth=7)?$select=title")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "0x80060890")


def test_skip_is_not_supported(remote: Remote) -> None:
    assert remote.call("GET", "goals?$select=title&$skip=1").status_code == 400


# -- definitions ---------------------------------------------------------------------------------------------------


def test_a_table_tells_its_set_its_key_and_whether_changes_are_tracked(remote: Remote) -> None:
    selected = "LogicalName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,ChangeTrackingEnabled,ObjectTypeCode"
    document = remote.get("EntityDefinitions(LogicalName='goal')", select=selected)
    assert (document["EntitySetName"], document["PrimaryIdAttribute"], document["PrimaryNameAttribute"]) == (
        "goals",
        "goalid",
        "title",
    )
    assert document["ObjectTypeCode"] == 9600
    assert isinstance(document["ChangeTrackingEnabled"], bool)


def test_columns_tell_their_types(remote: Remote) -> None:
    document = remote.get("EntityDefinitions(LogicalName='goal')/Attributes", select="LogicalName,AttributeType")
    types = {one["LogicalName"]: one["AttributeType"] for one in document["value"]}
    expected = {"goalid": "Uniqueidentifier", "title": "String", "actualmoney": "Money", "goalenddate": "DateTime"}
    assert expected.items() <= types.items()


@pytest.mark.parametrize("kind", ["Picklist", "State", "Status"])
def test_choices_tell_their_values_and_labels_when_cast_to_their_type(remote: Remote, kind: str) -> None:
    cast = f"EntityDefinitions(LogicalName='goal')/Attributes/Microsoft.Dynamics.CRM.{kind}AttributeMetadata"
    answer = remote.call("GET", f"{cast}?$select=LogicalName&$expand=OptionSet($select=Options)")
    assert answer.status_code == 200, answer.text
    columns = {one["LogicalName"]: one["OptionSet"]["Options"] for one in answer.json()["value"]}
    name, expected = {
        "Picklist": ("fiscalperiod", {1, 101, 201, 301, 401}),
        "State": ("statecode", {0, 1}),
        "Status": ("statuscode", {0, 1, 2}),
    }[kind]
    assert expected <= {one["Value"] for one in columns[name]}
    for one in columns[name]:
        assert isinstance(one["Label"]["LocalizedLabels"], list)
        assert kind != "Status" or one["State"] in (0, 1)


def test_choices_are_not_told_without_the_cast(remote: Remote) -> None:
    answer = remote.call("GET", "EntityDefinitions(LogicalName='goal')/Attributes?$expand=OptionSet")
    assert answer.status_code == 400


# -- following changes ---------------------------------------------------------------------------------------------


def _tracked(remote: Remote) -> tuple[str, str]:
    """Return entity set and key of a tracked table that has few rows."""
    query = {"select": "LogicalName,EntitySetName,PrimaryIdAttribute", "filter": "ChangeTrackingEnabled eq true"}
    tables = {one["LogicalName"]: one for one in remote.get("EntityDefinitions", **query)["value"]}
    for name in ("account", "opportunity", "lead"):
        if name in tables:
            return tables[name]["EntitySetName"], tables[name]["PrimaryIdAttribute"]
    pytest.skip("no table of this organization tracks changes")


def test_a_tracked_table_ends_with_a_delta_link_and_then_tells_nothing(remote: Remote) -> None:
    entity_set, key = _tracked(remote)
    document = remote.get(entity_set, select=key, prefer="odata.track-changes")
    pages = 1
    while "@odata.nextLink" in document and pages < 5:
        assert "@odata.deltaLink" not in document
        answer = remote.call("GET", document["@odata.nextLink"], headers={"Prefer": "odata.track-changes"})
        document, pages = answer.json(), pages + 1
    if "@odata.nextLink" in document:
        pytest.skip("the tracked table is too large to be read here")
    link = document["@odata.deltaLink"]
    assert "$deltatoken=" in unquote(link)
    changes = remote.call("GET", link).json()
    assert changes["@odata.context"].endswith("/$delta")
    assert "@odata.deltaLink" in changes


@pytest.mark.parametrize("option", ["$filter=name eq 'a'", "$orderby=name asc", "$top=1"])
def test_tracking_refuses_options(remote: Remote, option: str) -> None:
    entity_set, key = _tracked(remote)
    answer = remote.call("GET", f"{entity_set}?$select={key}&{option}", headers={"Prefer": "odata.track-changes"})
    assert answer.status_code == 400
    assert "Change Tracking" in error_of(answer)["message"]


# -- writing -------------------------------------------------------------------------------------------------------


def test_a_change_needs_the_tag_it_names(remote: Remote, account: str) -> None:
    tag = remote.get(account, select="name")["@odata.etag"]
    first = remote.call("PATCH", account, json={"telephone1": "a"}, headers={"If-Match": tag})
    assert first.status_code == 204
    second = remote.call("PATCH", account, json={"telephone1": "b"}, headers={"If-Match": tag})
    assert second.status_code == 412
    after = remote.get(account, select="telephone1")
    assert after["telephone1"] == "a"
    assert after["@odata.etag"] != tag


def test_a_change_can_answer_with_the_row(remote: Remote, account: str) -> None:
    answer = remote.call(
        "PATCH",
        f"{account}?$select=name,revenue",
        json={"revenue": 1234.5},
        headers={"If-Match": "*", "Prefer": "return=representation"},
    )
    assert answer.status_code == 200
    row = EXACT.decode(answer.content)
    assert (row["name"], row["revenue"]) == (NAME, Decimal("1234.5"))
    assert row["@odata.etag"].startswith('W/"')


def test_a_change_of_a_row_that_is_not_there_makes_none_when_told_so(remote: Remote, account: str) -> None:
    del account
    answer = remote.call("PATCH", f"accounts({NOWHERE})", json={"name": NAME}, headers={"If-Match": "*"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "0x80040217")


def test_making_a_row_that_is_there_is_412_when_told_so(remote: Remote, account: str) -> None:
    answer = remote.call("PATCH", account, json={"name": NAME}, headers={"If-None-Match": "*"})
    assert answer.status_code == 412


def test_a_column_that_is_not_there_cannot_be_written(remote: Remote, account: str) -> None:
    answer = remote.call("PATCH", account, json={"nosuchcolumn": 1}, headers={"If-Match": "*"})
    assert answer.status_code == 400
    assert "nosuchcolumn" in error_of(answer)["message"]


def test_one_value_is_set_and_cleared(remote: Remote, account: str) -> None:
    address = f"{account}/telephone1"
    assert remote.call("PUT", address, json={"value": "12"}).status_code == 204
    assert remote.get(account, select="telephone1")["telephone1"] == "12"
    assert remote.call("DELETE", address).status_code == 204
    assert remote.get(account, select="telephone1")["telephone1"] is None


def test_a_lookup_is_set_and_cleared_by_reference(remote: Remote, account: str) -> None:
    address = f"{account}/parentaccountid/$ref"
    parent = f"accounts({uuid.uuid4()})"
    assert remote.call("PATCH", parent, json={"name": NAME}).status_code == 204
    try:
        assert remote.call("PUT", address, json={"@odata.id": remote.root + parent}).status_code == 204
        assert remote.get(f"{account}/parentaccountid", select="name")["name"] == NAME
        assert remote.call("DELETE", address).status_code == 204
        assert remote.get(account, select="_parentaccountid_value")["_parentaccountid_value"] is None
    finally:
        remote.call("DELETE", parent)


def test_rows_are_made_and_changed_in_bulk_or_not_at_all(remote: Remote, account: str) -> None:
    kind, bound = {"@odata.type": "Microsoft.Dynamics.CRM.account"}, "accounts/Microsoft.Dynamics.CRM."
    row_id = account.partition("(")[2].rstrip(")")
    made = remote.call("POST", f"{bound}CreateMultiple", json={"Targets": [{**kind, "name": NAME}]})
    assert made.status_code == 200
    (other,) = made.json()["Ids"]
    try:
        both = [{**kind, "accountid": one, "telephone1": "bulk"} for one in (row_id, other)]
        assert remote.call("POST", f"{bound}UpdateMultiple", json={"Targets": both}).status_code == 204
        missing_one = [{**kind, "accountid": one, "telephone1": "never"} for one in (row_id, NOWHERE)]
        assert remote.call("POST", f"{bound}UpdateMultiple", json={"Targets": missing_one}).status_code >= 400
        upserted = [{**kind, "accountid": other, "telephone1": "upserted"}]
        assert remote.call("POST", f"{bound}UpsertMultiple", json={"Targets": upserted}).status_code == 204
        assert remote.get(account, select="telephone1")["telephone1"] == "bulk"
        assert remote.get(f"accounts({other})", select="telephone1")["telephone1"] == "upserted"
    finally:
        remote.call("DELETE", f"accounts({other})")


def test_standard_tables_have_no_delete_multiple(remote: Remote, account: str) -> None:
    target = {"@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": account.partition("(")[2].rstrip(")")}
    answer = remote.call("POST", "accounts/Microsoft.Dynamics.CRM.DeleteMultiple", json={"Targets": [target]})
    assert answer.status_code >= 400
    assert "DeleteMultiple has not yet been implemented" in error_of(answer)["message"]


def test_what_is_made_changed_and_removed_is_told_by_the_delta(remote: Remote, account: str) -> None:
    entity_set, key = _tracked(remote)
    if entity_set != "accounts":
        pytest.skip("accounts are not tracked here")
    document = remote.get("accounts", select="telephone1", prefer="odata.track-changes")
    if "@odata.deltaLink" not in document:
        pytest.skip("there are too many accounts to be read here")
    remote.call("PATCH", account, json={"telephone1": "seen"}, headers={"If-Match": "*"})
    changed = remote.call("GET", document["@odata.deltaLink"]).json()
    rows = {row[key]: row for row in changed["value"] if key in row}
    row_id = account.partition("(")[2].rstrip(")")
    assert rows[row_id]["telephone1"] == "seen"
    remote.call("DELETE", account)
    removed = remote.call("GET", changed["@odata.deltaLink"]).json()["value"]
    assert [(one["id"], one["reason"]) for one in removed if one.get("id") == row_id] == [(row_id, "deleted")]
