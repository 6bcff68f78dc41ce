"""One world: an organization, a d365sync that is killed at one point, a person who edits meanwhile, and a restart.

A process leaves traces only by what it commits and what it sends. So the points at which killing it can make a
difference are those just before a commit and just before a request: each of them, counted through a whole cycle, is a
place to die. What a reader of the code would call a step lies between two of them.

Worlds are forked from a process in which everything is loaded and the organization is ready: they share nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import Connection, Engine, event

from d365sync.app import App, opened
from d365sync.emulator import Emulator
from d365sync.sync.cycle import CycleResult, Outcome
from tests.emulated import configuration, goal_values
from tests.integration.test_pull import assert_mirrored
from tests.kills.places import Files, Server
from tests.kills.relay import RelayAdapter, answering, put, take

Act = Callable[[Emulator], object]
Run = Callable[[App], object]
Flaw = Callable[[], None]
Sections = Mapping[str, Mapping[str, object]]
TYPED = "actualmoney"
READING = ("SELECT", "PRAGMA", "BEGIN", "EXPLAIN", "SHOW", "WITH", "ROLLBACK", "SAVEPOINT", "RELEASE")
CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens around the kill.

    ``steady`` cycles run first; then ``remote`` happens, then the cycle that is killed, then ``person`` edits
    the goals of the titles ``persons``, of which only ``actualmoney`` is judged: the rest may be from before or after.
    ``sections`` configures the line, ``flaw`` spoils it in the process that is killed (which the loop must notice).
    ``run`` is what is killed and run again, a cycle unless another is named; the last is always a cycle.
    With ``at``, only points whose description holds it are counted, and killed at.
    """

    load: Callable[[Path], Emulator]
    steady: int
    remote: Act
    person: Act
    persons: frozenset[str]
    sections: Sections = field(default_factory=dict)
    flaw: Flaw | None = None
    run: Run = field(default=lambda app: app.sync(write=True))
    at: str = ""


@dataclass(slots=True)
class Ended:
    """How a world ended: every goal's values, by title, how often we changed each goal, and the points passed."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: Counter[str] = field(default_factory=Counter)
    points: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Loop:
    """A scenario, its organization made ready once."""

    def __init__(self, scenario: Scenario, folder: Path, place: Files | Server) -> None:
        self.scenario = scenario
        self.place = place
        self.folder = folder
        self.emulator = scenario.load(folder)
        for _ in range(scenario.steady):
            self._cycle(self.folder, Ended())
        scenario.remote(self.emulator)
        self.expected = self.ended(None)

    def ended(self, kill_at: int | None) -> Ended:
        """Return how a world ends whose cycle is killed at a point, counted from 0; None lets it live."""
        ours, theirs = socket.socketpair()
        with ours:
            child = _forked(lambda: put(theirs, self._live(kill_at)), theirs, ours)
            ended: Ended = take(ours)
            os.waitpid(child, 0)
        return ended

    def judged(self, kill_at: int) -> list[str]:
        """Return what is wrong with the world that was killed at a point."""
        ended, expected = self.ended(kill_at), self.expected
        at = f"killed at {kill_at}, before {expected.points[kill_at]}" if kill_at < len(expected.points) else "?"
        found = list(ended.faults)
        for title, values in expected.values.items():
            if ended.values.get(title) != values:
                found.append(f"{title} holds {ended.values.get(title)}, not {values}")
        for title, count in ended.changes.items():
            if count > expected.changes[title]:
                found.append(f"{title} was changed {count} times by us, {expected.changes[title]} without the kill")
        return [f"{at}: {fault}" for fault in found]

    def _live(self, kill_at: int | None) -> Ended:
        ended = Ended()
        with tempfile.TemporaryDirectory() as name, self.place.copied(self.folder, folder := Path(name)):
            died = self._cycle(folder, ended, kill_at=-1 if kill_at is None else kill_at, flaw=self.scenario.flaw)
            if died != (kill_at is not None):
                ended.faults.append("it was not killed")
            self.scenario.person(self.emulator)
            self._cycle(folder, ended)
            self._cycle(folder, ended, last=True)
        for title, values in goal_values(self.emulator).items():
            ended.values[title] = {TYPED: values[TYPED]} if title in self.scenario.persons else values
        return ended

    def _sections(self, folder: Path) -> Sections:
        """Return the configuration of a line in a folder."""
        return {**self.scenario.sections, "storage": self.place.storage(folder)}

    def _cycle(
        self, folder: Path, ended: Ended, *, kill_at: int | None = None, last: bool = False, flaw: Flaw | None = None
    ) -> bool:
        """Run one cycle in a child; say whether it was killed. ``kill_at`` below 0 only counts the points."""
        ours, theirs = socket.socketpair()
        with ours:
            child = _forked(
                lambda: _lived(
                    self.emulator,
                    self._sections(folder),
                    folder,
                    theirs,
                    Points(kill_at, self.scenario.at),
                    None if last else self.scenario.run,
                    flaw,
                ),
                theirs,
                ours,
            )
            before = _versions(self.emulator)
            for _ in answering(ours, self.emulator.app):
                after = _versions(self.emulator)
                ended.changes.update(title for title, version in after.items() if before.get(title) != version)
                before = after
            _, status = os.waitpid(child, 0)
        report = folder / "report"
        if report.exists():
            told = report.read_text().splitlines()
            report.unlink()
            ended.faults += [line for line in told if not line.startswith("point ")]
            ended.points += [line.removeprefix("point ") for line in told if line.startswith("point ")]
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _versions(emulator: Emulator) -> dict[str, Any]:
    return {str(row["title"]): row.get("versionnumber") for row in emulator.store.rows("goal").values()}


def _forked(act: Callable[[], object], kept: socket.socket, dropped: socket.socket) -> int:
    """Fork a child that acts and ends; return its process id. ``kept`` stays open in it alone."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        kept.close()
        return child
    status = 1
    try:
        dropped.close()
        act()
        status = 0
    except BaseException:  # noqa: BLE001 - the child must never come back
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


