"""Opening a database by URL: SQLite by default, PostgreSQL by another URL.

Serves the mirror and the journal; each maps failures to its own error.

IO: SQL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from d365sync.core.storage import ACCENT_FUNCTION, without_accents
from d365sync.errors import ConfigError, D365SyncError, Fault

_SQLITE_FAULTS = {
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_CORRUPT: Fault.DAMAGED,
    sqlite3.SQLITE_NOTADB: Fault.DAMAGED,
    sqlite3.SQLITE_FULL: Fault.FULL,
}
_POSTGRESQL_FAULTS = {
    "08": Fault.AWAY,  # connection
    "57P": Fault.AWAY,  # shutting down, starting up
    "53300": Fault.BUSY,  # too many connections
    "53": Fault.FULL,  # disk or memory
    "40": Fault.BUSY,  # deadlock, serialization
    "55P03": Fault.BUSY,  # lock not available
    "25006": Fault.AWAY,  # a standby that may only be read
    "XX001": Fault.DAMAGED,
    "XX002": Fault.DAMAGED,
}
"""Source: PostgreSQL, Error Codes (by what they begin with); SQLite, Result and Error Codes (the primary ones)."""
HINTS = {
    Fault.BUSY: "another program has it locked: run again, and look for what keeps it open (a backup, a viewer)",
    Fault.FULL: "make room on the disk; nothing was lost, the next run goes on",
    Fault.AWAY: "see that the database server runs, can be reached and may be written to; the next run goes on",
}
"""What mends the faults that both databases share."""
BUSY_TIMEOUT_MS = 30_000
PRIVATE = 0o600
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
        make_private(file_of(engine))
        _prepare_sqlite(engine, "FULL" if durable else "NORMAL")
    elif engine.dialect.name != "postgresql":
        raise ConfigError(f"databases of kind {engine.dialect.name} are not supported", hint="use SQLite or PostgreSQL")
    return engine


@contextmanager
def transaction(
    engine: Engine, failure: Callable[[str, Fault], D365SyncError], *, writes: bool = False
) -> Iterator[Connection]:
    """Open one transaction; commit at the end, roll back on any exception.

    One that ``writes`` waits for other writers at its beginning. Begun as a reading one, SQLite would refuse its first
    write at once when another writer was quicker, whatever the time-out. Source: SQLite result codes
    (SQLITE_BUSY_SNAPSHOT).

    Raises:
        D365SyncError: ``failure`` of the database's own message, and of what that means.
    """
    with connected(engine, failure) as connection, (for_writing(connection) if writes else connection).begin():
        yield connection


@contextmanager
def connected(engine: Engine, failure: Callable[[str, Fault], D365SyncError]) -> Iterator[Connection]:
    """Open a connection for several transactions; its temporary tables outlive them.

    Raises:
        D365SyncError: ``failure`` of the database's own message.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise failure(first_line(error), fault_of(error)) from error


def fault_of(error: BaseException) -> Fault:
    """Return what a database's own error means."""
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE_FAULTS.get(code & 0xFF, Fault.OTHER)
    if isinstance(cause, sqlite3.Error):
        return Fault.DAMAGED if "decode to UTF-8" in str(cause) else Fault.OTHER
    state = getattr(cause, "sqlstate", None) or ""
    for begin, fault in _POSTGRESQL_FAULTS.items():
        if state.startswith(begin):
            return fault
    return Fault.AWAY if getattr(error, "connection_invalidated", False) or _is_connection(cause) else Fault.OTHER


def _is_connection(cause: BaseException) -> bool:
    return type(cause).__name__ == "OperationalError" and getattr(cause, "sqlstate", None) is None


def for_writing(connection: Connection) -> Connection:
    """Let the transactions of a connection wait for other writers at their beginning from now on."""
    return connection.execution_options(**{WRITES: True})


def first_line(error: SQLAlchemyError) -> str:
    """Return the database's own words, in one line."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def file_of(engine: Engine) -> Path | None:
    """Return the file of a SQLite database, None where there is none."""
    database = engine.url.database
    named = engine.dialect.name == "sqlite" and database not in (None, "", ":memory:")
    return Path(str(database)) if named else None


def make_private(path: Path | None) -> None:
    """Make the file of a new SQLite database so that only its owner may read it; its companions inherit that."""
    if path is not None:
        with suppress(OSError):  # SQLite says itself what is wrong
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE))


def first_damage(connection: Connection, *, thorough: bool = False) -> str | None:
    """Read a database through; return the first thing that is wrong with it, None when nothing is, or cannot be told.

    PostgreSQL finds damage by itself when it reads it (data checksums), so it is not asked.
    """
    if connection.dialect.name != "sqlite":
        return None
    found = connection.exec_driver_sql(f"PRAGMA {'integrity' if thorough else 'quick'}_check(1)").scalar()
    return None if found == "ok" else str(found).splitlines()[-1]


def size_of(connection: Connection, tables: Sequence[str]) -> int | None:
    """Return the bytes that a SQLite database takes, or these tables of a PostgreSQL one with their indexes."""
    if connection.dialect.name == "sqlite":
        pages, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
        )
        return int(pages) * int(size)
    sql = text(
        "SELECT COALESCE(SUM(pg_total_relation_size(to_regclass(quote_ident(name)))), 0) "
        "FROM unnest(CAST(:names AS text[])) name"
    )
    return int(connection.execute(sql, {"names": list(tables)}).scalar_one())


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
