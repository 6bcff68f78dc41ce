"""One environment at work: its databases, its lease, its cycles; nothing that goes wrong in it goes further.

A turn is what the loop gives it: build what is not built, hold the lease or stand by, run a cycle. Failures are logged
when their kind changes, and once more when they are over; in between they are counted.

IO: everything a cycle does; logs.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from d365sync.app import App, Clock, system_clock
from d365sync.config import Config
from d365sync.core.counts import counted
from d365sync.core.problems import Severity
from d365sync.core.schedule import NOTHING, Schedule
from d365sync.dataverse.gate import check_stopped, interruptible
from d365sync.dataverse.usage import Traffic
from d365sync.errors import D365SyncError, GuardError, LeaseLostError, RetryableError
from d365sync.service.ping import Pinger, nobody
from d365sync.service.state import SUCCESSES, ServiceState
from d365sync.service.tenure import Tenure, ttl_for
from d365sync.sync.pull import Watcher

if TYPE_CHECKING:
    from d365sync.sync.cycle import CycleResult

log = structlog.get_logger(__name__)

STANDBY, WAITING, STOPPED, REFUSED, FAILED = "standby", "waiting", "stopped", "refused", "failed"
RUNS_LOOKED_AT = 100
"""Runs of the journal in which the last cycle is looked for."""
CYCLES = ("run", "sync")
PROBLEMS_TOLD = 3
SERVER_FAILS = 500
FRESH_INTERVALS, SHORTEST_FRESH_S = 3, 900
"""How many intervals, and seconds at least, the last success may be old before an environment is not ready."""


@dataclass(frozen=True, slots=True)
class World:
    """What all environments share. ``build`` makes an application of a configuration, with the options of a line."""

    build: Callable[[Config, dict[str, Any]], App]
    state: ServiceState
    holder: str
    clock: Clock = system_clock
    timer: Callable[[], float] = time.monotonic
    pinger: Callable[[Config], Pinger] = field(default=lambda _config: nobody())


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn came to: an outcome of a cycle, or STANDBY, WAITING (until ``first_at``) or STOPPED.

    ``asked`` is how long the remote asked to wait.
    """

    outcome: str
    asked: dt.timedelta = NOTHING
    first_at: dt.datetime | None = None


