"""``d365sync db``: copies, restoring, checking, pruning, upgrading and unlocking, as an administrator uses them."""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from d365sync.cli.main import main
from d365sync.emulator import Emulator
from d365sync.errors import LeaseLostError
from d365sync.journal.models import FORMAT
from d365sync.journal.store import Journal
from d365sync.sync.holding import own_name
from tests.emulated import NOW, application
from tests.integration.test_damage import spoil
from tests.integration.test_journal_formats import replay

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
MINUTE = dt.timedelta(minutes=1)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        told = capsys.readouterr()
        return int(str(ended.value.code)), " ".join(told.out.split()), told.err

    return run_command


@pytest.fixture
def document(run: Run) -> Callable[..., Any]:
    def read(*arguments: str) -> Any:
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return read


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "d365sync.toml"
    path.write_text('[dataverse]\nurl = "https://emulator.test"\nauth = "managed_identity"\n', encoding="utf-8")
    monkeypatch.setenv("D365SYNC_CONFIG", str(path))
    monkeypatch.setenv("D365SYNC_NOW", "2026-11-20T09:00:00Z")
    return tmp_path


@pytest.fixture
def emulator() -> Emulator:
    return Emulator.load(SMALL, now=NOW)


@pytest.fixture
def synced(emulator: Emulator, folder: Path) -> Path:
    with application(emulator, folder) as app:
        assert app.sync(write=True).counts["written_goals"]
    return folder


def test_a_copy_is_private_whole_and_never_written_over(synced: Path, run: Run, document: Callable[..., Any]) -> None:
    made = document("db", "backup", str(synced / "copy.db"))
    assert (made["format"], made["runs"], made["url"]) == (FORMAT, 1, "https://emulator.test")
    assert stat.S_IMODE((synced / "copy.db").stat().st_mode) == 0o600
    code, _, told = run("db", "backup", str(synced / "copy.db"))
    assert (code, "is there already" in told) == (2, True)
    assert run("db", "backup", str(synced / "nowhere" / "copy.db"))[0] == 2
    assert "copied 1 run and" in run("db", "backup")[1]
    assert "copied 1 run and" in run("db", "backup")[1]
    assert len(list(synced.glob("journal-backup-*.db"))) == 2


