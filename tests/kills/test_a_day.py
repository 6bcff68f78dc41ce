"""Days of a service under attack: two instances, one of them paused now and then in the middle of a request, on a
network that fails in every way the fault list knows, with people, the platform's own rollup and sellers at work.

In the end nothing is lost, nothing is doubled and no person's edit is overwritten: the mirror holds what the
organization holds, every goal that no person took over holds what the platform itself makes of the records, and the
journal knows every write as ours.
"""

from __future__ import annotations

import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.adapters import BaseAdapter

from d365sync.core.goals.writes import SkipReason
from d365sync.dataverse.gate import check_stopped
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import InProcessAdapter
from d365sync.emulator.native import recalculate
from tests.effort import EFFORT, examples
from tests.emulated import goal_values
from tests.integration.test_line import load
from tests.integration.test_pull import assert_mirrored
from tests.properties.pushes import GOALS, Careless, Wild, World
from tests.service import Service, Time, described, logged

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOURS = 3
STEP_S = 300
FAULTS = (
    Fault("*", chance=0.02, seed="a", status=503, retry_after=7),
    Fault("*", chance=0.02, seed="b", status=429, retry_after=3, code="0x80072322"),
    Fault("GET *", chance=0.02, seed="c", cut_after_bytes=90),
    Fault("GET *", chance=0.02, seed="d", close="after"),
    Fault("GET opportunities*", chance=0.1, seed="e", duplicate_page=True),
    Fault("GET opportunities*", chance=0.1, seed="f", reverse_page=True),
    Fault("GET opportunities*", chance=0.05, seed="g", expire_delta=True),
    Fault("*", chance=0.02, seed="h", expire_token=True),
    Fault("GET *", chance=0.01, seed="i", status=200, body="<html>", content_type="text/html"),
)
Mutate = Callable[["WSGIApplication"], "WSGIApplication"]
FATES = ("well", "well", "well", "lost", "late", "answer", "503", "cut")


class Shared(Time):
    """One time for both instances, their clients and the organization; waiting moves it too."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self._emulator = emulator
        self._turn = threading.RLock()

    def pass_by(self, seconds: float) -> None:
        with self._turn:
            super().pass_by(seconds)
            self._emulator.clock.freeze(max(self.now, self._emulator.clock.exactly()))
            self.now = self._emulator.clock.exactly()

    def wait_until(self, at: float) -> None:
        """Let time pass, for a client that waits."""
        check_stopped()
        with self._turn:
            self.pass_by(max(0.0, at - self.s))


@dataclass(frozen=True, slots=True)
class Waiting:
    """The shared time as clients know it."""

    time: Shared

    def now(self) -> float:
        return self.time.s

    def wait_until(self, at: float) -> None:
        self.time.wait_until(at)


@dataclass
class Network(BaseAdapter):
    """What lies between an instance and the organization; ``pause`` is done, rarely, while a request is on its way.

    Sign-ins, which go straight to ``direct``, fail only with the whole network: MSAL remembers failures by real time.
    """

    inner: InProcessAdapter
    direct: InProcessAdapter
    dice: random.Random
    dead_until: float = 0
    calm: bool = False
    asked: int = 0
    pause: Any = None
    pauses: int = 0
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self.asked += 1
        self.heard.append(unquote(str(request.url)))
        if not self.calm and self.pause is not None and self.dice.random() < 0.01:
            self.pauses += 1
            self.pause()
        if not self.calm and self.dead_until:
            raise requests.ConnectionError("the network is down")
        signs_in = "/oauth2/" in str(request.url)
        return (self.direct if signs_in else self.inner).send(request, *args, **options)

    def close(self) -> None:
        """Nothing is held open."""

    def session(self) -> requests.Session:
        session = requests.Session()
        session.mount("https://", self)
        return session


@dataclass
class Day:
    """Two instances and everything around them."""

    seed: int
    folder: Path
    mutate: Mutate
    storage: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        (self.folder / "org").mkdir()
        self.emulator = load(self.folder)
        native = replace(self.emulator.store.settings, native_rollup=True)
        self.emulator.store.settings = native
        self.world = World(self.emulator, self.dice, FATES)
        self.wild = Wild(self.world)
        faults = [replace(fault, seed=f"{fault.seed}{self.seed}") for fault in FAULTS]
        self.faulty = FaultyApp(self.mutate(self.wild), faults)
        self.time = Shared(self.emulator)
        self.networks = [
            Network(InProcessAdapter(self.faulty), InProcessAdapter(self.emulator.app), self.dice) for _ in range(2)
        ]

    def service(self, number: int) -> Service:
        """Return one of the two instances."""
        document = described({"east": self.emulator}, self.folder, every="5m", listen="")
        document |= {"rollup": {"double_counting": "off"}, "dataverse": {"retry_budget": "60s"}}
        if self.storage:
            document["storage"] = dict(self.storage)
        return Service(
            self.folder,
            {"east": self.emulator},
            sessions={"east": self.networks[number].session()},
            holder=f"instance {number}",
            time=self.time,
            document=document,
            timer=lambda: Waiting(self.time),
        )

    def live(self, hours: int) -> Counter[str]:
        """Live through it; return what happened, and leave the organization quiet and judged."""
        happened: Counter[str] = Counter()
        with ExitStack() as stack:
            one, two = (stack.enter_context(self.service(number)) for number in range(2))
            services = [one, two]
            for network, other in zip(self.networks, (two, one), strict=True):
                network.pause = lambda other=other: self.paused(other)
            for _ in range(hours * 3600 // STEP_S):
                self.weather()
                self.time.pass_by(STEP_S)
                self.dice.shuffle(services)
                for service in services:
                    service.step()
                    service.renew()
                    self.world.check()
            happened["takeovers"] = max(service.of().lease_epoch or 0 for service in services) - 1
            happened["pauses"] = sum(network.pauses for network in self.networks)
            happened["struck"] = sum(self.faulty.struck)
            happened["cycles"] = sum(service.of().cycles for service in services)
            self.settle(services)
            self.judge(services)
        return happened

    def weather(self) -> None:
        """Let the network die for a while, now and then."""
        for network in self.networks:
            if network.dead_until and self.time.s >= network.dead_until:
                network.dead_until = 0
            elif not network.dead_until and self.dice.random() < 0.03:
                network.dead_until = self.time.s + self.dice.choice([600, 1800, 5400])

    def paused(self, other: Service) -> None:
        """Let an instance stand still in the middle of a request, while the other goes on for longer than a lease."""
        pauses = [network.pause for network in self.networks]
        for network in self.networks:
            network.pause = None
        for _ in range(self.dice.choice([1, 4])):
            self.time.pass_by(STEP_S)
            other.step()
        for network, pause in zip(self.networks, pauses, strict=True):
            network.pause = pause

    def settle(self, services: list[Service]) -> None:
        """Let everything calm down."""
        while self.wild.late:
            self.wild.arrive()
        self.wild.quiet = True
        for network in self.networks:
            network.calm = True
        self.faulty._faults = ()
        for _ in range(12):
            self.time.pass_by(STEP_S)
            for service in services:
                service.step()

    def judge(self, services: list[Service]) -> None:
        """Look at what is left.

        Raises:
            AssertionError: something was lost, doubled or overwritten.
        """
        self.world.check()
        working = [service for service in services if not service.of().standby]
        assert len(working) == 1, "one works, the other stands by"
        app = working[0].loop._entries["east"].worker._app
        assert app is not None
        result = app.sync(write=True)
        assert result.plan.is_empty, "nothing is left to write"
        assert_mirrored(app, self.emulator, result)
        alone = {skip.goal_id for skip in result.plan.skips if skip.reason is SkipReason.OVERRIDDEN}
        assert self.world.theirs.keys() <= alone <= self.world.theirs.keys() | self.world.unclear, "whose is whose"
        theirs = {str(self.world.row(goal)["title"]) for goal in alone}
        held = goal_values(self.emulator)
        assert {title: held[title] for title in held.keys() - theirs} == {
            title: values for title, values in self.native(alone).items() if title not in theirs
        }

    def native(self, theirs: set[str]) -> dict[str, Any]:
        """Let the platform roll up with no overrides but persons'; return what the goals hold then."""
        store = self.emulator.store
        for goal in GOALS:
            if goal not in theirs:
                store.change("goal", goal, {"isoverridden": False})
        recalculate(store, GOALS[0], store.settings, self.emulator.clock.now())
        return goal_values(self.emulator)


