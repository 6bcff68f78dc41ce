"""The loop of the service: starts the turns that are due, hears what is asked of it, and tells how it fares.

One thread turns the loop, several times a minute and whenever something happens; every turn of an environment has a
thread of its own, so none that fails, waits or hangs holds up another. At most ``daemon.at_once`` run at a time, those
due the longest first; one that has shown no progress for half a minute leaves its place to another meanwhile.

Instants of the schedule are the wall clock's, which may jump; rests after failures are the monotonic clock's.

IO: threads, signals, sockets; all else through the workers.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from d365sync.config import Config
from d365sync.core.counts import counted
from d365sync.core.schedule import back_off, in_words
from d365sync.core.values import format_instant
from d365sync.errors import ConfigError, D365SyncError
from d365sync.service.notify import Notifier
from d365sync.service.signals import RELOAD, WAKE, Signals
from d365sync.service.state import EnvironmentState
from d365sync.service.worker import FAILED, REFUSED, STANDBY, Turn, Worker, World

log = structlog.get_logger(__name__)

TICK_S = 5.0
"""The longest the loop sleeps: after a suspend, or a jump of the clock, it notices within so much."""
LENT_S = 30.0
"""After so long without progress a cycle's place is another's."""
TELL_S = 30.0
"""How often systemd hears of long first loads when it has no watchdog."""
SERVE_AGAIN_S = 30.0
"""How often it is tried to answer health checks where somebody else listens."""
CLOSING_S = 5.0
"""How long databases may take to close, and pings to leave, at the end."""


class Server(Protocol):
    """What answers health checks."""

    def close(self) -> None:
        """Stop answering."""


class Sharing(Protocol):
    """What shares environments with other machines: offered cycles are run by one of them, perhaps this one."""

    def begin(self, run: Callable[[str], object]) -> None:
        """Give ``run`` names of environments whose cycle is to be run here, in threads, from now on."""

    def offer(self, name: str, due_at: dt.datetime) -> None:
        """Offer a cycle that is due since an instant."""

    def close(self, within_s: float) -> None:
        """Take no more; wait so long for what runs here."""


class Running(Protocol):
    """A turn under way."""

    def is_alive(self) -> bool:
        """Say whether it is still under way."""


def in_thread(work: Callable[[], None], name: str) -> Running:
    """Do work in a thread that does not keep the process alive."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


@dataclass(slots=True)
class Entry:
    """An environment in the loop.

    It is due at ``next_at`` by the wall clock; while ``rests_until``, in monotonic seconds, is set, then instead.
    ``due_since`` is when it was found due, in monotonic seconds; ``began_at`` when its last turn began, by the wall's.
    """

    worker: Worker
    next_at: dt.datetime
    rests_until: float | None = None
    due_since: float | None = None
    began_at: dt.datetime | None = None
    running: Running | None = None
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Outside:
    """What the loop works with. ``load`` reads the configuration again; ``check`` raises if one cannot be used.

    ``serve`` answers health checks as the configuration says. ``spawn`` does work beside the loop. ``sharing``, if
    there is one, decides which machine runs what.
    """

    load: Callable[[], Mapping[str, Config]]
    check: Callable[[Config], object] = field(default=lambda _config: None)
    serve: Callable[[Config], Server] | None = None
    spawn: Callable[[Callable[[], None], str], Running] = in_thread
    notifier: Notifier = field(default_factory=Notifier)
    sharing: Sharing | None = None


