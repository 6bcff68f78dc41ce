"""Killed before any commit or request, d365sync loses no write, repeats none with effect, and overwrites no person.

By default a part of the points; all of them, on SQLite and PostgreSQL, with ``make kills``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.effort import EFFORT

ROOT = Path(__file__).parents[2]


def loop(scene: str, *options: str) -> tuple[int, int, str]:
    """Run a kill loop; return how many faults it found, at how many points it killed, and what it printed."""
    command = [sys.executable, "-m", "tests.kills.loop", scene, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = re.search(r"^(\d+) faults, (\d+) of \d+ points$", done.stdout, re.MULTILINE)
    assert told, done.stdout + done.stderr
    return int(told[1]), int(told[2]), done.stdout


@pytest.mark.parametrize(("scene", "every"), [("busy", 4), ("first", 11), ("backfill", 7)])
def test_whenever_it_is_killed_nothing_is_lost_and_nothing_is_done_twice(scene: str, every: int) -> None:
    faults, points, told = loop(scene, "--every", str(every if EFFORT <= 1 else 1))
    assert not faults, told
    assert points >= 8


@pytest.mark.postgresql
def test_the_same_on_postgresql(postgresql_server: str) -> None:
    faults, points, told = loop("busy", "--every", "8" if EFFORT <= 1 else "1", "--postgresql", postgresql_server)
    assert not faults, told
    assert points >= 5


@pytest.mark.parametrize(("flaw", "at"), [("bookmark", "_bookmark"), ("journal", "goal_write")])
def test_a_line_that_saves_in_the_wrong_order_is_caught(flaw: str, at: str) -> None:
    """Bookmarks before their rows, and writes noted only afterwards: the loop would see it."""
    faults, _, told = loop("busy", "--flaw", flaw, "--at", at)
    assert faults, told
