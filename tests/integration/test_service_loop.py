"""The loop of the service: fair, never overlapping, undisturbed by environments that fail, hang or come and go."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.emulator import Emulator
from d365sync.emulator.inprocess import InProcessAdapter
from d365sync.errors import ConfigError
from d365sync.journal.store import Journal
from d365sync.service.loop import LENT_S, SERVE_AGAIN_S
from d365sync.service.notify import Notifier
from d365sync.service.signals import RELOAD
from tests.emulated import NOW, goal_values
from tests.integration.test_line import load
from tests.service import Held, Service, Time, described, logged

MINUTE, FIVE = 60, 300


class Wire(BaseAdapter):
    """An emulator whose line can be cut, and where something may happen as a request comes."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.cut = False
        self.meet: Callable[[str], object] = lambda _url: None
        self.requests = 0
        self._inner = InProcessAdapter(emulator.app)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self.requests += 1
        self.meet(str(request.url))
        if self.cut:
            raise requests.ConnectionError("no route to host")
        return self._inner.send(request, *args, **kwargs)

    def close(self) -> None:
        """Nothing is held open."""

    def session(self) -> requests.Session:
        session = requests.Session()
        session.mount("https://", self)
        return session


@pytest.fixture
def emulators(tmp_path: Path) -> dict[str, Emulator]:
    (tmp_path / "e").mkdir()
    (tmp_path / "w").mkdir()
    return {"east": load(tmp_path / "e"), "west": load(tmp_path / "w")}


@pytest.fixture
def east(emulators: dict[str, Emulator]) -> dict[str, Emulator]:
    return {"east": emulators["east"]}


def test_environments_run_at_once_and_then_by_their_interval(tmp_path: Path, emulators: dict[str, Emulator]) -> None:
    with Service(tmp_path, emulators) as service:
        assert service.step() <= 5
        assert [(one.name, one.cycles, one.last_outcome) for one in service.state.environments()] == [
            ("east", 1, "ok"),
            ("west", 1, "ok"),
        ]
        assert goal_values(emulators["west"])["Ann"]["actualmoney"] is not None
        service.step(FIVE - 1)
        assert service.of().cycles == 1
        assert service.of().next_at == NOW + dt.timedelta(minutes=5)
        service.step(1)
        assert service.of().cycles == service.of("west").cycles == 2
        assert service.pings.told == ["start", "success"] * 4
    assert (tmp_path / "east" / "journal.db").exists()


def test_a_dead_environment_stops_no_other_and_is_logged_once_until_it_recovers(
    tmp_path: Path, emulators: dict[str, Emulator]
) -> None:
    wire = Wire(emulators["west"])
    wire.cut = True
    with Service(tmp_path, emulators, sessions={"west": wire.session()}) as service:
        for _ in range(61):
            service.step(MINUTE)
        west = service.of("west")
        assert (service.of().cycles, service.of().failures) == (13, 0)
        assert west.failures == 8  # at once, after 1, 2, 4, 8, then every 15 minutes
        assert "no route to host" in west.last_error
        (failing,) = logged("environment.failing")
        assert (failing["environment"], failing["outcome"]) == ("west", "failed")
        wire.cut = False
        for _ in range(16):
            service.step(MINUTE)
        assert service.of("west").failures == 0
        (recovered,) = logged("environment.recovered")
        assert recovered["failures"] == west.failures
        assert len(logged("environment.failing")) == 1


def test_another_kind_of_failure_is_another_state(tmp_path: Path, east: dict[str, Emulator]) -> None:
    wire = Wire(east["east"])
    wire.cut = True
    with Service(tmp_path, east, sessions={"east": wire.session()}) as service:
        service.step()

        def crash(_url: str) -> None:
            raise RuntimeError("a defect")

        wire.meet = crash
        for _ in range(20):
            service.step(MINUTE)
        first, second = logged("environment.failing")
        assert second["reason"] == "unexpected RuntimeError: a defect"
        assert "exception" in second
        assert "exception" not in first
        assert service.pings.told[-1] == "fail"


