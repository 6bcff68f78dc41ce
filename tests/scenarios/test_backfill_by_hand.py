"""A backfill as an administrator runs it."""

from __future__ import annotations

import copy
from pathlib import Path

from tests.golden.casebook import write_org
from tests.scenarios.conftest import CASES, initialise, served

WINDOW = ("backfill", "--from", "2026-12-31", "--to", "2027-06-30")


def test_an_administrator_sees_what_a_backfill_would_write_wrote_and_could_not(tmp_path: Path) -> None:
    case = copy.deepcopy(CASES["tree"])
    case.tables["Goals"][-1]["options"] = "closed,actualmoney=9"
    write_org(case, tmp_path / "org")
    with served(tmp_path / "org") as remote:
        admin = initialise(tmp_path / "admin", remote)
        wrong = admin.run("backfill", "--from", "2026-12-31", "--to", "2026-12-30")
        assert (wrong.code, "ends (2026-12-30) before it starts" in wrong.err) == (2, True)
        assert admin.run("backfill", "--from", "yesterday", "--to", "2026-12-31").code == 2
        shown = admin.run(*WINDOW, "--dry-run")
        assert shown.code == 0
        assert "nothing was written: this was a dry run" in shown.out
        done = admin.run(*WINDOW)
        assert (done.code, done.err) == (0, "")
        assert "Closed, so not writable, and different" in done.out
        assert "wrote 4 of 4 goals" in done.out
        document = admin.run(*WINDOW, "--json").document
        assert (document["resumed"], document["counts"]["written_goals"]) == (False, 0)
        (year,) = document["years"]
        assert (year["year"], year["goals"], year["unwritable"]) == (2026, 5, 1)
        (closed,) = document["unwritable"]
        assert (closed["title"], closed["stored"]["actualmoney"], closed["ours"]["actualmoney"]) == ("South", 9, 4.0001)
