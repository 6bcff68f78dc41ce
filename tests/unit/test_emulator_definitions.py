"""``$metadata``, relationships, and tables and columns made over the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from d365sync.emulator.actions import ACTIONS, BOUND_ACTIONS
from d365sync.emulator.bulk import BULK
from d365sync.emulator.functions import BOUND_FUNCTIONS, FUNCTIONS
from d365sync.emulator.state import load_state, save_state
from tests.unit.emulating import ANN, Org, code

EDM = "{http://docs.oasis-open.org/odata/ns/edm}"
CRM = "Microsoft.Dynamics.CRM"
NAME = {"@odata.type": f"{CRM}.ComplexStringAttributeMetadata", "SchemaName": "new_Name", "IsPrimaryName": True}


@pytest.fixture(scope="module")
def schema() -> ET.Element:
    response = Org().call("GET", "$metadata?annotations=true")
    assert response.headers["Content-Type"].startswith("application/xml")
    found = ET.fromstring(response.content).find(f".//{EDM}Schema")  # noqa: S314 - our own document
    assert found is not None
    return found


def _names(schema: ET.Element, tag: str) -> list[str]:
    return [str(one.get("Name")) for one in schema.findall(f"{EDM}{tag}")]


def test_every_type_that_is_named_is_there(schema: ET.Element) -> None:
    defined = {name for tag in ("EntityType", "ComplexType", "EnumType") for name in _names(schema, tag)}
    assert len(_names(schema, "EntityType")) == len(set(_names(schema, "EntityType")))
    for one in schema.iter():
        for attribute in ("Type", "BaseType", "EntityType"):
            kind = str(one.get(attribute, "")).removeprefix("Collection(").removesuffix(")")
            if kind and not kind.startswith(("Edm.", "OData.")):
                assert kind.rpartition(".")[2] in defined, (one.tag, kind)
                assert kind.startswith(("mscrm.", f"{CRM}."))


def test_keys_constraints_and_partners_name_what_their_types_have(schema: ET.Element) -> None:
    types = {str(one.get("Name")): one for one in schema.findall(f"{EDM}EntityType")}
    members = {
        name: {str(part.get("Name")) for part in one if part.tag in (f"{EDM}Property", f"{EDM}NavigationProperty")}
        for name, one in types.items()
    }
    for name, one in types.items():
        listed = [str(part.get("Name")) for part in one if part.get("Name")]
        assert len(listed) == len(set(listed)), name
        for key in one.findall(f"{EDM}Key/{EDM}PropertyRef"):
            assert key.get("Name") in members[name]
        for navigation in one.findall(f"{EDM}NavigationProperty"):
            other = str(navigation.get("Type")).removeprefix("Collection(").removesuffix(")").rpartition(".")[2]
            assert navigation.get("Partner") is None or navigation.get("Partner") in members[other]
            for constraint in navigation.findall(f"{EDM}ReferentialConstraint"):
                assert constraint.get("Property") in members[name]
                assert constraint.get("ReferencedProperty") in members[other]
    goal = types["goal"]
    kinds = {str(one.get("Name")): one.get("Type") for one in goal.findall(f"{EDM}Property")}
    assert kinds["targetmoney"] == "Edm.Decimal"
    assert (kinds["statecode"], kinds["goalstartdate"]) == ("Edm.Int32", "Edm.DateTimeOffset")
    assert (kinds["_parentgoalid_value"], kinds["isoverride"]) == ("Edm.Guid", "Edm.Boolean")


def test_entity_sets_lead_to_entity_sets_and_tell_whether_they_are_tracked(schema: ET.Element) -> None:
    sets = schema.findall(f"{EDM}EntityContainer/{EDM}EntitySet")
    named = {one.get("Name") for one in sets}
    assert "goals" in named
    for one in sets:
        assert {binding.get("Target") for binding in one.findall(f"{EDM}NavigationPropertyBinding")} <= named
    tracked = {
        one.get("Name"): one.find(f".//{EDM}PropertyValue[@Property='Supported']").get("Bool")  # type: ignore[union-attr]
        for one in sets
    }
    assert (tracked["goals"], tracked["opportunities"]) == ("false", "true")
    plain = Org().call("GET", "$metadata").text
    assert "ChangeTracking" not in plain


def test_the_service_document_lists_the_same_entity_sets(schema: ET.Element) -> None:
    listed = {one["name"] for one in Org().get("")["value"]}
    assert listed == {one.get("Name") for one in schema.findall(f"{EDM}EntityContainer/{EDM}EntitySet")}
    assert code(Org().call("PUT", "")) == (405, "0x80060888")


def test_the_functions_and_actions_that_are_told_are_served(schema: ET.Element) -> None:
    org = Org()
    for one in schema.findall(f"{EDM}EntityContainer/{EDM}FunctionImport"):
        assert org.call("GET", f"{one.get('Name')}()").status_code in (200, 400)
    for one in schema.findall(f"{EDM}EntityContainer/{EDM}ActionImport"):
        assert org.post(str(one.get("Name")), {}).status_code == 400
        assert code(org.call("GET", str(one.get("Name")))) == (405, "0x80060888")


def test_every_operation_that_is_served_is_told(schema: ET.Element) -> None:
    told: dict[tuple[str, str | None], set[str]] = {}
    for kind in ("Function", "Action"):
        for one in schema.findall(f"{EDM}{kind}"):
            first = one.find(f"{EDM}Parameter") if one.get("IsBound") else None
            bound = None if first is None else str(first.get("Type")).removeprefix("mscrm.")
            told.setdefault((kind, bound), set()).add(str(one.get("Name")))
    assert told[("Function", None)] == FUNCTIONS.keys()
    assert told[("Action", None)] == ACTIONS.keys()
    assert told[("Action", "Collection(mscrm.crmbaseentity)")] == BULK.keys()
    bound = {(table, name) for (_, table), names in told.items() for name in names if table and "(" not in table}
    assert bound == {*BOUND_FUNCTIONS, *BOUND_ACTIONS}
    imported = {one.get("Name") for one in schema.findall(f"{EDM}EntityContainer/*") if one.tag.endswith("Import")}
    assert imported == {*FUNCTIONS, *ACTIONS}


@pytest.mark.parametrize(
    "path",
    [
        "WhoAmI",
        "RetrieveVersion",
        "RetrieveCurrentOrganization(AccessType=Microsoft.Dynamics.CRM.EndpointAccessType'Default')",
        'RetrieveTotalRecordCount(EntityNames=["goal"])',
        f"systemusers({ANN})/{CRM}.RetrieveUserPrivileges",
    ],
)
def test_what_functions_answer_has_the_properties_that_are_told(schema: ET.Element, path: str) -> None:
    types = {one.get("Name"): one for one in schema.findall(f"{EDM}ComplexType")}

    def check(document: dict[str, Any], kind: str) -> None:
        told = {str(one.get("Name")): str(one.get("Type")) for one in types[kind]}
        assert document.keys() - {"@odata.context"} == told.keys()
        for name, value in document.items():
            if isinstance(value, dict):
                check(value, told[name].removeprefix("mscrm."))

    document = Org().get(path)
    check(document, document["@odata.context"].rpartition(".")[2])


def test_relationships_are_found_by_name_id_and_condition() -> None:
    org = Org()
    found = org.get("RelationshipDefinitions?$filter=ReferencingEntity eq 'goal' and ReferencedEntity eq 'metric'")
    (one,) = found["value"]
    assert one["ReferencingEntityNavigationPropertyName"] == "metricid"
    assert org.get(f"RelationshipDefinitions({one['MetadataId']})")["SchemaName"] == one["SchemaName"]
    by_name = f"RelationshipDefinitions(SchemaName='{one['SchemaName']}')?$select=ReferencedEntity"
    assert org.get(by_name)["ReferencedEntity"] == "metric"
    cast = org.get(f"RelationshipDefinitions/{CRM}.OneToManyRelationshipMetadata?$select=SchemaName")["value"]
    assert one["SchemaName"] in {each["SchemaName"] for each in cast}
    assert org.get("EntityDefinitions(LogicalName='goal')/Keys")["value"] == []


def _entity(name: str, *attributes: dict[str, Any]) -> dict[str, Any]:
    return {"SchemaName": name, "OwnershipType": "UserOwned", "Attributes": [NAME, *attributes]}


def _attribute(kind: str, name: str, **facts: Any) -> dict[str, Any]:
    return {"@odata.type": f"{CRM}.{kind}AttributeMetadata", "SchemaName": name, **facts}


def test_a_table_is_made_used_changed_and_removed() -> None:
    org = Org()
    kinds = [
        _attribute("ComplexDecimal", "new_Hours", Precision=2, MinValue=-100.0, MaxValue=100.0),
        _attribute("ComplexDateTime", "new_On", DateTimeBehavior={"Value": "DateOnly"}),
        _attribute("ComplexPicklist", "new_Kind", OptionSet={"Options": [{"Value": 1, "Label": _label("Short")}]}),
    ]
    assert org.post("CreateEntities", {"Entities": [_entity("new_Visit", *kinds)]}).status_code == 204
    table = "EntityDefinitions(LogicalName='new_visit')"
    assert org.get(table)["EntitySetName"] == "new_visits"
    body = {"new_name": "first", "new_hours": 1.25, "new_on": "2026-05-01", "new_kind": 1}
    made = org.post("new_visits", body, {"Prefer": "return=representation"}).json()
    assert made["new_hours"] == 1.25
    assert org.post("new_visits", {"new_hours": 1000}).status_code == 400
    assert org.post(f"{table}/Attributes", _attribute("Money", "new_Fee")).status_code == 204
    assert org.patch(f"new_visits({made['new_visitid']})", {"new_fee": 12}).status_code == 204
    assert b'"new_fee":12.0000' in org.call("GET", "new_visits?$filter=new_fee gt 11").content
    assert "new_visits" in org.call("GET", "$metadata").text
    assert org.call("DELETE", f"{table}/Attributes(LogicalName='new_fee')").status_code == 204
    assert "new_fee" not in org.get("new_visits")["value"][0]
    assert org.call("DELETE", table).status_code == 204
    assert org.call("GET", "new_visits").status_code == 404


def _label(text: str) -> dict[str, Any]:
    return {"LocalizedLabels": [{"Label": text, "LanguageCode": 1033}]}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 400, "SchemaName"),
        (_entity("Visit"), 400, "customization prefix"),
        ({"SchemaName": "new_Visit", "Attributes": []}, 400, "IsPrimaryName"),
        ({"SchemaName": "new_Visit"}, 400, "Attributes"),
        (_entity("new_Visit", _attribute("Lookup", "new_To")), 501, "Lookup"),
        (_entity("new_Visit", _attribute("DateTime", "new_On", DateTimeBehavior={"Value": "Mine"})), 400, "behaviour"),
        (_entity("new_Visit", _attribute("Decimal", "new_Part", Precision=99)), 400, "places"),
    ],
)
def test_definitions_that_are_refused(body: dict[str, Any], status: int, says: str) -> None:
    org = Org()
    response = org.post("EntityDefinitions", body)
    assert response.status_code == status, response.text
    assert says in response.json()["error"]["message"]
    assert org.post("CreateEntities", {"Entities": [_entity("new_Other"), body]}).status_code == status
    assert org.call("GET", "new_others").status_code == 404


def test_what_belongs_to_the_system_stays() -> None:
    org = Org()
    goal = "EntityDefinitions(LogicalName='goal')"
    assert org.call("DELETE", goal).status_code == 405
    assert org.call("DELETE", f"{goal}/Attributes(LogicalName='title')").status_code == 405
    assert code(org.call("DELETE", f"{goal}/Attributes(LogicalName='nosuch')"))[0] == 404
    assert org.post("EntityDefinitions", _entity("new_Visit")).status_code == 204
    assert org.post("EntityDefinitions", _entity("new_visit")).status_code == 400
    assert org.call("DELETE", "EntityDefinitions(LogicalName='new_visit')/Attributes(LogicalName='new_name')").status_code == 405  # fmt: skip  # noqa: E501
    assert Org(missing_privileges=frozenset({"prvCreateEntity"})).post("EntityDefinitions", {}).status_code == 403


def test_what_was_made_is_not_in_a_saved_state(tmp_path: Path) -> None:
    org, path = Org(), tmp_path / "state.json"
    account = "EntityDefinitions(LogicalName='account')"
    assert org.post("EntityDefinitions", _entity("new_Visit")).status_code == 204
    assert org.post(f"{account}/Attributes", _attribute("Integer", "new_Rank")).status_code == 204
    assert org.post("new_visits", {"new_name": "x"}).status_code == 204
    assert org.post("accounts", {"name": "kept", "new_rank": 1}).status_code == 204
    save_state(org.emulator.store, path)
    again = Org()
    load_state(again.emulator.store, path)
    assert again.names("accounts") == ["kept"]
    assert again.call("GET", "new_visits").status_code == 404