def test_a_cycle_that_takes_long_is_not_overlapped_and_what_it_missed_comes_once_and_at_once(
    tmp_path: Path, east: dict[str, Emulator]
) -> None:
    held = Held()
    with Service(tmp_path, east, held=held) as service:
        service.step()
        for _ in range(7):
            service.step(FIVE)
        assert held.begun == ["east"]
        held.finish("east")
        service.step(MINUTE)
        assert held.begun == ["east", "east"]
        held.finish("east")
        service.step(MINUTE)
        assert held.begun == ["east", "east"]


def test_one_that_hangs_leaves_its_place_to_the_others(tmp_path: Path, emulators: dict[str, Emulator]) -> None:
    held = Held()
    with Service(tmp_path, emulators, held=held, at_once=1) as service:
        service.step()
        assert held.begun == ["east"]
        service.step(LENT_S - 1)
        assert held.begun == ["east"]
        service.step(1)
        assert held.begun == ["east", "west"]
        for _ in range(10):
            held.finish("west")
            service.step(FIVE)
        assert held.begun.count("west") == 11
        assert held.begun.count("east") == 1


def test_places_go_round(tmp_path: Path, emulators: dict[str, Emulator]) -> None:
    held = Held()
    with Service(tmp_path, emulators, held=held, at_once=1, every="1s") as service:
        service.step()
        for _ in range(6):
            held.finish(held.begun[-1])
            service.step(2)
        assert held.begun == ["east", "west"] * 3 + ["east"]


def test_by_cron_a_cycle_missed_while_it_was_stopped_comes_at_once_and_one_not_missed_does_not(
    tmp_path: Path, east: dict[str, Emulator]
) -> None:
    time = Time()
    with Service(tmp_path, east, time=time, cron="0 2 * * *") as service:
        service.step()
        assert (service.of().cycles, service.of().next_at) == (0, NOW.replace(day=21, hour=2))
        service.step(17 * 3600)
        assert service.of().cycles == 1
    with Service(tmp_path, east, time=time, cron="0 2 * * *") as service:
        service.step(MINUTE)
        assert service.of().cycles == 0
        assert service.of().last_success_at == NOW.replace(day=21, hour=2)
    time.pass_by(5 * 86_400)
    with Service(tmp_path, east, time=time, cron="0 2 * * *") as service:
        service.step()
        assert service.of().cycles == 1
        service.step(MINUTE)
        assert service.of().cycles == 1


def test_after_a_sleep_one_cycle_runs_and_a_clock_set_back_delays_none(
    tmp_path: Path, east: dict[str, Emulator]
) -> None:
    with Service(tmp_path, east) as service:
        service.step()
        service.time.now += dt.timedelta(hours=9)  # the monotonic clock stood still meanwhile
        service.step()
        service.step(MINUTE)
        assert service.of().cycles == 2
        service.time.now -= dt.timedelta(days=1)
        service.step()
        service.step(FIVE)
        assert service.of().cycles == 3


def test_a_valid_configuration_replaces_the_present_one_when_asked_to(
    tmp_path: Path, emulators: dict[str, Emulator]
) -> None:
    with Service(tmp_path, emulators) as service:
        service.step()
        service.document["environments"]["north"] = service.document["environments"].pop("west")
        service.document["daemon"] = {"every": "1h"}
        service.emulators["north"] = service.emulators["west"]
        service.document["environments"]["north"]["dataverse"] = {
            **service.document["environments"]["north"]["dataverse"],
            "url": "https://north.test",
        }
        service.step(MINUTE, RELOAD)
        assert [(one.name, one.cycles) for one in service.state.environments()] == [("east", 1), ("north", 1)]
        assert service.of().next_at == NOW + dt.timedelta(hours=1)
        service.step(FIVE)
        assert service.of().cycles == 1
        assert [event["event"] for event in logged("configuration.loaded", "environment.removed")] == [
            "environment.removed",
            "configuration.loaded",
        ]


def test_an_invalid_configuration_is_refused_with_every_fault_and_the_old_one_kept(
    tmp_path: Path, east: dict[str, Emulator]
) -> None:
    with Service(tmp_path, east) as service:
        service.step()
        service.document["pull"] = {"tables": 0}
        service.document["daemon"] = {"cron": "every day"}
        service.step(0, RELOAD)
        first, second = (event["fault"] for event in logged("configuration.refused"))
        assert first.startswith("environment east: pull.tables")
        assert second.startswith("environment east: daemon.cron")
        assert logged("configuration.kept")
        service.step(FIVE)
        assert service.of().cycles == 2


