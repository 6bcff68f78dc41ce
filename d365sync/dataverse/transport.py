"""One way for a request to reach Dataverse: signed, counted, paced, retried; any number of threads may use it.

Source: Compose HTTP requests and handle errors; Service protection API limits.

IO: HTTP.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import requests
import structlog
from requests.structures import CaseInsensitiveDict

from d365sync import __version__
from d365sync.dataverse.auth import TokenSource, no_answer
from d365sync.dataverse.retry import RetryPolicy
from d365sync.dataverse.session import read_body, verifying
from d365sync.dataverse.usage import Usage
from d365sync.dataverse.wire import check_link, error_of, request_id
from d365sync.errors import AuthError, ProtocolError, RetryableError

log = structlog.get_logger(__name__)

API_PATH = "/api/data/v9.2"
JSON = "application/json"
STRANGER_ATTEMPTS = 3
"""Attempts at a host that has never answered: its address is more likely wrong than its network down."""
HEADERS = {
    "Accept": JSON,
    "Accept-Encoding": "gzip",
    "OData-MaxVersion": "4.0",
    "OData-Version": "4.0",
    "If-None-Match": "null",
    "User-Agent": f"d365sync/{__version__}",
}
"""Sent with every request. Source: Compose HTTP requests (If-None-Match: null defeats caching)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: status, headers (any case) and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Call:
    """One request as it will be sent each time, but for its token."""

    prepared: requests.PreparedRequest
    what: str
    expects: str
    operations: int


class Transport:
    """One organization, one identity. ``url`` is the organization's address, without path."""

    def __init__(
        self, session: requests.Session, url: str, tokens: TokenSource, *, retry: RetryPolicy, timeout_s: float = 120
    ) -> None:
        self._session = verifying(session)
        self._tokens = tokens
        self._retry = retry
        self._timeout_s = timeout_s
        self._answered = False
        self.api_root = f"{url.rstrip('/')}{API_PATH}"
        self.usage = Usage()

    def send(
        self,
        method: str,
        address: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        prefer: str = "",
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        expects: str = JSON,
        operations: int = 1,
    ) -> Answer:
        """Send a request to an address below the API root and return its answer.

        ``idempotent`` says that it may be sent again although the outcome of a first sending is unknown; None means: if
        it is a GET. ``expects`` is the media type of the answer's body; an answer of type multipart/mixed that was
        expected is returned whatever its status. ``operations`` is what it counts against the daily entitlement.

        Raises:
            RemoteError: refused, or no usable answer within the retry budget. RetryableError with status None when
                the outcome is unknown.
            ProtocolError: the address lies outside the API, or the answer is not the protocol.
        """
        check_link(address, self.api_root)
        sent = {**HEADERS, **(headers or {})}
        if prefer:
            sent["Prefer"] = prefer
        if method != "GET" and "If-None-Match" not in (headers or {}):
            del sent["If-None-Match"]
        if body is not None:
            sent["Content-Type"] = content_type
        prepared = requests.Request(method, address, params=params, data=body, headers=sent).prepare()
        what = f"{method} {address.removeprefix(self.api_root).partition('?')[0].lstrip('/')}"
        repeatable = method == "GET" if idempotent is None else idempotent
        failures = itertools.count(1)

        def again(error: RetryableError) -> bool:
            if not self._answered and error.status is None and next(failures) >= STRANGER_ATTEMPTS:
                return False
            return repeatable or error.status in (429, 503)

        call = _Call(prepared, what, expects, operations)
        return self._retry.run(lambda: self._authorized(call), again=again)

    def _authorized(self, call: _Call) -> Answer:
        """Send with a token; after a 401, once more with a fresh one."""
        try:
            return self._once(call, self._tokens.token())
        except AuthError as error:
            if error.status != 401:
                raise
            log.info("token.refused", request=call.what, request_id=error.request_id)
        try:
            return self._once(call, self._tokens.token(fresh=True))
        except AuthError as error:
            if error.status != 401:
                raise
            raise AuthError(
                f"{call.what}: Dataverse does not accept the access token (HTTP 401)",
                status=401,
                request_id=error.request_id,
                hint="check that url is this organization's address and that tenant_id is its tenant",
            ) from None

    def _once(self, call: _Call, token: str) -> Answer:
        prepared = call.prepared.copy()
        prepared.headers["Authorization"] = f"Bearer {token}"
        counted = {"requests": 1, "operations": call.operations, "sent_bytes": len(prepared.body or b"")}
        try:
            response = self._exchange(prepared)
            body, received = read_body(response)
        except requests.RequestException as error:
            self.usage.add(f"{prepared.method} none", **counted)
            raise no_answer(f"{call.what}: no answer from {self.api_root.split('/')[2]}", error) from None
        except ProtocolError as error:
            self.usage.add(f"{prepared.method} none", **counted)
            raise ProtocolError(f"{call.what}: {error}") from None
        status = response.status_code
        self.usage.add(f"{prepared.method} {status}", bytes=len(body), received_bytes=received, **counted)
        self._answered = True
        headers: Mapping[str, str] = CaseInsensitiveDict(response.headers)
        log.debug("request.done", request=call.what, status=status, size=len(body), request_id=request_id(headers))
        return _judged(call, status, headers, body)

    def _exchange(self, prepared: requests.PreparedRequest) -> requests.Response:
        """Hand the request to the session's adapter: no cookies, no redirects, nothing of the session changes."""
        url = prepared.url or ""
        settings = verifying(self._session).merge_environment_settings(url, {}, True, self._session.verify, None)
        return self._session.get_adapter(url).send(
            prepared,
            stream=True,
            timeout=self._timeout_s,
            verify=settings["verify"] or True,
            cert=settings["cert"],
            proxies=settings["proxies"],
        )


def _judged(call: _Call, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Return the answer if it is one.

    Raises:
        RemoteError: it is a refusal.
        ProtocolError: it is a redirect, or of another type than expected, or empty where a body belongs.
    """
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if 300 <= status < 400:
        raise ProtocolError(f"{call.what}: the server redirects (HTTP {status}); not followed")
    if status >= 400 and not (media_type == call.expects == "multipart/mixed"):
        raise error_of(status, headers, body, call.what)
    if status in (200, 201):
        if not body:
            raise ProtocolError(f"{call.what}: the answer is empty (HTTP {status})")
        if media_type != call.expects:
            start = " ".join(body[:40].decode("utf-8", "replace").split())
            raise ProtocolError(
                f"{call.what}: the answer is {media_type[:60] or 'of no type'}, not {call.expects}; it begins {start!r}"
            )
    return Answer(status, headers, body)
