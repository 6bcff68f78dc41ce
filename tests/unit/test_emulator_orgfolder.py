"""Org folders: what is supplied, what is kept, and how a wrong one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d365sync.emulator import Emulator
from d365sync.errors import OrgFolderError
from tests.unit.emulating import ANN, CLOSED, NOW, SMALL, Org, made_id

GOAL = made_id("d", 1)


def org_of(folder: Path, **files: Any) -> Org:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return Org(folder=folder)


def test_an_empty_folder_is_a_small_organization(tmp_path: Path) -> None:
    org = org_of(tmp_path)
    organization = org.get("organizations")["value"][0]
    currency = org.get("transactioncurrencies")["value"][0]
    assert organization["_basecurrencyid_value"] == currency["transactioncurrencyid"]
    assert (organization["goalrollupfrequency"], organization["goalrollupexpirytime"]) == (24, 30)
    assert org.get("WhoAmI")["OrganizationId"] == organization["organizationid"]


def test_absent_columns_take_the_platforms_defaults(tmp_path: Path) -> None:
    goal = org_of(tmp_path, goals=[{"goalid": GOAL}]).get(f"goals({GOAL})")
    wanted = {
        "statecode": 0,
        "statuscode": 0,
        "isfiscalperiodgoal": True,
        "consideronlygoalownersrecords": True,
        "rolluponlyfromchildgoals": False,
        "isoverridden": False,
        "createdon": "2026-05-01T12:00:00Z",
        "treeid": GOAL,
        "depth": 0,
        "actualmoney": None,
    }
    assert {name: goal[name] for name in wanted} == wanted


def test_loaded_rows_are_facts() -> None:
    org = Org()
    closed = org.get(CLOSED)
    assert (closed["statecode"], closed["statuscode"], closed["actualmoney"]) == (1, 1, 77.5)
    assert closed["actualmoney_base"] == 77.5


def test_given_base_amounts_rates_and_read_only_columns_stay(tmp_path: Path) -> None:
    row = {
        "opportunityid": GOAL,
        "estimatedvalue": 10,
        "estimatedvalue_base": 3.0001,
        "exchangerate": 7,
        "createdon": "2020-01-01T00:00:00Z",
        "@odata.etag": 'W/"1"',
        "versionnumber": 1,
        "statecode@OData.Community.Display.V1.FormattedValue": "Open",
    }
    deal = org_of(tmp_path, opportunities=[row]).get(f"opportunities({GOAL})")
    assert (deal["estimatedvalue_base"], deal["exchangerate"]) == (3.0001, 7)
    assert deal["createdon"] == "2020-01-01T00:00:00Z"
    assert deal["@odata.etag"] == f'W/"{deal["versionnumber"]}"' != 'W/"1"'


def test_a_polymorphic_lookup_finds_its_table(tmp_path: Path) -> None:
    rows = [{"opportunityid": GOAL, "_ownerid_value": ANN}]
    files: dict[str, Any] = {"opportunities": rows, "teams": [{"teamid": ANN, "name": "t"}]}
    row = org_of(tmp_path, **files).get(f"opportunities({GOAL})")
    assert (row["_owningteam_value"], row["_owninguser_value"]) == (ANN, None)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"goals": "[{"}, ("goals.json", "not JSON")),
        ({"goals": "[]]"}, ("goals.json", "not JSON")),
        ({"goals": "{}"}, ("goals.json", "array")),
        ({"goals": [1]}, ("goals.json", "row 0")),
        ({"goals": [{"goalid": GOAL}, {}]}, ("goals.json", "row 1", "'goalid'")),
        ({"goals": [{"goalid": "x"}]}, ("row 0", "'goalid'", "guid")),
        ({"goals": [{"goalid": GOAL}, {"goalid": GOAL.upper()}]}, ("row 1", "row 0", GOAL)),
        ({"goals": [{"goalid": GOAL, "nosuch": 1}]}, ("goals.json", "row 0", "'nosuch'")),
        ({"goals": [{"goalid": GOAL, "ownerid": ANN}]}, ("'ownerid'",)),
        ({"goals": [{"goalid": GOAL, "targetmoney": "5"}]}, ("row 0", "'targetmoney'", "'5'")),
        ({"goals": [{"goalid": GOAL, "targetmoney": 1.00005}]}, ("'targetmoney'", "4 decimal places")),
        ({"goals": f'[{{"goalid": "{GOAL}", "targetmoney": 1e400}}]'}, ("'targetmoney'", "too large")),
        ({"goals": f'[{{"goalid": "{GOAL}", "targetmoney": NaN}}]'}, ("goals.json", "not JSON")),
        ({"goals": [{"goalid": GOAL, "targetinteger": 1.5}]}, ("'targetinteger'", "whole number")),
        ({"goals": [{"goalid": GOAL, "targetinteger": 2**31}]}, ("'targetinteger'", "does not fit")),
        ({"goals": [{"goalid": GOAL, "isoverridden": 1}]}, ("'isoverridden'", "true or false")),
        ({"goals": [{"goalid": GOAL, "goalstartdate": "soon"}]}, ("'goalstartdate'", "date")),
        ({"goals": [{"goalid": GOAL, "goalstartdate": "1752-12-31T00:00:00Z"}]}, ("'goalstartdate'", "1753")),
        ({"goals": [{"goalid": GOAL, "_goalownerid_value": ANN}]}, ("'_goalownerid_value'", "lookuplogicalname")),
        (
            {"goals": [{"goalid": GOAL, "_goalownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname": "lead"}]},
            ("'lead'", "systemuser, team"),
        ),
        ({"opportunities": [{"opportunityid": GOAL, "actualclosedate": "2026-01-01T00:00:00Z"}]}, ("YYYY-MM-DD",)),
        ({"nosuch": []}, ("nosuch.json", "entity set 'nosuch'")),
        ({"goal": []}, ("goal.json", "goals.json")),
        ({"schema": "{"}, ("schema.json",)),
        ({"schema": {"goal": {"columns": {"x_y": "strange"}}}}, ("goal.x_y", "'strange'")),
        ({"schema": {"goal": {"columns": {"x_y": "lookup:nosuch"}}}}, ("goal.x_y", "'nosuch'")),
        ({"schema": {"goal": {"columns": {"x_y": "datetime"}}}}, ("goal.x_y", "userlocal")),
        ({"schema": {"goal": {"columns": {}, "primary_key": "x"}}}, ("primary_key", "'goal'")),
        ({"schema": {"x_y": {"columns": {}}}}, ("'x_y'", "primary_key")),
        ({"schema": {"x_y": {"columns": {}, "primary_key": "x_yid", "nosuch": 1}}}, ("schema.json", "nosuch")),
        ({"schema": {"x_y": {"columns": {}, "primary_key": "i", "primary_name": "n"}}}, ("'x_y'", "'n'")),
    ],
)
def test_a_wrong_folder_is_refused_with_its_place(tmp_path: Path, files: dict[str, Any], says: tuple[str, ...]) -> None:
    with pytest.raises(OrgFolderError) as refused:
        org_of(tmp_path, **files)
    assert refused.value.exit_code == 2
    for part in says:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OrgFolderError, match="is not there"):
        Emulator.load(tmp_path / "nowhere")


def test_a_schema_file_adds_tables_and_columns_of_every_type(tmp_path: Path) -> None:
    columns = {
        "new_name": "string",
        "new_when": "datetime:userlocal",
        "new_d": "datetime:dateonly",
        "new_t": "datetime:timezoneindependent",
        "new_amount": "money",
        "new_rate": "decimal:5",
        "new_owner": "owner",
        "new_accountid": "lookup:account,contact",
        "new_choice": "picklist",
        "new_flag": "boolean",
        "new_count": "integer",
        "new_big": "bigint",
        "new_float": "double",
        "new_text": "memo",
        "new_set": "multiselectpicklist",
        "statecode": "state",
        "statuscode": "status",
        "new_customer": "customer",
        "new_table": "entityname",
    }
    schema = {
        "new_entry": {"primary_key": "new_entryid", "primary_name": "new_name", "columns": columns},
        "opportunity": {"columns": {"actualclosedate": "datetime:userlocal"}},
    }
    row = {
        "new_entryid": GOAL,
        "new_name": "One",
        "new_when": "2026-01-01T01:30:00+01:30",
        "new_d": "2026-01-02",
        "new_t": "2026-01-01T10:00:00Z",
        "new_amount": 5.25,
        "new_rate": 1.5,
        "_new_owner_value": ANN,
        "new_set": "3,1",
        "new_big": 2**60,
        "new_float": 0.25,
        "new_flag": True,
    }
    deal = {"opportunityid": GOAL, "actualclosedate": "2026-01-31T23:00:00Z"}
    users = [{"systemuserid": ANN, "fullname": "Ann"}]
    org = org_of(tmp_path, schema=schema, new_entries=[row], opportunities=[deal], systemusers=users)
    entry = org.get(f"new_entries({GOAL})")
    assert (entry["new_when"], entry["new_d"], entry["new_t"]) == (
        "2026-01-01T00:00:00Z",
        "2026-01-02",
        "2026-01-01T10:00:00Z",
    )
    assert (entry["new_amount_base"], entry["exchangerate"], entry["new_set"]) == (5.25, 1, "1,3")
    assert (entry["statecode"], entry["statuscode"], entry["new_big"]) == (0, 1, 2**60)
    assert org.get(f"opportunities({GOAL})")["actualclosedate"] == "2026-01-31T23:00:00Z"
    assert "@odata.deltaLink" in org.get("new_entries", "odata.track-changes")


def test_the_small_org_and_the_clock() -> None:
    emulator = Emulator.load(SMALL, now=NOW)
    assert emulator.clock.now() == NOW
    assert Emulator.load(SMALL).clock.now() > NOW.replace(year=2020)
