"""The real client against the emulator's service protection: it is throttled, waits, and comes through."""

from __future__ import annotations

import copy
import datetime as dt
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.dataverse.gate import check_stopped
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.inprocess import mounted_session
from d365sync.emulator.settings import ServiceLimits
from tests.emulated import NOW, application, goal_values
from tests.golden.casebook import read_cases, write_org

TREE = next(case for case in read_cases(Path(__file__).parents[2] / "fixtures" / "goals") if case.name == "tree")
SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
LIMITS = {
    "0x80072322": ServiceLimits(requests=4, window_s=60),
    "0x80072321": ServiceLimits(execution_ms=4000, request_ms=1000, window_s=60),
}


class EmulatedTimer:
    """Waiting moves the emulator's clock, and nothing else does."""

    def __init__(self, emulator: Emulator) -> None:
        self._clock = emulator.clock
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._clock.exactly().timestamp()

    def wait_until(self, at: float) -> None:
        check_stopped()
        with self._lock:
            if at > self.now():
                self._clock.advance(dt.timedelta(seconds=at - self.now()) + dt.timedelta.resolution)


class Watching(BaseAdapter):
    """Notes which requests were refused and why, and which were sent before the time the service asked for."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self._inner = mounted_session(emulator.app).get_adapter("https://x")
        self._now = emulator.clock.exactly
        self._opens_at = self._now()
        self.codes: list[str] = []
        self.early = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        self.early += "/api/data/" in str(request.url) and self._now() < self._opens_at
        response = self._inner.send(request, *args, **options)
        if response.status_code == 429:
            self._opens_at = self._now() + dt.timedelta(seconds=int(response.headers["Retry-After"]))
            self.codes.append(response.json()["error"]["code"])
        return response

    def close(self) -> None:
        """Nothing is held open."""


def organization(folder: Path, limits: ServiceLimits) -> Emulator:
    write_org(copy.deepcopy(TREE), folder / "org")
    return Emulator.load(folder / "org", now=NOW, settings=EmulatorSettings(limits=limits))


def synced(folder: Path, limits: ServiceLimits, **sections: Any) -> tuple[Emulator, Watching]:
    """Run one cycle against an organization with limits."""
    folder.mkdir()
    emulator = organization(folder, limits)
    watching, session = Watching(emulator), requests.Session()
    session.mount("https://", watching)
    with application(emulator, folder, session=session, timer=EmulatedTimer(emulator), **sections) as app:
        app.sync(write=True)
    return emulator, watching


@pytest.mark.parametrize("code", LIMITS)
def test_throttled_it_waits_comes_through_and_never_sends_before_its_time(code: str, tmp_path: Path) -> None:
    quiet, unbothered = synced(tmp_path / "quiet", ServiceLimits())
    assert unbothered.codes == []
    emulator, watching = synced(tmp_path / "limited", LIMITS[code], dataverse={"concurrency": 1})
    assert set(watching.codes) == {code}
    assert watching.early == 0
    assert goal_values(emulator) == goal_values(quiet)
    waited_s = (emulator.clock.exactly() - NOW).total_seconds()
    assert 60 * len(watching.codes) * 0.9 < waited_s <= 60 * len(watching.codes) * 1.1


def test_the_longest_wait_that_is_asked_for_is_within_the_budget(tmp_path: Path) -> None:
    limits = ServiceLimits(requests=10, window_s=300)
    emulator, watching = synced(tmp_path / "limited", limits, dataverse={"concurrency": 1})
    assert watching.early == 0
    assert (emulator.clock.exactly() - NOW).total_seconds() > 290 * len(watching.codes) > 0


def test_several_workers_wait_together(tmp_path: Path) -> None:
    emulator, watching = synced(tmp_path / "limited", LIMITS["0x80072322"], dataverse={"concurrency": 4})
    quiet, _ = synced(tmp_path / "quiet", ServiceLimits())
    assert goal_values(emulator) == goal_values(quiet)
    assert watching.codes


@pytest.fixture
def crowd() -> Iterator[tuple[Emulator, str, requests.Session]]:
    """An emulator on a socket that lets three requests run at once, and a session that is signed in."""
    emulator = Emulator.load(SMALL, now=NOW, settings=EmulatorSettings(limits=ServiceLimits(concurrent=3)))
    with emulator.serve() as (url, ca_file), requests.Session() as session:
        session.verify, session.trust_env = str(ca_file), False
        known = emulator.credentials
        form = {"grant_type": "client_credentials", "client_id": known.client_id, "scope": f"{url}/.default"}
        token = session.post(
            f"{emulator.authority(url)}/oauth2/v2.0/token", {**form, "client_secret": known.client_secret}
        )
        session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
        yield emulator, url, session


def test_more_at_once_than_allowed_are_refused_at_once(crowd: tuple[Emulator, str, requests.Session]) -> None:
    emulator, url, session = crowd
    headers, refused = dict(session.headers), threading.Event()

    def ask(_number: int) -> requests.Response:
        response = requests.get(f"{url}/api/data/v9.2/WhoAmI", headers=headers, verify=session.verify, timeout=20)
        if response.status_code == 429:
            refused.set()
        return response

    with ThreadPoolExecutor(4) as pool:
        with emulator.store.locked:
            answers = pool.map(ask, range(4))
            assert refused.wait(20), "the fourth is refused though the others have no answer yet"
        statuses = {answer.status_code: answer for answer in answers}
    assert sorted(statuses) == [200, 429]
    assert statuses[429].json()["error"]["code"] == "0x80072326"
    assert "exceeded the limit of 3." in statuses[429].text
    assert statuses[429].headers["Retry-After"] == "1"
    assert ask(5).status_code == 200
