"""Machines that share environments through a queue in a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text

from d365sync.errors import ConfigError
from d365sync.service.jobs import QUEUE, TASK, Jobs, Patience, conninfo

pytestmark = pytest.mark.postgresql
AT = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
QUICK = Patience(heartbeat_s=0.2, lost_s=20, poll_s=0.1)
PATIENCE_S = 20


class Machine:
    """One machine: its offers are given from outside, its runs are counted, and what runs at once is watched."""

    def __init__(self, url: str, runs: Counter[str], running: set[str], faults: list[str]) -> None:
        self.offered: list[tuple[str, dt.datetime]] = []
        self.taken = self.asked = 0
        self.hold = threading.Event()
        self.hold.set()
        self._runs, self._running, self._faults = runs, running, faults
        self._jobs = Jobs(url, self._run, patience=QUICK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._jobs.work, args=(self._offers, self._stop), kwargs={"at_once": 2})

    @contextmanager
    def working(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self.hold.set()
            self._stop.set()
            self._thread.join(PATIENCE_S)

    def _offers(self) -> list[tuple[str, dt.datetime]]:
        self.asked += 1
        offered, self.offered = self.offered, []
        return offered

    def _run(self, name: str) -> None:
        self.taken += 1
        if name in self._running:
            self._faults.append(f"{name} runs twice at once")
        self._running.add(name)
        self.hold.wait(PATIENCE_S)
        self._runs[name] += 1
        self._running.discard(name)
        if name == "broken":
            raise RuntimeError(name)


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    assert holds()


def test_machines_share_what_is_due_and_each_cycle_runs_once(postgresql_url: str) -> None:
    runs, faults, names = Counter[str](), list[str](), [f"env{number}" for number in range(6)]
    running: set[str] = set()
    one, two = (Machine(postgresql_url, runs, running, faults) for _ in range(2))
    one.hold.clear()
    two.hold.clear()
    with one.working(), two.working():
        one.offered = two.offered = [(name, AT) for name in names]
        eventually(lambda: one.taken == 2 and two.taken == 2)
        for machine in (one, two):
            machine.hold.set()
        eventually(lambda: sum(runs.values()) == len(names))
        one.offered = two.offered = [(name, AT) for name in names]
        two.offered = [*two.offered, ("env0", AT + dt.timedelta(minutes=5))]
        eventually(lambda: runs["env0"] == 2)
    assert runs == {**dict.fromkeys(names, 1), "env0": 2}, "an instant comes once, whoever offers it"
    assert not faults


def test_what_was_missed_while_a_cycle_runs_comes_once(postgresql_url: str) -> None:
    runs, faults = Counter[str](), list[str]()
    machine = Machine(postgresql_url, runs, set(), faults)
    machine.hold.clear()
    with machine.working():
        machine.offered = [("env", AT)]
        eventually(lambda: machine.taken == 1)
        machine.offered = [("env", AT + dt.timedelta(minutes=minute)) for minute in range(1, 9)]
        asked = machine.asked
        eventually(
            lambda: machine.asked >= asked + 2
        )  # the first of them took the offers, and they were made before the next
        machine.hold.set()
        eventually(lambda: runs["env"] == 2)
    assert runs == {"env": 2}
    assert not faults


def test_a_failing_environment_keeps_nobody_from_working(postgresql_url: str) -> None:
    runs = Counter[str]()
    machine = Machine(postgresql_url, runs, set(), [])
    with machine.working():
        machine.offered = [("broken", AT), ("fine", AT)]
        eventually(lambda: runs == {"broken": 1, "fine": 1})
        machine.offered = [("broken", AT + dt.timedelta(minutes=5))]
        eventually(lambda: runs["broken"] == 2)


def test_the_job_of_a_machine_that_died_is_done_by_another(postgresql_url: str) -> None:
    runs = Counter[str]()
    machine = Machine(postgresql_url, runs, set(), [])
    engine = create_engine(postgresql_url)
    with engine.begin() as connection:
        dead = connection.execute(
            text("INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 hour') RETURNING id")
        ).scalar_one()
        connection.execute(
            text(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args, status, worker_id) "
                "VALUES (:queue, :task, 'env', 'env', '{\"environment\": \"env\", \"timestamp\": 0}', 'doing', :worker)"
            ),
            {"queue": QUEUE, "task": TASK, "worker": dead},
        )
    engine.dispose()
    with machine.working():
        eventually(lambda: runs["env"] == 1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///jobs.db", "must be a PostgreSQL database"),
        ("nonsense", "no database URL"),
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", "cannot be reached"),
    ],
)
def test_a_queue_that_cannot_be_used_is_said_at_the_start(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Jobs(url, str)


def test_passwords_reach_the_server_and_nobody_else() -> None:
    assert conninfo("postgresql+psycopg://user:p%40ss@host/db") == "postgresql://user:p%40ss@host/db"
