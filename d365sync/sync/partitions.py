"""The first load of a large table by ranges of ``createdon``, many at once.

Ranges of ``createdon`` are disjoint and no row moves between them: the column does not change after a row is made.
Ids cannot be compared by greater and less (Source: FetchXML condition operators, unique identifiers), and versions
grow with every change.

How many rows a table has is asked while its second page is on its way: only a large one is read by ranges. Where
changes are tracked, the delta link must be older than what the ranges show, so that nothing between is lost: but a
tracked load gives it with its last page only. The token of another table of the same organization, taken before, is
used instead.
Assumed: a delta token is the organization's row version and not the table's (the documented tokens are a version and an
instant). A server that refuses it costs a new load, page after page; one that answers sends what is newer, and a link.

IO: HTTP, through the client.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from d365sync.core.values import format_instant, parse_instant
from d365sync.dataverse.ahead import FetchedPage
from d365sync.dataverse.decoding import PageDecoder
from d365sync.dataverse.wire import decode_object
from d365sync.errors import BookmarkExpiredError, ProtocolError, RejectedError, RemoteError
from d365sync.sync.streams import side_by_side

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient

log = structlog.get_logger(__name__)

CREATED_ON = "createdon"
MORE = "more"
SECOND = dt.timedelta(seconds=1)
LARGE_PAGES = 10
"""Pages up to which page after page is as quick: ranges cost five requests, and the first two pages a second time."""
NOTHING = b'{"value":[]}'


@dataclass(frozen=True, slots=True)
class Span:
    """Rows made at or after ``first`` and before ``end``; None is without end."""

    first: dt.datetime
    end: dt.datetime | None

    @property
    def where(self) -> str:
        """The ``$filter`` of the span."""
        lower = f"{CREATED_ON} ge {format_instant(self.first)}"
        return lower if self.end is None else f"{lower} and {CREATED_ON} lt {format_instant(self.end)}"


class Spans:
    """The spans still to be read, shared by the readers: one that has nothing to do is given a part of another's."""

    def __init__(self, spans: list[Span]) -> None:
        self._waiting = spans
        self._state = threading.Condition()
        self._reading = 0
        self._hungry = 0
        self._stopped = False

    def take(self) -> Span | None:
        """Return a span to read, waiting for one; None when there is nothing left."""
        with self._state:
            self._hungry += 1
            self._state.wait_for(lambda: self._waiting or not self._reading or self._stopped)
            self._hungry -= 1
            if self._stopped or not self._waiting:
                self._state.notify_all()
                return None
            self._reading += 1
            return self._waiting.pop(0)

    def finish(self) -> None:
        """Say that a span taken was read to its end."""
        with self._state:
            self._reading -= 1
            self._state.notify_all()

    @property
    def are_wanted(self) -> bool:
        """Whether a reader waits that no span is left for."""
        with self._state:
            return self._hungry > len(self._waiting)

    def share(self, span: Span, reached: dt.datetime | None) -> Span | None:
        """Give the later half of what is left after ``reached`` to a reader that waits; return the half to go on with.

        None when nobody waits, or when the rest cannot be halved: seconds are not divided.
        """
        with self._state:
            if reached is None or span.end is None or reached <= span.first or self._hungry <= len(self._waiting):
                return None
            middle = (reached + (span.end - reached) / 2).replace(microsecond=0)
            if middle <= reached:
                return None
            self._waiting.append(Span(middle, span.end))
            self._state.notify_all()
            return Span(reached, middle)

    def stop(self) -> None:
        """Let every reader end."""
        with self._state:
            self._stopped = True
            self._state.notify_all()


class TokenNotSharedError(RejectedError):
    """Another table's token is not honoured: what was deleted while the ranges were read cannot be known."""


