"""Service protection: how much each user may ask for within the last minutes, and what is left of it.

Three limits per user: requests and combined execution time within a sliding window, and requests at once. A batch
is one request; its execution time counts in full. Source: Service protection API limits. What the documents leave
open is in :class:`~d365sync.emulator.settings.ServiceLimits`.

Pure (one lock).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from d365sync.emulator.refuse import Refusal
from d365sync.emulator.settings import ServiceLimits

TOO_MANY = "0x80072322"
TOO_LONG = "0x80072321"
TOO_MANY_AT_ONCE = "0x80072326"
REQUESTS_LEFT = "x-ms-ratelimit-burst-remaining-xrm-requests"
SECONDS_LEFT = "x-ms-ratelimit-time-remaining-xrm-requests"


@dataclass(slots=True)
class Spent:
    """One request that counts: when it came, the execution time it took, and whether the window has left it behind."""

    at_s: float
    took_ms: int = 0
    forgotten: bool = False


@dataclass(slots=True)
class _User:
    """What one user has asked for within the window, oldest first, and how many requests run now."""

    spent: deque[Spent] = field(default_factory=deque)
    took_ms: int = 0
    running: int = 0


class Protection:
    """Counts requests by user, by seconds that ``now_s`` tells."""

    def __init__(self, limits: ServiceLimits, now_s: Callable[[], float]) -> None:
        self.limits = limits
        self._now_s = now_s
        self._users: dict[str, _User] = {}
        self._lock = threading.Lock()

    @contextmanager
    def request(self, user: str) -> Iterator[Spent]:
        """Count one request of a user while the block runs; the block notes in ``took_ms`` what it took.

        Raises:
            Refusal: 429, one of the limits is reached; ``Retry-After`` says when there is room.
        """
        with self._lock:
            asked = self._users.setdefault(user, _User())
            spent = self._admit(asked)
            asked.running += 1
        try:
            yield spent
        finally:
            with self._lock:
                asked.running -= 1
                asked.took_ms += 0 if spent.forgotten else spent.took_ms

    def left(self, user: str) -> dict[str, str]:
        """Return the headers that tell what is left to a user; none for a limit that is off.

        The time has thousands separators and two decimals, as captured from a real service.
        """
        with self._lock:
            asked = self._users.get(user, _User())
            self._forget(asked)
            headers: dict[str, str] = {}
            if self.limits.requests is not None:
                headers[REQUESTS_LEFT] = str(max(0, self.limits.requests - len(asked.spent)))
            if self.limits.execution_ms is not None:
                left_ms = max(0, self.limits.execution_ms - asked.took_ms)
                headers[SECONDS_LEFT] = f"{left_ms // 10 / 100:,.2f}"
        return headers

    def _admit(self, asked: _User) -> Spent:
        self._forget(asked)
        spent = Spent(self._now_s())
        most, at_once = self.limits.requests, self.limits.concurrent
        too_many = most is not None and len(asked.spent) >= most
        too_long = self.limits.execution_ms is not None and asked.took_ms >= self.limits.execution_ms
        crowded = at_once is not None and asked.running >= at_once
        if self.limits.refused_count or not (too_many or too_long or crowded):
            asked.spent.append(spent)
        if crowded:
            raise _refused(TOO_MANY_AT_ONCE, self.limits, self.limits.concurrent_retry_after_s)
        if too_many:
            raise _refused(TOO_MANY, self.limits, self._until_fewer(asked, most or 0))
        if too_long:
            raise _refused(TOO_LONG, self.limits, self._until_shorter(asked))
        return spent

    def _forget(self, asked: _User) -> None:
        """Drop what the window has left behind."""
        since = self._now_s() - self.limits.window_s
        while asked.spent and asked.spent[0].at_s <= since:
            gone = asked.spent.popleft()
            gone.forgotten = True
            asked.took_ms -= gone.took_ms

    def _until_fewer(self, asked: _User, most: int) -> int:
        """Return the seconds until fewer than ``most`` requests are within the window."""
        last = asked.spent[max(0, len(asked.spent) - most)] if most else asked.spent[-1]
        return self._until(last)

    def _until_shorter(self, asked: _User) -> int:
        """Return the seconds until the execution time within the window is below the limit."""
        left_ms = asked.took_ms
        for one in asked.spent:
            left_ms -= one.took_ms
            if left_ms < (self.limits.execution_ms or 0):
                return self._until(one)
        return self.limits.window_s

    def _until(self, one: Spent) -> int:
        return max(1, math.ceil(one.at_s + self.limits.window_s - self._now_s()))


def limit_message(code: str, limits: ServiceLimits) -> str:
    """Return what the service says when a limit is reached. Source: Service protection API limits."""
    window = f"over time window of {limits.window_s} seconds."
    if code == TOO_MANY:
        return f"Number of requests exceeded the limit of {limits.requests} {window}"
    if code == TOO_MANY_AT_ONCE:
        return f"Number of concurrent requests exceeded the limit of {limits.concurrent}."
    return (
        f"Combined execution time of incoming requests exceeded limit of {limits.execution_ms:,} milliseconds {window} "
        "Decrease number of concurrent requests or reduce the duration of requests and try again later."
    )


def _refused(code: str, limits: ServiceLimits, retry_after_s: int) -> Refusal:
    return Refusal(429, code, limit_message(code, limits), {"Retry-After": str(retry_after_s)})
