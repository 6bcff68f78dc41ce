"""What status says of the day's requests and of conflicts left over, to people and to programs."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from d365sync.cli.commands import cli
from d365sync.emulator import Emulator
from d365sync.journal.store import Intent
from tests.emulated import NOW, application
from tests.integration.test_line import ANN, change, load, meanwhile

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"


@pytest.mark.parametrize(("allowed", "near"), [(1000, False), (20, True)])
def test_status_compares_the_days_requests_with_what_is_allowed(
    allowed: int, near: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with application(Emulator.load(SMALL, now=NOW), tmp_path) as app:
        app.sync(write=True)
        (run,) = app.line.journal.runs(1)
        used = run.counts["operations"]
    (tmp_path / "d365sync.toml").write_text(
        f'[dataverse]\nurl = "https://emulator.test"\nauth = "managed_identity"\ndaily_requests = {allowed}\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("D365SYNC_NOW", "2026-11-20T10:00:00Z")
    monkeypatch.setenv("D365SYNC_CONFIG", str(tmp_path / "d365sync.toml"))
    told = CliRunner().invoke(cli, ["status"])
    assert told.exit_code == 0, told.output
    line = told.output.strip().splitlines()[-1]
    share = round(100 * used / allowed, 1)
    assert line == (
        f"{'warning: ' if near else ''}{used} requests in the last 24 h, {share} % of {allowed:,} "
        "(dataverse.daily_requests)"
    )
    document = json.loads(CliRunner().invoke(cli, ["status", "--json"]).stdout)["requests_of_24_h"]
    assert document == {"used": used, "allowed": allowed, "used_pct": share, "warn_pct": 50, "near": near}
    monkeypatch.setenv("D365SYNC_NOW", "2026-11-22T10:00:00Z")
    assert json.loads(CliRunner().invoke(cli, ["status", "--json"]).stdout)["requests_of_24_h"]["used"] == 0


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, Any]], str]:
    """Return the pending conflicts as ``status`` gives them to programs, and all that it says to people."""
    text = '[dataverse]\nurl = "https://emulator.test"\nauth = "managed_identity"\n'
    (tmp_path / "d365sync.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("D365SYNC_NOW", "2026-11-20T10:00:00Z")
    monkeypatch.setenv("D365SYNC_CONFIG", str(tmp_path / "d365sync.toml"))
    monkeypatch.setenv("COLUMNS", "200")
    document = json.loads(CliRunner().invoke(cli, ["status", "--json"]).stdout)
    return document["pending_conflicts"], CliRunner().invoke(cli, ["status"]).output


def test_status_names_conflicts_until_they_are_settled_and_what_can_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = load(tmp_path)
    theirs = {"isoverridden": True, "actualmoney": Decimal(100)}
    with meanwhile(emulator, tmp_path, lambda: change(emulator, ANN, **theirs)) as app:
        app.sync(write=True)
    (one,), told = asked(tmp_path, monkeypatch)
    assert (one["goal_id"], one["title"], one["state"]) == (ANN, "Ann", "overridden by a person")
    assert "Override" in one["mend"]
    assert "Pending conflicts" in told
    assert "Ann" in told
    change(emulator, ANN, isoverridden=False)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    found, told = asked(tmp_path, monkeypatch)
    assert found == []
    assert "Pending conflicts" not in told


def test_status_names_a_write_of_which_nobody_knows_whether_it_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=False)
        run_id = app.line.journal.start_run("sync", "override", NOW)
        app.line.journal.intend(run_id, [Intent(ANN, "Ann", "1", {}, {})], NOW)
    (one,), _ = asked(tmp_path, monkeypatch)
    assert (one["title"], one["state"]) == ("Ann", "outcome unknown")
    assert "d365sync sync" in one["mend"]
