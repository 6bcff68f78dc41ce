"""When to send a request again, and how long to wait before.

Source: Service protection API limits (Retry-After, then exponential).

IO: sleeps.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay

from d365sync.errors import RetryableError

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently.

    ``budget_s`` is the time beyond which no attempt starts: a longer ``Retry-After`` is not waited for.
    ``longest_s`` is the most one wait may take unless the server asks for more. Waits without ``Retry-After`` are drawn
    evenly between 0 and 2**attempt seconds.
    """

    attempts: int = 8
    budget_s: float = 300
    longest_s: float = 60
    sleep: Callable[[float], None] = field(default=time.sleep)
    chance: Callable[[float, float], float] = field(default=random.uniform)

    def run(self, send: Callable[[], T], *, again: Callable[[RetryableError], bool]) -> T:
        """Call ``send`` until it succeeds, ``again`` says no, or attempts and budget are used up.

        Raises:
            RetryableError: the last failure. Any other exception at once.
        """
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, RetryableError) and again(error)),
            wait=self._wait,
            stop=stop_after_attempt(self.attempts) | stop_before_delay(self.budget_s),
            sleep=self.sleep,
            before_sleep=_tell,
            reraise=True,
        )
        return retrying(send)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, RetryableError) else None
        jitter = self.chance(0, min(self.longest_s, 2.0**state.attempt_number))
        return asked + self.chance(0, 1) if asked is not None else jitter


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait_s = round(state.next_action.sleep, 1) if state.next_action else 0
    log.info("request.retry", attempt=state.attempt_number, wait_s=wait_s, reason=str(error))
