"""Journals of every released format come to this version's, and those of a newer one are refused."""

from __future__ import annotations

import datetime as dt
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect

from d365sync.errors import JournalError, LeaseError
from d365sync.journal import formats, migrations
from d365sync.journal.copies import check_copy
from d365sync.journal.models import FORMAT, JournalModel
from d365sync.journal.store import Journal, WriteOutcome
from d365sync.journal.upgrading import Keeping

FIXTURES = Path(__file__).parents[2] / "fixtures" / "journal"
RELEASED = sorted(int(path.name.split("-")[1]) for path in FIXTURES.glob("format-*-sqlite.sql"))
NOW = dt.datetime(2026, 12, 1, 5, tzinfo=dt.UTC)
GOALS = [f"goal-{number}" for number in range(1, 6)]


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def replay(url: str, number: int) -> None:
    """Make a journal as a released version left it."""
    kind = url.partition(":")[0].partition("+")[0]
    script = (FIXTURES / f"format-{number}-{kind}.sql").read_text(encoding="utf-8")
    if kind == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(script)
        return
    with connected(url) as connection:
        connection.connection.driver_connection.execute(script)  # type: ignore[union-attr]


@pytest.fixture(params=RELEASED)
def older(request: pytest.FixtureRequest, database_url: str) -> str:
    replay(database_url, request.param)
    return database_url


def keeping(folder: Path, *, copies: bool = True) -> Keeping:
    return Keeping(folder=folder, copies=copies, clock=lambda: NOW)


def test_a_journal_of_every_released_format_is_upgraded_with_all_that_it_knows(older: str, tmp_path: Path) -> None:
    journal = Journal.open(older, keeping=keeping(tmp_path))
    try:
        owner = journal.owner()
        assert owner is not None
        assert owner[0] == "https://contoso.crm4.dynamics.com"
        killed, failed, own, first = journal.runs(9)
        assert (killed.outcome, failed.message, own.mode, first.counts["written_goals"]) == (
            None,
            "no answer",
            "columns",
            2,
        )
        written = journal.written_values(GOALS)
        assert {goal: [one["actualmoney"] for one in values] for goal, values in written.items()} == {
            "goal-1": [Decimal(100)],
            "goal-2": [Decimal(2)],
            "goal-5": [Decimal(500)],
        }
        assert journal.kept_values(GOALS)["goal-5"]["sent.actualmoney"] == Decimal("500.005")
        assert [one.goal_id for one in journal.written_by(own.id)] == ["goal-1"]
        lease = journal.acquire_lease("me", NOW, dt.timedelta(minutes=1))
        assert lease is not None
        journal.fence(lease)
        (number,) = journal.intend(journal.start_run("sync", "override", NOW), [], NOW) or (None,)
        assert number is None
    finally:
        journal.close()
    again = Journal.open(older, keeping=keeping(tmp_path))
    again.close()
    assert len(list(tmp_path.glob("*format-*.db"))) == 1


def test_an_upgraded_journal_numbers_its_writes_after_those_it_has(older: str, tmp_path: Path) -> None:
    from d365sync.journal.store import Ending, Intent

    journal = Journal.open(older, keeping=keeping(tmp_path))
    run = journal.start_run("sync", "override", NOW)
    (number,) = journal.intend(run, [Intent("goal-1", "Goal", 'W/"9"', {}, {"actualmoney": Decimal(9)})], NOW)
    journal.done([Ending(number, WriteOutcome.DONE)], NOW)
    assert number == 8
    assert journal.written_values(GOALS)["goal-1"] == ({"actualmoney": Decimal(9)},)
    journal.close()


def test_before_an_upgrade_a_copy_is_put_aside_that_only_its_owner_may_read(older: str, tmp_path: Path) -> None:
    Journal.open(older, keeping=keeping(tmp_path)).close()
    (path,) = tmp_path.glob("*-format-*-20261201T050000Z.db")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    copy = check_copy(path)
    assert copy.format < FORMAT
    assert (copy.runs, copy.writes, copy.url) == (4, 7, "https://contoso.crm4.dynamics.com")
    taken = Journal.open(f"sqlite:///{path}", keeping=keeping(tmp_path, copies=False))
    assert len(taken.runs(9)) == 4
    taken.close()


