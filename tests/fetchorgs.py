"""Worked FetchXML cases as org folders, so that the emulator can be asked what the case asks."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from d365sync.core.fiscal import PERIOD_TYPE_CODES
from d365sync.core.schema import Column, ColumnType
from d365sync.core.values import Row, Value
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.schema.loader import build_catalogue, read_additions, shipped_specs
from d365sync.emulator.timezones import ZONE_NAMES
from d365sync.emulator.tokens import Credentials
from tests.fetchcases import DAYS, TEMPLATES, Case, reading_of, schema_of, tables_of

Folder = dict[str, list[dict[str, Any]]]

TABLE_OF = "@Microsoft.Dynamics.CRM.lookuplogicalname"
_CODES = {template: code for code, template in PERIOD_TYPE_CODES.items()}
_TIME_ZONE_CODES = {name: code for code, name in ZONE_NAMES.items()}


def emulator_of(
    case: Case, folder: Path, more: Mapping[str, Any] | None = None, **tables: list[dict[str, Any]]
) -> Emulator:
    """Load an emulator that holds a case.

    ``more`` are further columns of the case's table, by type text; ``tables`` are further rows by entity set.
    """
    additions = schema_document(case, more or {})
    catalogue = build_catalogue(read_additions(json.dumps(additions).encode()), {})
    (folder / "schema.json").write_text(json.dumps(additions))
    found = defaultdict(list, _surroundings(case))
    for name, rows in tables_of(case, schema_of(case)).items():
        known = {row[schema_of(case).table(name).primary_id] for row in rows}
        entity_set, key = catalogue.tables[name].table.entity_set_name, catalogue.tables[name].key
        kept = [row for row in found[entity_set] if row[key] not in known]
        found[entity_set] = [*kept, *(_wire_row(case, name, row) for row in rows)]
    for name, rows in {**found, **tables}.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    settings = EmulatorSettings(
        user_time_zone=zone_of(case), rollup_time_zone=zone_of(case), fetch_readings=reading_of(case)
    )
    return Emulator.load(folder, now=dt.datetime.fromisoformat(case["now"]), settings=settings)


def entity_set_of(emulator: Emulator, case: Case) -> str:
    """Return the entity set of the case's table."""
    return emulator.store.catalogue.tables[case["entity"]].table.entity_set_name


def zone_of(case: Case) -> ZoneInfo:
    """Return the zone of the case's user."""
    return ZoneInfo((case.get("settings") or {}).get("timezone", "UTC"))


def schema_document(case: Case, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema.json of a case; tables that only lookups name are added with a key alone."""
    labels = (case.get("settings") or {}).get("option_labels") or {}
    document: dict[str, Any] = {}
    for name, table in schema_of(case).tables.items():
        columns = {
            column.logical_name: _column_document(column, labels.get(column.logical_name))
            for column in table.columns.values()
            if not column.is_primary_id
        }
        document[name] = {
            "primary_key": table.primary_id,
            "columns": {**columns, **(more if name == case["entity"] else {})},
            **({"primary_name": table.primary_name} if table.primary_name else {}),
            **({"hierarchy_parent": table.hierarchy_parent} if table.hierarchy_parent else {}),
            **({"object_type_code": table.object_type_code} if table.object_type_code else {}),
        }
    columns = [column for table in schema_of(case).tables.values() for column in table.columns.values()]
    named = {target for column in columns for target in column.targets}
    strangers = named - document.keys() - shipped_specs().keys()
    return document | {name: {"primary_key": f"{name}id", "columns": {}} for name in strangers}


def _column_document(column: Column, labels: Mapping[str, str] | None) -> Any:
    detail = ""
    if column.type is ColumnType.DATETIME and column.date_behavior is not None:
        detail = f":{column.date_behavior.lower()}"
    if column.type is ColumnType.DECIMAL:
        detail = f":{column.precision}"
    if column.type is ColumnType.LOOKUP:
        detail = f":{','.join(column.targets)}"
    return {"type": f"{column.type}{detail}", "options": labels} if labels else f"{column.type}{detail}"


def _wire_row(case: Case, table: str, row: Row) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    for column in schema_of(case).table(table).columns.values():
        value = row.get(column.logical_name)
        wire[column.property_name] = _wire_value(value)
        if column.is_polymorphic and value is not None:
            wire[f"{column.property_name}{TABLE_OF}"] = row.get(column.type_name) or _target(case, column, str(value))
    return wire


def _wire_value(value: Value) -> Any:
    if isinstance(value, frozenset):
        return ",".join(str(one) for one in sorted(value)) or None
    if isinstance(value, dt.datetime):
        return value.isoformat()[:19] + "Z"
    if isinstance(value, dt.date):
        return value.isoformat()
    return value if value is None or isinstance(value, str | bool | int | float) else float(value)


def _target(case: Case, column: Column, row_id: str) -> str:
    """The table that a polymorphic lookup's row is in: the one that has it, otherwise user or the first."""
    for name, rows in tables_of(case, schema_of(case)).items():
        if name in column.targets and any(row_id in row.values() for row in rows):
            return name
    teams = {row["teamid"] for row in _surroundings(case)["teams"]}
    return "team" if row_id in teams and "team" in column.targets else column.targets[0]


def _surroundings(case: Case) -> Folder:
    """The organization, the users and the teams that a case's settings speak of."""
    given = case.get("settings") or {}
    user, unit = given.get("user_id"), given.get("business_unit_id")
    reports = {below: above for above, belows in (given.get("user_hierarchy") or {}).items() for below in belows}
    members = {team: [user] for team in given.get("user_team_ids") or ()} | (given.get("team_members") or {})
    users = {user, *reports, *reports.values(), *(one for each in members.values() for one in each)} - {None}
    language, zone = given.get("user_language"), _TIME_ZONE_CODES.get(given.get("timezone"))
    return {
        "organizations": [_organization(given)],
        "businessunits": [{"businessunitid": unit, "name": "unit"}] if unit else [],
        "systemusers": [_user(one, user, unit, reports.get(one)) for one in sorted(users)],
        "teams": [{"teamid": team, "name": team} for team in members],
        "teammemberships": list(_memberships(members)),
        "usersettingscollection": [{"systemuserid": user, "uilanguageid": language, "timezonecode": zone}]
        if user
        else [],
    }


def _user(user_id: str, caller: str | None, unit: str | None, manager: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "systemuserid": user_id,
        "fullname": user_id,
        "_businessunitid_value": unit,
        "_parentsystemuserid_value": manager,
    }
    return row | ({"applicationid": Credentials().client_id} if user_id == caller else {})


def _memberships(members: Mapping[str, Iterable[str]]) -> Iterable[dict[str, Any]]:
    number = 0
    for team, users in members.items():
        for user in users:
            number += 1
            yield {"teammembershipid": f"99999999-0000-4000-8000-{number:012}", "teamid": team, "systemuserid": user}


def _organization(given: Mapping[str, Any]) -> dict[str, Any]:
    template = TEMPLATES[given.get("fiscal_period", "quarterly")]
    return {
        "organizationid": "88888888-0000-4000-8000-000000000001",
        "name": "case",
        "weekstartdaycode": DAYS.index(given.get("week_start", "sunday")),
        "fiscalcalendarstart": f"2000-{given.get('fiscal_year_start', '01-01')}T00:00:00Z",
        "fiscalperiodtype": _CODES[template],
        "fiscalyeardisplaycode": 2 if given.get("fiscal_year_named_by") == "end" else 1,
    }
