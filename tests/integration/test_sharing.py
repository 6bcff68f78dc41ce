"""The service on several machines: each due cycle runs on one of them; a queue that is gone stops nobody for good."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from d365sync.service.jobs import Jobs, Patience
from d365sync.service.sharing import Shared
from tests.emulated import NOW, goal_values
from tests.integration.test_jobs import eventually
from tests.integration.test_line import load
from tests.integration.test_service_loop import Wire
from tests.service import Service, Time, logged

QUICK = Patience(heartbeat_s=0.5, lost_s=20, poll_s=0.1)
NAMES = ("east", "north", "west")
FIVE = 300


@pytest.mark.postgresql
def test_two_machines_run_each_due_cycle_once_whoever_takes_it(tmp_path: Path, postgresql_url: str) -> None:
    for name in NAMES:
        (tmp_path / "orgs" / name).mkdir(parents=True)
    emulators = {name: load(tmp_path / "orgs" / name) for name in NAMES}
    time = Time()

    def machine(holder: str) -> Service:
        shared = Shared(partial(Jobs, postgresql_url, patience=QUICK), 2)
        return Service(tmp_path, emulators, holder=holder, time=time, sharing=shared)

    def cycles(name: str) -> int:
        return one.of(name).cycles + two.of(name).cycles

    with machine("one") as one, machine("two") as two:
        for due in range(1, 4):
            for service in (one, two):
                service.step()
            eventually(lambda due=due: all(cycles(name) >= due for name in NAMES))  # type: ignore[misc]
            for service in (one, two):
                service.step()
            time.pass_by(FIVE)
        assert {name: cycles(name) for name in NAMES} == dict.fromkeys(NAMES, 3)
        assert not any(service.of(name).standby for service in (one, two) for name in NAMES), "leases were given back"
        assert {service.of(name).failures for service in (one, two) for name in NAMES} == {0}
    for emulator in emulators.values():
        assert goal_values(emulator)["Ann"]["actualmoney"] is not None


class Flaky:
    """A queue whose database is gone at first."""

    def __init__(self, run: Callable[[str], object], failures: int) -> None:
        self._run, self._failures = run, failures

    def work(self, offers: Callable[[], list[tuple[str, Any]]], stop: threading.Event, *, at_once: int) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("the server closed the connection")
        while not stop.wait(0.01):
            for name, _due_at in offers():
                self._run(f"{name} {at_once}")


def test_a_queue_that_is_gone_is_said_once_and_what_is_due_then_runs_when_it_is_back() -> None:
    ran: list[str] = []
    shared = Shared(lambda run: Flaky(run, 5), 3, first_rest_s=0.001)  # type: ignore[arg-type, return-value]
    shared.offer("east", NOW)
    shared.begin(ran.append)
    eventually(lambda: bool(ran))
    shared.close(5)
    assert ran == ["east 3"]
    assert len(logged("queue.failing")) == len(logged("queue.recovered")) == 1


class Given:
    """A queue that gives what the test says."""

    def begin(self, run: Callable[[str], object]) -> None:
        self.run = run

    def offer(self, name: str, due_at: Any) -> None:
        """Offers are not taken."""

    def close(self, within_s: float) -> None:
        """Nothing waits."""


def test_a_job_that_is_given_twice_while_it_runs_runs_once(tmp_path: Path) -> None:
    """As after a heartbeat that came too late: the queue takes the machine for dead, and gives it its own job again."""
    emulators = {"east": load(tmp_path)}
    wire, given = Wire(emulators["east"]), Given()
    again: list[str] = []

    def give(_url: str) -> None:
        if not again:
            again.append("east")
            given.run("east")

    wire.meet = give
    with Service(tmp_path, emulators, sessions={"east": wire.session()}, sharing=given) as service:
        given.run("east")
        assert service.of().cycles == 1
        given.run("east")
        assert service.of().cycles == 2
    assert again
    assert len(logged("cycle.running")) == 1