@pytest.mark.parametrize("number", RELEASED)
def test_without_room_for_a_copy_a_journal_stays_as_it_is(number: int, postgresql_url: str, tmp_path: Path) -> None:
    replay(postgresql_url, number)
    for place in (None, tmp_path / "missing"):
        with pytest.raises(JournalError) as refusal:
            Journal.open(postgresql_url, keeping=Keeping(folder=place, clock=lambda: NOW))
        assert refusal.value.hint
    with connected(postgresql_url) as connection:
        assert formats.format_of(connection) == number
    Journal.open(postgresql_url, keeping=Keeping(copies=False)).close()


def test_a_journal_of_a_newer_version_is_refused_untouched(database_url: str) -> None:
    Journal.open(database_url).close()
    with connected(database_url) as connection:
        connection.exec_driver_sql(f"UPDATE journal_format SET version = {FORMAT + 1}")
    with pytest.raises(
        JournalError, match=f"the journal has format {FORMAT + 1}, this version of d365sync knows"
    ) as error:
        Journal.open(database_url)
    assert "newer" in error.value.hint


def test_a_journal_is_not_upgraded_while_an_instance_works_with_it(database_url: str) -> None:
    journal = Journal.open(database_url)
    journal.acquire_lease("crm-2:1:a-1", NOW, dt.timedelta(minutes=1))
    journal.close()
    with connected(database_url) as connection:
        with pytest.raises(LeaseError, match=r"must be upgraded to \d+, but crm-2:1:a-1 works with it"):
            formats.refuse_while_held(connection, 2, NOW)
        formats.refuse_while_held(connection, 2, NOW + dt.timedelta(minutes=1))


def test_a_migration_that_fails_leaves_the_journal_as_it_was(database_url: str, tmp_path: Path) -> None:
    """Here: a table is in its way. Making tables is part of the transaction in both databases."""
    replay(database_url, 1)
    with connected(database_url) as connection:
        connection.exec_driver_sql("CREATE TABLE lease (odd INTEGER)")
    with pytest.raises(JournalError, match="already exists"):
        Journal.open(database_url, keeping=keeping(tmp_path))
    with connected(database_url) as connection:
        assert formats.format_of(connection) == 1
        assert not inspect(connection).has_table("alembic_version")


def migrated(engine: Engine) -> None:
    with engine.begin() as connection:
        formats.upgrade(connection, found=0)


def test_migrations_and_models_lead_to_the_same_tables(database_url: str) -> None:
    engine = create_engine(database_url)
    migrated(engine)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(found, JournalModel.metadata) == []
        assert formats.format_of(connection) == FORMAT
        assert found.get_current_revision() == str(FORMAT)
    engine.dispose()


def test_a_new_journal_is_made_as_if_by_every_migration(tmp_path: Path) -> None:
    made, grown = f"sqlite:///{tmp_path}/made.db", f"sqlite:///{tmp_path}/grown.db"
    Journal.open(made).close()
    engine = create_engine(grown)
    migrated(engine)
    engine.dispose()
    assert columns(made) == columns(grown)


def columns(url: str) -> dict[str, object]:
    with connected(url) as connection:
        found = inspect(connection)
        return {
            name: (
                {column["name"]: (str(column["type"]), column["nullable"]) for column in found.get_columns(name)},
                sorted((str(index["name"]), tuple(index["column_names"])) for index in found.get_indexes(name)),
            )
            for name in found.get_table_names()
        }


def test_the_newest_migration_is_the_format_of_the_models() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert [one.revision for one in scripts.walk_revisions()] == [str(number) for number in range(FORMAT, 0, -1)]


def test_opening_a_journal_of_this_format_writes_nothing(tmp_path: Path) -> None:
    """Somebody who may only look, or who comes while another writes, is not kept waiting."""
    url = f"sqlite:///{tmp_path}/journal.db"
    Journal.open(url).close()
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        Journal.open(url).close()
