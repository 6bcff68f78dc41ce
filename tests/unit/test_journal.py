"""The journal's runs: what their ids look like."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

from d365sync.journal.store import Journal

NOW = dt.datetime(2026, 11, 20, 9, 0, tzinfo=dt.UTC)


def test_the_id_of_a_run_is_its_instant_and_enough_chance_for_a_clock_that_stands(tmp_path: Path) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    try:
        made = [journal.start_run("sync", "plan", NOW + dt.timedelta(seconds=second)) for second in (0, 0, 1)]
        assert all(re.fullmatch(r"20261120T09000[01]Z-[0-9a-f]{8,}", run_id) for run_id in made)
        assert len(set(made)) == 3
        assert max(made) == made[2] == journal.runs(1)[0].id
    finally:
        journal.close()
