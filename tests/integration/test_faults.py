"""Whole cycles over a network that fails by script: the numbers are those of a quiet one (rows 1 to 5 and 7)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from d365sync.emulator import Emulator
from d365sync.emulator.faults import FaultyApp, read_faults
from d365sync.emulator.inprocess import mounted_session
from d365sync.errors import D365SyncError, RetryableError
from tests.emulated import NOW, application, goal_values
from tests.golden.casebook import read_cases, write_org
from tests.scripted import VirtualTimer

TREE = next(case for case in read_cases(Path(__file__).parents[2] / "fixtures" / "goals") if case.name == "tree")
MENDED = {
    "throttled": 'match = "GET *"\nevery = 3\nstatus = 429\nretry_after = 2\ncode = "0x80072322"',
    "too many at once": 'match = "GET *"\nevery = 4\nstatus = 429\nretry_after = 1\ncode = "0x80072326"',
    "unavailable": 'match = "GET *"\nevery = 3\nstatus = 503',
    "gateway": 'match = "GET *"\nevery = 5\nstatus = 502',
    "cut": 'match = "GET *"\nevery = 3\ncut_after_bytes = 20',
    "cut at once": 'match = "GET *"\nevery = 4\ncut_after_bytes = 0',
    "closed": 'match = "GET *"\nevery = 3\nclose = "before"',
    "token": 'match = "GET *"\nnth = [3, 12]\nexpire_token = true',
}
HOPELESS = {
    "throttled for long": ('match = "GET */goals*"\nstatus = 429\nretry_after = 9000', RetryableError),
    "down": ('match = "GET */goals*"\nstatus = 503', RetryableError),
}


def script(tmp_path: Path, emulator: Emulator, text: str) -> FaultyApp:
    path = tmp_path / "faults.toml"
    path.write_text(f"[[fault]]\n{text}\n", encoding="utf-8")
    return FaultyApp(emulator.app, read_faults(path))


def organization(folder: Path) -> Emulator:
    write_org(copy.deepcopy(TREE), folder / "org")
    return Emulator.load(folder / "org", now=NOW)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("quiet")
    emulator = organization(folder)
    with application(emulator, folder) as app:
        app.sync(write=True)
    return goal_values(emulator)


@pytest.mark.parametrize("fault", MENDED)
def test_a_cycle_over_a_bad_network_gives_the_numbers_of_a_quiet_one(fault: str, tmp_path: Path, quiet: object) -> None:
    emulator, timer = organization(tmp_path), VirtualTimer()
    session = mounted_session(script(tmp_path, emulator, MENDED[fault]))
    with application(emulator, tmp_path, session=session, timer=timer) as app:
        result = app.sync(write=True)
        assert result.traffic.retries + result.traffic.answers["GET 401"] > 0
        assert result.traffic.counts.items() <= result.counts.items()
    assert goal_values(emulator) == quiet


@pytest.mark.parametrize("fault", HOPELESS)
def test_a_cycle_that_cannot_go_on_is_temporary_and_resumes(fault: str, tmp_path: Path, quiet: object) -> None:
    emulator, timer = organization(tmp_path), VirtualTimer()
    text, expected = HOPELESS[fault]
    session = mounted_session(script(tmp_path, emulator, text))
    with application(emulator, tmp_path, session=session, timer=timer) as app:
        with pytest.raises(expected) as caught:
            app.sync(write=True)
        assert isinstance(caught.value, D365SyncError)
        assert caught.value.exit_code == 5
        failed = app.line.journal.runs(1)[0]
        assert failed.counts["requests"] == app.line.client.usage.requests > 0
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    assert goal_values(emulator) == quiet
