"""What the databases are asked: nothing that a distributed PostgreSQL or a replica refuses, and all writes fenced."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, make_url

from d365sync.app import App
from d365sync.emulator import Emulator
from d365sync.errors import DatabaseError
from d365sync.mirror.store import Mirror
from d365sync.sync.doubles import kept_doubles
from d365sync.sync.offline import computed, mirrored
from tests.emulated import NOW, application

DEMO = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
REFUSED = {
    "advisory locks are of one node": r"pg_(try_)?advisory",
    "locks of whole tables": r"\bLOCK TABLE\b",
    "triggers": r"\bCREATE (CONSTRAINT )?TRIGGER\b",
    "notifications are of one node": r"^\s*(LISTEN|NOTIFY)\b",
    "sequences are of one node": r"\b(SMALL|BIG)?SERIAL\b|\bIDENTITY\b|\bnextval\b",
    "foreign keys need tables that lie together": r"\b(FOREIGN KEY|REFERENCES)\b",
    "places of rows are of one node": r"\bctid\b",
    "temporary tables": r"\bTEMP(ORARY)? TABLE\b",
    "recursion": r"\bWITH RECURSIVE\b",
    "samples of tables": r"\bTABLESAMPLE\b",
    "grouping sets": r"\b(GROUPING SETS|CUBE|ROLLUP)\s*\(",
    "locks of rows in tables that may be spread": r"\bFOR (NO KEY )?(UPDATE|SHARE)\b",
}
"""Source: Citus, "SQL support and workarounds"; PostgreSQL, "Hot Standby"."""
BOOKKEEPING = re.compile(r"FROM _fence\b")
STORES = re.compile(
    r"\s*(INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|CREATE (UNIQUE )?INDEX|DROP|ALTER)\b", re.IGNORECASE
)
OWN = re.compile(r"\b(_wanted|_pair|_looked|_present)\b|temp\.")
"""Tables that only this connection sees."""


@contextmanager
def heard(engine: Engine, hear: Callable[[Connection, str], None]) -> Iterator[None]:
    def on_execute(connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        hear(connection, " ".join(statement.split()))

    event.listen(engine, "before_cursor_execute", on_execute)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", on_execute)


def change(emulator: Emulator) -> None:
    deals = list(emulator.store.rows("opportunity"))
    with emulator.store.transaction():
        emulator.store.change("opportunity", deals[0], {"name": "changed"})
        emulator.store.remove("opportunity", deals[1])


def live(app: App, emulator: Emulator) -> None:
    """A first load, a quiet cycle, one with changes, and what people ask."""
    app.sync(write=True)
    app.sync(write=True)
    change(emulator)
    app.sync(write=True)
    look(app)
    app.sync(write=True, full=True)


def look(app: App) -> object:
    snapshot = mirrored(app.line, NOW)
    rollup, plan = computed(app.line, snapshot)
    kept_doubles(app.line, snapshot)
    return rollup.totals, plan.writes, app.line.mirror.positions(), app.line.journal.runs(5)


@pytest.fixture
def emulator() -> Emulator:
    return Emulator.load(DEMO, now=NOW)


def sections(url: str) -> Mapping[str, Mapping[str, object]]:
    return {"storage": {"mirror": url, "journal": url}, "rollup": {"double_counting": "report"}}


@pytest.mark.postgresql
def test_the_mirror_asks_nothing_that_a_distributed_database_refuses(
    emulator: Emulator, postgresql_url: str, tmp_path: Path
) -> None:
    said: set[str] = set()
    with (
        application(emulator, tmp_path, **sections(postgresql_url)) as app,
        heard(app.line.mirror._engine, lambda _connection, statement: said.add(statement)),
    ):
        live(app, emulator)
    assert len(said) > 50
    refused = {
        statement: why
        for statement in said
        for why, pattern in REFUSED.items()
        if re.search(pattern, statement, re.IGNORECASE) and not BOOKKEEPING.search(statement)
    }
    assert refused == {}


@pytest.mark.postgresql
def test_people_may_look_at_a_replica_that_can_only_be_read(
    emulator: Emulator, postgresql_url: str, tmp_path: Path
) -> None:
    with application(emulator, tmp_path, **sections(postgresql_url)) as app:
        app.sync(write=True)
        expected = look(app)
    name = make_url(postgresql_url).database
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    engine.dispose()
    with application(emulator, tmp_path, offline=True, **sections(postgresql_url)) as app:
        assert look(app) == expected
        with pytest.raises(DatabaseError) as error:
            app.line.mirror.belong_to("https://a.test", "a")
        assert error.value.exit_code == 5


@pytest.mark.parametrize("mode", ["override", "recalculate"])
def test_every_transaction_that_stores_anything_in_the_mirror_was_fenced(
    mode: str, emulator: Emulator, tmp_path: Path
) -> None:
    """Heard from the database itself: a writing transaction begins with the look at the epoch."""
    unfenced: list[str] = []

    def hear(connection: Connection, statement: str) -> None:
        known = connection.info.get("fenced", False)
        connection.info["fenced"] = not statement.startswith("BEGIN") and (known or bool(BOOKKEEPING.search(statement)))
        if STORES.match(statement) and not OWN.search(statement) and not known:
            unfenced.append(statement)

    options = {"rollup": {"double_counting": "report", "visibility": "manager"}, "writeback": {"mode": mode}}
    with application(emulator, tmp_path, **options) as app, app.lease(), heard(app.line.mirror._engine, hear):
        live(app, emulator)
    assert unfenced == []


def test_a_transaction_that_was_not_fenced_would_be_heard(tmp_path: Path) -> None:
    """The negative control of the test above."""
    mirror, said = Mirror.open(f"sqlite:///{tmp_path}/mirror.db"), []
    mirror.fence(1)
    with heard(mirror._engine, lambda _connection, statement: said.append(statement)):
        with mirror.connection() as connection:
            connection.exec_driver_sql("DELETE FROM _double")
        with mirror.connection(writes=True) as connection:
            connection.exec_driver_sql("DELETE FROM _double")
    mirror.close()
    stores = [bool(STORES.match(one)) for one in said]
    assert (stores.count(True), sum(bool(BOOKKEEPING.search(one)) for one in said)) == (2, 1)
