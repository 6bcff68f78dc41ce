"""Microsoft's official Python client, as it is published, over TLS: what it does works, to the letter of its documents.

Nothing of the client is replaced: it trusts the emulator's authority through ``REQUESTS_CA_BUNDLE``, and its credential
is one of azure-core's protocol.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from azure.core.credentials import AccessToken
from pandas import DataFrame
from PowerPlatform.Dataverse.client import DataverseClient
from PowerPlatform.Dataverse.core.errors import HttpError, MetadataError

from d365sync.emulator import Emulator
from tests.unit.emulating import COMPANY, NOW, SMALL, made_id

FORMATTED = "OData.Community.Display.V1.FormattedValue"


class Credential:
    """Fetches tokens from the emulator's sign-in."""

    def __init__(self, emulator: Emulator, origin: str, ca_bundle: str) -> None:
        self.emulator = emulator
        self.url = f"{emulator.authority(origin)}/oauth2/v2.0/token"
        self.known = emulator.credentials
        self.ca_bundle = ca_bundle

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        form = {
            "grant_type": "client_credentials",
            "client_id": self.known.client_id,
            "client_secret": self.known.client_secret,
            "scope": scopes[0],
        }
        answer = requests.post(self.url, data=form, verify=self.ca_bundle, timeout=20).json()
        return AccessToken(answer["access_token"], int(time.time()) + int(answer["expires_in"]))


class AsyncCredential:
    """The same for the asynchronous client."""

    def __init__(self, inner: Credential) -> None:
        self.inner = inner

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return self.inner.get_token(*scopes)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> AsyncCredential:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, Credential]]:
    emulator = Emulator.load(SMALL, now=NOW)
    with emulator.serve() as (origin, ca_bundle), pytest.MonkeyPatch.context() as environment:
        for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
            environment.setenv(name, str(ca_bundle))
        yield origin, Credential(emulator, origin, str(ca_bundle))


@pytest.fixture(scope="module")
def client(served: tuple[str, Credential]) -> Iterator[DataverseClient]:
    with DataverseClient(*served) as found:
        yield found


def test_many_rows_are_deleted_by_a_job(served: tuple[str, Credential], client: DataverseClient) -> None:
    ids = client.records.create("account", [{"name": "one"}, {"name": "two"}])
    job = client.records.delete("account", ids)
    assert job is not None
    assert client.records.retrieve("asyncoperation", job, select=["statecode"])["statecode"] == 1
    clock = served[1].emulator.clock
    clock.freeze(dt.datetime.now(dt.UTC))
    try:
        row = client.records.retrieve("asyncoperation", job, select=["statuscode", "message"])
        assert (row["statuscode"], row["message"]) == (30, "2 rows were deleted, 0 were not.")
        assert [client.records.retrieve("account", one) for one in ids] == [None, None]
    finally:
        clock.freeze(NOW)


def test_a_row_is_created_read_changed_and_deleted(client: DataverseClient) -> None:
    row_id = client.records.create("account", {"name": "Contoso", "revenue": 12.5, "Telephone1": "1"})
    row = client.records.retrieve("account", row_id, select=["name", "revenue", "telephone1"])
    assert (row["name"], row["revenue"], row["telephone1"]) == ("Contoso", 12.5, "1")
    client.records.update("account", row_id, {"name": "Contoso Ltd"})
    listed = client.records.list("account", filter=f"accountid eq {row_id}", select=["name"])
    assert [one["name"] for one in listed] == ["Contoso Ltd"]
    client.records.delete("account", row_id)
    assert client.records.retrieve("account", row_id) is None
    with pytest.raises(HttpError):
        client.records.update("account", row_id, {"name": "gone"})


def test_pages_follow_one_another(client: DataverseClient) -> None:
    options: dict[str, Any] = {"select": ["name"], "orderby": ["name"], "page_size": 2, "include_annotations": "*"}
    pages = list(client.records.list_pages("opportunity", **options))
    assert [len(page) for page in pages] == [2, 2, 1]
    names = [row["name"] for page in pages for row in page]
    assert names == ["50% off", "Alpha", "alpha two", "beta", "Gamma"]
    some = client.records.list("opportunity", select=["name"], filter="contains(name,'alpha')", count=True)
    assert sorted(row["name"] for row in some) == ["Alpha", "alpha two"]


def test_lookups_expand_and_choices_are_formatted(client: DataverseClient) -> None:
    (goal,) = client.records.list(
        "goal",
        filter="title eq 'Company'",
        select=["title", "statuscode"],
        expand=["metricid"],
        include_annotations=FORMATTED,
    )
    assert goal["metricid"]["name"] == "Revenue"
    assert goal[f"statuscode@{FORMATTED}"] == "Open"


