"""When to send a request again, and how long to wait before.

Source: Service protection API limits (Retry-After, then exponential).

IO: waits.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from d365sync.dataverse.gate import MonotonicTimer, Timer
from d365sync.errors import RetryableError

SPREAD = 0.05
"""Of a wait that the server asked for, this share at most is added, so that workers do not all come back at once."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently.

    ``budget_s`` is the time after its beginning beyond which no attempt of a request starts: a longer ``Retry-After``
    is not waited for. ``longest_s`` is the most one wait may take unless the server asks for more. Waits without
    ``Retry-After`` are drawn evenly between 0 and 2**attempt seconds (full jitter). ``retries`` is how many repeats
    all requests together may use up; each success gives a tenth of one back.
    """

    attempts: int = 8
    budget_s: float = 300
    longest_s: float = 60
    retries: int = 200
    timer: Timer = field(default_factory=MonotonicTimer)
    chance: Callable[[float, float], float] = field(default=random.uniform)

    def wait_s(self, error: RetryableError, attempt: int) -> float:
        """Return how long to wait after the ``attempt``-th failure, from 1."""
        if error.retry_after_s:
            return error.retry_after_s * (1 + self.chance(0, SPREAD))
        return self.chance(0, min(self.longest_s, 2.0**attempt))


class Repeats:
    """How many repeats are left to all requests together; thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = float(most)
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Use one up, if one is left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def succeeded(self) -> None:
        """Give a tenth of one back."""
        with self._lock:
            self._left = min(self._left + 0.1, self._most)
