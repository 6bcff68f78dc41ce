"""Streams read at once: what is closed ends soon, also where a stream waits for streams of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

from d365sync.dataverse.gate import MonotonicTimer
from d365sync.sync.streams import side_by_side

LONG_S = 60


def test_closing_reaches_the_readers_within_readers() -> None:
    waiting = threading.Event()

    def inner() -> Iterator[int]:
        yield 1
        timer = MonotonicTimer()
        waiting.set()
        timer.wait_until(timer.now() + LONG_S)
        yield 2

    def outer() -> Iterator[int]:
        with closing(side_by_side([inner], workers=1)) as events:  # type: ignore[type-var]
            for event in events:
                if event.error is not None:
                    raise event.error
                if event.item is not None:
                    yield event.item

    timer = MonotonicTimer()
    began = timer.now()
    events = side_by_side([outer], workers=1)
    assert next(iter(events)).item == 1
    assert waiting.wait(10)
    events.close()  # type: ignore[attr-defined]
    assert timer.now() - began < LONG_S / 2