def test_the_builder_of_queries(client: DataverseClient) -> None:
    found = client.query.builder("opportunity").select("name").order_by("name").top(2).execute()
    assert [row["name"] for row in found] == ["50% off", "Alpha"]


def test_fetchxml_runs_over_pages(client: DataverseClient) -> None:
    xml = (
        '<fetch count="2"><entity name="opportunity"><attribute name="name"/><order attribute="name"/>'
        '<link-entity name="systemuser" from="systemuserid" to="owninguser" alias="u"><attribute name="fullname"/>'
        "</link-entity></entity></fetch>"
    )
    rows = client.query.fetchxml(xml).execute()
    assert [(row["name"], row["u.fullname"]) for row in rows] == [
        ("50% off", "Bob Ray"),
        ("Alpha", "Ann Lee"),
        ("alpha two", "Bob Ray"),
        ("beta", "Bob Ray"),
    ]


def test_sql_of_one_table(client: DataverseClient) -> None:
    rows = client.query.sql("SELECT TOP 2 name, actualvalue FROM opportunity WHERE statecode = 1 ORDER BY name DESC")
    assert [(row["name"], row["actualvalue"]) for row in rows] == [("Gamma", 200), ("Alpha", 100.5)]
    with pytest.raises(HttpError, match="DISTINCT"):
        client.query.sql("SELECT DISTINCT name FROM opportunity")


def test_rows_are_made_and_changed_in_bulk(client: DataverseClient) -> None:
    ids = client.records.create("account", [{"name": "Bulk 1"}, {"name": "Bulk 2"}, {"name": "Bulk 3"}])
    assert len(set(ids)) == 3
    listed = [client.records.retrieve("account", one, select=["name"])["name"] for one in ids]
    assert listed == ["Bulk 1", "Bulk 2", "Bulk 3"]
    client.records.update("account", ids, {"telephone1": "12"})
    client.records.update("account", ids[:2], [{"name": "First"}, {"name": "Second"}])
    rows = client.records.list("account", filter="telephone1 eq '12'", select=["name"], orderby=["name"])
    assert [row["name"] for row in rows] == ["Bulk 3", "First", "Second"]
    with pytest.raises(HttpError, match="Do Not Exist"):
        client.records.update("account", [ids[0], made_id("9", 9)], {"name": "never"})
    with pytest.raises(HttpError, match="duplicate key"):
        client.records.create("account", [{"name": "never"}, {"accountid": ids[0]}])
    with pytest.raises(HttpError, match="does not support entities of type 'goal'"):
        client.records.create("goal", [{"title": "never"}, {"title": "never"}])
    assert not client.records.list("account", filter="name eq 'never'", select=["name"])


def test_rows_are_upserted_by_an_alternate_key(client: DataverseClient) -> None:
    client.tables.create_alternate_key("account", "new_Number", ["accountnumber"])
    (key,) = client.tables.get_alternate_keys("account")
    assert (key.key_attributes, key.status) == (["accountnumber"], "Active")
    one, two = ({"alternate_key": {"accountnumber": name}, "record": {"name": name}} for name in ("A'1", "B 2"))
    client.records.upsert("account", [one])
    client.records.upsert("account", [{**one, "record": {"name": "changed"}}, two])
    client.records.upsert("account", [{**two, "record": {"name": "changed too"}}])
    rows = client.records.list("account", filter="accountnumber ne null", select=["name"], orderby=["accountnumber"])
    assert [row["name"] for row in rows] == ["changed", "changed too"]
    batch = client.batch.new()
    batch.records.upsert("account", [one, two])
    batch.records.create("account", [{"name": "x", "accountnumber": "C"}, {"name": "y", "accountnumber": "D"}])
    batch.records.upsert("account", [{"alternate_key": {"accountnumber": "E"}, "record": {"name": "z"}}])
    assert [answer.status_code for answer in batch.execute().responses] == [204, 200, 204]
    rows = client.records.list("account", filter="accountnumber ne null", select=["name"], orderby=["accountnumber"])
    assert [row["name"] for row in rows] == ["A'1", "B 2", "x", "y", "z"]
    client.tables.delete_alternate_key("account", key.metadata_id)
    with pytest.raises(HttpError, match="not a defined key"):
        client.records.upsert("account", [one])


def test_rows_of_a_data_frame_are_made_and_changed(client: DataverseClient) -> None:
    ids = client.dataframe.create("contact", DataFrame({"firstname": ["Ada", "Bo"], "lastname": ["Lee", "Ray"]}))
    client.dataframe.update("contact", DataFrame({"contactid": ids, "lastname": ["A", "B"]}), id_column="contactid")
    rows = client.records.list("contact", select=["fullname"], orderby=["fullname"])
    assert [row["fullname"] for row in rows] == ["Ada A", "Bo B"]


