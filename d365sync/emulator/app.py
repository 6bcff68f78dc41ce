"""The emulator as one WSGI application: sign-in, authorization of calls, and the Web API behind them.

IO: HTTP (as a WSGI application).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Request, Response

from d365sync.emulator.calls import finish, json_response, open_call, refusal_response
from d365sync.emulator.odata.prefer import parse_preferences
from d365sync.emulator.refusals import SignInError
from d365sync.emulator.refuse import Refusal, disabled_user, no_application_user, unauthorized
from d365sync.emulator.routes import route
from d365sync.emulator.store import Store
from d365sync.emulator.tokens import APP_SERVICE, IDENTITY_API, Credentials, TokenService

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

EXPIRE_TOKEN = "d365sync.expire_token"  # noqa: S105 - the name of a fault, not a secret
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
        preferences = parse_preferences(request.headers.getlist("Prefer"))
        try:
            with self.store.locked, self.store.transaction():
                response = self._authorized(request)
        except Refusal as refusal:
            return finish(refusal_response(refusal))
        return finish(response, preferences.applied if response.status_code < 300 else "")

    def _authorized(self, request: Request) -> Response:
        origin = request.host_url.rstrip("/")
        authorization = request.headers.get("Authorization", "")
        if request.environ.get(EXPIRE_TOKEN):
            self.tokens.revoke(authorization)
        if not self.tokens.accepts(authorization, origin):
            raise unauthorized(f"{origin}/{self.credentials.tenant_id}", origin)
        call, path = open_call(request, self.store, self._user_id(authorization))
        return route(call, path)

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