def test_a_secret_that_is_missing_refuses_a_reload(tmp_path: Path, east: dict[str, Emulator]) -> None:
    with Service(tmp_path, east) as service:
        service.step()
        service.document["environments"]["east"]["dataverse"]["client_secret"] = "file:gone"
        service.step(0, RELOAD)
        (refused,) = logged("configuration.refused")
        assert "gone cannot be read" in refused["fault"]
        service.step(FIVE)
        assert service.of().last_outcome == "ok"


def test_a_wrong_secret_does_not_end_the_service_and_a_reload_tries_the_new_one_at_once(
    tmp_path: Path, east: dict[str, Emulator]
) -> None:
    document = described(east, tmp_path)
    remote = document["environments"]["east"]["dataverse"]
    right, remote["client_secret"] = remote["client_secret"], "not-the-secret"
    with Service(tmp_path, east, document=document) as service:
        service.step()
        assert service.of().error_kind == "AuthError"
        remote["client_secret"] = right
        service.step(0, RELOAD)
        assert (service.of().last_outcome, service.of().failures) == ("ok", 0)


def test_it_does_not_start_if_no_environment_can_be_used_but_does_if_one_can(
    tmp_path: Path, emulators: dict[str, Emulator]
) -> None:
    document = described(emulators, tmp_path)
    east, west = (document["environments"][name]["dataverse"] for name in emulators)
    right = east["client_secret"]
    east["client_secret"] = west["client_secret"] = "env:NOWHERE"
    with pytest.raises(ConfigError) as caught:
        Service(tmp_path, emulators, document=document).loop.start()
    assert len(caught.value.problems) == 2
    assert "environment west" in caught.value.problems[1]
    east["client_secret"] = right
    with Service(tmp_path, emulators, document=document) as service:
        service.step()
        states = service.state.environments()
        assert [(one.last_outcome, one.error_kind) for one in states] == [("ok", ""), ("failed", "ConfigError")]


def test_a_stop_ends_a_cycle_after_its_current_page_and_the_next_start_goes_on(
    tmp_path: Path, east: dict[str, Emulator]
) -> None:
    wire = Wire(east["east"])
    service = Service(tmp_path, east, sessions={"east": wire.session()})

    def stop(url: str) -> None:
        if "/metrics" in url:
            service.loop._entries["east"].worker.end()

    wire.meet = stop
    with service:
        service.step()
        assert (service.of().last_outcome, service.of().failures) == ("stopped", 0)
        asked = wire.requests
        service.step(FIVE)
        assert wire.requests == asked
    assert service.pings.told == ["start"]
    assert len(logged("cycle.stopped")) == 1
    journal = Journal.open(f"sqlite:///{tmp_path / 'east' / 'journal.db'}")
    assert [run.outcome for run in journal.runs(9)] == ["stopped"]
    journal.close()
    assert not logged("environment.failing")
    with Service(tmp_path, east) as again:
        again.step()
        assert again.of().last_outcome == "ok"
    assert goal_values(east["east"])["Ann"]["actualmoney"] is not None