def test_a_batch_with_a_change_set(client: DataverseClient) -> None:
    batch = client.batch.new()
    with batch.changeset() as changes:
        parent = changes.records.create("account", {"name": "Parent"})
        changes.records.create("account", {"name": "Child", "parentaccountid@odata.bind": parent})
    batch.records.list("account", filter="name eq 'Child'", select=["name"], expand=["parentaccountid"])
    batch.query.sql("SELECT name FROM account WHERE name = 'Parent'")
    batch.tables.get("account")
    result = batch.execute()
    assert [one.status_code for one in result.responses] == [204, 204, 200, 200, 200]
    (child,) = result.responses[2].data["value"]
    assert child["parentaccountid"]["name"] == "Parent"
    assert len(result.entity_ids) == 2


def test_a_failing_change_set_leaves_nothing(client: DataverseClient) -> None:
    batch = client.batch.new()
    with batch.changeset() as changes:
        changes.records.create("account", {"name": "Never"})
        changes.records.update("account", made_id("9", 1), {"name": "nobody"})
    result = batch.execute(continue_on_error=True)
    assert [one.is_success for one in result.responses] == [False]
    assert not client.records.list("account", filter="name eq 'Never'", select=["name"])


def test_tables_are_described(client: DataverseClient) -> None:
    goal = client.tables.get("goal")
    assert (goal["entity_set_name"], goal["primary_id_attribute"]) == ("goals", "goalid")
    assert client.tables.get("nosuch") is None
    assert {"goal", "metric", "account"} <= {table["LogicalName"] for table in client.tables.list()}
    columns = {column["LogicalName"]: column for column in client.tables.list_columns("goal")}
    assert columns["targetmoney"]["AttributeType"] == "Money"
    related = client.tables.list_table_relationships("goal")
    assert ("metric", "metricid") in {(one["ReferencedEntity"], one["ReferencingAttribute"]) for one in related}
    assert client.tables.list_relationships(filter="ReferencedEntity eq 'metric'", select=["SchemaName"])
    assert client.tables.get_alternate_keys("goal") == []


def test_a_table_and_its_columns_are_made_and_removed(client: DataverseClient) -> None:
    made = client.tables.create("new_Visit", {"new_Hours": "decimal", "new_On": "datetime", "new_Open": "bool"})
    assert made["entity_set_name"] == "new_visits"
    with pytest.raises(MetadataError):
        client.tables.create("new_Visit", {"new_Hours": "decimal"})
    assert client.tables.add_columns("new_Visit", {"new_Note": "memo"}) == ["new_Note"]
    row = {"new_Name": "one", "new_Hours": 1.25, "new_Note": "x", "new_Open": True, "new_On": "2026-05-01T00:00:00Z"}
    row_id = client.records.create("new_Visit", row)
    read = client.records.retrieve("new_Visit", row_id)
    assert (read["new_hours"], read["new_note"], read["new_open"]) == (1.25, "x", True)
    assert client.tables.remove_columns("new_Visit", "new_Note") == ["new_Note"]
    client.tables.delete("new_Visit")
    assert client.tables.get("new_Visit") is None


def test_rows_come_as_a_data_frame(client: DataverseClient) -> None:
    frame = client.dataframe.sql("SELECT name, actualvalue FROM opportunity WHERE actualvalue > 0 ORDER BY name")
    assert list(frame["name"]) == ["Alpha", "Gamma"]


def test_the_asynchronous_client(served: tuple[str, Credential]) -> None:
    # the trust of aiohttp is read when it is imported, after the fixture named the emulator's authority
    from PowerPlatform.Dataverse.aio import AsyncDataverseClient

    async def run() -> list[str]:
        origin, credential = served
        async with AsyncDataverseClient(origin, AsyncCredential(credential)) as client:
            row_id = await client.records.create("account", {"name": "Async"})
            await client.records.update("account", row_id, {"name": "Asynchronous"})
            names = [one["name"] for one in await client.records.list("account", filter=f"accountid eq {row_id}")]
            names += [one["title"] for one in await client.query.sql("SELECT title FROM goal WHERE title = 'Company'")]
            assert (await client.records.retrieve("goal", COMPANY[6:-1]))["title"] == "Company"
            await client.records.delete("account", row_id)
            ids = await client.records.create("contact", [{"lastname": "x"}, {"lastname": "y"}])
            await client.records.update("contact", ids, {"lastname": "z"})
            names += [one["lastname"] for one in await client.records.list("contact", filter="lastname eq 'z'")]
            return names

    assert asyncio.run(run()) == ["Asynchronous", "Company", "z", "z"]
