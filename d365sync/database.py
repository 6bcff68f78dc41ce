"""Opening a database by URL: SQLite by default, PostgreSQL by another URL.

Serves the mirror and the journal; each maps failures to its own error.

IO: SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from d365sync.core.storage import ACCENT_FUNCTION, without_accents
from d365sync.errors import ConfigError, D365SyncError

BUSY_TIMEOUT_MS = 30_000
WRITES = "d365sync_writes"
CHECKPOINT_PAGES = 2_000
"""Pages (of 4 KiB) of the write-ahead log after which it is written back: more than a page of 5,000 rows needs, so that
not every one waits for the disk; little enough that it happens while the next one is on its way."""


def open_engine(url: str, *, durable: bool) -> Engine:
    """Return an engine; ``durable`` makes every commit reach the disk before it counts.

    Raises:
        ConfigError: the URL is not one of a database that can be used.
    """
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise ConfigError(
            f"the database URL {url.partition(':')[0]}:… cannot be used: {type(error).__name__}",
            hint='use sqlite:///FILE, or postgresql+psycopg://USER@HOST/DB with `pip install "d365sync[postgresql]"`',
        ) from None
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, "FULL" if durable else "NORMAL")
    elif engine.dialect.name != "postgresql":
        raise ConfigError(f"databases of kind {engine.dialect.name} are not supported", hint="use SQLite or PostgreSQL")
    return engine


@contextmanager
def transaction(
    engine: Engine, failure: Callable[[str], D365SyncError], *, writes: bool = False
) -> Iterator[Connection]:
    """Open one transaction; commit at the end, roll back on any exception.

    One that ``writes`` waits for other writers at its beginning. Begun as a reading one, SQLite would refuse its first
    write at once when another writer was quicker, whatever the time-out. Source: SQLite result codes
    (SQLITE_BUSY_SNAPSHOT).

    Raises:
        D365SyncError: ``failure`` of the database's own message.
    """
    with connected(engine, failure) as connection, (for_writing(connection) if writes else connection).begin():
        yield connection


@contextmanager
def connected(engine: Engine, failure: Callable[[str], D365SyncError]) -> Iterator[Connection]:
    """Open a connection for several transactions; its temporary tables outlive them.

    Raises:
        D365SyncError: ``failure`` of the database's own message.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise failure(_first_line(error)) from error


def for_writing(connection: Connection) -> Connection:
    """Let the transactions of a connection wait for other writers at their beginning from now on."""
    return connection.execution_options(**{WRITES: True})


def _first_line(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def _prepare_sqlite(engine: Engine, synchronous: str) -> None:
    """Let SQLAlchemy, not the driver, begin transactions, so that DDL and reads are inside them too."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.create_function(ACCENT_FUNCTION, 1, lambda text: text and without_accents(text), deterministic=True)
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {synchronous}")
        if synchronous == "NORMAL":
            cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")