def test_a_copy_can_be_made_while_an_instance_writes(synced: Path, run: Run) -> None:
    with closing(sqlite3.connect(synced / "journal.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert run("db", "backup", str(synced / "copy.db"))[0] == 0


def test_a_restored_journal_knows_what_it_knew_and_nothing_is_written_twice(
    synced: Path, emulator: Emulator, run: Run
) -> None:
    run("db", "backup", str(synced / "copy.db"))
    with application(emulator, synced, now=NOW + MINUTE) as app:
        app.line.journal.start_run("sync", "override", NOW + MINUTE)
        epoch = app.line.journal.acquire_lease("crm-2:1:a-1", NOW, MINUTE)
        assert epoch is not None
        app.line.mirror.fence(5)
    code, told, _ = run("db", "restore", str(synced / "copy.db"))
    assert code == 0
    assert "restored 1 run, the last of 2026-11-20T09:00:00Z, and" in told
    (kept,) = synced.glob("journal.db.replaced-*Z")
    with closing(sqlite3.connect(kept)) as replaced:
        assert replaced.execute("SELECT COUNT(*) FROM run").fetchone() == (2,)
    with application(emulator, synced) as app, app.lease() as lease:
        assert lease.epoch == 6
        assert app.sync(write=True).counts["written_goals"] == 0
        assert len(app.line.journal.runs(9)) == 2
    assert stat.S_IMODE((synced / "journal.db").stat().st_mode) == 0o600


def test_an_instance_that_still_has_the_replaced_journal_open_cannot_work_with_it(synced: Path, run: Run) -> None:
    run("db", "backup", str(synced / "copy.db"))
    journal = Journal.open(f"sqlite:///{synced}/journal.db")
    lease = journal.acquire_lease("crm-2:1:a-1", NOW, MINUTE)
    journal.fence(lease)
    assert run("db", "restore", str(synced / "copy.db"))[0] == 0
    assert journal.acquire_lease("crm-2:1:a-1", NOW + dt.timedelta(days=3650), MINUTE) is None
    with pytest.raises(LeaseLostError):
        journal.start_run("sync", "override", NOW)
    journal.close()


def test_nothing_is_restored_under_the_feet_of_an_instance(synced: Path, run: Run) -> None:
    run("db", "backup", str(synced / "copy.db"))
    before = (synced / "journal.db").read_bytes()
    with closing(Journal.open(f"sqlite:///{synced}/journal.db")) as journal:
        journal.acquire_lease("crm-2:4711:a-1", dt.datetime.now(dt.UTC), MINUTE)
        code, _, told = run("db", "restore", str(synced / "copy.db"))
        assert (code, "process 4711 on crm-2" in told) == (10, True)
    assert list(synced.glob("journal.db.replaced-*")) == []
    assert len((synced / "journal.db").read_bytes()) == len(before)


def test_what_is_no_copy_damaged_newer_or_of_another_organization_is_not_restored(synced: Path, run: Run) -> None:
    run("db", "backup", str(synced / "copy.db"))
    whole = (synced / "copy.db").read_bytes()
    (synced / "text.db").write_text("no database", encoding="utf-8")
    (synced / "half.db").write_bytes(whole[: len(whole) // 2])
    for name, change in (
        ("newer.db", f"UPDATE journal_format SET version = {FORMAT + 1}"),
        ("other.db", "UPDATE journal_owner SET organization_id = 'b', url = 'https://b.test'"),
        ("none.db", "DROP TABLE journal_format"),
    ):
        (synced / name).write_bytes(whole)
        with closing(sqlite3.connect(synced / name)) as connection:
            connection.execute(change)
            connection.commit()
    expected = {
        "missing.db": (2, "there is no file"),
        "text.db": (1, "is damaged"),
        "half.db": (1, "is damaged"),
        "newer.db": (1, f"has format {FORMAT + 1}"),
        "other.db": (2, "the copy is of organization b (https://b.test)"),
        "none.db": (2, "is no journal"),
        "mirror.db": (2, "is no journal"),
    }
    for name, (code, words) in expected.items():
        found, _, told = run("db", "restore", str(synced / name))
        assert (found, words in told) == (code, True), (name, told)
    assert list(synced.glob("journal.db.replaced-*")) == []


def test_a_damaged_journal_is_replaced_by_a_copy(synced: Path, emulator: Emulator, run: Run) -> None:
    run("db", "backup", str(synced / "copy.db"))
    spoil(synced / "journal.db", first=0)
    code, _, told = run("status")
    assert (code, "d365sync db restore FILE" in told) == (1, True)
    assert run("db", "restore", str(synced / "copy.db"))[0] == 0
    with application(emulator, synced) as app:
        assert app.sync(write=True).counts["written_goals"] == 0


def test_a_copy_of_an_older_format_is_upgraded_as_it_is_restored(folder: Path, run: Run) -> None:
    replay(f"sqlite:///{folder}/old.db", 1)
    code, told, err = run("db", "restore", str(folder / "old.db"))
    assert code == 0, err
    assert "restored 4 runs" in told
    with closing(Journal.open(f"sqlite:///{folder}/journal.db")) as journal:
        assert len(journal.runs(9)) == 4
    with closing(sqlite3.connect(folder / "old.db")) as connection:
        assert connection.execute("SELECT version FROM journal_format").fetchone() == (1,)


@pytest.mark.postgresql
def test_a_journal_in_postgresql_is_copied_and_restored_alike(
    synced: Path, postgresql_url: str, run: Run, monkeypatch: pytest.MonkeyPatch, document: Callable[..., Any]
) -> None:
    """Which also moves a journal from a file into PostgreSQL."""
    first = document("db", "backup", str(synced / "file.db"))
    monkeypatch.setenv("D365SYNC_STORAGE__JOURNAL", postgresql_url)
    assert run("db", "restore", str(synced / "file.db"))[0] == 0
    second = document("db", "backup", str(synced / "server.db"))
    assert {**first, "path": ""} == {**second, "path": ""}
    with closing(Journal.open(postgresql_url)) as journal:
        journal.start_run("sync", "override", NOW)
    restored = document("db", "restore", str(synced / "server.db"))
    assert Path(restored["kept_as"]).parent == synced
    with closing(Journal.open(postgresql_url)) as journal:
        assert len(journal.runs(9)) == 1
        assert journal.intend(journal.start_run("sync", "override", NOW), [], NOW) == []
    checks = {one["name"]: one for one in document("db", "check")["checks"]}
    assert checks["journal"]["verdict"] == "OK"


def names(document: Any) -> dict[str, tuple[str, str]]:
    return {one["name"]: (one["verdict"], one["found"]) for one in document["checks"]}


def test_check_finds_nothing_wrong_where_nothing_is(synced: Path, document: Callable[..., Any]) -> None:
    found = names(document("db", "check"))
    assert found["journal"][0] == found["mirror"][0] == "OK"
    assert f"format {FORMAT}, 1 run, " in found["journal"][1]
    assert found["lease"] == ("OK", "nobody holds it")
    assert not {name for name, (verdict, _) in found.items() if verdict != "OK"} - {
        "SQLite",
        "disk",
    }


def test_check_before_the_first_sync_makes_nothing(folder: Path, document: Callable[..., Any]) -> None:
    assert names(document("db", "check"))["journal"] == ("OK", "there is none yet")
    assert [path.name for path in folder.iterdir()] == ["d365sync.toml"]


def test_check_names_what_is_wrong(synced: Path, run: Run) -> None:
    with closing(sqlite3.connect(synced / "journal.db")) as connection:
        connection.execute("UPDATE goal_write SET run_id = 'gone' WHERE id = 1")
        connection.commit()
    with closing(sqlite3.connect(synced / "mirror.db")) as connection:
        connection.execute("DELETE FROM _table WHERE name = 'opportunity'")
        connection.commit()
    (synced / "mirror.db").chmod(0o644)
    with closing(Journal.open(f"sqlite:///{synced}/journal.db")) as journal:
        journal.acquire_lease("crm-2:4711:a-1", NOW, MINUTE)
    code, told, _ = run("db", "check")
    assert code == 0
    assert "WARN journal rows: 1 write of no run" in told
    assert "WARN mirror rows: left over: _before_opportunity, _bookmark of opportunity" in told
    assert "has mode 0644: others may use it mend: chmod 600" in told
    assert "process 4711 on crm-2 has held it since 2026-11-20T09:00:00Z (epoch 1), but did not renew it" in told


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["journal", "mirror"])
def test_check_fails_where_a_database_is_damaged(name: str, first: int, synced: Path, run: Run) -> None:
    spoil(synced / f"{name}.db", first=first)
    code, told, _ = run("db", "check")
    assert code == 1
    assert f"FAIL {name}: " in told


def test_prune_says_first_what_it_would_forget(synced: Path, run: Run, document: Callable[..., Any]) -> None:
    with application(Emulator.load(SMALL, now=NOW), synced, now=NOW - dt.timedelta(days=500)) as app:
        for _ in range(3):
            app.line.journal.start_run("sync", "override", NOW - dt.timedelta(days=500))
    assert document("db", "prune", "--dry-run") == {"runs": 3, "writes": 0, "kept": 0, "dry_run": True}
    assert "forgot 3 runs and 0 writes; 0 old writes stay" in run("db", "prune", "--older-than", "90d")[1]
    assert run("db", "prune", "--older-than", "soon")[0] == 2
    with closing(Journal.open(f"sqlite:///{synced}/journal.db")) as journal:
        assert len(journal.runs(9)) == 1


def test_upgrade_says_what_it_did(folder: Path, run: Run) -> None:
    replay(f"sqlite:///{folder}/journal.db", 1)
    assert f"the journal has format {FORMAT} now, it had 1" in run("db", "upgrade")[1]
    assert f"the journal has format {FORMAT} already" in run("db", "upgrade")[1]
    assert len(list(folder.glob("journal-format-1-*.db"))) == 1


def test_unlock_ends_the_lease_of_who_is_gone(synced: Path, run: Run) -> None:
    assert "nobody holds the lease" in run("db", "unlock")[1]
    with closing(Journal.open(f"sqlite:///{synced}/journal.db")) as journal:
        journal.acquire_lease(own_name(), dt.datetime.now(dt.UTC), MINUTE)
        code, _, told = run("db", "unlock")
        assert (code, "--force" in told) == (10, True)
        assert f"ended the lease of process {os.getpid()} on" in run("db", "unlock", "--force")[1]
        assert journal.lease() is None
        assert journal.acquire_lease("next", NOW, MINUTE) is not None
