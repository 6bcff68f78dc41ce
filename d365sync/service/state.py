"""What the service knows about itself at this moment: written by the loop, read by health checks and metrics.

IO: a lock, and the machine's monotonic clock unless another is given.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from d365sync.errors import GuardError

SUCCESSES = ("ok", "partial")
STOPPED = "stopped"
PATIENCE_S = 60.0
"""How long the loop itself may go without a beat; it turns several times a minute whatever the environments do."""


@dataclass(frozen=True, slots=True)
class EnvironmentState:
    """One environment at one moment. Instants are UTC; None means not yet.

    ``last_started_at`` and ``last_ended_at`` are of the last cycle begun, and of the last that ended, however it did;
    ``last_success_at`` is when the last cycle that ended ``ok`` or ``partial`` did. ``last_outcome`` is that of the
    last cycle, in lower case: ok, partial, refused, failed, stopped. ``last_error`` is its message, empty after a
    success; ``error_kind`` the name of its class. ``failures`` counts failed cycles in a row, ``cycles`` all that ended
    since the start. ``next_at`` is when the next one is due. ``standby`` says that another instance works here:
    ``holder``. ``tables`` is when each table was last read, ``counts`` the last successful cycle in numbers.

    Since the start: ``totals`` are the sums of the numbers of all cycles, ``outcomes`` how many ended in which way,
    ``guard_stops`` how many a guard stopped. ``fresh_for_s`` is how old the last success may be before the environment
    counts as not ready; None: until three cycles in a row failed. ``token_expires_at`` is the end of the access token
    in use, ``sign_in_until`` that of the certificate that signs in; None where there is none, or it is not known.
    """

    name: str
    running: bool = False
    standby: bool = False
    holder: str = ""
    lease_epoch: int | None = None
    cycles: int = 0
    failures: int = 0
    last_started_at: dt.datetime | None = None
    last_ended_at: dt.datetime | None = None
    last_success_at: dt.datetime | None = None
    last_outcome: str | None = None
    last_error: str = ""
    error_kind: str = ""
    next_at: dt.datetime | None = None
    tables: Mapping[str, dt.datetime] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    guard_stops: int = 0
    last_duration_s: float | None = None
    fresh_for_s: float | None = None
    token_expires_at: dt.datetime | None = None
    sign_in_until: dt.datetime | None = None


class ServiceState:
    """All environments, and when each part of the service last made progress; any thread may use it.

    The loop beats for itself, each cycle for its environment: as pages arrive, goals are planned and written. Times of
    progress are seconds of a monotonic clock, never of the wall's.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        patience_s: float = PATIENCE_S,
        cycle_patience_s: float = 3600,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.patience_s = patience_s
        self.cycle_patience_s = cycle_patience_s
        self._timer = timer
        self._lock = threading.Lock()
        self._states = {name: EnvironmentState(name) for name in names}
        self._loop_beat = timer()
        self._beats: dict[str, float] = {}

    def environments(self) -> tuple[EnvironmentState, ...]:
        """Return every environment as it is now, in the order of the configuration."""
        with self._lock:
            return tuple(self._states.values())

    def environment(self, name: str) -> EnvironmentState:
        """Return one environment as it is now.

        Raises:
            KeyError: it is not, or no longer, one of the service's.
        """
        with self._lock:
            return self._states[name]

    def keep(self, names: Iterable[str]) -> None:
        """Have these environments from now on; those that stay keep their state."""
        with self._lock:
            self._states = {name: self._states.get(name, EnvironmentState(name)) for name in names}

    def update(self, name: str, **changes: Any) -> EnvironmentState:
        """Change fields of an environment, and return it; one that was removed meanwhile stays away."""
        with self._lock:
            changed = replace(self._states.get(name, EnvironmentState(name)), **changes)
            if name in self._states:
                self._states[name] = changed
            return changed

    def ended(
        self,
        name: str,
        outcome: str,
        at: dt.datetime,
        *,
        counts: Mapping[str, int] | None = None,
        error: Exception | None = None,
        duration_s: float | None = None,
        **changes: Any,
    ) -> EnvironmentState:
        """Note that a cycle ended: ``outcome`` as :class:`EnvironmentState` spells it, ``counts`` what it did and cost.

        ``counts`` of a cycle that failed are what it cost until then. ``error`` is what ended it; further ``changes``
        are fields of the environment.
        """
        before = self._states.get(name, EnvironmentState(name))
        success = outcome in SUCCESSES
        counts = counts or {}
        noted: dict[str, Any] = {
            "running": False,
            "cycles": before.cycles + 1,
            "failures": 0 if success else before.failures + (outcome != STOPPED),
            "last_ended_at": at,
            "last_outcome": outcome,
            "last_error": str(error) if error else "",
            "error_kind": type(error).__name__ if error else "",
            "last_duration_s": duration_s,
            "totals": {key: before.totals.get(key, 0) + counts.get(key, 0) for key in {**before.totals, **counts}},
            "outcomes": {**before.outcomes, outcome: before.outcomes.get(outcome, 0) + 1},
            "guard_stops": before.guard_stops + isinstance(error, GuardError),
        }
        if success:
            noted |= {"last_success_at": at, "counts": counts}
        self.rest(name)
        return self.update(name, **noted, **changes)

    def beat(self, name: str | None = None) -> None:
        """Note progress: of the cycle of an environment, or of the loop itself."""
        with self._lock:
            if name is None:
                self._loop_beat = self._timer()
            else:
                self._beats[name] = self._timer()

    def rest(self, name: str) -> None:
        """Note that no cycle of an environment runs any more: nothing is expected of it."""
        with self._lock:
            self._beats.pop(name, None)

    def silence_s(self, name: str) -> float:
        """Return for how long the running cycle of an environment has shown no progress; 0 when none runs."""
        with self._lock:
            return self._timer() - self._beats.get(name, self._timer())

    def is_alive(self, now: float | None = None) -> bool:
        """Say whether the loop and every running cycle made progress lately; ``now`` is in the timer's seconds."""
        with self._lock:
            at = self._timer() if now is None else now
            if at - self._loop_beat > self.patience_s:
                return False
            return all(at - beat <= self.cycle_patience_s for beat in self._beats.values())
