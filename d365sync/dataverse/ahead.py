"""Pages fetched and not yet decoded: many threads fetch, one taker decodes, and what lies between them is bounded.

Python's interpreter lock lets one thread compute at a time: decoding in the threads that fetch is no faster, and makes
whoever stores wait. So pages stay as they came until they are stored, and all threads together fetch only as much ahead
as a number of bytes allows, however many pages and however wide the rows.

IO: threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from d365sync.dataverse.decoding import PageDecoder, StoredPage, links_of
from d365sync.dataverse.gate import check_stopped

MOST_BYTES = 40 * 1024 * 1024
"""Bytes of pages, fetched or on their way, beyond which no further one is asked for."""
GLANCE_S = 0.2


class Lookahead:
    """How many bytes wait to be decoded; a page on its way counts as much as the largest so far."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._waiting = 0
        self._largest = 0
        self._state = threading.Condition(threading.RLock())

    @property
    def waiting_bytes(self) -> int:
        """Bytes fetched, or expected, and not yet decoded."""
        return self._waiting

    def page(self, decoder: PageDecoder, fetch: Callable[[], bytes]) -> FetchedPage:
        """Fetch a page as soon as there is room for it; there always is for one.

        Raises:
            RetryableError: the wait was broken off.
            whatever ``fetch`` raises.
        """
        expected = self._expect()
        try:
            body = fetch()
        except BaseException:
            self.give_back(expected)
            raise
        with self._state:
            self._largest = max(self._largest, len(body))
            self.give_back(expected - len(body))
        return FetchedPage(decoder, body, self)

    def give_back(self, size_bytes: int) -> None:
        """Note that so many bytes wait no longer."""
        with self._state:
            self._waiting -= size_bytes
            self._state.notify_all()

    def _expect(self) -> int:
        with self._state:
            while self._waiting and self._waiting + self._largest > self._most:
                self._state.wait(GLANCE_S)
                check_stopped()
            self._waiting += self._largest
            return self._largest


class FetchedPage:
    """A page as it came, to be decoded once by whoever takes it."""

    def __init__(self, decoder: PageDecoder, body: bytes, ahead: Lookahead | None = None) -> None:
        self.body = body
        self._decoder = decoder
        self._ahead = ahead
        links = links_of(body)
        self.next_link, self.delta_link = links.next or None, links.delta or None

    def followed_by(self, next_link: str) -> FetchedPage:
        """Return the page with another next link; this one is empty then."""
        other = FetchedPage(self._decoder, b"", self._ahead)
        other.body, other.next_link = self.body, next_link
        self.body, self._ahead = b"", None
        return other

    def decoded(self) -> StoredPage:
        """Decode it, and let go of the bytes; ``next_link`` of the result is this page's.

        Raises:
            ProtocolError: see :meth:`PageDecoder.read`.
        """
        return replace(self._decoder.read(self._let_go()), next_link=self.next_link)

    def _let_go(self) -> bytes:
        body, ahead = self.body, self._ahead
        self.body, self._ahead = b"", None
        if ahead is not None:
            ahead.give_back(len(body))
        return body

    def __del__(self) -> None:
        """A page that nobody decoded waits no longer either."""
        self._let_go()
