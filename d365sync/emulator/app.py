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
from d365sync.emulator.refuse import Refusal, no_application_user, unauthorized
from d365sync.emulator.routes import route
from d365sync.emulator.store import Store
from d365sync.emulator.tokens import Credentials, SignInError, TokenService

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

EXPIRE_TOKEN = "d365sync.expire_token"  # noqa: S105 - the name of a fault, not a secret
_SIGN_IN = re.compile(r"/([^/]+)/(v2\.0/\.well-known/openid-configuration|oauth2/v2\.0/token|oauth2/v2\.0/devicecode)")


class EmulatorApp:
    """The whole service of one organization; calls run one after the other."""

    def __init__(self, store: Store, credentials: Credentials) -> None:
        self.store = store
        self.credentials = credentials
        self.tokens = TokenService(credentials, store.settings)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        sign_in = _SIGN_IN.fullmatch(request.path)
        response = self._sign_in(request, sign_in[1], sign_in[2]) if sign_in else self._service(request)
        return response(environ, start_response)

    def _sign_in(self, request: Request, tenant: str, what: str) -> Response:
        origin = request.host_url.rstrip("/")
        try:
            if what.endswith("openid-configuration"):
                return json_response(self.tokens.discovery(origin, tenant))
            if what.endswith("token"):
                return json_response(self.tokens.token(origin, tenant, request.form))
        except SignInError as error:
            return json_response(error.document(), status=error.status)
        text = "d365sync emulator: device code sign-in is not implemented"
        return json_response({"error": "not_implemented", "error_description": text}, status=501)

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
        if not self.tokens.accepts(authorization):
            raise unauthorized(f"{origin}/{self.credentials.tenant_id}", origin)
        call, path = open_call(request, self.store, self._user_id())
        return route(call, path)

    def _user_id(self) -> str:
        if self.store.settings.application_user:
            for user_id, user in self.store.rows("systemuser").items():
                if user.get("applicationid") == self.credentials.client_id:
                    return user_id
        raise no_application_user()
