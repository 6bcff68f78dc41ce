"""Refusals: the error bodies Dataverse sends, and the emulator's own for what it does not do.

One exception carries status, code and text to the edge, where it becomes a response. Codes and texts are the
platform's. Source: Web service error codes; Compose HTTP requests and handle errors.

Pure.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from d365sync.errors import FetchXmlError

NAMESPACE = "Microsoft.Dynamics.CRM."
"""What the names of types and messages begin with."""
URI = "0x80060888"
PAYLOAD = "0x80048d19"
ARGUMENT = "0x80040203"
NOT_FOUND = "0x80040217"
UNDEFINED_KEY = "0x80060890"
NO_SUCH_KEY = "0x80060891"
DUPLICATE_KEY = "0x80060892"
DUPLICATE = "0x80040237"
VERSION_MISMATCH = "0x80060882"
NOT_TRACKED = "0x80072491"
EXPIRED_STAMP = "0x80044352"
PRIVILEGE = "0x80040220"
NO_USER = "0x80072560"
NO_ROLES = "0x80042F09"
DISABLED_USER = "0x80040225"
NO_ACCESS = "0x80048306"
INACTIVE = "0x80040230"
OUT_OF_RANGE = "0x80044330"
TOO_LONG = "0x80044331"
BAD_STATUS = "0x80048408"
ROLLUP_FIELDS = "0x80044911"

KNOWN_PRIVILEGES = {
    "prvreadgoal": "55295613-92ec-435e-bcc4-a265b031cfd4",
    "prvcreategoal": "04a912bb-a73a-49ef-b725-5b3d35b6024c",
    "prvwritegoal": "97652230-b9bb-42fc-9323-92b6871e5f5d",
    "prvdeletegoal": "2297138d-4bfc-4e71-bdc1-351aa5698ddb",
}
_PRIVILEGES = uuid.UUID("8d6e5c0a-53a0-5c0f-9a54-0f6f1cf3b6c1")


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault of the emulator
    """An answer other than success: HTTP status, error code, text and further headers."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def not_implemented(what: str) -> Refusal:
    """Refuse something the service can do and the emulator cannot."""
    return Refusal(501, "", f"d365sync emulator: {what} is not implemented")


def bad_uri(message: str) -> Refusal:
    """Refuse an address or query option."""
    return Refusal(400, URI, message)


def no_segment(segment: str) -> Refusal:
    """Refuse an unknown entity set, function or property path."""
    return Refusal(404, URI, f"Resource not found for the segment '{segment}'.")


def no_property(name: str, table: str) -> Refusal:
    """Refuse an unknown property in a query option."""
    return bad_uri(f"Could not find a property named '{name}' on type '{NAMESPACE}{table}'.")


def bad_query(error: FetchXmlError, what: str = "") -> Refusal:
    """Refuse a FetchXML query, or what stands for one; ``what`` goes before the evaluator's words."""
    return Refusal(400, error.code or ARGUMENT, f"{what}{error}")


def bad_payload(table: str, detail: str) -> Refusal:
    """Refuse a body."""
    return Refusal(400, PAYLOAD, f"Error identified in Payload provided by the user for Entity :'{table}', {detail}")


def invalid(message: str) -> Refusal:
    """Refuse an argument."""
    return Refusal(400, ARGUMENT, message)


def missing_row(table: str, row_id: str) -> Refusal:
    """Refuse an id that no row has."""
    return Refusal(404, NOT_FOUND, f"{table} With Id = {row_id} Does Not Exist")


def missing_key(table: str) -> Refusal:
    """Refuse the values of an alternate key that no row has. Source: web service error codes."""
    return Refusal(404, NO_SUCH_KEY, f"A record with the specified key values does not exist in {table} entity")


def undefined_key(table: str, names: Iterable[str], status: int) -> Refusal:
    """Refuse columns that are no alternate key; their names come after the platform's text.

    Source: web service error codes.
    """
    text = f"The specified key attributes are not a defined key for the {table} entity"
    return Refusal(status, UNDEFINED_KEY, f"{text}: {', '.join(names)[:200]}")


def no_content_id(reference: str) -> Refusal:
    """Refuse a reference to an operation that is not before it in the same change set."""
    return bad_uri(f"Content-ID Reference: '{reference[:50]}' does not exist in the batch context.")


def version_mismatch() -> Refusal:
    """Refuse a write whose etag is stale."""
    return Refusal(
        412,
        VERSION_MISMATCH,
        "The version of the existing record doesn't match the RowVersion property provided.",
    )


def already_exists() -> Refusal:
    """Refuse a create whose key is taken."""
    return Refusal(412, DUPLICATE, "A record with matching key values already exists.")


def unauthorized(authority: str, resource: str) -> Refusal:
    """Refuse a call without a valid token: a bare text body and the challenge."""
    challenge = f"Bearer authorization_uri={authority}/oauth2/authorize, resource_id={resource}/"
    return Refusal(401, "", "HTTP Error 401 - Unauthorized: Access is denied", {"WWW-Authenticate": challenge})


def missing_privilege(
    privilege: str, table: str, object_type_code: int | None, user_id: str, counts: tuple[int, int] = (1, 5)
) -> Refusal:
    """Refuse a call for which the caller lacks a privilege; ``counts`` are the caller's roles and privileges."""
    known = KNOWN_PRIVILEGES.get(privilege.lower())
    privilege_id = known or str(uuid.uuid5(_PRIVILEGES, privilege.lower()))
    return Refusal(
        403,
        PRIVILEGE,
        f"{_principal(user_id, counts)}, is missing {privilege} "
        f"privilege (Id={privilege_id}) on OTC={object_type_code or 0} for entity '{table}'. "
        f"context.Caller={user_id}",
    )


def no_access(right: str, table: str, row_id: str, user_id: str, counts: tuple[int, int]) -> Refusal:
    """Refuse a row that is beyond the depth of the caller's privilege."""
    return Refusal(
        403,
        NO_ACCESS,
        f"{_principal(user_id, counts)}, does not have {right}Access right(s) for record with id {row_id} of entity "
        f"{table}. Consider assigning a role with a deeper access level, or sharing the record.",
    )


def no_such_user(user: str, *, disabled: bool) -> Refusal:
    """Refuse to act for a user who is not there or is disabled. Assumed: with the answer of a caller without user."""
    why = "is disabled" if disabled else "is not a member of the organization"
    return Refusal(403, NO_USER, f"The user {user} {why}.")


def _principal(user_id: str, counts: tuple[int, int]) -> str:
    return f"Principal user (Id={user_id}, type=8, roleCount={counts[0]}, privilegeCount={counts[1]}, accessMode=0)"


def no_application_user() -> Refusal:
    """Refuse a client that has no user in the organization."""
    return Refusal(403, NO_USER, "The user is not a member of the organization.")


def disabled_user() -> Refusal:
    """Refuse a caller who is disabled. Assumed: with status 403. Source: web service error codes."""
    return Refusal(403, DISABLED_USER, "The specified user is either disabled or is not a member of any business unit.")


def no_roles(user_id: str, privilege: str) -> Refusal:
    """Refuse a caller without a single role. Source: public reports of this text; web service error codes."""
    text = f"RetrievePrivilegeForUser: The user with id {user_id} has not been assigned any roles."
    return Refusal(403, NO_ROLES, f"{text} They need a role with the {privilege} privilege.")