class Loop:
    """All environments of a configuration."""

    def __init__(self, configs: Mapping[str, Config], world: World, outside: Outside, signals: Signals) -> None:
        self._world = world
        self._outside = outside
        self._signals = signals
        self._whole = next(iter(configs.values()))
        self._server: Server | None = None
        self._serve_at: float | None = None
        self._told_at = 0.0
        self._status = ""
        self._leaving: list[Entry] = []
        self._giving = threading.Lock()
        world.state.keep(configs)
        self._entries = {name: self._entry(name, config) for name, config in configs.items()}

    def run(self) -> bool:
        """Work until told to stop; False if something had to be left unfinished.

        Raises:
            ConfigError: none of the environments can be used.
        """
        with self._signals.handled():
            self.start()
            said: set[str] = set()
            while not self._signals.stopping.is_set():
                said = self._signals.wait(self.step(said))
            return self.stop()

    def start(self) -> None:
        """Check the configuration, answer health checks, and say that the service is ready."""
        configs = {name: entry.worker.config for name, entry in self._entries.items()}
        faults = self._unusable(configs)
        if len(faults) == len(configs):
            raise ConfigError("; ".join(faults.values()), problems=list(faults.values()))
        self._try_to_serve()
        for name, entry in self._entries.items():
            log.info(
                "environment.begun",
                environment=name,
                url=entry.worker.config.dataverse.url,
                due=in_words(entry.worker.schedule),
            )
        if self._outside.sharing is not None:
            self._outside.sharing.begin(self._given)
        self._outside.notifier.ready(self._in_one_line())
        log.info("service.ready", environments=len(configs))

    def step(self, said: set[str] | frozenset[str] = frozenset()) -> float:
        """Look at everything once; return for how many seconds at most nothing is to be done."""
        if RELOAD in said:
            self.reload()
        now, at = self._world.clock(), self._world.timer()
        for entry in self._entries.values():
            self._settle(entry, now, at)
        if self._serve_at is not None and at >= self._serve_at:
            self._try_to_serve()
        self._leaving = [entry for entry in self._leaving if not self._left(entry)]
        self._start_due(now, at)
        self._world.state.beat()
        self._tell(at)
        return self._rest_s(now, at)

    # -- turns -----------------------------------------------------------------------------------------------------

    def _entry(self, name: str, config: Config) -> Entry:
        return Entry(Worker(name, config, self._world), self._world.clock())

    def _settle(self, entry: Entry, now: dt.datetime, at: float) -> None:
        """Plan the next turn of an environment whose turn has ended, or whose clock has been set back."""
        schedule = entry.worker.schedule
        if entry.running is not None and entry.running.is_alive():
            return
        if entry.running is not None:
            turn, entry.running, entry.turn = entry.turn, None, None
            entry.next_at = (turn and turn.first_at) or schedule.due_after(entry.began_at or now)
            rest = self._rest_after(entry.worker, turn)
            if turn is not None and turn.outcome == REFUSED:
                rest = max(rest or dt.timedelta(0), entry.next_at - now)
            entry.rests_until = at + rest.total_seconds() if rest else None
        entry.next_at = schedule.planned(entry.next_at, now)
        due_at = entry.next_at if entry.rests_until is None else now + dt.timedelta(seconds=entry.rests_until - at)
        self._world.state.update(entry.worker.name, next_at=due_at.replace(microsecond=0))

    def _rest_after(self, worker: Worker, turn: Turn | None) -> dt.timedelta | None:
        """Return how long an environment rests, whatever its schedule says; None when its schedule counts."""
        if turn is None or turn.outcome in (FAILED, REFUSED):
            failures = max(1, self._world.state.environment(worker.name).failures)
            return back_off(failures, turn.asked if turn else dt.timedelta(0))
        return worker.ttl / 2 if turn.outcome == STANDBY else None

    def _start_due(self, now: dt.datetime, at: float) -> None:
        """Start what is due, the longest due first, as long as there is a place."""
        waiting = []
        for entry in self._entries.values():
            due = entry.next_at <= now if entry.rests_until is None else entry.rests_until <= at
            if due and entry.running is None:
                entry.due_since = at if entry.due_since is None else entry.due_since
                waiting.append(entry)
        waiting.sort(key=lambda entry: entry.due_since or 0.0)
        if self._outside.sharing is not None:
            for entry in waiting:
                self._offer(entry, self._outside.sharing, now)
            return
        for entry in waiting[: max(0, self._whole.daemon.at_once - self._busy())]:
            self._begin(entry)

    def _begin(self, entry: Entry) -> None:
        def work() -> None:
            try:
                entry.turn = entry.worker.turn()
            finally:
                self._signals.ask(WAKE)

        entry.due_since, entry.rests_until, entry.began_at = None, None, self._world.clock()
        self._world.state.beat(entry.worker.name)
        entry.running = self._outside.spawn(work, f"cycle-{entry.worker.name}")

    def _offer(self, entry: Entry, sharing: Sharing, now: dt.datetime) -> None:
        due_at = entry.next_at if entry.rests_until is None else now
        entry.due_since, entry.rests_until = None, None
        entry.next_at = entry.worker.schedule.due_after(now)
        sharing.offer(entry.worker.name, due_at)

    def _given(self, name: str) -> None:
        """Take a turn that the queue gave to this machine; the lease goes back at once: the next may be another's."""
        entry = self._entries.get(name)
        if entry is None:
            log.warning("environment.unknown", environment=name, mend="give all machines the same configuration")
            return
        with self._giving:
            if entry.running is not None and entry.running.is_alive():
                log.warning("cycle.running", environment=name, reason="the queue gave it once more; it goes on once")
                return
            entry.began_at, entry.running = self._world.clock(), threading.current_thread()
        turn, done = None, _Ended()
        try:
            turn = entry.worker.turn()
            entry.worker.give_back()
        finally:
            entry.turn, entry.running = turn, done
            self._signals.ask(WAKE)

    def _busy(self) -> int:
        state = self._world.state
        running = [one for one in self._entries.values() if one.running is not None and one.running.is_alive()]
        return sum(state.silence_s(one.worker.name) < LENT_S for one in running)

    def _rest_s(self, now: dt.datetime, at: float) -> float:
        rests = [TICK_S, self._tell_every() / 2]
        for entry in self._entries.values():
            if entry.running is None and entry.due_since is None:
                left = (entry.next_at - now).total_seconds() if entry.rests_until is None else entry.rests_until - at
                rests.append(left)
        return max(0.01, min(rests))

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell_every(self) -> float:
        return self._outside.notifier.watchdog_s / 2 or TELL_S

    def _tell(self, at: float) -> None:
        """Tell systemd: the watchdog is fed only while everything that runs makes progress."""
        states = self._world.state.environments()
        status = self._in_one_line()
        if status != self._status:
            self._status = status
            self._outside.notifier.status(status)
        if at - self._told_at >= self._tell_every() and self._world.state.is_alive():
            self._told_at = at
            first_load = any(one.running and one.last_success_at is None for one in states)
            self._outside.notifier.alive(extend_s=4 * self._tell_every() if first_load else 0)

    def _in_one_line(self) -> str:
        states = self._world.state.environments()
        words = "; ".join(_said(one) for one in states[:5])
        return f"{counted(len(states), 'environment')}: {words}" + ("; …" if len(states) > 5 else "")

    # -- reload ----------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again: a usable one replaces the present, another is refused with every fault."""
        self._outside.notifier.reloading()
        try:
            configs = self._outside.load()
            faults = list(self._unusable(configs).values())
            if faults:
                raise ConfigError("; ".join(faults), problems=faults)
            self._serve(next(iter(configs.values())))
        except D365SyncError as error:
            for problem in getattr(error, "problems", ()) or [str(error)]:
                log.error("configuration.refused", fault=problem)
            log.warning("configuration.kept")
        else:
            self._take_over(configs)
            log.info("configuration.loaded", environments=len(configs))
        self._outside.notifier.ready(self._in_one_line())

    def _take_over(self, configs: Mapping[str, Config]) -> None:
        """Work by other configurations: running cycles end by the old one, those of removed environments at once."""
        now = self._world.clock()
        self._whole = next(iter(configs.values()))
        for name in self._entries.keys() - configs.keys():
            entry = self._entries.pop(name)
            entry.worker.end()
            self._leaving.append(entry)
            log.info("environment.removed", environment=name)
        self._world.state.keep(configs)
        kept = self._entries
        self._entries = {name: kept.get(name) or self._entry(name, config) for name, config in configs.items()}
        for name, entry in kept.items():
            entry.worker.renew(configs[name])
            failing = self._world.state.environment(name).failures
            entry.next_at = now if failing else entry.worker.schedule.due_after(now)
            entry.rests_until = None

    def _left(self, entry: Entry) -> bool:
        """Close an environment that was removed, once its last turn has ended."""
        if entry.running is not None and entry.running.is_alive():
            return False
        self._outside.spawn(partial(_close, entry.worker), f"close-{entry.worker.name}")
        return True

    def _unusable(self, configs: Mapping[str, Config]) -> dict[str, str]:
        """Return what is wrong with environments that cannot even be tried, such as a secret that is not there."""
        faults = {}
        for name, config in configs.items():
            try:
                self._outside.check(config)
            except D365SyncError as error:
                faults[name] = f"environment {name}: {error}" if len(configs) > 1 else str(error)
        return faults

    def _try_to_serve(self) -> None:
        """Answer health checks if the address is free, such as not that of an instance that works here already."""
        try:
            self._serve(self._whole)
        except ConfigError as error:
            if self._serve_at is None:
                log.warning("service.unseen", reason=str(error), mend=error.hint)
            self._serve_at = self._world.timer() + SERVE_AGAIN_S
        else:
            self._serve_at = None

    def _serve(self, config: Config) -> None:
        """Answer health checks as a configuration says; what answered before ends, first only if at the same address.

        Raises:
            ConfigError: the address cannot be used; what answered elsewhere before goes on.
        """
        before, listen = self._whole, config.daemon.listen
        same = (config.daemon, config.health) == (before.daemon, before.health)
        if self._outside.serve is None or (self._server is not None and same):
            return
        if self._server is not None and listen == before.daemon.listen:
            self._server.close()
            self._server = None
        server = self._outside.serve(config) if listen else None
        if self._server is not None:
            self._server.close()
        self._server = server

    # -- the end ---------------------------------------------------------------------------------------------------

    def stop(self) -> bool:
        """End every cycle after its current page, give leases back, close; False if a cycle had to be left behind."""
        within_s = self._whole.daemon.stop_within
        self._outside.notifier.stopping(within_s + CLOSING_S)
        log.info("service.stopping")
        entries = [*self._entries.values(), *self._leaving]
        for entry in entries:
            entry.worker.end()
        until = self._world.timer() + within_s
        while (left := self._running(entries)) and self._world.timer() < until:
            self._signals.wait(min(0.5, until - self._world.timer()))
        for entry in left:
            log.warning("cycle.abandoned", environment=entry.worker.name, after_s=within_s)
        if self._outside.sharing is not None:
            self._outside.sharing.close(CLOSING_S)
        self._close(entries)
        if self._server is not None:
            self._server.close()
        log.info("service.stopped")
        return not left

    def _running(self, entries: list[Entry]) -> list[Entry]:
        return [entry for entry in entries if entry.running is not None and entry.running.is_alive()]

    def _close(self, entries: list[Entry]) -> None:
        """Close all at the same time; one that hangs is not waited for."""
        closing = [
            self._outside.spawn(partial(_close, entry.worker), f"close-{entry.worker.name}") for entry in entries
        ]
        until = self._world.timer() + CLOSING_S
        while any(one.is_alive() for one in closing) and self._world.timer() < until:
            self._signals.wait(0.05)


class _Ended:
    """A turn that is over."""

    def is_alive(self) -> bool:
        """Say that it is not under way."""
        return False


def _close(worker: Worker) -> None:
    worker.close(CLOSING_S / 2)


def _said(state: EnvironmentState) -> str:
    if state.standby:
        return f"{state.name} stands by"
    if state.running:
        return f"{state.name} runs"
    if state.failures:
        return f"{state.name} failed {counted(state.failures, 'time')}"
    if state.last_success_at is None:
        return f"{state.name} begins"
    return f"{state.name} {state.last_outcome or 'ok'} at {format_instant(state.last_success_at)}"
