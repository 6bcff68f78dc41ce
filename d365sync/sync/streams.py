"""Several streams read at once, taken one item at a time: the network waits in threads, storing happens in one place.

Every stream keeps its order; between streams the order is that of arrival. A few items are read ahead, so that the
next page is on its way while the present one is decoded and stored.

IO: threads.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from typing import Generic, TypeVar

from d365sync.dataverse.gate import check_stopped, interruptible

Item = TypeVar("Item")
PATIENCE_S = 0.2
"""How long a thread that cannot hand over waits before it looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Event(Generic[Item]):
    """What came from the stream of number ``source``: an item, its end (``item`` None), or its failure."""

    source: int
    item: Item | None = None
    error: BaseException | None = None


def side_by_side(
    sources: Sequence[Callable[[], Iterator[Item]]], *, workers: int, ahead: int = 1
) -> Iterator[Event[Item]]:
    """Read up to ``workers`` streams at a time and yield what comes; close it to stop them.

    A stream that fails yields its error as an event and ends; the others go on. ``ahead`` items wait at most, beside
    one that each thread holds.
    """
    crew = _Crew(sources, ahead)
    threads = [
        threading.Thread(target=copy_context().run, args=(crew.read,), daemon=True)
        for _ in range(min(workers, len(sources)))
    ]
    for thread in threads:
        thread.start()
    left = len(sources)
    try:
        while left:
            try:
                event = crew.arrived.get(timeout=PATIENCE_S)
            except queue.Empty:
                check_stopped()
                continue
            left -= event.item is None
            yield event
    finally:
        crew.stopped.set()
        for thread in threads:
            thread.join()


class _Crew(Generic[Item]):
    """What the threads share: the streams not begun, and what arrived."""

    def __init__(self, sources: Sequence[Callable[[], Iterator[Item]]], ahead: int) -> None:
        self._sources = sources
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for source in range(len(sources)):
            self._waiting.put(source)
        self.arrived: queue.Queue[Event[Item]] = queue.Queue(maxsize=max(ahead, 1))
        self.stopped = threading.Event()

    def read(self) -> None:
        """Read one stream after the other until there is none left; waits for the server end when it is stopped."""
        with interruptible(self.stopped):
            self._read()

    def _read(self) -> None:
        while not self.stopped.is_set():
            try:
                source = self._waiting.get_nowait()
            except queue.Empty:
                return
            self._deliver(self._drained(source))

    def _drained(self, source: int) -> Event[Item]:
        """Deliver the items of a stream; return its end, or its failure."""
        try:
            with closing(self._sources[source]()) as stream:  # type: ignore[type-var]
                for item in stream:
                    if not self._deliver(Event(source, item)):
                        break
        except BaseException as error:  # noqa: BLE001
            return Event(source, error=error)
        return Event(source)

    def _deliver(self, event: Event[Item]) -> bool:
        """Hand over; False when nobody takes it any more."""
        while not self.stopped.is_set():
            try:
                self.arrived.put(event, timeout=PATIENCE_S)
            except queue.Full:
                continue
            return True
        return False
