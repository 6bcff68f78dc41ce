"""Two processes at one database: they wait for each other, and what cannot be had is said (fault list, row 13)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from d365sync import database
from d365sync.errors import MirrorError
from d365sync.journal.store import Journal
from d365sync.mirror.store import Mirror
from tests.emulated import NOW
from tests.integration.test_mirror import DEALS, deal

ROUNDS = 40


def together(*works: Callable[[int], object]) -> list[BaseException]:
    """Do works at the same time, round after round; return what went wrong."""
    wrong: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[int], object]) -> None:
        try:
            for number in range(ROUNDS):
                start.wait(10)
                work(number)
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)
            start.abort()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for one in wrong if not isinstance(one, threading.BrokenBarrierError)]


def test_writers_that_look_before_they_write_wait_for_each_other(tmp_path: Path) -> None:
    """A transaction that begins by reading could not become a writing one any more, and no time-out would help."""
    one, other = (Mirror.open(f"sqlite:///{tmp_path}/mirror.db") for _ in range(2))
    one.ensure(DEALS)

    def put(mirror: Mirror, first: int) -> Callable[[int], object]:
        return lambda number: mirror.apply(DEALS, [deal(first + number, "1", version=number)])

    assert together(put(one, 0), put(other, 20), lambda _number: one.rows(DEALS)) == []
    assert one.count(DEALS.name) == 20 + ROUNDS
    for mirror in (one, other):
        mirror.close()


def test_runs_of_two_processes_are_noted_side_by_side(tmp_path: Path) -> None:
    one, other = (Journal.open(f"sqlite:///{tmp_path}/journal.db") for _ in range(2))

    def note(journal: Journal) -> Callable[[int], object]:
        def run(_number: int) -> None:
            journal.finish_run(journal.start_run("sync", "override", NOW), "ok", {}, "", NOW)

        return run

    assert together(note(one), note(other)) == []
    assert len(one.runs(1000)) == 2 * ROUNDS
    for journal in (one, other):
        journal.close()


def test_a_database_that_stays_locked_is_said_so_and_readers_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    mirror = Mirror.open(f"sqlite:///{tmp_path}/mirror.db")
    mirror.ensure(DEALS)
    mirror.apply(DEALS, [deal(1, "5")])
    holder = sqlite3.connect(tmp_path / "mirror.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(MirrorError, match="locked"):
        mirror.apply(DEALS, [deal(2, "6")])
    assert [row["opportunityid"] for row in mirror.rows(DEALS)] == [deal(1, "5")["opportunityid"]]
    holder.execute("ROLLBACK")
    holder.close()
    mirror.apply(DEALS, [deal(2, "6")])
    assert mirror.count(DEALS.name) == 2
    mirror.close()
