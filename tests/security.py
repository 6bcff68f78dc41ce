"""The role tables of an org folder, written down briefly: roles with depths, who holds them, what is shared."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from d365sync.emulator.privileges import SYSTEM_ADMINISTRATOR
from d365sync.emulator.supplied import made_id

NONE, BASIC, LOCAL, DEEP, GLOBAL = 0, 1, 2, 4, 8
APPLICATION_USER = made_id("application user")
_IDS = uuid.UUID("c2f0a0d6-2a6b-4e43-9a86-6d6f5b1a9d10")


def id_of(*parts: object) -> str:
    """Return an id that is always the same for the same words."""
    return str(uuid.uuid5(_IDS, ":".join(map(str, parts))))


def object_id(user_id: str) -> str:
    """Return the Entra object id that tests give to a user."""
    return id_of("object", user_id)


class Security:
    """Collects the rows; the application user is a system administrator unless it is told otherwise."""

    def __init__(self, *, administrator: bool = True) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {
            "roles": [],
            "privileges": [],
            "roleprivilegescollection": [],
            "systemuserrolescollection": [],
            "teamrolescollection": [],
            "principalobjectaccessset": [],
        }
        if administrator:
            row = {"roleid": id_of("role", "admin"), "name": "System Administrator"}
            self.tables["roles"].append({**row, "roletemplateid": SYSTEM_ADMINISTRATOR})
            self.give("admin", user=APPLICATION_USER)

    def role(self, name: str, **depths: int) -> None:
        """Add a role: ``role("seller", prvReadOpportunity=BASIC)``."""
        self.tables["roles"].append({"roleid": id_of("role", name), "name": name})
        for privilege, depth in depths.items():
            self._privilege(privilege)
            self.tables["roleprivilegescollection"].append(
                {
                    "roleprivilegeid": id_of(name, privilege),
                    "roleid": id_of("role", name),
                    "privilegeid": id_of("privilege", privilege),
                    "privilegedepthmask": depth,
                }
            )

    def give(self, role: str, *, user: str | None = None, team: str | None = None) -> None:
        """Assign a role to a user or a team."""
        kind, holder = ("systemuser", user) if user else ("team", team)
        self.tables[f"{kind}rolescollection"].append(
            {f"{kind}roleid": id_of(role, holder), f"{kind}id": holder, "roleid": id_of("role", role)}
        )

    def share(self, row_id: str, principal: str, rights: int = 1) -> None:
        """Share a row with a user or a team."""
        self.tables["principalobjectaccessset"].append(
            {
                "principalobjectaccessid": id_of("share", row_id, principal),
                "principalid": principal,
                "objectid": row_id,
                "accessrightsmask": rights,
            }
        )

    def write(self, folder: Path) -> None:
        """Write the tables into an org folder."""
        for name, rows in self.tables.items():
            (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")

    def _privilege(self, name: str) -> None:
        row = {"privilegeid": id_of("privilege", name), "name": name}
        if row not in self.tables["privileges"]:
            self.tables["privileges"].append(row)


def amend(folder: Path, entity_set: str, change: Any) -> None:
    """Change every row of one file of an org folder; ``change`` gets each row and returns the columns to set."""
    file = folder / f"{entity_set}.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps([{**row, **change(row)} for row in rows]), encoding="utf-8")
