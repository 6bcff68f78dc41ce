"""The service in process: real cycles against emulators, a clock that moves only when told, turns taken at once."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests

from d365sync import app
from d365sync.config import Config
from d365sync.dataverse.gate import Timer
from d365sync.emulator import Emulator
from d365sync.service.environments import parse_all
from d365sync.service.loop import Loop, Outside, Running, Sharing
from d365sync.service.notify import Notifier
from d365sync.service.ping import Pinger
from d365sync.service.signals import Signals
from d365sync.service.state import EnvironmentState, ServiceState
from d365sync.service.worker import World
from tests import canary
from tests.emulated import NOW
from tests.scripted import VirtualTimer


class Time:
    """The wall's clock and the monotonic one; they move together unless the wall's is set."""

    def __init__(self, now: dt.datetime = NOW) -> None:
        self.now = now
        self.s = 1000.0

    def wall(self) -> dt.datetime:
        return self.now.replace(microsecond=0)

    def monotonic(self) -> float:
        return self.s

    def pass_by(self, seconds: float) -> None:
        self.s += seconds
        self.now += dt.timedelta(seconds=seconds)


class Done:
    """Work that was done at once."""

    def is_alive(self) -> bool:
        return False


def at_once(work: Callable[[], None], _name: str) -> Running:
    work()
    return Done()


@dataclass
class Held:
    """Work that is done when the test says so, by name."""

    work: dict[str, Callable[[], None]] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)

    def spawn(self, work: Callable[[], None], name: str) -> Running:
        if not name.startswith("cycle-"):
            return at_once(work, name)
        self.work[name] = work
        self.begun.append(name.removeprefix("cycle-"))
        return _Pending(self, name)

    def finish(self, name: str) -> None:
        self.work[f"cycle-{name}"]()
        del self.work[f"cycle-{name}"]


@dataclass
class _Pending:
    held: Held
    name: str

    def is_alive(self) -> bool:
        return self.name in self.held.work


class Pings:
    """What a monitor was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def of(self, _config: Config) -> Pinger:
        return self  # type: ignore[return-value]

    def start(self, _rid: str) -> None:
        self.told.append("start")

    def success(self, _rid: str) -> None:
        self.told.append("success")

    def fail(self, _rid: str) -> None:
        self.told.append("fail")

    def close(self, _within_s: float = 0) -> None:
        """Nothing waits."""


def described(emulators: Mapping[str, Emulator], folder: Path, **daemon: Any) -> dict[str, Any]:
    """Return the configuration of environments that are emulators."""
    environments = {}
    for name, emulator in emulators.items():
        credentials = emulator.credentials
        environments[name] = {
            "dataverse": {
                "url": f"https://{name}.test",
                "tenant_id": credentials.tenant_id,
                "client_id": credentials.client_id,
                "client_secret": canary.plant(credentials.client_secret, folder),
                "authority": f"https://{name}.test/{credentials.tenant_id}",
            }
        }
    return {"writeback": {"mode": "override"}, "daemon": daemon, "environments": environments}


class Service:
    """A loop over environments that are emulators, by the names of their hosts: ``https://NAME.test``."""

    def __init__(
        self,
        folder: Path,
        emulators: Mapping[str, Emulator],
        *,
        sessions: Mapping[str, requests.Session] | None = None,
        held: Held | None = None,
        notifier: Notifier | None = None,
        holder: str = "one",
        time: Time | None = None,
        document: dict[str, Any] | None = None,
        sharing: Sharing | None = None,
        serve: Callable[[Any], Any] | None = None,
        timer: Callable[[], Timer] = VirtualTimer,
        **daemon: Any,
    ) -> None:
        self.folder = folder
        self.time = time or Time()
        self.signals = Signals()
        self.pings = Pings()
        self.emulators = dict(emulators)
        self._sessions = sessions or {}
        self._timer = timer
        self.document = document or described(self.emulators, folder, **daemon)
        self.state = ServiceState(timer=self.time.monotonic)
        world = World(
            build=self._build,
            state=self.state,
            holder=holder,
            clock=self.time.wall,
            timer=self.time.monotonic,
            pinger=self.pings.of,
        )
        self._held = held
        outside = Outside(
            load=self.configs,
            check=partial(app.make_client, environ={}),
            spawn=held.spawn if held else at_once,
            notifier=notifier or Notifier(),
            sharing=sharing,
            serve=serve,
        )
        self.loop = Loop(self.configs(), world, outside, self.signals)

    def configs(self) -> Mapping[str, Config]:
        return parse_all(self.document, {}, folder=self.folder)

    def step(self, seconds: float = 0, *said: str) -> float:
        """Let time pass, then turn the loop as often as something happens at once; return for how long it may sleep."""
        self.time.pass_by(seconds)
        rest = self.loop.step(set(said))
        while self.signals.wait(0):
            rest = self.loop.step()
        return rest

    def renew(self, name: str = "east") -> None:
        """Renew a lease, as its thread does by real time."""
        self.loop._entries[name].worker._tenure.renew()

    def __enter__(self) -> Service:
        self.loop.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._held:
            self._held.work.clear()
        self.loop.stop()

    def of(self, name: str = "east") -> EnvironmentState:
        return self.state.environment(name)

    def _build(self, config: Config, options: dict[str, Any]) -> app.App:
        name = config.dataverse.url.removeprefix("https://").removesuffix(".test")
        session = self._sessions.get(name) or self.emulators[name].session()
        return app.build(
            config,
            clock=self.time.wall,
            real_clock=self.time.wall,
            environ={},
            session=session,
            line_options=options,
            timer=self._timer(),
        )


def logged(*names: str) -> list[dict[str, Any]]:
    """Return what was logged under these names."""
    events = [json.loads(line) for line in canary.log.getvalue().splitlines() if line.startswith("{")]
    return [event for event in events if event["event"] in names]
