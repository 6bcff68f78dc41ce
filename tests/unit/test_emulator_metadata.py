"""EntityDefinitions: tables, columns, casts, choices."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emulating import Org, code

GOAL = "EntityDefinitions(LogicalName='goal')"
DEAL = "EntityDefinitions(LogicalName='opportunity')"
CAST = "Attributes/Microsoft.Dynamics.CRM."


@pytest.fixture(scope="module")
def org() -> Org:
    return Org()


def columns(document: Any) -> dict[str, Any]:
    return {one["LogicalName"]: one for one in document["value"]}


def test_a_table_says_what_a_client_needs(org: Org) -> None:
    wanted = {
        "LogicalName": "goal",
        "EntitySetName": "goals",
        "PrimaryIdAttribute": "goalid",
        "PrimaryNameAttribute": "title",
        "ObjectTypeCode": 9600,
        "ChangeTrackingEnabled": False,
        "IsOptimisticConcurrencyEnabled": True,
    }
    document = org.get(f"{GOAL}?$select={','.join(wanted)}")
    assert {key: document[key] for key in wanted} == wanted
    assert document.keys() == {*wanted, "MetadataId", "@odata.context"}
    assert org.get(f"EntityDefinitions({document['MetadataId']})")["CanChangeTrackingBeEnabled"]["Value"] is False


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("LogicalName eq 'goal'", ["goal"]),
        ("EntitySetName eq 'opportunities' or LogicalName eq 'lead'", ["lead", "opportunity"]),
        ("ChangeTrackingEnabled eq false and ObjectTypeCode eq 9600", ["goal"]),
        ("LogicalName eq 'nosuch'", []),
    ],
)
def test_tables_are_found_by_condition(org: Org, condition: str, expected: list[str]) -> None:
    found = org.get(f"EntityDefinitions?$select=LogicalName&$filter={condition}")["value"]
    assert sorted(one["LogicalName"] for one in found) == expected


def test_tracked_tables(org: Org) -> None:
    found = org.get("EntityDefinitions?$select=LogicalName&$filter=ChangeTrackingEnabled eq true")["value"]
    names = {one["LogicalName"] for one in found}
    assert {"opportunity", "lead", "opportunityproduct", "phonecall", "account", "systemuser", "incident"} <= names
    assert not names & {"goal", "metric", "rollupfield", "goalrollupquery", "organization", "territory"}


def test_columns_are_listed_with_their_companions(org: Org) -> None:
    listed = columns(org.get(f"{DEAL}/Attributes?$select=LogicalName,AttributeType,AttributeOf,AttributeTypeName"))
    assert listed["ownerid"]["AttributeType"] == "Owner"
    assert listed["customerid"]["AttributeType"] == "Customer"
    assert listed["owneridtype"]["AttributeOf"] == "ownerid"
    assert listed["statecodename"]["AttributeType"] == "Virtual"
    assert listed["statuscode"]["AttributeTypeName"] == {"Value": "StatusType"}
    expanded = org.get(f"{DEAL}?$select=LogicalName&$expand=Attributes($select=LogicalName,AttributeType)")
    assert {one["LogicalName"] for one in expanded["Attributes"]} == listed.keys()
    assert columns(org.get(f"{DEAL}/Attributes"))["actualvalue"]["Precision"] == 4


@pytest.mark.parametrize(
    ("kind", "name", "select", "expected"),
    [
        ("DateTime", "actualclosedate", "DateTimeBehavior", {"Value": "DateOnly"}),
        ("DateTime", "createdon", "DateTimeBehavior", {"Value": "UserLocal"}),
        ("Money", "actualvalue_base", "IsBaseCurrency", True),
        ("Money", "actualvalue_base", "CalculationOf", "actualvalue"),
        ("Money", "actualvalue", "PrecisionSource", 2),
        ("Decimal", "exchangerate", "Precision", 12),
        ("Lookup", "customerid", "Targets", ["account", "contact"]),
        ("String", "name", "MaxLength", 300),
        ("Integer", "closeprobability", "MaxValue", 100),
    ],
)
def test_a_cast_shows_what_the_type_has(org: Org, kind: str, name: str, select: str, expected: Any) -> None:
    path = f"{DEAL}/{CAST}{kind}AttributeMetadata?$select=LogicalName,{select}"
    assert columns(org.get(path))[name][select] == expected
    single = f"{DEAL}/Attributes(LogicalName='{name}')/Microsoft.Dynamics.CRM.{kind}AttributeMetadata?$select={select}"
    assert org.get(single)[select] == expected


def test_choices_have_options_and_statuses_their_state(org: Org) -> None:
    path = f"{DEAL}/{CAST}StatusAttributeMetadata?$select=LogicalName&$expand=OptionSet($select=Options)"
    options = columns(org.get(path))["statuscode"]["OptionSet"]["Options"]
    assert {option["Value"]: option["State"] for option in options} == {1: 0, 2: 0, 3: 1, 4: 2, 5: 2}
    assert options[2]["Label"]["UserLocalizedLabel"]["Label"] == "Won"
    booleans = columns(org.get(f"{GOAL}/{CAST}BooleanAttributeMetadata?$expand=OptionSet"))
    assert booleans["isamount"]["OptionSet"]["TrueOption"]["Label"]["UserLocalizedLabel"]["Label"] == "Amount"


def test_the_microsoft_clients_picklist_call_is_answered(org: Org) -> None:
    path = f"{GOAL}/{CAST}PicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet($select=Options)"
    assert {"fiscalperiod", "fiscalyear", "amountdatatype"} == columns(org.get(path)).keys()


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("EntityDefinitions(LogicalName='nosuch')", 404, "0x80060888"),
        (f"{GOAL}/Attributes(LogicalName='nosuch')", 404, "0x80060888"),
        (f"{GOAL}?$select=Nosuch", 400, "0x80060888"),
        (f"{GOAL}/Attributes?$select=Format", 400, "0x80060888"),
        (f"{GOAL}/{CAST}NosuchAttributeMetadata", 400, "0x80060888"),
        (f"{GOAL}?$expand=Privileges", 501, ""),
        ("EntityDefinitions?$filter=startswith(LogicalName,'a')", 501, ""),
        ("EntityDefinitions?$filter=LogicalName/Value eq 'goal'", 400, "0x80060888"),
        (f"EntityDefinitions?$filter=ObjectTypeCode eq {'9' * 5000}", 400, "0x80060888"),
        ("RelationshipDefinitions?$orderby=SchemaName", 501, ""),
        ("RelationshipDefinitions(SchemaName='nosuch')", 404, "0x80060888"),
    ],
)
def test_what_definitions_do_not_have(org: Org, path: str, status: int, error: str) -> None:
    assert code(org.call("GET", path)) == (status, error)


def test_reading_definitions_needs_its_privileges() -> None:
    assert Org(missing_privileges=frozenset({"prvReadEntity"})).call("GET", GOAL).status_code == 403
    narrow = Org(missing_privileges=frozenset({"prvReadAttribute"}))
    assert narrow.call("GET", f"{GOAL}/Attributes").status_code == 403
    assert narrow.call("GET", GOAL).status_code == 200
