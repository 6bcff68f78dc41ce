"""What requests cost: counted exactly, from any thread, and told as differences of two moments.

IO: none (a lock).
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Traffic:
    """The cost of some requests.

    ``bytes`` are bodies received, decompressed; ``received_bytes`` the same as transferred; ``sent_bytes`` bodies sent.
    ``operations`` is what counts against the daily entitlement: each part of a batch and each record of a bulk call.
    ``answers`` are numbers of requests by method and status ("GET 200"; "GET none" when no answer came).
    Source: Requests limits and allocations.
    """

    requests: int = 0
    operations: int = 0
    bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    retries: int = 0
    throttled_s: float = 0
    answers: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> Mapping[str, int]:
        """The same in whole numbers, for the journal and for programs; seconds are rounded up."""
        whole = {name: getattr(self, name) for name in COUNTED if name != "throttled_s"}
        return {**whole, "throttled_s": math.ceil(self.throttled_s), **dict(sorted(self.answers.items()))}


COUNTED = ("requests", "operations", "bytes", "received_bytes", "sent_bytes", "retries", "throttled_s")


class Usage:
    """What a client has cost so far; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, float] = dict.fromkeys(COUNTED, 0)
        self._answers: Counter[str] = Counter()

    def add(self, answer: str = "", **amounts: float) -> None:
        """Add amounts by the names of :class:`Traffic`; ``answer`` is one of its ``answers``."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount
            if answer:
                self._answers[answer] += 1

    @property
    def requests(self) -> int:
        """Requests sent so far, also those without an answer."""
        return int(self._sums["requests"])

    @property
    def bytes(self) -> int:
        """Bytes of bodies received so far, decompressed."""
        return int(self._sums["bytes"])

    def since(self, earlier: Traffic | None = None) -> Traffic:
        """Return what was added since an earlier moment, or at all; the result is itself such a moment only at first.

        Take a moment with ``since()``, and later ask ``since(moment)``.
        """
        before = earlier or Traffic()
        with self._lock:
            sums = {name: self._sums[name] - getattr(before, name) for name in COUNTED}
            answers = self._answers - Counter(before.answers)
        seconds = sums.pop("throttled_s")
        return Traffic(**{name: int(sum_) for name, sum_ in sums.items()}, throttled_s=seconds, answers=answers)