class Worker:
    """One environment; one turn at a time, each in whatever thread."""

    def __init__(self, name: str, config: Config, world: World) -> None:
        self.name = name
        self.config = config
        self._world = world
        self._ended, self._lost, self._break = threading.Event(), threading.Event(), threading.Event()
        self._app: App | None = None
        self._before: Traffic | None = None
        self._stale = False
        self._begun = False
        self._kind = self._rid = ""
        self._pinger: Pinger | None = None
        self._tenure = self._new_tenure()

    @property
    def schedule(self) -> Schedule:
        """When its cycles are due."""
        return self.config.daemon.schedule(self.name, self.config.rollup.zone)

    @property
    def ttl(self) -> dt.timedelta:
        """How long its lease lasts unless it is renewed."""
        return self._tenure.ttl

    def turn(self) -> Turn:
        """Take a turn; whatever goes wrong is noted and told, never raised."""
        began, self._rid = self._world.timer(), str(uuid.uuid4())
        self._world.state.beat(self.name)
        self._lost.clear()
        self._break.clear()
        if self._ended.is_set():
            return Turn(STOPPED)
        with structlog.contextvars.bound_contextvars(environment=self.name), interruptible(self._break):
            try:
                return self._turn(began)
            except Exception as error:  # noqa: BLE001 - one environment's failure is no other's
                if isinstance(error, LeaseLostError) or self._lost.is_set():
                    return self._lost_it(began)
                if self._ended.is_set():
                    return self._stopped(began)
                return self._failed(error, began)
            finally:
                self._world.state.rest(self.name)

    def end(self) -> None:
        """Have the running turn end after its current page; later ones end at once."""
        self._ended.set()
        self._break.set()

    def give_back(self) -> None:
        """Give the lease back between two turns, so that another machine may take the next."""
        self._tenure.release()

    def renew(self, config: Config) -> None:
        """Work by another configuration, and read secrets again, from the next turn on."""
        self.config = config
        self._stale = True
        self._kind = ""

    def close(self, within_s: float = 0) -> None:
        """Give the lease back and close the databases; pings that wait are sent for so long."""
        self._close_pinger(within_s)
        self._let_go()

    # -- a turn ----------------------------------------------------------------------------------------------------

    def _turn(self, began: float) -> Turn:
        self._before = None
        if self._stale:
            self._let_go()
            self._stale, self._tenure = False, self._new_tenure()
            self._close_pinger()
        app = self._app = self._app or self._build()
        if not self._tenure.hold(app):
            return self._stand_by(app)
        self._note_lease()
        if not self._begun:
            self._begun = True
            first_at = self._first(app)
            if first_at is not None:
                return Turn(WAITING, first_at=first_at)
        return self._cycle(app, began)

    def _build(self) -> App:
        options = {
            "watcher": Watcher(on_rows=self._progress, on_table=self._progress),
            "on_plan": self._progress,
            "on_write": self._progress,
        }
        return self._world.build(self.config, options)

    def _progress(self, *_what: object) -> None:
        """Note that something came or went; the place where a cycle ends that was told to."""
        self._world.state.beat(self.name)
        check_stopped()

    def _first(self, app: App) -> dt.datetime | None:
        """Take up what the journal knows of earlier cycles; return when the first is due, None when that is now."""
        now = self._world.clock()
        runs = [run for run in app.line.journal.runs(RUNS_LOOKED_AT) if run.command in CYCLES]
        good = [run.finished_at for run in runs if run.outcome in SUCCESSES and run.finished_at]
        tables = {name: position.pulled_at for name, position in app.line.mirror.bookmarks().items()}
        self._world.state.update(self.name, last_success_at=max(good, default=None), tables=tables)
        first_at = self.schedule.first(max((run.started_at for run in runs), default=None), now)
        return first_at if first_at > now else None

    def _cycle(self, app: App, began: float) -> Turn:
        self._monitor().start(self._rid)
        log.debug("cycle.begun")
        self._world.state.update(self.name, running=True, last_started_at=self._world.clock())
        self._before = app.line.client.usage.since()
        result = app.sync(command="run", write=app.config.writeback.mode != "plan")
        self._monitor().success(self._rid)
        return self._done(result, began)

    def _cost(self) -> Mapping[str, int]:
        """Return what the cycle that is ending has cost so far; nothing where none began."""
        app, before = self._app, self._before
        return app.line.client.usage.since(before).counts if app is not None and before is not None else {}

    def _expiry(self) -> dict[str, Any]:
        """Return when what signs in ends."""
        app = self._app
        return {"token_expires_at": app.token_expires_at, "sign_in_until": app.sign_in_until} if app is not None else {}

    def _let_go(self) -> None:
        """Close what is open, so that the next turn builds it again, with the secrets that count then."""
        app, self._app = self._app, None
        self._tenure.release()
        if app is not None:
            app.close()

    def _monitor(self) -> Pinger:
        """Return what hears of the cycles; nobody while its trust anchors cannot be read, which is told elsewhere."""
        if self._pinger is None:
            try:
                self._pinger = self._world.pinger(self.config)
            except D365SyncError:
                return nobody()
        return self._pinger

    def _close_pinger(self, within_s: float = 0) -> None:
        pinger, self._pinger = self._pinger, None
        if pinger is not None:
            pinger.close(within_s)

    # -- the lease -------------------------------------------------------------------------------------------------

    def _new_tenure(self) -> Tenure:
        every = self.schedule.every if not self.schedule.cron else NOTHING
        fresh_for_s = max(FRESH_INTERVALS * every.total_seconds(), SHORTEST_FRESH_S) if every else None
        self._world.state.update(self.name, fresh_for_s=fresh_for_s)
        return Tenure(self._world.holder, ttl_for(every), self._world.clock, self._lose)

    def _lose(self) -> None:
        self._lost.set()
        self._break.set()

    def _note_lease(self) -> None:
        if self._world.state.environment(self.name).standby:
            log.info("lease.taken", epoch=self._tenure.epoch)
        self._world.state.update(self.name, standby=False, holder="", lease_epoch=self._tenure.epoch)

    def _stand_by(self, app: App) -> Turn:
        """Wait for whoever works here to end; say so when it begins."""
        before, holder = self._world.state.environment(self.name), self._tenure.whose(app)
        if (before.standby, before.holder) != (True, holder):
            log.info("lease.standby", holder=holder)
        self._begun = False
        self._world.state.update(self.name, standby=True, holder=holder, lease_epoch=None)
        return Turn(STANDBY)

    def _lost_it(self, began: float) -> Turn:
        """End a cycle whose lease another instance took, and stand by."""
        self._tenure.lose()
        self._begun = False
        log.warning("lease.lost", reason="another instance took it; nothing was stored since")
        self._end_cycle(began)
        self._world.state.update(self.name, standby=True, holder="another instance", lease_epoch=None)
        return Turn(STANDBY)

    # -- how it ended ----------------------------------------------------------------------------------------------

    def _done(self, result: CycleResult, began: float) -> Turn:
        state, now = self._world.state, self._world.clock()
        before = state.environment(self.name)
        outcome = result.outcome.name.lower()
        pulled = {pull.name: now for pull in result.pulls if not pull.reason}
        duration_s = self._world.timer() - began
        counts = dict(result.counts)
        tables = {**before.tables, **pulled}
        state.ended(self.name, outcome, now, counts=counts, duration_s=duration_s, tables=tables, **self._expiry())
        self._kind = ""
        if before.failures:
            log.info("environment.recovered", failures=before.failures, since=before.last_success_at)
        told = {key: counts[key] for key in ("changed_rows", "recomputed_goals", "written_goals", "requests")}
        log.info("cycle.done", run=result.run_id, outcome=outcome, duration_s=round(duration_s, 1), **told)
        if outcome == "partial" and before.last_outcome != outcome:
            blocking = [one.message for one in result.rollup.problems if one.severity is Severity.BLOCKING]
            left = len(blocking) - PROBLEMS_TOLD
            more = [f"and {counted(left, 'more problem')}"] if left > 0 else []
            log.warning("cycle.partial", run=result.run_id, problems=[*blocking[:PROBLEMS_TOLD], *more])
        return Turn(outcome)

    def _failed(self, error: Exception, began: float) -> Turn:
        outcome = REFUSED if isinstance(error, GuardError) else FAILED
        known = isinstance(error, D365SyncError)
        kind = _kind(error)
        message = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        state = self._world.state.ended(
            self.name,
            outcome,
            self._world.clock(),
            counts=self._cost(),
            error=error,
            duration_s=self._world.timer() - began,
            **self._expiry(),
        )
        if kind != self._kind:
            hint = {"mend": error.hint} if isinstance(error, D365SyncError) and error.hint else {}
            log.error("environment.failing", outcome=outcome, reason=message, **hint, exc_info=None if known else error)
        else:
            log.debug("environment.still_failing", failures=state.failures, reason=message)
        self._kind = kind
        self._monitor().fail(self._rid)
        if not isinstance(error, RetryableError):  # of what a guard stopped too: whoever accepts it needs the lease
            self._let_go()
        asked_s = error.retry_after_s if isinstance(error, RetryableError) else None
        return Turn(outcome, asked=dt.timedelta(seconds=asked_s or 0))

    def _stopped(self, began: float) -> Turn:
        self._end_cycle(began)
        return Turn(STOPPED)

    def _end_cycle(self, began: float) -> None:
        """Note that the running cycle, if there is one, was broken off."""
        if self._world.state.environment(self.name).running:
            duration_s = self._world.timer() - began
            log.info("cycle.stopped", duration_s=round(duration_s, 1))
            self._world.state.ended(self.name, STOPPED, self._world.clock(), duration_s=duration_s)


def _kind(error: Exception) -> str:
    """Return what counts as the same failure: a remote that is gone is gone, whichever of its parts did not answer."""
    status, code = getattr(error, "status", None), getattr(error, "code", "")
    if isinstance(error, RetryableError) and (status is None or status >= SERVER_FAILS):
        return "unreachable"
    return f"{type(error).__name__} {status} {code}"
