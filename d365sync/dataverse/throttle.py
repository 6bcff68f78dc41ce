"""How many requests are under way at once: begins as the server advises, halves when it complains, grows slowly again.

Source: Send parallel requests (x-ms-dop-hint); Service protection API limits (52 at once, for each user).

IO: threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from d365sync.dataverse.gate import check_stopped

MOST = 24
"""Never more at once; well below the documented 52, which other programs of the same user share."""
UNADVISED = 8
"""Where it begins when the server gives no hint."""
GLANCE_S = 0.2


class Throttle:
    """A number of places that adapts: additive increase, multiplicative decrease. ``fixed`` 0 is: by the server."""

    def __init__(self, fixed: int = 0) -> None:
        self._most = min(fixed or MOST, MOST)
        self._limit = float(min(fixed or UNADVISED, MOST))
        self._advised = bool(fixed)
        self._places = threading.Condition()
        self._taken = 0
        self._round = 0

    @property
    def workers(self) -> int:
        """How many requests may be under way at once, now."""
        return int(self._limit)

    @contextmanager
    def place(self) -> Iterator[int]:
        """Hold one place; the value is to be handed to :meth:`complained`."""
        with self._places:
            while self._taken >= self.workers:
                self._places.wait(GLANCE_S)
                check_stopped()
            self._taken += 1
            round_ = self._round
        try:
            yield round_
        finally:
            with self._places:
                self._taken -= 1
                self._places.notify_all()

    def advised(self, hint: str) -> None:
        """Begin where the server's first hint says; later ones, and what is no number, change nothing."""
        text = hint.strip().replace(",", "").partition(".")[0]
        with self._places:
            if not self._advised and text.isascii() and text.isdigit() and int(text[:6]) > 0:
                self._advised = True
                self._limit = float(min(int(text[:6]), self._most))

    def succeeded(self) -> None:
        """Grow by one place for as many successes as there are places."""
        with self._places:
            self._limit = min(self._limit + 1 / self._limit, float(self._most))
            self._places.notify_all()

    def complained(self, round_: int) -> None:
        """Halve, once for all the requests that were under way together."""
        with self._places:
            if round_ == self._round:
                self._round += 1
                self._limit = max(1.0, self._limit / 2)
