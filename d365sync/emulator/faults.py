"""Faults on demand: a WSGI layer that makes chosen requests fail as real networks and services do.

Which, and how, stands in a file: :mod:`d365sync.emulator.faultfile`.

IO: sleeps.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from werkzeug.test import EnvironBuilder, run_wsgi_app
from werkzeug.wrappers import Request, Response

from d365sync.emulator.app import EXPIRE_TOKEN
from d365sync.emulator.calls import PART_FAULT, finish, refusal_response, service_path
from d365sync.emulator.faultfile import Fault, read_faults
from d365sync.emulator.protection import TOO_LONG, TOO_MANY, TOO_MANY_AT_ONCE, limit_message
from d365sync.emulator.refuse import EXPIRED_STAMP, PRIVILEGE, Refusal
from d365sync.emulator.settings import ServiceLimits
from d365sync.emulator.spoiling import dress, spoil
from d365sync.emulator.wire import encode_json

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Fault", "FaultyApp", "read_faults"]

STALE_STAMP = "Version stamp associated with the client has expired. Please perform a full sync."
MESSAGES = {
    **{code: limit_message(code, ServiceLimits()) for code in (TOO_MANY, TOO_LONG, TOO_MANY_AT_ONCE)},
    "0x80072560": "The user is not a member of the organization.",
    "0x80060882": "The version of the existing record doesn't match the RowVersion property provided.",
    EXPIRED_STAMP: STALE_STAMP,
}
"""Source: Service protection API limits; web service error codes."""
ROOT = "/api/data/v9.2/"
"""Where a fault that strikes the sign-in makes its other request."""
VERBS = {"GET": "Read", "POST": "Create", "PATCH": "Write", "DELETE": "Delete"}


class FaultyApp:
    """The emulator's application with faults before it."""

    def __init__(self, app: WSGIApplication, faults: Iterable[Fault]) -> None:
        self._app = app
        self._faults = tuple(faults)
        self._counts = [0] * len(self._faults)
        self._reads_bodies = any(fault.holding for fault in self._faults)
        self._lock = threading.Lock()
        self._struck = [0] * len(self._faults)

    @property
    def struck(self) -> tuple[int, ...]:
        """How many requests each fault changed something for; one that left the answer as it was did not strike."""
        with self._lock:
            return tuple(self._struck)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or make it fail."""
        request = _readable(environ) if self._reads_bodies else Request(environ)
        environ[PART_FAULT] = self._inside
        index = self._chosen(request)
        if index is None:
            return self._app(environ, start_response)
        fault = self._faults[index]
        time.sleep(fault.delay_s)
        if fault.delay_s or fault.expire_token or fault.meanwhile or fault.close:
            self._strike(index)
        if fault.expire_token:
            environ[EXPIRE_TOKEN] = True
        if fault.meanwhile:
            self._intrude(fault, request)
        if fault.close == "before":
            return _break(environ)
        instead = _answer_instead(fault, request)
        if instead is not None:
            self._strike(index)
            return instead(environ, start_response)
        return self._spoiled(index, request, environ, start_response)

    def _inside(self, request: Request) -> Refusal | None:
        """Return what a request inside a batch is refused with, if a fault strikes it."""
        index = self._chosen(request, inside=True)
        if index is None:
            return None
        fault = self._faults[index]
        time.sleep(fault.delay_s)
        refusal = _refusal(fault, request)
        if refusal is not None or fault.delay_s:
            self._strike(index)
        return refusal

    def _strike(self, index: int) -> None:
        with self._lock:
            self._struck[index] += 1

    def _chosen(self, request: Request, *, inside: bool = False) -> int | None:
        """Count the request for every fault it matches (inside a batch: and may meet); return the first's place."""
        chosen: int | None = None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if (fault.happens_inside or not inside) and fault.concerns(request):
                    self._counts[index] += 1
                    if chosen is None and fault.strikes(self._counts[index]):
                        chosen = index
        return chosen

    def _intrude(self, fault: Fault, request: Request) -> None:
        """Make the other request that a fault names, with the authorization of the one at hand.

        Raises:
            RuntimeError: it is refused; the faults file is not right for this organization.
        """
        method, _, path = fault.meanwhile.partition(" ")
        root, _ = service_path(request.path) or (ROOT, "")
        builder = EnvironBuilder(
            method=method,
            base_url=request.host_url,
            path=root + path,
            headers=[("Authorization", request.headers.get("Authorization", ""))],
            data=encode_json(dict(fault.json)) if fault.json else None,
            content_type="application/json" if fault.json else None,
        )
        chunks, status, _ = run_wsgi_app(self._app, builder.get_environ())
        if not status.startswith("2"):
            raise RuntimeError(f"the fault's '{fault.meanwhile}' was refused: {status} {b''.join(chunks)[:300]!r}")

    def _spoiled(
        self, index: int, request: Request, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        fault = self._faults[index]
        response = Response.from_app(self._app, environ, buffered=True)
        if fault.close:
            return _break(environ)
        before = _seen(response)
        spoil(fault, request, response)
        cut = fault.cut_after_bytes is not None and fault.cut_after_bytes < len(response.get_data())
        if cut or _seen(response) != before:
            self._strike(index)
        if fault.cut_after_bytes is not None:
            response.headers["Content-Length"] = str(len(response.get_data()))
            start_response(response.status, list(response.headers))
            return _cut(response.get_data()[: fault.cut_after_bytes], environ)
        return response(environ, start_response)


def _seen(response: Response) -> tuple[bytes, list[tuple[str, str]]]:
    """Return what a client sees of an answer that a fault may change."""
    return response.get_data(), list(response.headers)


def _readable(environ: WSGIEnvironment) -> Request:
    """Return the request with a body that may be read here and once more behind."""
    body = environ["wsgi.input"].read()
    environ["wsgi.input"] = io.BytesIO(body)
    return Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})


def _answer_instead(fault: Fault, request: Request) -> Response | None:
    refusal = _refusal(fault, request)
    if refusal is None:
        return None
    response = finish(refusal_response(refusal, request.headers.getlist("Prefer")))
    if fault.body is not None:
        response.set_data(fault.body.encode())
    dress(fault, response)
    return response


def _refusal(fault: Fault, request: Request) -> Refusal | None:
    if fault.expire_delta and "$deltatoken" in request.args:
        return Refusal(400, EXPIRED_STAMP, STALE_STAMP)
    if fault.status is None:
        return None
    asked = fault.retry_after
    headers = {} if asked is None else {"Retry-After": asked if isinstance(asked, str) else str(int(asked))}
    message = MESSAGES.get(fault.code) or _privilege_message(fault, request) or "d365sync emulator: a fault on demand"
    return Refusal(fault.status, fault.code, message, headers)


def _privilege_message(fault: Fault, request: Request) -> str:
    if fault.code.lower() != PRIVILEGE.lower():
        return ""
    segment = request.path.rpartition("/")[2].partition("(")[0]
    verb = VERBS.get(request.method, "Read")
    user = "Principal user (type=8, roleCount=1, privilegeCount=5, accessMode=0)"
    return f"{user}, is missing prv{verb} privilege for the entity set '{segment}'."


def _cut(start: bytes, environ: WSGIEnvironment) -> Iterable[bytes]:
    yield start
    _break(environ)


def _break(environ: WSGIEnvironment) -> Iterable[bytes]:
    """Break the connection; without a socket (in process) there is only the error."""
    connection = environ.get("werkzeug.socket")
    if connection is not None:
        connection.close()
    raise ConnectionResetError("d365sync emulator: the connection breaks on demand")
