"""Functions: who asks and with which privileges, which version and organization answers, how many rows there are.

Source: Use Web API functions; Count rows (RetrieveTotalRecordCount). Assumed: the JSON of RetrieveVersion and
RetrieveCurrentOrganization beyond the names of their properties; the count is the present one, not a snapshot.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from werkzeug.wrappers import Response

from d365sync.emulator.calls import Call, json_response
from d365sync.emulator.privileges import access_of_principal
from d365sync.emulator.refuse import bad_uri, invalid
from d365sync.emulator.wire import WireError, decode_json

VERSION = "9.2.25000.0"
_PARAMETER = re.compile(r"(\w+)=(@\w+|\[[^\]]*\]|[^,]+)(?:,|$)")


def call_function(call: Call, name: str, key: str | None) -> Response:
    """Answer ``GET Name`` or ``GET Name(parameters)``; the name is one of :data:`FUNCTIONS`."""
    answer = FUNCTIONS[name](call, _parameters(call, key or ""))
    return json_response({"@odata.context": call.answer_context(name), **answer})


def user_privileges(call: Call, user_id: str) -> Response:
    """Answer RetrieveUserPrivileges of a user; where there are no roles at all, nothing is told.

    Source: RetrieveUserPrivileges function (RolePrivileges of PrivilegeName and Depth).
    """
    call.need("Read", call.store.catalogue.tables["systemuser"])
    held = access_of_principal(call.store, user_id).held()
    privileges = [{"PrivilegeName": name, "Depth": depth.name.title()} for name, depth in held.items()]
    return json_response(
        {"@odata.context": call.answer_context("RetrieveUserPrivileges"), "RolePrivileges": privileges}
    )


def _parameters(call: Call, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise bad_uri(f"Bad Request - Error in query syntax: '{text[:200]}'.")
        found[match[1]] = match[2]
        position = match.end()
    for name, value in found.items():
        if value.startswith("@"):
            if value not in call.arguments:
                raise bad_uri(f"The parameter alias '{value}' was not found in the query string.")
            found[name] = call.arguments[value]
    return found


def _who_am_i(call: Call, _: Mapping[str, str]) -> dict[str, Any]:
    user = call.store.rows("systemuser")[call.user_id]
    return {
        "BusinessUnitId": user.get("businessunitid"),
        "UserId": call.user_id,
        "OrganizationId": call.store.only("organization")["organizationid"],
    }


def _version(_call: Call, _: Mapping[str, str]) -> dict[str, Any]:
    return {"Version": VERSION}


def _organization(call: Call, parameters: Mapping[str, str]) -> dict[str, Any]:
    if not parameters.get("AccessType", "").startswith("Microsoft.Dynamics.CRM.EndpointAccessType'"):
        raise bad_uri(
            "RetrieveCurrentOrganization needs AccessType=Microsoft.Dynamics.CRM.EndpointAccessType'Default'."
        )
    row = call.store.only("organization")
    origin = call.root.partition("/api/data/")[0]
    detail = {
        "OrganizationId": row["organizationid"],
        "FriendlyName": row.get("name"),
        "OrganizationVersion": VERSION,
        "UniqueName": row.get("name"),
        "UrlName": row.get("name"),
        "State": "Enabled",
        "Endpoints": {"Count": 1, "IsReadOnly": False, "Keys": ["WebApplication"], "Values": [f"{origin}/"]},
    }
    return {"Detail": detail}


def _total_record_count(call: Call, parameters: Mapping[str, str]) -> dict[str, Any]:
    try:
        names = decode_json(parameters.get("EntityNames", "").replace("'", '"').encode())
    except WireError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_uri('RetrieveTotalRecordCount needs EntityNames, a list such as ["goal"].')
    for name in names:
        if name not in call.store.catalogue.tables:
            raise invalid(f"The entity with a name = '{name}' was not found.")
        call.need("Read", call.store.catalogue.tables[name])
    counts = [len(call.store.rows(name)) for name in names]
    return {"EntityRecordCountCollection": {"Count": len(names), "IsReadOnly": False, "Keys": names, "Values": counts}}


FUNCTIONS: Mapping[str, Callable[[Call, Mapping[str, str]], dict[str, Any]]] = {
    "WhoAmI": _who_am_i,
    "RetrieveVersion": _version,
    "RetrieveCurrentOrganization": _organization,
    "RetrieveTotalRecordCount": _total_record_count,
}
"""Every unbound function that is answered, by name."""

BOUND_FUNCTIONS: Mapping[tuple[str, str], Callable[[Call, str], Response]] = {
    ("systemuser", "RetrieveUserPrivileges"): user_privileges,
}
"""Every function of a row that is answered, by table and name."""

UNDONE_FUNCTIONS = (
    "CalculateRollupField", "InitializeFrom", "RetrieveDuplicates", "RetrieveMetadataChanges",
    "RetrieveProvisionedLanguages",
)  # fmt: skip
"""Functions that are known and not imitated. Source: Web API function reference."""
