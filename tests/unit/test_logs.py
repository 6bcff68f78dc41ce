"""Secrets and tokens are replaced wherever a text would show them, in the log and in crashes too."""

from __future__ import annotations

import io

import pytest
import structlog

from d365sync import logs
from d365sync.cli.main import _report
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
