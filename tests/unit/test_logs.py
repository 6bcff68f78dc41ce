"""Secrets and tokens are replaced wherever a text would show them, in the log and in crashes too."""

from __future__ import annotations

import io
import json
import logging
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from d365sync import logs
from d365sync.cli.main import _report
from d365sync.errors import ConfigError
from d365sync.sync.streams import side_by_side
from tests import canary

SECRET = "a-secret-that-is-hidden"
TOKEN = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOiJodHRwczovL29yZy5leGFtcGxlIn0.c2lnbmF0dXJl"
SAID = f"Invalid header value b'Bearer {TOKEN}' for {SECRET}"


@pytest.fixture(autouse=True)
def _hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", {SECRET})


def assert_hidden(text: str) -> None:
    assert SECRET not in text
    assert "eyJ" not in text
    assert "***" in text


@pytest.mark.parametrize("token", [TOKEN, TOKEN.rpartition(".")[0], f"{TOKEN}."])
def test_a_token_is_known_by_its_shape(token: str) -> None:
    assert_hidden(logs.redact(f"Bearer {token}, {SECRET}"))
    assert logs.redact("eyJ is how they begin; a.b.c is none") == "eyJ is how they begin; a.b.c is none"


@pytest.mark.parametrize("tty", [True, False])
def test_an_event_shows_none_however_deep(tty: bool) -> None:
    heard = io.StringIO()
    log = structlog.wrap_logger(structlog.PrintLogger(heard), processors=logs.processors(tty=tty))
    try:
        raise ValueError(SAID)
    except ValueError:
        log.error(SAID, headers={"Authorization": [f"Bearer {TOKEN}"]}, exc_info=True)
    assert_hidden(heard.getvalue())


@pytest.mark.parametrize("arguments", [["sync"], ["--debug", "sync"], ["--debug", "sync", "--json"]])
def test_a_crash_shows_none(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError(SAID) from ValueError(SAID)
    except RuntimeError as error:
        _report(error, arguments)
    shown = capsys.readouterr()
    assert_hidden(shown.err)
    assert canary.hidden(shown.out + shown.err) == shown.out + shown.err
    assert ("Traceback" in shown.err) == ("--debug" in arguments)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_log_file_holds_one_document_a_line_of_ours_and_of_others_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "d365sync.log"
    logs.configure(level=logging.INFO, tty=False, file=logs.LogFile(path))
    with structlog.contextvars.bound_contextvars(run="r1", environment="Nörd"):
        structlog.get_logger("d365sync.test").info("table.pulled", table="goal", secret=SECRET)
    structlog.get_logger("d365sync.test").debug("not.told")
    logging.getLogger("urllib3").warning("retrying with Bearer %s", TOKEN)
    ours, theirs = lines_of(path)
    assert (ours["event"], ours["table"], ours["run"], ours["environment"]) == ("table.pulled", "goal", "r1", "Nörd")
    assert (theirs["event"], theirs["level"]) == ("retrying with Bearer ***", "warning")
    assert str(theirs["timestamp"]).endswith("Z")
    assert_hidden(path.read_text(encoding="utf-8"))


def test_a_log_file_is_its_users_alone_and_begins_anew_when_it_is_full(tmp_path: Path) -> None:
    path = tmp_path / "d365sync.log"
    logs.configure(level=logging.INFO, tty=False, file=logs.LogFile(path, most_bytes=400, backups=2))
    for number in range(20):
        structlog.get_logger("d365sync.test").info("event", number=number)
    kept = sorted(path.parent.iterdir())
    assert [one.name for one in kept] == ["d365sync.log", "d365sync.log.1", "d365sync.log.2"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in kept} == {0o600}
    assert lines_of(path)[-1]["number"] == 19
    assert max(one.stat().st_size for one in kept) <= 400


def test_a_log_that_cannot_be_written_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        logs.configure(level=logging.INFO, tty=False, file=logs.LogFile(tmp_path))


def test_what_a_run_is_goes_along_into_the_threads_that_read() -> None:
    told: list[dict[str, object]] = []

    def source() -> Iterator[int]:
        told.append({"thread": threading.current_thread(), **structlog.contextvars.get_contextvars()})
        yield 1

    with structlog.contextvars.bound_contextvars(run="r1"):
        assert [event.item for event in side_by_side([source], workers=2)] == [1, None]
    assert told[0]["run"] == "r1"
    assert told[0]["thread"] is not threading.current_thread()


def test_a_service_logs_what_becomes_of_it_and_every_warning_and_not_each_table(tmp_path: Path) -> None:
    path = tmp_path / "d365sync.log"
    logs.configure(level=logging.INFO, tty=False, file=logs.LogFile(path), only=logs.OF_THE_SERVICE)
    log = structlog.get_logger()
    log.info("table.pulled", table="goal")
    log.info("cycle.done")
    log.warning("value.damaged")
    assert [line["event"] for line in lines_of(path)] == ["cycle.done", "value.damaged"]
