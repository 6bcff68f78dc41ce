"""What the operating system asks of the service: to stop, or to read its configuration again.

The first SIGTERM or SIGINT (Ctrl+C; on Windows also Ctrl+Break) asks to stop, a second ends the process at once, with
128 and the signal's number. SIGHUP, where there is one, asks for a reload.

A handler runs between any two steps of the main thread, so it takes no lock: it puts a word into a queue, which the
loop takes out as it waits. Source: Python's queue module (SimpleQueue.put is reentrant).

IO: signals.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name))
RELOADS = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))
STOP, RELOAD, WAKE = "stop", "reload", "wake"


class Signals:
    """Words from outside, and one place to wait for them; ``end`` ends the process at once."""

    def __init__(self, end: Callable[[int], object] = os._exit) -> None:
        self.stopping = threading.Event()
        self._end = end
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stops = 0

    def ask(self, word: str) -> None:
        """Say something to whoever waits: STOP, RELOAD, or WAKE to have it look around; from any thread or handler."""
        self._words.put(word)

    def wait(self, seconds: float) -> set[str]:
        """Return what was said; wait for it so long, if nothing was."""
        said = set()
        with suppress(queue.Empty):
            said.add(self._words.get(timeout=max(seconds, 0)))
            while True:
                said.add(self._words.get_nowait())
        if STOP in said:
            self.stopping.set()
        return said

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take the process's signals within; only in its main thread."""
        before = {number: signal.signal(number, self._stop) for number in STOPS}
        before |= {number: signal.signal(number, self._reload) for number in RELOADS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._stops += 1
        if self._stops > 1:
            self._end(128 + number)
        self._words.put(STOP)

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self._words.put(RELOAD)
