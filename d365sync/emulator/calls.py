"""One call, as the rooms behind the routes see it, and the responses they give.

Pure.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from werkzeug.wrappers import Request, Response

from d365sync.core.values import Row
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.asking import Asking
from d365sync.emulator.odata.prefer import Preferences, parse_preferences
from d365sync.emulator.privileges import Access, access_of, caller_of
from d365sync.emulator.refuse import (
    NAMESPACE,
    Refusal,
    bad_uri,
    invalid,
    missing_privilege,
    no_access,
    no_content_id,
    no_roles,
    no_segment,
)
from d365sync.emulator.store import Store
from d365sync.emulator.wire import WireError, decode_json, encode_json

DETAILS = "Microsoft.PowerApps.CDS."
SERVED = "OPTIONS,GET,HEAD,POST"
"""What ``Allow`` and ``Public`` say of every address."""
JSON = "application/json; odata.metadata=minimal"
MAX_URL = 32_768
PART_FAULT = "d365sync.part_fault"
"""Where the environment of a batch may hold what fails an operation inside: a function from request to refusal."""
OPERATIONS = "d365sync.operations"
"""Where the environment of a batch says how many operations it carried out."""

_SERVICE = re.compile(r"(?:/[A-Za-z0-9_-]+)?/api/data/v9\.[0-2](?:/(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated call; ``root`` is the service root with its closing slash.

    ``user_id`` is who it is made as, ``real_id`` the application user when that impersonates another; ``access`` is
    what both may do. ``references`` are the rows of earlier operations in the same change set, by Content-ID.
    """

    request: Request
    store: Store
    root: str
    user_id: str
    preferences: Preferences
    arguments: Mapping[str, str]
    real_id: str | None = None
    access: Access = field(default_factory=Access)
    references: Mapping[str, str] = field(default_factory=dict)

    def need(self, verb: str, facts: TableFacts) -> None:
        """Refuse when the caller lacks ``prv<verb><table>`` at every depth.

        Raises:
            Refusal: 403.
        """
        self.need_privilege(f"prv{verb}{facts.privilege}", facts.name, facts.table.object_type_code)

    def asking(self) -> Asking:
        """Return the caller as query options need one."""
        return Asking(self.store, self.user_id, self.access, self.need)

    def need_privilege(self, privilege: str, table: str, object_type_code: int | None = None) -> None:
        """Refuse when the caller lacks a privilege.

        The text names the impersonated user even when it is the impersonator who lacks it. Source: a public report
        against the page Impersonate another user.

        Raises:
            Refusal: 403.
        """
        if privilege.lower() in {one.lower() for one in self.store.settings.missing_privileges}:
            raise missing_privilege(privilege, table, object_type_code, self.user_id)
        lacking = self.access.lacking(privilege)
        if lacking is not None and not lacking.counts()[0]:
            raise no_roles(self.user_id, privilege)
        if lacking is not None:
            raise missing_privilege(privilege, table, object_type_code, self.user_id, lacking.counts())

    def need_global(self, verb: str, facts: TableFacts) -> None:
        """Refuse when ``prv<verb><table>`` does not reach the whole organization.

        Raises:
            Refusal: 403.
        """
        short = self.access.short_of_global(verb, facts)
        if short is not None:
            name = f"prv{verb}{facts.privilege}"
            raise missing_privilege(name, facts.name, facts.table.object_type_code, self.user_id, short.counts())

    def need_row(self, verb: str, facts: TableFacts, row: Row) -> None:
        """Refuse when the caller lacks ``prv<verb><table>``, or has it and this row is beyond its depth.

        Raises:
            Refusal: 403.
        """
        self.need(verb, facts)
        test = self.access.test(verb, facts)
        if test is not None and not test(row):
            counts = self.access.parties[0].counts()
            raise no_access(verb, facts.name, str(row[facts.key]), self.user_id, counts)

    def body(self) -> dict[str, Any]:
        """Return the JSON object of the request's body.

        Raises:
            Refusal: it is none.
        """
        data = self.request.get_data()
        try:
            document = decode_json(data) if data.strip() else {}
            if not isinstance(document, dict):
                raise invalid("The request body must be a JSON object.")
            return {name: self._resolved_value(name, value) for name, value in document.items()}
        except WireError as error:
            raise invalid(f"An error occurred while reading the request body: {error}") from error
        except RecursionError:
            raise invalid("An error occurred while reading the request body: it is nested too deeply.") from None

    def address(self, facts: TableFacts, row_id: str) -> str:
        """Return the absolute address of a row."""
        return f"{self.root}{facts.table.entity_set_name}({row_id})"

    def answer_context(self, message: str) -> str:
        """Return the ``@odata.context`` of the answer to a message or function."""
        return f"{self.root}$metadata#{NAMESPACE}{message}Response"

    def _resolved(self, document: Any) -> Any:
        """Put addresses in place of Content-IDs such as ``$1``. Source: Execute batch operations using the Web API."""
        if isinstance(document, list):
            return [self._resolved(one) for one in document]
        if not isinstance(document, dict):
            return document
        return {name: self._resolved_value(name, value) for name, value in document.items()}

    def _resolved_value(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return self._resolved(value)
        if not value.startswith("$") or not name.endswith(("@odata.bind", "@odata.id")):
            return value
        address = self.references.get(value.removeprefix("$"))
        if address is None:
            raise no_content_id(value)
        return address


def open_call(
    request: Request,
    store: Store,
    application_user: str,
    *,
    max_url: int = MAX_URL,
    references: Mapping[str, str] | None = None,
) -> tuple[Call, str]:
    """Return the call a request makes, and the path below the service root.

    Raises:
        Refusal: it is none of this service, or made for a user who may not be impersonated.
    """
    found = service_path(request.path)
    if found is None:
        raise no_segment(request.path[:200])
    root, path = found
    headers = request.headers
    caller = caller_of(
        store,
        application_user,
        object_id=headers.get("CallerObjectId"),
        system_user_id=headers.get("MSCRMCallerID"),
    )
    call = Call(
        request=request,
        store=store,
        root=request.host_url.rstrip("/") + root,
        user_id=caller.user_id,
        preferences=parse_preferences(headers.getlist("Prefer")),
        arguments=arguments_of(request, max_url),
        real_id=caller.real_id,
        access=access_of(store, caller),
        references=references or {},
    )
    return call, path


def service_path(path: str) -> tuple[str, str] | None:
    """Return the service root's path, with its closing slash, and what stands below it; None when it is no service's.

    An organization may have a path of its own before ``/api/data``. Source: on-premises addresses.
    """
    match = _SERVICE.fullmatch(path)
    if match is None:
        return None
    return (path[: match.start(1)], match[1]) if match[1] else (path.rstrip("/") + "/", "")


def row_address(call: Call, path: str, response: Response) -> str:
    """Return the address of the row an answered write was about; for what is no row, that of the request."""
    address = response.headers.get("OData-EntityId")
    if address is not None:
        return address
    facts = call.store.catalogue.sets.get(path)
    if response.status_code == 201 and facts is not None:
        return call.address(facts, str(decode_json(response.get_data())[facts.key]))
    return call.root + path


def arguments_of(request: Request, max_url: int = MAX_URL) -> dict[str, str]:
    """Return the decoded query arguments.

    Raises:
        Refusal: the address is too long, or an option is given twice.
    """
    if len(request.base_url) + len(request.query_string) > max_url:
        raise bad_uri("Invalid URI: The Uri string is too long.")
    arguments = request.args.to_dict(flat=False)
    for name, values in arguments.items():
        if len(values) > 1 and name.startswith("$"):
            raise bad_uri(f"Query option '{name}' was specified more than once, but it must be specified at most once.")
    return {name: values[0] for name, values in arguments.items()}


def json_response(document: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(encode_json(document), status, dict(headers or {}), content_type=JSON)


def empty_response(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer without a body."""
    response = Response(b"", status, dict(headers or {}))
    response.headers.remove("Content-Type")
    return response


def refusal_response(refusal: Refusal, prefer: Iterable[str] = ()) -> Response:
    """Return the answer a refusal becomes: the error body, or bare text for a missing token.

    The details that the ``Prefer`` headers ask for stand beside code and message. Source: Compose HTTP requests
    (include more details with errors). Assumed: every refusal has those four, and none of those that tell of a plug-in.
    """
    if refusal.status == 401:
        return Response(refusal.message, 401, refusal.headers, content_type="text/plain")
    asked = _asked(prefer)
    details = {f"@{name}": value for name, value in _details(refusal).items() if asked.wants(name)}
    document = {"error": {"code": refusal.code, "message": refusal.message, **details}}
    return json_response(document, status=refusal.status, headers=refusal.headers)


def _asked(prefer: Iterable[str]) -> Preferences:
    try:
        return parse_preferences(prefer)
    except Refusal:
        return Preferences()


def _details(refusal: Refusal) -> Mapping[str, str]:
    error = f"Microsoft.Crm.CrmException%3a{refusal.code.removeprefix('0x')}"
    link = f"http://go.microsoft.com/fwlink/?LinkID=398563&error={error}&client=platform"
    return {
        f"{DETAILS}ErrorDetails.ApiExceptionCategory": "ClientError" if refusal.status < 500 else "SystemFailure",
        f"{DETAILS}ErrorDetails.ApiExceptionHttpStatusCode": str(refusal.status),
        **({f"{DETAILS}HelpLink": link} if refusal.code else {}),
        f"{DETAILS}InnerError.Message": refusal.message,
    }


def finish(response: Response, applied: str = "", further: Mapping[str, str] | None = None) -> Response:
    """Add the headers every answer carries, and further ones.

    Source: a captured answer of a list call; Use PowerShell with the Web API (debug using Fiddler: the answer of
    WhoAmI). Assumed: what stands there on answers to GET stands on every answer.
    """
    request_id = str(uuid.uuid4())
    response.headers.setdefault("OData-Version", "4.0")
    response.headers.setdefault("Allow", SERVED)
    response.headers.update(
        {
            "Cache-Control": "no-cache",
            "Expires": "-1",
            "x-ms-service-request-id": request_id,
            "REQ_ID": request_id,
            "AuthActivityId": str(uuid.uuid4()),
            "CRM.ServiceId": "CRMAppPool",
            "X-Source": f"{uuid.uuid4().hex},{uuid.uuid4().hex}",
            "Public": SERVED,
            "Vary": "Accept-Encoding",
            "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
            **(further or {}),
        }
    )
    response.headers.add("Set-Cookie", "ARRAffinity=d365sync-emulator; path=/; secure; HttpOnly")
    if applied:
        response.headers["Preference-Applied"] = applied
    return response
