"""Databases that are damaged, locked or full: what is said, what is kept, and how the next run goes on (rows 12-15)."""

from __future__ import annotations

import datetime as dt
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from d365sync import database
from d365sync.emulator import Emulator
from d365sync.errors import Fault, JournalError, LeaseError, MirrorError
from d365sync.journal.store import Journal
from d365sync.mirror.store import Mirror
from d365sync.sync.cycle import Outcome
from tests.emulated import NOW, application
from tests.integration.test_mirror import DEALS, deal

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
PAGE = 4096


def close_off(path: Path) -> None:
    """Have everything in the one file, as after the last process closed it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def spoil(path: Path, *, first: int = 1, last: int | None = None) -> None:
    """Overwrite pages of a database; the first page is number 0."""
    close_off(path)
    with path.open("r+b") as file:
        pages = path.stat().st_size // PAGE
        for number in range(first, min(last or pages, pages)):
            file.seek(number * PAGE)
            file.write(os.urandom(16) * (PAGE // 16))


@pytest.fixture
def emulator() -> Emulator:
    return Emulator.load(SMALL, now=NOW)


def written(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM goal_write").fetchone()[0])


@pytest.mark.parametrize("first", [0, 1])
def test_a_damaged_mirror_is_put_aside_and_pulled_again(
    first: int, emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with application(emulator, tmp_path) as app:
        before = app.sync(write=True)
    wrote = written(tmp_path)
    spoil(tmp_path / "mirror.db", first=first)
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
        assert result.outcome is Outcome.OK
        assert result.counts["rows"] == before.counts["rows"]
        (aside,) = [path for path in tmp_path.glob("mirror.db.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
        again = app.sync(write=True)
        assert again.counts["written_goals"] == result.counts["written_goals"] == 0
    assert written(tmp_path) == wrote
    assert capsys.readouterr().out.count(aside.name) <= 1
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    assert len(list(tmp_path.glob("mirror.db.damaged-*"))) <= 3


@pytest.mark.parametrize("table", ["_fence", "_layout", "_bookmark"])
def test_one_page_of_bookkeeping_that_is_damaged_does_not_stop_who_takes_the_lease(
    table: str, emulator: Emulator, tmp_path: Path
) -> None:
    with application(emulator, tmp_path) as app, app.lease():
        app.sync(write=True)
    close_off(tmp_path / "mirror.db")
    with closing(sqlite3.connect(tmp_path / "mirror.db")) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    spoil(tmp_path / "mirror.db", first=root - 1, last=root)
    with application(emulator, tmp_path) as app, app.lease():
        assert app.sync(write=True).counts["written_goals"] == 0
        assert app.line.mirror.epoch() == 2


def test_of_damaged_mirrors_the_last_is_kept(emulator: Emulator, tmp_path: Path) -> None:
    for day in range(3):
        moment = NOW + dt.timedelta(days=day)
        with application(emulator, tmp_path, now=NOW, real_clock=lambda moment=moment: moment) as app:
            app.sync(write=True)
        spoil(tmp_path / "mirror.db", first=0)
    names = {path.name for path in tmp_path.glob("mirror.db.damaged-*")}
    assert {name for name in names if not name.endswith(("-wal", "-shm"))} == {"mirror.db.damaged-20261122T090000Z"}


def test_damage_that_no_statement_meets_is_found_once_a_day(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mirror.db"
    mirror = Mirror.open(url)
    mirror.ensure(DEALS)
    mirror.apply(DEALS, [deal(number, "5") for number in range(200)])
    mirror.verify(NOW)
    mirror.close()
    pages = (tmp_path / "mirror.db").stat().st_size // PAGE
    spoil(tmp_path / "mirror.db", first=pages - 2)
    mirror = Mirror.open(url)
    assert not mirror.is_due(NOW + dt.timedelta(hours=23))
    assert mirror.is_due(NOW + dt.timedelta(hours=24))
    with pytest.raises(MirrorError, match="the mirror is damaged") as error:
        mirror.verify(NOW + dt.timedelta(hours=24))
    assert error.value.fault is Fault.DAMAGED
    mirror.close()


def test_a_mirror_made_again_keeps_its_fence(tmp_path: Path) -> None:
    mirror, other = (Mirror.open(f"sqlite:///{tmp_path}/mirror.db") for _ in range(2))
    mirror.fence(7)
    other.close()
    mirror.make_again(NOW)
    assert mirror.epoch() == 7
    mirror.ensure(DEALS)
    mirror.close()


def test_a_command_that_only_looks_leaves_a_damaged_mirror_where_it_is(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    spoil(tmp_path / "mirror.db", first=0)
    with pytest.raises(MirrorError, match="not a database") as error, application(emulator, tmp_path, offline=True):
        pass
    assert "the next sync puts it aside" in error.value.hint
    assert list(tmp_path.glob("mirror.db.damaged-*")) == []


def test_a_damaged_mirror_is_not_put_aside_while_another_instance_works(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        app.line.journal.acquire_lease("crm-2:1:a-1", app.real_clock(), dt.timedelta(minutes=1))
    spoil(tmp_path / "mirror.db", first=0)
    with pytest.raises(LeaseError, match="process 1 on crm-2"), application(emulator, tmp_path):
        pass
    assert list(tmp_path.glob("mirror.db.damaged-*")) == []


@pytest.mark.parametrize("first", [0, 1])
def test_a_damaged_journal_stops_everything_and_says_how_to_restore_it(
    first: int, emulator: Emulator, tmp_path: Path
) -> None:
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    spoil(tmp_path / "journal.db", first=first)
    before = (tmp_path / "journal.db").read_bytes()

    def run() -> None:
        with application(emulator, tmp_path, real_clock=lambda: NOW + dt.timedelta(days=400)) as app:
            app.sync(write=True)

    with pytest.raises(JournalError) as error:
        run()
    assert error.value.fault is Fault.DAMAGED
    assert error.value.exit_code == 1
    assert "d365sync db restore FILE" in error.value.hint
    assert (tmp_path / "journal.db").read_bytes()[PAGE:] == before[PAGE:]


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    mirror = Mirror.open(f"sqlite:///{tmp_path}/mirror.db")
    mirror.ensure(DEALS)
    mirror.apply(DEALS, [deal(1, "5")])
    yield mirror
    mirror.close()


def limit(database: Mirror | Journal, pages: int) -> None:
    """Have the disk end after so many pages, on each connection that there is or will be."""
    from sqlalchemy import event

    @event.listens_for(database._engine, "checkout")
    def on_checkout(connection: sqlite3.Connection, _record: object, _proxy: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_keeps_what_was_there_and_the_next_page_goes_on(mirror: Mirror) -> None:
    limit(mirror, 1)  # the present size, as SQLite understands it
    with pytest.raises(MirrorError, match="full") as error:
        mirror.apply(DEALS, [deal(number, "5" * 9) for number in range(2, 3000)])
    assert (error.value.fault, error.value.exit_code) == (Fault.FULL, 5)
    assert "make room" in error.value.hint
    assert mirror.count(DEALS.name) == 1
    limit(mirror, 1_000_000)
    mirror.apply(DEALS, [deal(number, "5") for number in range(2, 3000)])
    assert mirror.count(DEALS.name) == 2999
    mirror.verify(NOW)


def test_a_cycle_that_met_a_full_disk_goes_on_when_there_is_room(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        limit(app.line.journal, 1)
        limit(app.line.mirror, 1)

        def fill() -> None:
            for _ in range(2000):
                app.line.journal.start_run("sync" * 40, "plan", NOW)

        with pytest.raises(JournalError) as error:
            fill()
        assert error.value.exit_code == 5
        with pytest.raises((JournalError, MirrorError)) as failed:
            app.sync(write=True)
        assert failed.value.exit_code == 5
    with application(emulator, tmp_path) as app:
        assert app.sync(write=True).outcome is Outcome.OK
        app.line.journal.verify()
        assert app.sync(write=True).counts["written_goals"] == 0


@pytest.mark.parametrize("kind", [Mirror, Journal])
def test_a_database_that_stays_locked_is_a_temporary_fault(
    kind: type[Mirror | Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    path = tmp_path / "some.db"
    with closing(kind.open(f"sqlite:///{path}")) as one, closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises((MirrorError, JournalError), match="locked") as error:
            one.belong_to("https://a.test", "a")
        assert (error.value.fault, error.value.exit_code) == (Fault.BUSY, 5)
        assert "another program" in error.value.hint
        kind.open(f"sqlite:///{path}").close()


@pytest.mark.parametrize("kind", [Mirror, Journal])
def test_databases_are_made_for_their_owner_alone(kind: type[Mirror | Journal], tmp_path: Path) -> None:
    with closing(kind.open(f"sqlite:///{tmp_path}/some.db")) as one:
        one.belong_to("https://a.test", "a")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"some.db": 0o600, "some.db-wal": 0o600, "some.db-shm": 0o600}


def test_a_mirror_of_another_layout_is_emptied_and_leaves_other_tables_alone(database_url: str) -> None:
    Journal.open(database_url).close()
    with closing(Mirror.open(database_url)) as mirror:
        mirror.ensure(DEALS)
        with mirror._writing() as connection:
            connection.exec_driver_sql("UPDATE _layout SET version = 1")
    with closing(Mirror.open(database_url)) as mirror:
        assert mirror.ensure(DEALS)
    with closing(Journal.open(database_url)) as journal:
        assert journal.runs(1) == []


def test_a_database_server_that_is_away_is_a_temporary_fault(tmp_path: Path) -> None:
    with pytest.raises(JournalError) as error:
        Journal.open(f"postgresql+psycopg://nobody@/nothing?host={tmp_path}")
    assert (error.value.fault, error.value.exit_code) == (Fault.AWAY, 5)
