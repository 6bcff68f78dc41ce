"""What is known of the Web API and not imitated is refused with 501 and its name; members of teams are imitated."""

from __future__ import annotations

from typing import Any

import pytest

from d365sync.emulator.actions import BOUND_ACTIONS, ELSEWHERE
from d365sync.emulator.functions import UNDONE_FUNCTIONS
from tests.unit.emulating import ANN, ANNS, BOB, DESK, Org, code, made_id

TABLE = "EntityDefinitions(LogicalName='opportunity')"
COLUMN = f"{TABLE}/Attributes(LogicalName='name')"
RELATIONSHIP = "RelationshipDefinitions(SchemaName='goal_parent_goal')"
CRM = "Microsoft.Dynamics.CRM."
MEMBER = {"@odata.type": f"{CRM}systemuser"}
NOBODY = made_id("9", 9)


@pytest.fixture(scope="module")
def org() -> Org:
    return Org()


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("POST", "RelationshipDefinitions", "RelationshipDefinitions"),
        ("PUT", RELATIONSHIP, "RelationshipDefinitions"),
        ("PUT", f"{RELATIONSHIP}/{CRM}OneToManyRelationshipMetadata", "OneToManyRelationshipMetadata"),
        ("DELETE", RELATIONSHIP, "RelationshipDefinitions"),
        ("PUT", TABLE, "EntityDefinitions"),
        ("PUT", COLUMN, "Attributes"),
        ("PUT", f"{COLUMN}/{CRM}StringAttributeMetadata", "StringAttributeMetadata"),
        ("GET", "RetrieveMetadataChanges(Query=@p)?@p={}", "RetrieveMetadataChanges"),
        ("GET", f"{ANNS}/{CRM}RetrievePrincipalAccess(Principal=@p)", "RetrievePrincipalAccess"),
        ("GET", f"systemusers({ANN})/{CRM}RetrieveTeamPrivileges", "RetrieveTeamPrivileges"),
        ("POST", f"teams({DESK})/{CRM}ConvertOwnerTeamToAccessTeam", "ConvertOwnerTeamToAccessTeam"),
        *(("GET", name, name) for name in UNDONE_FUNCTIONS),
        *(("POST", name, name) for name in ELSEWHERE),
    ],
)
def test_what_is_not_imitated_is_refused_by_name(org: Org, method: str, path: str, named: str) -> None:
    response = org.call(method, path, {} if method != "GET" else None)
    assert code(response) == (501, "")
    assert named in response.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("PATCH", TABLE), ("PATCH", "RelationshipDefinitions"), ("PUT", "goals")])
def test_a_method_that_the_platform_has_not_either_is_still_405(org: Org, method: str, path: str) -> None:
    assert org.call(method, path, {}).status_code == 405


@pytest.mark.parametrize(("table", "name"), BOUND_ACTIONS)
def test_actions_of_a_row_are_posted(org: Org, table: str, name: str) -> None:
    address = {"goal": ANNS, "team": f"teams({DESK})"}[table]
    assert org.call("GET", f"{address}/{CRM}{name}").status_code == 405


def members(org: Org) -> set[Any]:
    return {row["systemuserid"] for row in org.get("teammemberships")["value"] if row["teamid"] == DESK}


def test_members_join_a_team_once_and_leave_it() -> None:
    org = Org()
    address = f"teams({DESK})/{CRM}"
    both = {"Members": [{**MEMBER, "systemuserid": ANN}, {**MEMBER, "ownerid": BOB}, {"systemuserid": ANN}]}
    assert [org.post(f"{address}AddMembersTeam", both).status_code for _ in range(2)] == [204, 204]
    assert members(org) == {ANN, BOB}
    assert len(org.get("teammemberships")["value"]) == 2
    leaving = {"Members": [{**MEMBER, "systemuserid": BOB}]}
    assert [org.post(f"{address}RemoveMembersTeam", leaving).status_code for _ in range(2)] == [204, 204]
    assert members(org) == {ANN}


def test_whoever_joins_a_team_is_asked_about_as_one_of_it() -> None:
    org = Org()
    path = f"opportunities?$select=name&$filter={CRM}EqualUserTeams(PropertyName='ownerid')"
    asked = {"MSCRMCallerID": ANN}
    assert org.call("GET", path, headers=asked).json()["value"] == []
    org.post(f"teams({DESK})/{CRM}AddMembersTeam", {"Members": [{**MEMBER, "systemuserid": ANN}]})
    assert [row["name"] for row in org.call("GET", path, headers=asked).json()["value"]] == ["Gamma"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, (400, "0x80040203")),
        ({"Members": []}, (400, "0x80040203")),
        ({"Members": [ANN]}, (400, "0x80040203")),
        ({"Members": [{"systemuserid": "x"}]}, (400, "0x80040203")),
        ({"Members": [{**MEMBER, "systemuserid": ANN, "ownerid": BOB}]}, (400, "0x80040203")),
        ({"Members": [{"@odata.type": f"{CRM}team", "ownerid": DESK}]}, (400, "0x80040203")),
        ({"Members": [{**MEMBER, "systemuserid": ANN}, {**MEMBER, "systemuserid": NOBODY}]}, (404, "0x80040217")),
    ],
)
def test_members_that_are_none_are_refused_and_nobody_joins(org: Org, body: Any, error: tuple[int, str]) -> None:
    assert code(org.post(f"teams({DESK})/{CRM}AddMembersTeam", body)) == error
    assert members(org) == set()


def test_members_need_the_privilege_to_write_the_team() -> None:
    org = Org(missing_privileges=frozenset({"prvWriteTeam"}))
    body = {"Members": [{**MEMBER, "systemuserid": ANN}]}
    assert code(org.post(f"teams({DESK})/{CRM}AddMembersTeam", body)) == (403, "0x80040220")
    assert code(Org().post(f"teams({NOBODY})/{CRM}AddMembersTeam", body)) == (404, "0x80040217")
