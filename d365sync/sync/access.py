"""What a refusal says about rights, and where they are given: the privilege, the table, the depth, the screen.

Source: Security roles and privileges; Manage application users; RetrieveUserPrivileges; PrivilegeDepth; public reports
of the refusals' texts.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from d365sync.dataverse.wire import ACT_ON_BEHALF
from d365sync.errors import D365SyncError

ADMIN_CENTER = "Power Platform admin center, the environment, Settings, Users + permissions"
NO_USER = "0x80072560"
DISABLED_USER = "0x80040225"
_MISSING = re.compile(r"is missing (prv\w+) privilege(?:.*? for entity '(\w+)')?")
_NO_ROLES = re.compile(r"roleCount=0\b|has not been assigned any roles")
_NEEDED = re.compile(r"need a role with the (prv\w+) privilege")
_PRIVILEGE = re.compile(r"prv(Read|Write|Create|Delete|AppendTo|Append|Assign|Share)(\w+)")
_DEFINITIONS = ("entity", "attribute", "relationship", "optionset", "entitykey")
_KINDS = {
    "systemuser": "user",
    "rollupfield": "metric",
    "opportunityproduct": "opportunity",
    "quotedetail": "quote",
    "salesorder": "order",
    "salesorderdetail": "order",
    "invoicedetail": "invoice",
    **dict.fromkeys(
        ("activitypointer", "appointment", "campaignresponse", "email", "fax", "letter", "phonecall", "task"),
        "activity",
    ),
}
"""Tables whose privileges have another name than the table.

Source: Security roles and privileges. Assumed: a rollup field is read with its metric's.
"""
EVERYTHING = "Global"
REACHES: Mapping[str, str] = {
    "Basic": "the user's own rows",
    "Local": "the user's business unit",
    "Deep": "the user's business unit and those below it",
    "RecordFilter": "the rows of a filter",
}
"""How far a privilege reaches by its depth, where that is not everything."""
Held = Mapping[str, str]
"""The depths of the privileges that a user has, by their names in lower case; empty where they are not told."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What a refusal is for, and what mends it."""

    found: str
    mend: str
    privilege: str = ""


def lack_of(error: D365SyncError) -> Lack | None:
    """Return what is missing, None for an error that is about something else."""
    text = str(error)
    code = getattr(error, "code", "")
    if code == NO_USER and "The user is not a member" in text:
        return Lack(
            "the application has no user in this environment",
            f"make one: {ADMIN_CENTER}, Application users, New app user; then give it a security role",
        )
    if code == DISABLED_USER:
        return Lack(
            "the user is disabled, or in no business unit",
            f"enable it: {ADMIN_CENTER}, Application users (Users for a person)",
        )
    missing = _MISSING.search(text)
    needed = missing or _NEEDED.search(text)
    privilege = needed[1] if needed else ""
    if _NO_ROLES.search(text):
        first = f" ({privilege} is the first it needs)" if privilege else ""
        return Lack(
            f"the user has no security role{first}",
            f"give it one: {ADMIN_CENTER}, Application users, the user, Edit security roles",
            privilege,
        )
    return lacking(privilege, error.hint) if missing else None


def lacking(privilege: str, hint: str = "") -> Lack:
    """Return the lack of a privilege by its name; ``hint`` is where the roles screen does not give it."""
    parts = _PRIVILEGE.fullmatch(privilege)
    meaning = f" ({parts[1].lower()} on {parts[2]}; it needs the depth Organization)" if parts else ""
    return Lack(f"the user's roles lack {privilege}{meaning}", _where(privilege, hint), privilege)


def reading(table: str) -> str:
    """Return the privilege to read a table, as refusals spell it."""
    return f"prvRead{_KINDS.get(table, table).capitalize()}"


def shallow(privilege: str, held: Held, so: str) -> Lack | None:
    """Return how far a privilege reaches if that is not the whole organization; ``so`` is what comes of it.

    None when it reaches everything, or when nothing is known of it.
    """
    depth = held.get(privilege.lower(), EVERYTHING)
    if depth == EVERYTHING:
        return None
    return Lack(
        f"{privilege} reaches {REACHES.get(depth, depth)} only (depth {depth}, needed: Organization): {so}",
        _where(privilege, ""),
        privilege,
    )


def _where(privilege: str, hint: str) -> str:
    """Say where a privilege is given. One that belongs to no table is among the role's miscellaneous privileges."""
    parts = _PRIVILEGE.fullmatch(privilege)
    if privilege.lower() == ACT_ON_BEHALF.lower():
        return hint
    if parts is None:
        return f"{ADMIN_CENTER}, Security roles, the user's role, Miscellaneous privileges: {privilege}"
    tab = "Customization, table" if parts[2].lower() in _DEFINITIONS else "table"
    return f"{ADMIN_CENTER}, Security roles, the user's role, {tab} {parts[2]}: set {parts[1]} to Organization"
