"""The gate before every request of one identity: shut for everybody while the server asks for patience.

The limits are per user, so one worker's 429 concerns all of them; pushing on lengthens the throttling. Beside it the
circuit: when a server does nothing but fail, further requests fail at once instead of each trying for itself.

What is held back here was not sent; its error has status 429 or 503, which say that nothing was carried out.

Source: Service protection API limits.

IO: waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from d365sync.errors import RetryableError, StoppedError

_stop: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


class Timer(Protocol):
    """A clock that never jumps, and waiting by it."""

    def now(self) -> float:
        """Return the time in seconds from some beginning."""

    def wait_until(self, at: float) -> None:
        """Return at that time or later.

        Raises:
            RetryableError: the wait was broken off; see :func:`interruptible`.
        """


class MonotonicTimer:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return the time in seconds from some beginning."""
        return time.monotonic()

    def wait_until(self, at: float) -> None:
        """Wait; whoever sets the event of :func:`interruptible` breaks it off."""
        event = _stop.get() or threading.Event()
        check_stopped()
        while (left := at - self.now()) > 0:
            event.wait(left)
            check_stopped()


@contextmanager
def interruptible(event: threading.Event) -> Iterator[None]:
    """Let waits and further attempts of this thread (or context) end as soon as the event is set."""
    token = _stop.set(event)
    try:
        yield
    finally:
        _stop.reset(token)


def check_stopped() -> None:
    """Go on, unless this thread was told to stop.

    Raises:
        StoppedError: it was.
    """
    event = _stop.get()
    if event is not None and event.is_set():
        raise StoppedError("given up before it was sent: the work it belongs to was told to end", status=503)


class Gate:
    """Open, or shut until a time."""

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._lock = threading.Lock()
        self._opens_at = timer.now()

    def shut(self, seconds: float) -> float:
        """Shut for so many seconds from now, unless it is shut for longer; return by how many seconds that is more."""
        with self._lock:
            now = self._timer.now()
            more = now + seconds - max(now, self._opens_at)
            self._opens_at = max(self._opens_at, now + seconds)
        return max(0.0, more)

    def pass_through(self, give_up_at: float) -> None:
        """Return when the gate is open: at once, or after a wait that was not lengthened meanwhile.

        Raises:
            RetryableError: it will not open before ``give_up_at``, or the wait was broken off.
        """
        while True:
            check_stopped()
            with self._lock:
                now, opens_at = self._timer.now(), self._opens_at
            if opens_at <= now:
                return
            if opens_at > give_up_at:
                raise RetryableError(
                    f"Dataverse asks to send nothing for another {opens_at - now:.0f} s, "
                    "longer than dataverse.retry_budget allows",
                    status=429,
                    retry_after_s=opens_at - now,
                    hint="try again after that time, or raise dataverse.retry_budget",
                )
            self._timer.wait_until(opens_at)


class Circuit:
    """Counts failures in a row, over all threads; open after too many, until one trial succeeds."""

    def __init__(self, timer: Timer, *, failures: int = 12, rest_s: float = 30) -> None:
        self._timer = timer
        self._most = failures
        self._rest_s = rest_s
        self._lock = threading.Lock()
        self._failures = 0
        self._trial_at = 0.0

    def check(self) -> None:
        """Go on, unless the circuit is open; after its rest one trial at a time passes.

        Raises:
            RetryableError: it is open.
        """
        with self._lock:
            if self._failures < self._most:
                return
            now = self._timer.now()
            if now >= self._trial_at:
                self._trial_at = now + self._rest_s
                return
        raise RetryableError(
            f"Dataverse failed {self._most} times in a row; nothing is sent for {self._rest_s:.0f} s",
            status=503,
            hint="see whether the service or the network is down, then try again",
        )

    def failed(self) -> None:
        """Note that the server failed, or did not answer."""
        with self._lock:
            self._failures += 1
            if self._failures == self._most:
                self._trial_at = self._timer.now() + self._rest_s

    def answered(self) -> None:
        """Note that the server answered, be it with a refusal or with a request for patience."""
        with self._lock:
            self._failures = 0