class Points:
    """Counts the places to die, and dies at one."""

    def __init__(self, kill_at: int | None, at: str) -> None:
        self.passed: list[str] = []
        self.counts = kill_at is not None
        self._kill_at = kill_at
        self._at = at

    def executed(self, connection: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        """Note the last statement of a transaction that changes something."""
        if statement.split(None, 1)[0].upper() not in READING:
            connection.info[CHANGED] = " ".join(statement.split())[:60]

    def committing(self, connection: Connection) -> None:
        """Count a commit that changes something: others leave no trace."""
        if (what := connection.info.pop(CHANGED, None)) is not None:
            self.reached(f"the commit after {what}")

    def reached(self, what: str) -> None:
        """Count one, unless it is the last."""
        if self._at not in what:
            return
        if len(self.passed) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed.append(what)


def _lived(
    emulator: Emulator,
    sections: Sections,
    folder: Path,
    pair: socket.socket,
    points: Points,
    run: Run | None,
    flaw: Flaw | None,
) -> None:
    told: list[str] = []
    try:
        with _line(emulator, sections, folder, pair, points) as app:
            if flaw is not None:
                flaw()
            if run is None:
                told += _unquiet(app, emulator, app.sync(write=True))
            else:
                run(app)
    except Exception as error:  # noqa: BLE001 - told to the parent
        told.append(f"{type(error).__name__}: {error}")
        traceback.print_exc()
    if points.counts:
        told += [f"point {one}" for one in points.passed]
    (folder / "report").write_text("\n".join(told))


def _unquiet(app: App, emulator: Emulator, result: CycleResult) -> list[str]:
    """Return what should not be there when nothing has happened since the cycle before."""
    found = [f"still wants to write {one.title}: {one.changes}" for one in result.plan.writes]
    if result.outcome is not Outcome.OK:
        found.append(f"the last cycle ended {result.outcome.name}: {result.rollup.problems}")
    with suppress(AssertionError):
        assert_mirrored(app, emulator, result)
        return found
    return [*found, "the mirror does not hold what the organization holds"]


@contextmanager
def _line(emulator: Emulator, sections: Sections, folder: Path, pair: socket.socket, points: Points) -> Iterator[App]:
    config = configuration(emulator, folder, **{name: dict(keys) for name, keys in sections.items()})
    session = requests.Session()
    session.mount("https://", RelayAdapter(pair, points.reached))
    event.listen(Engine, "before_cursor_execute", points.executed)
    event.listen(Engine, "commit", points.committing)
    with opened(config, clock=emulator.clock.now, environ={}, session=session) as app:
        yield app
