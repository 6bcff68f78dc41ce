"""The emulator as one WSGI application: sign-in, authorization of calls, and the Web API behind them.

IO: HTTP (as a WSGI application).
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterable, Mapping
from email.utils import format_datetime
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request, Response

from d365sync.emulator.calls import OPERATIONS, finish, json_response, open_call, refusal_response
from d365sync.emulator.jobs import run_due_jobs
from d365sync.emulator.odata.prefer import parse_preferences
from d365sync.emulator.protection import Protection, Spent
from d365sync.emulator.refusals import SignInError
from d365sync.emulator.refuse import Refusal, disabled_user, no_application_user, unauthorized
from d365sync.emulator.routes import route
from d365sync.emulator.store import Store
from d365sync.emulator.tokens import APP_SERVICE, IDENTITY_API, Credentials, TokenService

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

EXPIRE_TOKEN = "d365sync.expire_token"  # noqa: S105 - the name of a fault, not a secret
_DATE = re.compile(r"(\d\d) (\w{3}) (\d{4})")
COOKIE_LIFETIME = dt.timedelta(days=365 * 50)
_SIGN_IN = re.compile(
    r"/([^/]+)/(v2\.0/\.well-known/openid-configuration|oauth2/v2\.0/token|oauth2/v2\.0/devicecode)"
    r"|/(adfs)/(\.well-known/openid-configuration|oauth2/token|oauth2/devicecode)"
)


class EmulatorApp:
    """The whole service of one organization; calls run one after the other."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self.store = store
        self.credentials = credentials
        self.client_id = credentials.client_id
        self.tokens = TokenService(credentials, store.settings)
        self.protection = Protection(store.settings.limits, self._seconds)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        sign_in = _SIGN_IN.fullmatch(request.path)
        if sign_in:
            response = self._sign_in(request, sign_in[1] or sign_in[3], sign_in[2] or sign_in[4])
        elif request.path in (IDENTITY_API, APP_SERVICE):
            response = self._identity(request)
        else:
            response = self._service(request)
        return response(environ, start_response)

    def _seconds(self) -> float:
        """Return the time by which the limits' window moves."""
        clock = self.store.clock
        return clock.passing_s() if self.store.settings.limits.by_passing_time else clock.exactly().timestamp()

    def _sign_in(self, request: Request, tenant: str, what: str) -> Response:
        origin = request.host_url.rstrip("/")
        try:
            if what.endswith("openid-configuration"):
                return json_response(self.tokens.discovery(origin, tenant))
            if what.endswith("token"):
                return json_response(self.tokens.token(origin, tenant, request.form))
            return json_response(self.tokens.device_code(origin, tenant, request.form))
        except SignInError as error:
            return json_response(error.document(), status=error.status)

    def _identity(self, request: Request) -> Response:
        try:
            origin = request.host_url.rstrip("/")
            return json_response(self.tokens.identity(origin, request.path, dict(request.headers), request.args))
        except SignInError as error:
            return json_response({"error": error.error, "error_description": str(error)}, status=error.status)

    def _service(self, request: Request) -> Response:
        user = applied = ""
        try:
            user = self._signed_in(request)
            with self.protection.request(user) as spent:
                response = self._answered(request, spent)
            if response.status_code < 300:
                applied = parse_preferences(request.headers.getlist("Prefer")).applied
        except Refusal as refusal:
            response = refusal_response(refusal, request.headers.getlist("Prefer"))
        return self._finished(response, applied, self.protection.left(user) if user else {})

    def _signed_in(self, request: Request) -> str:
        """Return who the request counts for: as the token says, or as whom it is made."""
        origin = request.host_url.rstrip("/")
        authorization = request.headers.get("Authorization", "")
        if request.environ.get(EXPIRE_TOKEN):
            self.tokens.revoke(authorization)
        if not self.tokens.accepts(authorization, origin):
            raise unauthorized(f"{origin}/{self.credentials.tenant_id}", origin)
        acted_for = request.headers.get("CallerObjectId") or request.headers.get("MSCRMCallerID")
        if acted_for and self.protection.limits.by_impersonated_user:
            return acted_for.lower()
        return str((self.tokens.claims(authorization) or {}).get("oid") or self.client_id)

    def _answered(self, request: Request, spent: Spent) -> Response:
        """Answer after those before it and after due jobs; note what it took, in a batch by operation."""
        clock, request_ms = self.store.clock, self.protection.limits.request_ms
        with self.store.locked:
            run_due_jobs(self.store)
            began_s = clock.passing_s()
            try:
                with self.store.transaction():
                    call, path = open_call(request, self.store, self._user_id(request.headers["Authorization"]))
                    return route(call, path)
            finally:
                measured_ms = int((clock.passing_s() - began_s) * 1000)
                operations = max(1, request.environ.get(OPERATIONS, 0))
                spent.took_ms = measured_ms if request_ms is None else request_ms * operations

    def _finished(self, response: Response, applied: str, left: Mapping[str, str]) -> Response:
        """Add the headers of the service. Source: as of :func:`finish`; Send parallel requests."""
        settings = self.store.settings
        told = {"x-ms-dop-hint": settings.dop_hint, "x-ms-utilization-percent": settings.utilization_percent}
        finish(response, applied, {**left, **{name: value for name, value in told.items() if value}})
        if settings.doubled_request_ids:
            request_id = response.headers["REQ_ID"]
            response.headers["REQ_ID"] = f"{request_id},{request_id}"
            response.headers["x-ms-service-request-id"] = f"{uuid.uuid4()},{request_id}"
        expires = format_datetime(self.store.clock.now() + COOKIE_LIFETIME, usegmt=True)
        until = _DATE.sub(r"\1-\2-\3", expires)
        organization = self.store.only("organization")["organizationid"]
        for cookie in (f"ReqClientId={uuid.uuid4()}", f"orgId={organization}"):
            response.headers.add("Set-Cookie", f"{cookie}; expires={until}; path=/; secure; HttpOnly")
        return response

    def _user_id(self, authorization: str) -> str:
        """Return the user a token stands for: a person by object id, an application by its id."""
        person = (self.tokens.claims(authorization) or {}).get("oid")
        column, wanted = ("azureactivedirectoryobjectid", person) if person else ("applicationid", self.client_id)
        if person or self.store.settings.application_user:
            for user_id, user in self.store.rows("systemuser").items():
                if user.get(column) == wanted:
                    if user.get("isdisabled") is True:
                        raise disabled_user()
                    return user_id
        raise no_application_user()