@contextmanager
def systemd(folder: Path) -> Iterator[tuple[Notifier, Callable[[], list[str]]]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(folder / "notify"))
        receiver.setblocking(False)

        def heard() -> list[str]:
            messages = []
            with suppress(BlockingIOError):
                while True:
                    messages.append(receiver.recv(4096).decode())
            return messages

        yield Notifier.of({"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "60000000"}), heard


def test_systemd_hears_how_it_fares(tmp_path: Path, east: dict[str, Emulator]) -> None:
    with systemd(tmp_path) as (notifier, heard), Service(tmp_path, east, notifier=notifier) as service:
        assert heard() == ["READY=1\nSTATUS=1 environment: east begins"]
        service.step()
        assert "STATUS=1 environment: east ok at 2026-11-20T09:00:00Z" in heard()
        for _ in range(12):
            service.step(5)
        assert heard() == ["WATCHDOG=1", "WATCHDOG=1"]
        service.step(0, RELOAD)
        first, *_, last = heard()
        assert first.startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert last.startswith("READY=1\n")
        service.loop.stop()
        assert heard() == ["STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=13000000"]


def test_the_watchdog_starves_while_a_cycle_makes_no_progress(tmp_path: Path, east: dict[str, Emulator]) -> None:
    held = Held()
    with systemd(tmp_path) as (notifier, heard), Service(tmp_path, east, notifier=notifier, held=held) as service:
        service.step()
        for _ in range(int(service.state.cycle_patience_s / MINUTE)):
            service.step(MINUTE)
        assert "WATCHDOG=1" in " ".join(heard())
        service.step(MINUTE)
        assert "WATCHDOG=1" not in " ".join(heard())
        service.state.beat("east")  # a page arrived
        service.step(MINUTE)
        assert "WATCHDOG=1" in " ".join(heard())


def test_the_watchdog_starves_when_the_loop_hangs(tmp_path: Path, east: dict[str, Emulator]) -> None:
    with Service(tmp_path, east) as service:
        service.step()
        assert service.state.is_alive()
        service.time.pass_by(service.state.patience_s + 1)
        assert not service.state.is_alive()


def test_a_long_first_load_asks_systemd_for_time(tmp_path: Path, east: dict[str, Emulator]) -> None:
    wire, held = Wire(east["east"]), Held()
    sessions = {"east": wire.session()}
    with (
        systemd(tmp_path) as (notifier, heard),
        Service(tmp_path, east, notifier=notifier, sessions=sessions, held=held) as service,
    ):
        wire.meet = lambda _url: (service.time.pass_by(10), service.loop.step())
        service.step()
        held.finish("east")
        assert "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=120000000" in heard()
        service.step(FIVE)
        held.finish("east")
        assert "EXTEND" not in " ".join(heard())


def test_a_second_instance_stands_by_and_takes_over_when_the_first_stops(
    tmp_path: Path, east: dict[str, Emulator]
) -> None:
    time = Time()
    with Service(tmp_path, east, time=time, holder="two") as second:
        with Service(tmp_path, east, time=time, holder="one") as first:
            first.step()
            for _ in range(30):
                first.step(20)
                first.renew()
                second.step()
            assert (second.of().standby, second.of().holder, second.of().cycles) == (True, "one", 0)
            assert (first.of().standby, first.of().lease_epoch, first.of().cycles) == (False, 1, 3)
            assert [event["holder"] for event in logged("lease.standby")] == ["one"]
        second.step(30)
        assert (second.of().standby, second.of().lease_epoch, second.of().cycles) == (False, 2, 1)
        assert len(logged("lease.taken")) == 1


@pytest.mark.parametrize("renews", [False, True], ids=["finds out as it stores", "finds out as it renews"])
def test_a_dead_instance_is_succeeded_within_two_intervals_and_when_it_wakes_it_stands_by(
    tmp_path: Path, east: dict[str, Emulator], renews: bool
) -> None:
    time = Time()
    wire = Wire(east["east"])
    with (
        Service(tmp_path, east, time=time, holder="one", sessions={"east": wire.session()}) as first,
        Service(tmp_path, east, time=time, holder="two") as second,
    ):
        first.step()
        second.step()

        def pause(_url: str) -> None:
            for _ in range(2 * FIVE // 30 if second.of().standby else 0):
                second.step(30)
            if renews:
                first.renew()

        wire.meet = pause
        first.step(FIVE)
        assert second.of().cycles >= 1
        assert (first.of().standby, first.of().last_outcome) == (True, "stopped")
        assert (first.of().failures, second.of().standby) == (0, False)
        assert len(logged("lease.lost")) == 1
        assert not logged("environment.failing")
        second.renew()
        first.step(MINUTE - 1)
        assert first.of().holder == "two"


def test_where_somebody_else_listens_it_works_unseen_and_tries_again(tmp_path: Path, east: dict[str, Emulator]) -> None:
    taken, served = [True], []

    class Answers:
        def close(self) -> None:
            served.clear()

    def serve(_config: object) -> Answers:
        if taken[0]:
            raise ConfigError("nobody can listen there")
        served.append(True)
        return Answers()

    with Service(tmp_path, east, serve=serve) as service:
        for _ in range(3):
            service.step(SERVE_AGAIN_S)
        assert (service.of().last_outcome, served) == ("ok", [])
        assert len(logged("service.unseen")) == 1
        taken[0] = False
        service.step(SERVE_AGAIN_S)
        assert served == [True]
    assert served == []
