"""Health checks and metrics over HTTP: is the service alive, is it ready, what does it count.

========== ============================================================ =====================================
path        200 when                                                     otherwise
========== ============================================================ =====================================
/livez      the loop and every running cycle make progress               503
/readyz     every environment is fresh, its databases work, or it waits  503; names nothing without the token
/metrics    always                                                       401 or 403, where a token is needed
========== ============================================================ =====================================

It binds to the loopback interface unless told otherwise, and answers only those hosts it is known by, so that a page
in a browser on the machine cannot read it under a name of its own (DNS rebinding). Beyond loopback it tells details
only to who shows a token.

IO: a listening socket, a thread.
"""

from __future__ import annotations

import datetime as dt
import errno
import hmac
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from d365sync.errors import ConfigError
from d365sync.service.metrics import registry_of
from d365sync.service.state import EnvironmentState, ServiceState

log = structlog.get_logger(__name__)

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
MISDIRECTED = 421
FAILURES_UNTIL_NOT_READY = 3
DATABASE_ERRORS = ("MirrorError", "JournalError")
REQUEST_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host (name or IP address) and a port; 0 picks a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def to_ask(self) -> Address:
        """Where this machine itself reaches it: loopback, where it listens on every interface."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound
        return Address(everywhere.get(self.host, self.host), self.port)


def address_of(listen: str) -> Address:
    """Read an address such as ``127.0.0.1:8365`` or ``[::1]:8365``.

    Raises:
        ConfigError: it is none.
    """
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.path or parts.username is not None:
        raise ConfigError(f"daemon.listen = {listen!r} is no address to listen on", hint="write 127.0.0.1:8365")
    return Address(host, port)


def not_ready(one: EnvironmentState, now: dt.datetime) -> str:
    """Return why an environment is not ready, empty when it is. One that waits as standby is ready to take over."""
    if one.error_kind in DATABASE_ERRORS:
        return "database"
    if one.standby:
        return ""
    if one.last_success_at is None:
        return "no cycle has succeeded yet"
    if one.fresh_for_s is not None:
        return "stale" if (now - one.last_success_at).total_seconds() > one.fresh_for_s else ""
    return "failing" if one.failures >= FAILURES_UNTIL_NOT_READY else ""


class HealthApp:
    """The WSGI application; ``hosts`` are those it answers besides the loopback names, ``token`` what details need.

    Without a token details are told to this machine alone (``local``).
    """

    def __init__(
        self,
        state: ServiceState,
        registry: CollectorRegistry,
        clock: Callable[[], dt.datetime],
        *,
        hosts: Iterable[str] = (),
        token: str = "",
        local: bool = True,
    ) -> None:
        self._state = state
        self._registry = registry
        self._clock = clock
        self._hosts = {host.lower() for host in (*LOOPBACK_NAMES, *hosts)}
        self._token = token
        self._local = local

    def __call__(self, environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        response = self._answer(request)
        response.headers.update({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
        return response(environ, start_response)  # type: ignore[arg-type]

    def _answer(self, request: Request) -> Response:
        if not self._knows(request):
            return _text(MISDIRECTED, "this service is not known by that name; see health.hosts")
        if request.method not in ("GET", "HEAD"):
            return _text(405, "GET only", Allow="GET, HEAD")
        answer = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}.get(request.path)
        return answer(request) if answer else _text(404, "there are /livez, /readyz and /metrics")

    def _knows(self, request: Request) -> bool:
        try:
            host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        except (ValueError, HTTPException):
            return False
        return host in self._hosts

    def _livez(self, _request: Request) -> Response:
        return _text(200, "ok") if self._state.is_alive() else _text(503, "no progress")

    def _readyz(self, request: Request) -> Response:
        now = self._clock()
        found = {one.name: not_ready(one, now) for one in self._state.environments()}
        ready = all(not why for why in found.values()) and self._state.is_alive()
        lines = ["ready" if ready else "not ready"]
        if self._token and self._may_see(request):
            lines += [f"{name}: {why or 'ready'}" for name, why in found.items()]
        return _text(200 if ready else 503, "\n".join(lines))

    def _metrics(self, request: Request) -> Response:
        if not self._token and not self._local:
            return _text(403, "metrics are told beyond this machine only with a token; see health.token")
        if not self._may_see(request):
            return _text(401, "a token is needed", **{"WWW-Authenticate": 'Bearer realm="d365sync"'})
        encoder, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encoder(self._registry), content_type=content_type)

    def _may_see(self, request: Request) -> bool:
        if not self._token:
            return True
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(shown.encode(), self._token.encode())


class Server:
    """A server in a thread of its own; ``address`` is where it listens."""

    def __init__(self, server: BaseWSGIServer, address: Address) -> None:
        self.address = address
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(
    listen: str,
    state: ServiceState,
    *,
    clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    hosts: Iterable[str] = (),
    token: str = "",
) -> Server:
    """Answer health checks and tell metrics of a state, from a thread, until closed.

    Raises:
        ConfigError: ``listen`` is no address, or nobody can listen there.
    """
    address = address_of(listen)
    own = () if address.to_ask != address else (address.host,)
    app = HealthApp(
        state, registry_of(state, clock), clock, hosts=(*hosts, *own), token=token, local=address.is_loopback
    )
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.create_server((address.host, address.port), family=family) as bound:
            fd = bound.fileno()  # werkzeug would print, and exit, where a port is taken
            server = make_server(address.host, address.port, app, threaded=True, request_handler=_Handler, fd=fd)
    except OSError as error:
        why = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror or type(error).__name__
        raise ConfigError(
            f"nobody can listen on {listen}: {why}", hint="set daemon.listen to another port, or stop who uses it"
        ) from None
    port = server.socket.getsockname()[1]
    log.info("service.listening", host=address.host, port=port)
    return Server(server, Address(address.host, port))


class _Handler(WSGIRequestHandler):
    """One request: quiet, nameless, and not for ever."""

    timeout = REQUEST_TIMEOUT_S

    def version_string(self) -> str:
        return "d365sync"

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - the name is werkzeug's
        """Say nothing: a health check every few seconds is no event."""


def _text(status: int, text: str, **headers: str) -> Response:
    return Response(f"{text}\n", status=status, content_type="text/plain; charset=utf-8", headers=headers)
