"""Who signs in, what the token says, and which user that is in Dataverse.

Source: Microsoft identity platform, access token claims; systemuser table reference (accessmode, applicationid,
islicensed).

IO: HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from d365sync.config import Config
from d365sync.core.goals.modes import PLAN
from d365sync.dataverse.wire import decode_object
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Stop, Verdict, failure
from d365sync.errors import AuthError, D365SyncError

REFUSED = 401
SHORT_LIFE_S = 600
"""A token that lasts no longer is asked for again within one long cycle, again and again."""
USER_COLUMNS = "fullname,isdisabled,islicensed,accessmode,applicationid,_businessunitid_value"
ACCESS = {
    0: "Read-Write",
    1: "Administrative",
    2: "Read",
    3: "Support User",
    4: "Non-interactive",
    5: "Delegated Admin",
}
NO_DATA = (1, 3, 5)
"""Access modes that give no (or not all) access to the records of sales."""
READ_WRITE, READ_ONLY = 0, 2
APPLICATIONS = ("client_secret", "certificate", "managed_identity")


def sign_in(case: Case) -> Iterator[Check]:
    """Get a token.

    Raises:
        Stop: none was given.
    """
    try:
        case.claims = case.client.sign_in()
    except D365SyncError as error:
        raise Stop(failure("sign in", error, _of_another_tenant(case))) from None
    yield Check("sign in", Verdict.OK, f"by {case.config.dataverse.auth.replace('_', ' ')}")


def token(case: Case) -> Iterator[Check]:
    """Say what the token tells, if it can be read."""
    yield token_told(case.claims, case.config, case.machine.real_clock())


def token_told(claims: Mapping[str, Any], config: Config, now: dt.datetime) -> Check:
    """Return the check of a token by its claims, at an instant."""
    if not claims:
        return Check("token", Verdict.OK, "what it says about itself cannot be read; nothing depends on it")
    remote = config.dataverse
    until = claims.get("exp")
    lasts_s = int(until - now.timestamp()) if isinstance(until, int | float) else None
    audience = str(claims.get("aud", ""))
    application = str(claims.get("appid") or claims.get("azp") or "")
    roles = claims.get("roles")
    lasts = "" if lasts_s is None else f", for {lasts_s // 60} minutes"
    has = (
        f"app roles: {', '.join(map(str, roles))}"
        if isinstance(roles, list) and roles
        else "no app roles (none needed)"
    )
    has = f"delegated: {claims['scp']}" if claims.get("scp") else has
    said = f"for {audience}{lasts}, application {application or 'not named'}; {has}"
    if audience.startswith("http") and _place(audience) != _place(remote.token_resource):
        mend = "set dataverse.resource, or dataverse.url, to the address that Dataverse has"
        return Check("token", Verdict.WARN, f"{said}, but {remote.token_resource} was asked for", mend)
    if remote.client_id and application and application.lower() != remote.client_id.lower():
        mend = "set dataverse.client_id to the application (client) id of the identity"
        return Check("token", Verdict.WARN, f"{said}, but {remote.client_id} is configured", mend)
    if lasts_s is not None and lasts_s < SHORT_LIFE_S:
        mend = "look at this machine's clock and at the token lifetime policy of the tenant"
        return Check("token", Verdict.WARN, f"{said}; that is short", mend)
    return Check("token", Verdict.OK, said)


def who_am_i(case: Case) -> Iterator[Check]:
    """Ask who the identity is in Dataverse.

    Raises:
        Stop: nobody, or a user that may do nothing.
    """
    try:
        who, _ = case.client.who_am_i()
    except D365SyncError as error:
        refused = isinstance(error, AuthError) and error.status == REFUSED
        raise Stop(failure("WhoAmI", error, _of_another_tenant(case) if refused else "")) from None
    case.user_id, case.organization_id = str(who.get("UserId")), str(who.get("OrganizationId"))
    yield Check("WhoAmI", Verdict.OK, f"user {case.user_id} of organization {case.organization_id}")


def account(case: Case) -> Iterator[Check]:
    """Read the user's own row."""
    answer = case.client.get(f"systemusers({case.user_id})", {"$select": USER_COLUMNS})
    yield account_told(decode_object(answer.body), case.config)


def account_told(row: Mapping[str, Any], config: Config) -> Check:
    """Return the check of the service's own user by its row."""
    mode = row.get("accessmode")
    kind = "application user" if row.get("applicationid") else "person"
    access = ACCESS.get(mode, f"access mode {mode}") if isinstance(mode, int) else "access mode not told"
    unit = row.get("_businessunitid_value")
    said = f"{row.get('fullname') or 'without a name'}, {kind}, {access}, business unit {unit or 'not told'}"
    if row.get("isdisabled") is True:
        return Check("service account", Verdict.FAIL, f"{said}: is disabled", "enable the user in Dataverse", 6)
    if mode in NO_DATA:
        mend = "set the user's access mode to Non-interactive or Read-Write"
        return Check("service account", Verdict.WARN, f"{said}: that mode does not reach records of sales", mend)
    if mode == READ_ONLY and config.writeback.mode != PLAN:
        mend = 'set the user\'s access mode to Non-interactive or Read-Write, or writeback.mode to "plan"'
        return Check("service account", Verdict.WARN, f"{said}: that mode may not write goals", mend)
    if kind == "person" and config.dataverse.auth in APPLICATIONS:
        mend = "make an application user for the app registration; a person's user ends with the person"
        return Check("service account", Verdict.WARN, f"{said}: the application acts as a person", mend)
    if kind == "person" and row.get("islicensed") is False and mode == READ_WRITE:
        mend = "give the person a licence, or sign in as an application, which needs none"
        return Check("service account", Verdict.WARN, f"{said}: without a licence", mend)
    return Check("service account", Verdict.OK, said)


def _place(address: str) -> str:
    return address.lower().rstrip("/")


def _of_another_tenant(case: Case) -> str:
    """Say which tenant the organization belongs to, where it is another than the configured one and tells."""
    asked = case.config.dataverse.tenant_id.lower()
    if not case.tenant or not asked or case.tenant == asked or "." in asked:
        return ""
    return f"the organization belongs to the tenant {case.tenant}: set dataverse.tenant_id to it"
