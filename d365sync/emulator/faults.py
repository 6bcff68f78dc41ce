"""Faults on demand: a WSGI layer that makes chosen requests fail as real networks and services do.

A faults file is TOML, a list of ``[[fault]]``. ``match`` is ``METHOD PATTERN`` (or only the pattern): a glob against
the path, with or without the service root and the query; without a wildcard it is the first segment, such as
``opportunities``. ``nth`` (a number or a list, from 1) or ``every`` choose among the matching requests; without either,
all. One of these happens:

- ``status``: this HTTP status instead of an answer, with ``code`` and ``retry_after`` (seconds)
- ``delay_s``: the answer comes late
- ``cut_after_bytes``: the connection breaks after so many bytes of the body
- ``close``: the request is carried out, then the connection breaks without an answer (``"before"``: not carried out)
- ``duplicate_page``: every row of the page comes twice
- ``expire_delta``: the delta link is too old
- ``expire_token``: the access token is no longer accepted

The requests inside a ``$batch`` are matched too; to them only ``status``, ``delay_s`` and ``expire_delta`` happen.

IO: files, sleeps.
"""

from __future__ import annotations

import fnmatch
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from werkzeug.wrappers import Request, Response

from d365sync.emulator.app import EXPIRE_TOKEN
from d365sync.emulator.calls import PART_FAULT, finish, refusal_response
from d365sync.emulator.protection import TOO_LONG, TOO_MANY, TOO_MANY_AT_ONCE, limit_message
from d365sync.emulator.refuse import EXPIRED_STAMP, PRIVILEGE, Refusal
from d365sync.emulator.settings import ServiceLimits
from d365sync.emulator.wire import decode_json, encode_json
from d365sync.errors import UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROOT = "/api/data/"
EFFECTS = ("status", "delay_s", "cut_after_bytes", "close", "duplicate_page", "expire_delta", "expire_token")
KEYS = ("match", "nth", "every", "retry_after", "code", *EFFECTS)
STALE_STAMP = "Version stamp associated with the client has expired. Please perform a full sync."
MESSAGES = {
    **{code: limit_message(code, ServiceLimits()) for code in (TOO_MANY, TOO_LONG, TOO_MANY_AT_ONCE)},
    "0x80072560": "The user is not a member of the organization.",
    "0x80060882": "The version of the existing record doesn't match the RowVersion property provided.",
    EXPIRED_STAMP: STALE_STAMP,
}
"""Source: Service protection API limits; web service error codes."""
CLOSE: Mapping[object, Literal["", "before", "after"]] = {
    False: "",
    True: "after",
    "before": "before",
    "after": "after",
}
VERBS = {"GET": "Read", "POST": "Create", "PATCH": "Write", "DELETE": "Delete"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the file; see the module for what each field means."""

    match: str
    nth: tuple[int, ...] = ()
    every: int = 1
    status: int | None = None
    retry_after: float | None = None
    code: str = ""
    delay_s: float = 0
    cut_after_bytes: int | None = None
    close: Literal["", "before", "after"] = ""
    duplicate_page: bool = False
    expire_delta: bool = False
    expire_token: bool = False

    def concerns(self, request: Request) -> bool:
        """Say whether a request matches; the choice among those that match comes after."""
        method, _, pattern = self.match.strip().rpartition(" ")
        if method and not fnmatch.fnmatchcase(request.method, method.strip()):
            return False
        query = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
        below = request.path.removeprefix(ROOT).partition("/")[2] if request.path.startswith(ROOT) else request.path
        spellings = [spelling + tail for spelling in (request.path, below, f"/{below}") for tail in ("", query)]
        spellings.append(below.partition("(")[0].partition("/")[0])
        return any(fnmatch.fnmatchcase(spelling, pattern) for spelling in spellings)

    def strikes(self, count: int) -> bool:
        """Say whether it happens to the ``count``-th matching request, from 1."""
        return count in self.nth if self.nth else count % self.every == 0


def read_faults(path: Path) -> tuple[Fault, ...]:
    """Read a faults file.

    Raises:
        UsageError: it cannot be read, or a fault is not right; the message says which.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"the faults file {path} cannot be read: {error}") from None
    entries = document.pop("fault", [])
    if document or not isinstance(entries, list):
        raise UsageError(f"{path}: only [[fault]] entries are expected, not {', '.join(document) or 'fault'}")
    return tuple(_fault(f"{path.name}: fault {index}", entry) for index, entry in enumerate(entries, 1))


