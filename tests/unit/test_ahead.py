from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable

import pytest

from d365sync.core.rowshape import RowShape
from d365sync.core.schema import Column, ColumnType, Table
from d365sync.dataverse.ahead import FetchedPage, Lookahead
from d365sync.dataverse.decoding import PageDecoder
from d365sync.dataverse.gate import interruptible
from d365sync.errors import ProtocolError, RetryableError

KEY = Column("thingid", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True)
DECODER = PageDecoder(RowShape(Table("thing", "things", "thingid", "thingid", {"thingid": KEY}), (KEY,)))
PAGE = (
    b'{"value":[{"@odata.etag":"1","thingid":"00000000-0000-0000-0000-000000000001"}],"@odata.nextLink":"https://x/y"}'
)


def fetch() -> bytes:
    return PAGE


def started(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_a_page_is_decoded_once_and_then_waits_no_longer() -> None:
    ahead = Lookahead()
    page = ahead.page(DECODER, fetch)
    assert (page.next_link, ahead.waiting_bytes) == ("https://x/y", len(PAGE))
    decoded = page.decoded()
    assert (len(decoded.rows), decoded.next_link, decoded.size_bytes) == (1, "https://x/y", len(PAGE))
    assert (page.body, ahead.waiting_bytes) == (b"", 0)
    with pytest.raises(ProtocolError):
        page.decoded()


def test_no_more_is_fetched_than_there_is_room_for() -> None:
    ahead = Lookahead(most_bytes=3 * len(PAGE))
    waiting = [ahead.page(DECODER, fetch) for _ in range(3)]
    further: list[FetchedPage] = []
    thread = started(lambda: further.append(ahead.page(DECODER, fetch)))
    time.sleep(0.05)
    assert (further, ahead.waiting_bytes) == ([], 3 * len(PAGE))
    waiting.pop().decoded()
    thread.join(5)
    assert (len(further), ahead.waiting_bytes) == (1, 3 * len(PAGE))


def test_pages_on_their_way_count_as_much_as_the_largest() -> None:
    ahead = Lookahead(most_bytes=2 * len(PAGE))
    ahead.page(DECODER, fetch).decoded()
    expected: list[int] = []

    def slowly() -> bytes:
        expected.append(ahead.waiting_bytes)
        time.sleep(0.05)
        return PAGE

    threads = [started(lambda: ahead.page(DECODER, slowly).decoded()) for _ in range(6)]
    for thread in threads:
        thread.join(5)
    assert len(expected) == 6
    assert max(expected) == 2 * len(PAGE)
    assert ahead.waiting_bytes == 0


def test_a_page_larger_than_all_room_comes_alone() -> None:
    ahead = Lookahead(most_bytes=1)
    for _ in range(2):
        assert ahead.page(DECODER, fetch).decoded().rows


def test_what_fails_or_is_dropped_does_not_wait() -> None:
    def failing() -> bytes:
        raise RetryableError("busy", status=503)

    ahead = Lookahead()
    page = ahead.page(DECODER, fetch)
    with pytest.raises(RetryableError):
        ahead.page(DECODER, failing)
    assert ahead.waiting_bytes == len(PAGE)
    del page
    gc.collect()
    assert ahead.waiting_bytes == 0
    broken = ahead.page(DECODER, lambda: b'{"value":')
    with pytest.raises(ProtocolError):
        broken.decoded()
    assert ahead.waiting_bytes == 0


def test_a_page_with_another_link_is_the_same_page() -> None:
    ahead = Lookahead()
    page = ahead.page(DECODER, fetch)
    other = page.followed_by("more")
    assert (page.body, page.next_link, ahead.waiting_bytes) == (b"", "https://x/y", len(PAGE))
    del page
    assert ahead.waiting_bytes == len(PAGE)
    assert (other.decoded().next_link, ahead.waiting_bytes) == ("more", 0)


def test_waiting_for_room_can_be_broken_off() -> None:
    ahead, stop = Lookahead(most_bytes=1), threading.Event()
    kept = ahead.page(DECODER, fetch)
    failures: list[str] = []

    def wait() -> None:
        with interruptible(stop), pytest.raises(RetryableError) as caught:
            ahead.page(DECODER, fetch)
        failures.append(str(caught.value))

    thread = started(wait)
    stop.set()
    thread.join(5)
    assert len(failures) == 1
    assert kept.body
