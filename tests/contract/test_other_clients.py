"""Two public clients, as they are published: python-odata, which reads ``$metadata``, and dataverse-api.

The batches of dataverse-api are not asked for: their lines end in LF, which neither Dataverse nor the emulator takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from dataverse_api.dataverse import DataverseClient
from odata.service import ODataService

from tests.contract.remotes import Remote, over_a_socket
from tests.unit.emulating import BOB, made_id


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    with over_a_socket() as found:
        yield found


@pytest.fixture(scope="module")
def service(remote: Remote) -> ODataService:
    return ODataService(remote.root, session=remote.session, reflect_entities=True, quiet_progress=True)


def test_python_odata_builds_a_class_for_every_entity_set(remote: Remote, service: ODataService) -> None:
    listed = {one["name"] for one in remote.get("")["value"]}
    assert service.entities.keys() == listed
    goal = service.entities["goals"]
    kinds = {
        name: type(getattr(goal, name)).__name__ for name in ("targetmoney", "goalstartdate", "isoverride", "goalid")
    }
    assert (kinds["targetmoney"], kinds["goalstartdate"]) == ("DecimalProperty", "DatetimeProperty")
    assert (kinds["isoverride"], kinds["goalid"]) == ("BooleanProperty", "UUIDProperty")
    assert {"WhoAmI", "RetrieveTotalRecordCount"} <= service.functions.keys()
    assert {"WinOpportunity", "LoseOpportunity"} <= service.actions.keys()


def test_python_odata_reads_whole_tables_with_filters_and_expands(service: ODataService) -> None:
    deals = service.entities["opportunities"]
    won = service.query(deals).filter(deals.statecode == 1).order_by(deals.name.desc()).all()
    assert [(one.name, one.actualvalue) for one in won] == [("Gamma", Decimal(200)), ("Alpha", Decimal("100.5"))]
    theirs = service.query(deals).filter(deals.name.contains("alpha")).expand(deals.owninguser).all()
    assert sorted(one.owninguser.fullname for one in theirs) == ["Ann Lee", "Bob Ray"]
    assert service.query(deals).get(made_id("e", 2)).name == "beta"


def test_python_odata_creates_changes_and_deletes(service: ODataService) -> None:
    accounts = service.entities["accounts"]
    row = accounts()
    row.name = "Contoso"
    row.accountid = made_id("7", 1)
    service.save(row)
    found = service.query(accounts).filter(accounts.name == "contoso").one()
    found.name = "Contoso Ltd"
    service.save(found)
    assert service.query(accounts).get(made_id("7", 1)).name == "Contoso Ltd"
    service.delete(found)
    assert service.query(accounts).all() == []


def test_dataverse_api_learns_a_table_and_reads_it_in_pages(remote: Remote) -> None:
    deals = DataverseClient(remote.session, remote.origin).entity("opportunity")
    assert (deals.entity_set_name, deals.primary_id_attr) == ("opportunities", "opportunityid")
    assert (deals.supports_create_multiple, deals.supports_update_multiple) == (True, True)
    goals = DataverseClient(remote.session, remote.origin).entity("goal")
    assert (goals.supports_create_multiple, goals.supports_update_multiple) == (False, False)
    assert "product_opportunities" in deals.relationships.collection_valued
    assert "owninguser" in deals.relationships.single_valued
    rows = deals.read(select=["name"], page_size=2, order_by="name", return_formatted_values=True)
    assert [row["name"] for row in rows] == ["50% off", "Alpha", "alpha two", "beta", "Gamma"]
    assert len(deals.read(filter=f"_ownerid_value eq {BOB}", expand="owninguser($select=fullname)")) == 3


def test_dataverse_api_writes_one_by_one(remote: Remote) -> None:
    accounts = DataverseClient(remote.session, remote.origin).entity("account")
    accounts.create([{"name": "one"}, {"name": "two"}])
    rows = accounts.read(select=["name", "accountid"])
    accounts.upsert([{"accountid": row["accountid"], "name": row["name"].upper()} for row in rows])
    assert sorted(row["name"] for row in accounts.read(select=["name"])) == ["ONE", "TWO"]
    accounts.delete(ids=[row["accountid"] for row in rows])
    assert accounts.read() == []


def test_dataverse_api_writes_in_bulk_by_alternate_key_and_clears_columns(remote: Remote) -> None:
    key = {"SchemaName": "new_Mail", "KeyAttributes": ["emailaddress1"]}
    made = remote.session.post(f"{remote.root}EntityDefinitions(LogicalName='contact')/Keys", json=key, timeout=20)
    assert made.status_code == 204
    contacts = DataverseClient(remote.session, remote.origin).entity("contact")
    assert contacts.alternate_keys == {"new_mail": ["emailaddress1"]}
    rows = [{"lastname": name, "emailaddress1": f"{name}@example.org"} for name in ("a", "b", "c")]
    answers = contacts.create([dict(row) for row in rows[:2]], mode="multiple")
    assert [len(answer.json()["Ids"]) for answer in answers] == [2]
    contacts.upsert([{**row, "firstname": "F"} for row in rows], altkey_name="new_mail")
    read = contacts.read(select=["fullname", "emailaddress1"], order_by="lastname")
    assert [row["fullname"] for row in read] == ["F a", "F b", "F c"]
    contacts.delete_columns(["firstname"], ids=[read[0]["contactid"]])
    assert [row["fullname"] for row in contacts.read(select=["fullname"], order_by="lastname")] == ["a", "F b", "F c"]
