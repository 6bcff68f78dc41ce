"""Random security around a random organization: business units, roles of every depth, teams, shares, managers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.properties.orgs import LOOKUP, write_random_org
from tests.security import BASIC, DEEP, GLOBAL, LOCAL, NONE, Security, id_of, object_id

DEPTHS = [NONE, BASIC, LOCAL, DEEP, GLOBAL]
TABLES = {"opportunities": "opportunityid", "phonecalls": "activityid"}
UNITS = ["root", "a", "b", "a-a"]
PARENTS = {"a": "root", "b": "root", "a-a": "a"}


def write_secured_org(seed: int, folder: Path) -> None:
    """Write the org folder of a seed with security: every goal has a user as manager who can be impersonated."""
    write_random_org(seed, folder)
    dice = random.Random(f"security {seed}")
    users = [str(row["systemuserid"]) for row in _rows(folder, "systemusers")]
    teams = [str(row["teamid"]) for row in _rows(folder, "teams")]
    _write(folder, "businessunits", [_unit(name) for name in UNITS])
    place = {one: id_of("unit", dice.choice(UNITS)) for one in [*users, *teams]}
    _edit(folder, "systemusers", lambda row: _placed(row, "systemuserid", place) | _able(row))
    _edit(folder, "teams", lambda row: _placed(row, "teamid", place))
    members = [
        {"teammembershipid": id_of(user, team), "teamid": team, "systemuserid": user}
        for user in users
        for team in teams
        if dice.random() < 0.4
    ]
    _write(folder, "teammemberships", members)
    _edit(folder, "goals", lambda _row: _manager(dice.choice(users)))
    random_security(dice, folder, users, teams).write(folder)


def random_security(dice: random.Random, folder: Path, users: list[str], teams: list[str]) -> Security:
    """Return random roles, given to random users and teams, and random shares."""
    security = Security()
    for name in ("one", "two", "three"):
        security.role(name, prvReadOpportunity=dice.choice(DEPTHS), prvReadActivity=dice.choice(DEPTHS))
        security.tables["roles"][-1]["isinherited"] = dice.choice([0, 1])
        for user in users:
            if dice.random() < 0.4:
                security.give(name, user=user)
        for team in teams:
            if dice.random() < 0.4:
                security.give(name, team=team)
    for entity_set, key in TABLES.items():
        for row in _rows(folder, entity_set):
            if dice.random() < 0.2:
                security.share(str(row[key]), dice.choice([*users, *teams]), dice.choice([1, 1, 2, 3]))
    return security


def _unit(name: str) -> dict[str, Any]:
    parent = PARENTS.get(name)
    return {
        "businessunitid": id_of("unit", name),
        "name": name,
        "_parentbusinessunitid_value": None if parent is None else id_of("unit", parent),
    }


def _placed(row: dict[str, Any], key: str, place: dict[str, str]) -> dict[str, Any]:
    return {"_businessunitid_value": place[str(row[key])]}


def _able(row: dict[str, Any]) -> dict[str, Any]:
    return {"azureactivedirectoryobjectid": object_id(str(row["systemuserid"]))}


def _manager(user: str) -> dict[str, Any]:
    return {"_ownerid_value": user, f"_ownerid_value{LOOKUP}": "systemuser"}


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"), parse_float=str)
    return found


def _edit(folder: Path, name: str, change: Any) -> None:
    _write(folder, name, [row | change(row) for row in _rows(folder, name)])


def _write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
