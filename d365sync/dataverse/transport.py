"""One way for a request to reach Dataverse: signed, counted, paced, retried; any number of threads may use it.

Source: Compose HTTP requests and handle errors; Service protection API limits.

IO: HTTP.
"""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import requests
import structlog
from requests.structures import CaseInsensitiveDict

from d365sync import __version__
from d365sync.dataverse.auth import TokenSource
from d365sync.dataverse.batch import MULTIPART
from d365sync.dataverse.gate import Circuit, Gate, check_stopped
from d365sync.dataverse.greeting import Peer, claims_of, peer_of
from d365sync.dataverse.retry import Repeats, RetryPolicy
from d365sync.dataverse.session import proxies_of, read_body, verifying
from d365sync.dataverse.silence import no_answer
from d365sync.dataverse.throttle import Throttle
from d365sync.dataverse.usage import Usage
from d365sync.dataverse.wire import check_link, error_of, request_id
from d365sync.errors import THROTTLED, AuthError, ProtocolError, RetryableError

log = structlog.get_logger(__name__)

API_PATH = "/api/data/"
API_VERSION = "v9.2"
JSON = "application/json"
STRANGER_ATTEMPTS = 3
"""Attempts at a host that has never answered: its address is more likely wrong than its network down."""
CLIENT_REQUEST_ID = "x-ms-client-request-id"
"""Names each sending, so that an answer that never came can be asked for too. Source: OData on Microsoft's services."""
NO_CONTENT = 204
UNREAD = (THROTTLED, 503)
"""Statuses of requests that were not carried out. Source: Service protection API limits. Assumed: of 503."""
UNREAD_PARTS = (THROTTLED,)
"""The same for a batch of writes, of which some may have been carried out before a 503."""
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


@dataclass(slots=True)
class _Call:
    """One request as it will be sent each time, but for its token; ``sent`` is how often it was.

    ``asked_s`` is the patience that the answer to the present ``attempt`` asked for, None when it asked for none.
    """

    prepared: requests.PreparedRequest
    what: str
    expects: str
    operations: int
    repeatable: bool
    give_up_at: float
    in_parts: bool = False
    sent: int = 0
    attempt: int = 0
    asked_s: float | None = None

    def may_repeat(self, error: RetryableError, went: bool) -> bool:
        """Say whether another sending can do no harm: it did not go, or was refused unread, or is idempotent."""
        return self.repeatable or not went or error.status in (UNREAD_PARTS if self.in_parts else UNREAD)