@dataclass(frozen=True, slots=True)
class PartitionedLoad:
    """The whole of a table; ``other_link`` is a delta link of any table, taken before: one that is tracked needs it."""

    client: DataverseClient
    decoder: PageDecoder
    workers: int
    other_link: str

    def pages(self) -> Iterator[FetchedPage]:
        """Yield every row at least once, in no order; the last page, and no other, has no next link.

        Raises:
            TokenNotSharedError: the rows yielded are of no use; read the table again, page after page.
        """
        tracked = self.decoder.table.change_tracking
        pages = self.client.fetched_rows(self.decoder, tracked=tracked)
        yield (page := next(pages))
        if page.next_link is None:
            return
        asking = ThreadPoolExecutor(1)
        large = asking.submit(copy_context().run, self._is_large)
        asking.shutdown(wait=False)
        for page in pages:
            yield page
            if page.next_link is None:
                return
            if large.done():
                break
        ends = self._ends() if large.result() else None
        if ends is None:
            yield from pages
            return
        log.info("load.partitioned", table=self.decoder.table.logical_name, workers=self.workers)
        yield from self._spans(*ends)
        yield from self._newer() if tracked else (FetchedPage(self.decoder, NOTHING),)

    def _is_large(self) -> bool:
        """Say whether ranges are worth their requests, as far as is known; asked while a page is on its way.

        Source: Count rows (RetrieveTotalRecordCount; its figure may be a day old, so one that is missing says nothing).
        """
        name = self.decoder.table.logical_name
        try:
            answer = self.client.get("RetrieveTotalRecordCount(EntityNames=@p1)", {"@p1": f'["{name}"]'})
            counts = decode_object(answer.body)["EntityRecordCountCollection"]
            rows = int(counts["Values"][counts["Keys"].index(name)])
        except (RemoteError, ProtocolError, LookupError, TypeError, ValueError) as error:
            log.info("count.unknown", table=name, reason=str(error))
            return True
        return rows > LARGE_PAGES * self.client.page_size

    def _newer(self) -> Iterator[FetchedPage]:
        """Yield what changed since the token was issued, and so the table's own link."""
        link = self.client.delta_link(self.decoder, self.other_link)
        try:
            yield from self.client.fetched_changes(self.decoder, link)
        except (BookmarkExpiredError, RejectedError) as error:
            raise TokenNotSharedError(str(error), status=error.status, code=error.code) from error

    def _ends(self) -> tuple[dt.datetime, dt.datetime] | None:
        """Return when the first and the last row were made, None when that cannot be told."""
        table = self.decoder.table
        if CREATED_ON not in table.columns:
            return None
        try:
            first, last = (self._end(order) for order in ("asc", "desc"))
        except (RejectedError, ProtocolError, LookupError, TypeError, ValueError, OverflowError) as error:
            log.warning("ends.unknown", table=table.logical_name, reason=str(error))
            return None
        return (first, last) if first <= last else None

    def _end(self, order: str) -> dt.datetime:
        """Return when the first row in this order was made."""
        params = {"$select": CREATED_ON, "$orderby": f"{CREATED_ON} {order}", "$top": "1"}
        params["$filter"] = f"{CREATED_ON} ne null"
        answer = self.client.get(self.decoder.table.entity_set_name, params)
        return parse_instant(str(decode_object(answer.body)["value"][0][CREATED_ON]))

    def _spans(self, first: dt.datetime, last: dt.datetime) -> Iterator[FetchedPage]:
        spans = Spans(divided(first, last, self.workers))
        readers = [lambda: self._read(spans)] * self.workers
        readers.append(lambda: self.client.fetched_rows(self.decoder, where=f"{CREATED_ON} eq null"))
        try:
            with closing(side_by_side(readers, workers=len(readers))) as events:  # type: ignore[type-var]
                for event in events:
                    if event.error is not None:
                        raise event.error
                    if event.item is not None:
                        yield event.item.followed_by(MORE)
        finally:
            spans.stop()

    def _read(self, spans: Spans) -> Iterator[FetchedPage]:
        while (span := spans.take()) is not None:
            try:
                yield from self._span(spans, span)
            finally:
                spans.finish()

    def _span(self, spans: Spans, span: Span) -> Iterator[FetchedPage]:
        order = f"{CREATED_ON} asc,{self.decoder.table.primary_id} asc"
        rest: Span | None = span
        while rest is not None:
            span, rest = rest, None
            for page in self.client.fetched_rows(self.decoder, where=span.where, order=order):
                if page.next_link is not None and spans.are_wanted:
                    rest = spans.share(span, last_made(page.body))
                yield page
                if rest is not None:
                    break


class _Made(msgspec.Struct, rename={"made": CREATED_ON}, gc=False):
    made: str | None = None


class _MadePage(msgspec.Struct, gc=False):
    value: list[_Made]


def last_made(body: bytes) -> dt.datetime | None:
    """Return when the last row of a page was made, None when it does not tell."""
    try:
        rows = msgspec.json.decode(body, type=_MadePage).value
        return parse_instant(rows[-1].made) if rows and rows[-1].made else None
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return None


def divided(first: dt.datetime, last: dt.datetime, parts: int) -> list[Span]:
    """Return spans that hold every instant from ``first`` on, in order; those up to ``last`` are of equal length."""
    step = max((last - first) / parts, SECOND)
    starts = sorted({(first + step * part).replace(microsecond=0) for part in range(parts)} | {last})
    starts = [start for start in starts if start <= last]
    return [Span(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
