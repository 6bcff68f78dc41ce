"""Many reads as one request: GETs in a ``$batch``, each answered by itself.

Source: Execute batch operations using the Web API (GET requests outside change sets, continue-on-error).

IO: HTTP, through the client.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import structlog

from d365sync.dataverse.ahead import FetchedPage
from d365sync.dataverse.batch import MOST_PARTS, Part, PartAnswer
from d365sync.dataverse.decoding import PageDecoder
from d365sync.dataverse.transport import HEADERS
from d365sync.dataverse.wire import error_of, select_clause
from d365sync.errors import RejectedError, RemoteError, RetryableError

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient

log = structlog.get_logger(__name__)

Outcome: TypeAlias = bytes | RemoteError
"""The body of one answer, or why there is none."""
OK = 200
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


def get_together(client: DataverseClient, gets: Sequence[Get]) -> list[Outcome]:
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
            outcomes.append(_alone(client, some[0]))
            continue
        outcomes += [
            _alone(client, get) if isinstance(outcome, RetryableError) else outcome
            for get, outcome in zip(some, _batch(client, some), strict=True)
        ]
    return outcomes


def _batch(client: DataverseClient, gets: Sequence[Get]) -> list[Outcome]:
    try:
        answers = client.batch([_part(get) for get in gets])
    except RejectedError as error:
        log.warning("batch.refused", reason=str(error))
        return [_alone(client, get) for get in gets]
    return [_outcome(get, one) for get, one in zip(gets, answers, strict=True)]


def _part(get: Get) -> Part:
    headers = {"Accept": HEADERS["Accept"], "If-None-Match": "null"}
    return Part("GET", get.address, {**headers, **({"Prefer": get.prefer} if get.prefer else {})})


def _outcome(get: Get, answer: PartAnswer) -> Outcome:
    if answer.status == OK:
        return answer.body
    return error_of(answer.status, answer.headers, answer.body, f"GET {get.path}")


def _alone(client: DataverseClient, get: Get) -> Outcome:
    try:
        return client.get(get.address, prefer=get.prefer).body
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
                self._outcomes = get_together(self._client, gets)
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
