"""``AddMembersTeam`` and ``RemoveMembersTeam``: who belongs to a team.

Source: AddMembersTeam and RemoveMembersTeam actions; Use Web API actions (each of ``Members`` says its type and
its key, which is that of a principal, ``ownerid``, or ``systemuserid``). ``Assumed:``

- the caller needs to write the team and to read its new members
- who is a member already is added once, and who is none is removed without an error

Pure.
"""

from __future__ import annotations

import uuid
from typing import Any

from werkzeug.wrappers import Response

from d365sync.core.values import parse_guid
from d365sync.emulator.calls import Call, empty_response
from d365sync.emulator.refuse import NAMESPACE, invalid, missing_row

TABLE = "teammembership"
KEYS = ("systemuserid", "ownerid")


def add_members(call: Call, team_id: str) -> Response:
    """Answer ``POST teams(id)/Microsoft.Dynamics.CRM.AddMembersTeam``.

    Raises:
        Refusal: a member is not named, or not there, or the caller may not do it.
    """
    members = _members(call, team_id)
    known = {row.get("systemuserid") for row in call.store.referring(TABLE, "teamid", team_id)}
    for user_id in members:
        if user_id not in known:
            row = {"teammembershipid": str(uuid.uuid4()), "teamid": team_id, "systemuserid": user_id}
            call.store.put(TABLE, row)
    return empty_response(204)


def remove_members(call: Call, team_id: str) -> Response:
    """Answer ``POST teams(id)/Microsoft.Dynamics.CRM.RemoveMembersTeam``.

    Raises:
        Refusal: as for adding.
    """
    members = _members(call, team_id)
    for row in call.store.referring(TABLE, "teamid", team_id):
        if row.get("systemuserid") in members:
            call.store.remove(TABLE, str(row["teammembershipid"]))
    return empty_response(204)


def _members(call: Call, team_id: str) -> list[str]:
    """Return the users of the body's ``Members``, each once, in their order."""
    tables = call.store.catalogue.tables
    call.need_row("Write", tables["team"], call.store.rows("team")[team_id])
    given = call.body().get("Members")
    if not isinstance(given, list) or not given:
        raise invalid("Required field 'Members' is missing: a list of users.")
    found: list[str] = []
    for one in given:
        user_id = _user_id(one)
        user = call.store.get("systemuser", user_id)
        if user is None:
            raise missing_row("systemuser", user_id)
        call.need_row("Read", tables["systemuser"], user)
        found.append(user_id)
    return list(dict.fromkeys(found))


def _user_id(one: Any) -> str:
    named = [one[key] for key in KEYS if key in one] if isinstance(one, dict) else []
    kind = one.get("@odata.type", f"{NAMESPACE}systemuser") if isinstance(one, dict) else ""
    try:
        if str(kind).removeprefix("#") == f"{NAMESPACE}systemuser" and len(named) == 1:
            return parse_guid(str(named[0]))
    except ValueError:
        pass
    raise invalid("Each of 'Members' must be a systemuser with its systemuserid.")
