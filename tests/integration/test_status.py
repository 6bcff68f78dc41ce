"""What status says of the day's requests, to people and to programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from d365sync.cli.commands import cli
from d365sync.emulator import Emulator
from tests.emulated import NOW, application

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