def _fault(where: str, entry: Mapping[str, Any]) -> Fault:
    unknown = [name for name in entry if name not in KEYS]
    if unknown:
        raise UsageError(f"{where} has the unknown key {unknown[0]}", hint=f"known are {', '.join(KEYS)}")
    effects = [name for name in EFFECTS if name in entry]
    if len(effects) != 1 or not isinstance(entry.get("match"), str):
        raise UsageError(f"{where} needs 'match' and exactly one of {', '.join(EFFECTS)}")
    nth = entry.get("nth", [])
    numbers = {name: entry.get(name, 0) for name in ("every", "status", "retry_after", "delay_s", "cut_after_bytes")}
    ordinals = nth if isinstance(nth, list) else [nth]
    if any(isinstance(n, bool) or not isinstance(n, int | float) or n < 0 for n in [*numbers.values(), *ordinals]):
        raise UsageError(f"{where}: {', '.join([*numbers, 'nth'])} must be numbers")
    if entry.get("close", False) not in CLOSE:
        raise UsageError(f'{where}: close must be true, "before" or "after"')
    values = {name: value for name, value in entry.items() if name not in ("nth", "close", "every")}
    return Fault(nth=tuple(ordinals), close=CLOSE[entry.get("close", False)], every=max(1, numbers["every"]), **values)


class FaultyApp:
    """The emulator's application with faults before it."""

    def __init__(self, app: WSGIApplication, faults: Iterable[Fault]) -> None:
        self._app = app
        self._faults = tuple(faults)
        self._counts = [0] * len(self._faults)
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or make it fail."""
        request = Request(environ)
        environ[PART_FAULT] = self._inside
        fault = self._chosen(request)
        if fault is None:
            return self._app(environ, start_response)
        time.sleep(fault.delay_s)
        if fault.expire_token:
            environ[EXPIRE_TOKEN] = True
        if fault.close == "before":
            return _break(environ)
        instead = _answer_instead(fault, request)
        if instead is not None:
            return instead(environ, start_response)
        return self._spoiled(fault, environ, start_response)

    def _inside(self, request: Request) -> Refusal | None:
        """Return what a request inside a batch is refused with, if a fault strikes it."""
        fault = self._chosen(request)
        if fault is None:
            return None
        time.sleep(fault.delay_s)
        return _refusal(fault, request)

    def _chosen(self, request: Request) -> Fault | None:
        """Count the request for every fault it matches; return the first that strikes."""
        chosen: Fault | None = None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.concerns(request):
                    self._counts[index] += 1
                    if chosen is None and fault.strikes(self._counts[index]):
                        chosen = fault
        return chosen

    def _spoiled(self, fault: Fault, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = Response.from_app(self._app, environ, buffered=True)
        if fault.close:
            return _break(environ)
        if fault.duplicate_page and response.status_code == 200:
            response.set_data(_doubled(response.get_data()))
        if fault.cut_after_bytes is not None:
            response.headers["Content-Length"] = str(len(response.get_data()))
            start_response(response.status, list(response.headers))
            return _cut(response.get_data()[: fault.cut_after_bytes], environ)
        return response(environ, start_response)


def _answer_instead(fault: Fault, request: Request) -> Response | None:
    refusal = _refusal(fault, request)
    return None if refusal is None else finish(refusal_response(refusal))


def _refusal(fault: Fault, request: Request) -> Refusal | None:
    if fault.expire_delta and "deltatoken" in request.query_string.decode("latin-1"):
        return Refusal(400, EXPIRED_STAMP, STALE_STAMP)
    if fault.status is None:
        return None
    headers = {} if fault.retry_after is None else {"Retry-After": str(int(fault.retry_after))}
    message = MESSAGES.get(fault.code) or _privilege_message(fault, request) or "d365sync emulator: a fault on demand"
    return Refusal(fault.status, fault.code, message, headers)


def _privilege_message(fault: Fault, request: Request) -> str:
    if fault.code.lower() != PRIVILEGE.lower():
        return ""
    segment = request.path.rpartition("/")[2].partition("(")[0]
    verb = VERBS.get(request.method, "Read")
    user = "Principal user (type=8, roleCount=1, privilegeCount=5, accessMode=0)"
    return f"{user}, is missing prv{verb} privilege for the entity set '{segment}'."


def _doubled(body: bytes) -> bytes:
    document = decode_json(body)
    if isinstance(document, dict) and isinstance(document.get("value"), list):
        document["value"] = [row for row in document["value"] for _ in range(2)]
    return encode_json(document)


def _cut(start: bytes, environ: WSGIEnvironment) -> Iterable[bytes]:
    yield start
    _break(environ)


def _break(environ: WSGIEnvironment) -> Iterable[bytes]:
    """Break the connection; without a socket (in process) there is only the error."""
    connection = environ.get("werkzeug.socket")
    if connection is not None:
        connection.close()
    raise ConnectionResetError("d365sync emulator: the connection breaks on demand")