def lived(seed: int, hours: int, mutate: Mutate = lambda app: app, **storage: str) -> Counter[str]:
    with tempfile.TemporaryDirectory() as name:
        return Day(seed, Path(name), mutate, storage).live(hours)


@settings(max_examples=examples(1), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_whatever_happens_for_hours_nothing_is_lost_doubled_or_overwritten(seed: int) -> None:
    lived(seed, HOURS)


def test_such_hours_have_everything_in_them() -> None:
    happened = lived(1, 2 * HOURS)
    assert happened["takeovers"] >= 2
    assert happened["pauses"] >= 2
    assert happened["struck"] >= 20
    assert happened["cycles"] >= 2 * HOURS * 6


@pytest.mark.postgresql
def test_the_same_on_postgresql(postgresql_url: str) -> None:
    lived(7, HOURS if EFFORT <= 1 else 24, mirror=postgresql_url, journal=postgresql_url)


def test_the_judge_finds_writes_that_are_not_conditional() -> None:
    with pytest.raises(AssertionError):
        live_many(range(20))


def live_many(seeds: Iterable[int]) -> None:
    for seed in seeds:
        lived(seed, HOURS, Careless)


def test_a_network_that_is_dead_for_longer_than_delta_links_live_costs_a_full_reload_and_nothing_else(
    tmp_path: Path,
) -> None:
    day = Day(3, tmp_path, lambda app: app)
    day.wild.quiet = True
    day.faulty._faults = ()
    links: list[str] = []
    with day.service(0) as service:
        service.step()
        before = goal_values(day.emulator)
        day.networks[0].dead_until = float("inf")
        for _ in range(8 * 24):
            day.time.pass_by(3600)
            service.step()
        assert service.of().failures > 24
        assert goal_values(day.emulator) == before
        day.emulator.store.remove("opportunity", sorted(day.emulator.store.rows("opportunity"))[0])
        day.networks[0].dead_until = 0
        day.networks[0].heard = links
        for _ in range(3):
            day.time.pass_by(3600)
            service.step()
        assert service.of().failures == 0
        assert any("opportunities?$select" in link and "deltatoken" not in link for link in links), "loaded in full"
        day.judge([service])
    assert len(logged("environment.failing")) == len(logged("environment.recovered")) == 1