class Transport:
    """One organization, one identity. ``url`` is the organization's address: in the cloud without a path.

    Source: Dynamics 365 Customer Engagement (on-premises), Use the Web API (``https://HOST/ORGANIZATION/api/data/v9.x``).
    """

    def __init__(
        self,
        session: requests.Session,
        url: str,
        tokens: TokenSource,
        *,
        retry: RetryPolicy,
        timeout_s: float = 120,
        concurrency: int = 0,
        api_version: str = API_VERSION,
    ) -> None:
        self._session = verifying(session)
        self._tokens = tokens
        self._retry = retry
        self._timeout_s = timeout_s
        self._answered = False
        self._renewing = threading.Lock()
        self._repeats = Repeats(retry.retries)
        self._circuit = Circuit(retry.timer)
        self.gate = Gate(retry.timer)
        self.throttle = Throttle(concurrency)
        self.api_root = f"{url.rstrip('/')}{API_PATH}{api_version}"
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
            RemoteError: refused, or no usable answer within the retry budget. RetryableError with another status than
                429 and 503 (which say that nothing was carried out; of a batch of writes only 429 says so) when the
                outcome is unknown.
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
        check_link(prepared.url or "", self.api_root)
        what = f"{method} {address.removeprefix(self.api_root).partition('?')[0].lstrip('/')}"
        give_up_at = self._retry.timer.now() + self._retry.budget_s
        repeatable = method == "GET" if idempotent is None else idempotent
        in_parts = expects == MULTIPART and not repeatable
        return self._persist(_Call(prepared, what, expects, operations, repeatable, give_up_at, in_parts))

    def sign_in(self) -> Mapping[str, Any]:
        """Get an access token, sending Dataverse nothing, and return what it says about itself.

        Raises:
            AuthError, RetryableError: as when a request needs one.
        """
        return claims_of(self._tokens.token())

    @property
    def token_expires_at(self) -> dt.datetime | None:
        """When the access token in use ends; None before the first, or where that is not told."""
        ends: dt.datetime | None = getattr(self._tokens, "expires_at", None)
        return ends

    def greet(self) -> tuple[Mapping[str, str], Peer | None]:
        """Ask once, without a token and without repeating it; return the headers of whatever is answered, and by whom.

        Raises:
            RemoteError: no answer.
        """
        prepared = requests.Request("GET", f"{self.api_root}/WhoAmI", headers=HEADERS).prepare()
        try:
            answer = self._exchange(prepared)
        except requests.RequestException as error:
            raise no_answer(f"no answer from {self.api_root.split('/')[2]}", error) from None
        peer = peer_of(answer)
        answer.close()
        self.usage.add(f"GET {answer.status_code}", requests=1)
        return CaseInsensitiveDict(answer.headers), peer

    def ask_patience(self, error: RetryableError, attempt: int = 1) -> float:
        """Shut the gate for everybody as a 429 (or 503) asks, also one within a batch; return the seconds from now."""
        wait_s = self._retry.wait_s(error, attempt)
        more_s = self.gate.shut(wait_s)
        if wait_s <= self._retry.budget_s:
            self.usage.add(throttled_s=more_s)
        elif not error.hint:
            error.hint = f"the server asks to wait {wait_s:.0f} s, longer than dataverse.retry_budget; try again then"
        return wait_s

    def wait(self, seconds: float) -> None:
        """Let time pass; a wait of nothing does not wait."""
        if seconds > 0:
            self._retry.timer.wait_until(self._retry.timer.now() + seconds)

    def _persist(self, call: _Call) -> Answer:
        """Send until there is an answer, or no further attempt makes sense."""
        timer = self._retry.timer
        for attempt in itertools.count(1):
            self._circuit.check()
            sent_before, call.attempt, call.asked_s = call.sent, attempt, None
            try:
                return self._authorized(call)
            except RetryableError as error:
                went = call.sent > sent_before
                asked = call.asked_s is not None
                wait_s = self._retry.wait_s(error, attempt) if call.asked_s is None else call.asked_s
                if went and not asked:
                    self._circuit.failed()
                strange = not self._answered and error.status is None and attempt >= STRANGER_ATTEMPTS
                late = timer.now() + wait_s > call.give_up_at
                last = strange or late or attempt >= self._retry.attempts or not call.may_repeat(error, went)
                if last or not (asked or self._repeats.take()):
                    raise
                log.info(
                    "request.retry",
                    request=call.what,
                    attempt=attempt,
                    wait_s=round(wait_s, 1),
                    why=str(error),
                    request_id=error.request_id,
                )
                self.usage.add(retries=1)
                if not asked:
                    timer.wait_until(timer.now() + wait_s)
            check_stopped()
        raise AssertionError("unreachable")

    def _authorized(self, call: _Call) -> Answer:
        """Send with a token; after a 401, once more with a fresh one."""
        token = self._tokens.token()
        try:
            return self._once(call, token)
        except AuthError as error:
            if error.status != 401:
                raise
            log.info("token.refused", request=call.what, request_id=error.request_id)
        try:
            return self._once(call, self._renewed(token))
        except AuthError as error:
            if error.status != 401:
                raise
            raise AuthError(
                f"{call.what}: Dataverse does not accept the access token (HTTP 401)",
                status=401,
                request_id=error.request_id,
                hint="check that url is this organization's address and that tenant_id is its tenant",
            ) from None

    def _renewed(self, refused: str) -> str:
        """Return another token than the one refused, which other threads may have fetched meanwhile."""
        with self._renewing:
            token = self._tokens.token()
            return token if token != refused else self._tokens.token(fresh=True)

    def _once(self, call: _Call, token: str) -> Answer:
        prepared = call.prepared.copy()
        prepared.headers["Authorization"] = f"Bearer {token}"
        prepared.headers[CLIENT_REQUEST_ID] = client_id = str(uuid4())
        with self.throttle.place() as round_:
            self.gate.pass_through(call.give_up_at)
            call.sent += 1
            status, headers, body = self._counted(call, prepared)
            if status == THROTTLED:
                self.throttle.complained(round_)
            answer = self._judged(call, status, headers, body, client_id)
        self.throttle.succeeded()
        self.throttle.advised(headers.get("x-ms-dop-hint", ""))
        self._repeats.succeeded()
        return answer

    def _judged(self, call: _Call, status: int, headers: Mapping[str, str], body: bytes, client_id: str) -> Answer:
        """Return the answer if it is one; the gate is shut before the place is given to another that waits for it."""
        self._answered = True
        log.debug(
            "request.done",
            request=call.what,
            status=status,
            size=len(body),
            attempt=call.sent,
            request_id=request_id(headers),
            client_request_id=client_id,
        )
        if status < 500:
            self._circuit.answered()
        try:
            return _answer(call, status, headers, body)
        except RetryableError as error:
            if error.status == THROTTLED or (error.status == 503 and error.retry_after_s):
                call.asked_s = self.ask_patience(error, call.attempt)
            raise

    def _counted(self, call: _Call, prepared: requests.PreparedRequest) -> tuple[int, Mapping[str, str], bytes]:
        """Send once and read the answer, whatever it says."""
        answered, amounts = "none", {"requests": 1, "operations": call.operations, "sent_bytes": _size(prepared)}
        try:
            response = self._exchange(prepared)
            body, received = read_body(response)
            answered = str(response.status_code)
            amounts |= {"bytes": len(body), "received_bytes": received}
        except requests.RequestException as error:
            raise no_answer(f"{call.what}: no answer from {self.api_root.split('/')[2]}", error) from None
        except ProtocolError as error:
            raise ProtocolError(f"{call.what}: {error}", hint=error.hint) from None
        finally:
            self.usage.add(f"{prepared.method} {answered}", **amounts)
        return response.status_code, CaseInsensitiveDict(response.headers), body

    def _exchange(self, prepared: requests.PreparedRequest) -> requests.Response:
        """Hand the request to the session's adapter: no cookies, no redirects, nothing of the session changes."""
        url = prepared.url or ""
        proxies = proxies_of(self._session)
        settings = verifying(self._session).merge_environment_settings(url, proxies, True, self._session.verify, None)
        return self._session.get_adapter(url).send(
            prepared,
            stream=True,
            timeout=self._timeout_s,
            verify=settings["verify"] or True,
            cert=settings["cert"],
            proxies=settings["proxies"],
        )


def _size(prepared: requests.PreparedRequest) -> int:
    return len(prepared.body) if isinstance(prepared.body, bytes) else 0


def _answer(call: _Call, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Return the answer if it is one.

    Raises:
        RemoteError: it is a refusal.
        ProtocolError: it is a redirect, or of another type than expected, or empty where a body belongs.
    """
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if 300 <= status < 400:
        raise ProtocolError(f"{call.what}: the server redirects (HTTP {status}); not followed")
    if status >= 400 and not (media_type == call.expects == MULTIPART):
        raise error_of(status, headers, body, call.what)
    if 200 < status < 300 and status not in (201, NO_CONTENT):
        raise ProtocolError(f"{call.what}: the answer is of a kind that nothing here asks for (HTTP {status})")
    if status in (200, 201):
        if not body:
            raise ProtocolError(f"{call.what}: the answer is empty (HTTP {status})")
        if media_type != call.expects:
            start = " ".join(body[:40].decode("utf-8", "replace").split())
            raise ProtocolError(
                f"{call.what}: the answer is {media_type[:60] or 'of no type'}, not {call.expects}; it begins {start!r}"
            )
    return Answer(status, headers, body)
