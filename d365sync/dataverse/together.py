"""Many reads as one request: GETs in a ``$batch``, each answered by itself.

Source: Execute batch operations using the Web API (GET requests outside change sets, continue-on-error).

IO: HTTP, through the transport.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlsplit

import structlog

from d365sync.dataverse.ahead import FetchedPage
from d365sync.dataverse.batch import MOST_PARTS, Part, PartAnswer, compose, content_type, parse
from d365sync.dataverse.decoding import PageDecoder
from d365sync.dataverse.transport import HEADERS, Transport
from d365sync.dataverse.wire import error_of, select_clause
from d365sync.errors import RejectedError, RemoteError, RetryableError

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient

log = structlog.get_logger(__name__)

Outcome: TypeAlias = bytes | RemoteError
"""The body of one answer, or why there is none."""
OK = 200
MULTIPART = "multipart/mixed"
CONTINUE = "odata.continue-on-error"
PLAIN = "$,()'=;"
"""Characters that stand as they are in a query of the Web API."""


@dataclass(frozen=True, slots=True)
class Get:
    """One read: a path below the API root, its query options, and its preferences."""

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    prefer: str = ""

    @property
    def address(self) -> str:
        """The path with its encoded query."""
        query = "&".join(f"{name}={quote(value, safe=PLAIN)}" for name, value in self.params.items())
        return f"{self.path}?{query}" if query else self.path


def get_together(transport: Transport, gets: Sequence[Get]) -> list[Outcome]:
    """Read all of these with one request for each thousand; return the outcome of each, in their order.

    A read that is to be tried again later is sent by itself, with the patience every request has; so are all of them
    where batches are refused.

    Raises:
        RemoteError, ProtocolError: the batch got no usable answer.
    """
    outcomes: list[Outcome] = []
    for start in range(0, len(gets), MOST_PARTS):
        some = gets[start : start + MOST_PARTS]
        if len(some) == 1:
            outcomes.append(_alone(transport, some[0]))
            continue
        outcomes += [
            _alone(transport, get) if isinstance(outcome, RetryableError) else outcome
            for get, outcome in zip(some, _batch(transport, some), strict=True)
        ]
    return outcomes


def _batch(transport: Transport, gets: Sequence[Get]) -> list[Outcome]:
    boundary = f"batch_{uuid.uuid4()}"
    try:
        answer = transport.send(
            "POST",
            f"{transport.api_root}/$batch",
            body=compose([_part(get) for get in gets], urlsplit(transport.api_root).path, boundary),
            content_type=content_type(boundary),
            prefer=CONTINUE,
            idempotent=True,
            expects=MULTIPART,
            operations=len(gets),
        )
    except RejectedError as error:
        log.warning("batch.refused", reason=str(error))
        return [_alone(transport, get) for get in gets]
    answers = parse(answer.headers.get("Content-Type", ""), answer.body, len(gets))
    return [_outcome(get, one) for get, one in zip(gets, answers, strict=True)]


def _part(get: Get) -> Part:
    headers = {"Accept": HEADERS["Accept"], "If-None-Match": "null"}
    return Part("GET", get.address, {**headers, **({"Prefer": get.prefer} if get.prefer else {})})


def _outcome(get: Get, answer: PartAnswer) -> Outcome:
    if answer.status == OK:
        return answer.body
    return error_of(answer.status, answer.headers, answer.body, f"GET {get.path}")


def _alone(transport: Transport, get: Get) -> Outcome:
    try:
        return transport.send("GET", f"{transport.api_root}/{get.address}", prefer=get.prefer).body
    except RemoteError as error:
        return error


class RowsTogether:
    """Whole small tables, read with one request when the first of them is asked for; threads may share it."""

    def __init__(self, client: DataverseClient, decoders: Sequence[PageDecoder]) -> None:
        self._client = client
        self._decoders = decoders
        self._outcomes: list[Outcome] | None = None
        self._lock = threading.Lock()

    def pages(self, at: int) -> Iterator[FetchedPage]:
        """Yield the pages of the table of number ``at``; a page after the first is a request of its own.

        Raises:
            RemoteError, ProtocolError: this table, or all of them.
        """
        decoder = self._decoders[at]
        with self._lock:
            if self._outcomes is None:
                gets = [self._get(one) for one in self._decoders]
                self._outcomes = get_together(self._client.transport, gets)
            outcome = self._outcomes[at]
        if isinstance(outcome, RemoteError):
            raise outcome
        page = FetchedPage(decoder, outcome)
        yield page
        if page.next_link is not None:
            yield from self._client.fetched_after(decoder, page.next_link)

    def _get(self, decoder: PageDecoder) -> Get:
        params = {"$select": select_clause(decoder.table, decoder.column_names)}
        return Get(decoder.table.entity_set_name, params, self._client.paging)
