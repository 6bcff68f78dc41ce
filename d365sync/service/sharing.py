"""Sharing environments with other machines: the loop offers what is due here, and is given what to run.

The queue may be gone for a while: what runs goes on, what comes due is offered again when the queue is back (the last
instant of each environment counts), and the log says it once.

IO: SQL, through the queue; threads.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from d365sync.service.jobs import Jobs

log = structlog.get_logger(__name__)

LONGEST_REST_S = 30.0
"""Between two attempts to reach a queue that is gone."""
Run = Callable[[str], object]


class Shared:
    """One machine's part; ``join`` joins the queue for whatever runs a cycle by the name of its environment."""

    def __init__(self, join: Callable[[Run], Jobs], at_once: int, *, first_rest_s: float = 1) -> None:
        self._join = join
        self._at_once = at_once
        self._wait = wait_random_exponential(multiplier=first_rest_s, max=LONGEST_REST_S)
        self._offers: dict[str, dt.datetime] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False

    def begin(self, run: Run) -> None:
        """Join the queue, and run what it gives in threads from now on.

        Raises:
            ConfigError: the queue cannot be used.
        """
        jobs = self._join(run)
        self._thread = threading.Thread(target=self._work, args=(jobs,), name="queue", daemon=True)
        self._thread.start()

    def offer(self, name: str, due_at: dt.datetime) -> None:
        """Have some machine run the cycle of an environment that is due since an instant."""
        with self._lock:
            self._offers[name] = due_at

    def close(self, within_s: float) -> None:
        """Take no more; wait so long for what runs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(within_s)

    def _work(self, jobs: Jobs) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type(Exception),
            stop=stop_when_event_set(self._stop),
            wait=self._wait,
            sleep=sleep_using_event(self._stop),
            before_sleep=self._note_failure,
            retry_error_callback=lambda _state: None,
        )
        retrying(jobs.work, self._taken, self._stop, at_once=self._at_once)

    def _taken(self) -> list[tuple[str, dt.datetime]]:
        """Return what was offered since; that it is asked for shows that the queue works."""
        if self._failing:
            self._failing = False
            log.info("queue.recovered")
        with self._lock:
            offers, self._offers = self._offers, {}
        return list(offers.items())

    def _note_failure(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if not self._failing:
            log.error(
                "queue.failing", reason=str(error) or type(error).__name__, mend="see the database of daemon.queue"
            )
        self._failing = True
