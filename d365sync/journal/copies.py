"""Copies of a journal: always a SQLite file that only its owner may read, whatever database the journal is in.

IO: files, SQL.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, func, insert, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from d365sync.core.values import format_instant
from d365sync.database import first_line
from d365sync.errors import JournalError, UsageError
from d365sync.journal.formats import FORMATS, VERSION_TABLE, format_of, refuse_newer, upgrade
from d365sync.journal.lease import LEASES
from d365sync.journal.models import FORMAT, JournalModel, OwnerRow

OWNERS = JournalModel.metadata.tables[str(OwnerRow.__tablename__)]
MANY = 5_000
"""Rows that are moved at one time."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What a copy holds; the organization is empty when the journal had none yet. ``until`` is its last run."""

    path: Path
    format: int
    url: str
    organization_id: str
    runs: int
    writes: int
    until: dt.datetime | None


def copy_name(stem: str, why: str, now: dt.datetime) -> str:
    """Return the name of a copy made at an instant: ``journal-format-1-20261120T090000Z.db``."""
    return f"{stem}-{why}-{now:%Y%m%dT%H%M%SZ}.db"


def unused(path: Path) -> Path:
    """Return a path, or one like it with a number, at which nothing is."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return path if not path.exists() else next(one for one in numbered if not one.exists())


def write_copy(engine: Engine, path: Path) -> None:
    """Write the journal as it is at one moment to a new file of mode 0600; others may go on writing.

    Raises:
        UsageError: the file is there already, or cannot be made.
        SQLAlchemyError, sqlite3.Error: the journal cannot be read.
    """
    with _made(path):
        if engine.dialect.name == "sqlite":
            with closing(engine.raw_connection()) as connection:
                connection.execute("VACUUM INTO ?", (str(path),))
        else:
            _copy_rows(engine, path)
        _settle(path)


def check_copy(path: Path) -> Copy:
    """Read a copy through and say what it holds.

    Raises:
        UsageError: it is not there, or no journal.
        JournalError: it is damaged, or of a newer version.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&immutable=1&uri=true")
    try:
        with engine.connect() as connection:
            faults = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(5)")]
            if faults != ["ok"]:
                raise JournalError(f"the copy {path} is damaged: {faults[0]}", hint="take another one")
            return _described(connection, path)
    except SQLAlchemyError as error:
        raise JournalError(f"the copy {path} is damaged: {first_line(error)}", hint="take another one") from error
    finally:
        engine.dispose()


def bring_up_to_date(path: Path, *, epoch: int) -> None:
    """Migrate a copy to this version's format, and free its lease; the next epoch will be above ``epoch``."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.begin() as connection:
            found = format_of(connection)
            if found is not None and found < FORMAT:
                upgrade(connection, found=found)
            known = connection.execute(select(LEASES.c.epoch)).scalar_one_or_none()
            connection.execute(LEASES.delete())
            values = {"id": 1, "holder": "", "epoch": max(epoch, known or 0), "since": _EVER, "until": _EVER}
            connection.execute(insert(LEASES).values(values))
    finally:
        engine.dispose()
    _settle(path)


def load_copy(connection: Connection, path: Path) -> None:
    """Put the rows of a copy of this version's format in place of those in a database, in one transaction."""
    source = create_engine(f"sqlite:///{path}")
    try:
        with source.connect() as found:
            for table in JournalModel.metadata.sorted_tables:
                connection.execute(table.delete())
                _move(found, table, connection, table)
    finally:
        source.dispose()
    if connection.dialect.name == "postgresql":
        _count_on(connection)


_EVER = format_instant(dt.datetime(1970, 1, 1, tzinfo=dt.UTC))


def _described(connection: Connection, path: Path) -> Copy:
    found = format_of(connection)
    if found is None:
        raise UsageError(f"{path} is no journal", hint="a copy is made by `d365sync db backup`")
    refuse_newer(found)
    owner = connection.execute(select(OWNERS.c.url, OWNERS.c.organization_id)).one_or_none()
    url, organization_id = ("", "") if owner is None else (str(owner[0]), str(owner[1]))
    runs, last = connection.exec_driver_sql("SELECT COUNT(*), MAX(started_at) FROM run").one()
    writes = connection.exec_driver_sql("SELECT COUNT(*) FROM goal_write").scalar_one()
    until = dt.datetime.fromisoformat(last) if last else None
    return Copy(path, found, url, organization_id, int(runs), int(writes), until)


def _copy_rows(engine: Engine, path: Path) -> None:
    """Make the tables of the journal's own format in a file, and move every row."""
    target = create_engine(f"sqlite:///{path}")
    try:
        reading = engine.execution_options(isolation_level="REPEATABLE READ")
        with reading.connect() as found, target.begin() as made:
            number = format_of(found)
            if number is None:
                raise UsageError("there is no journal yet")
            upgrade(made, found=0, to=number)
            made.execute(FORMATS.delete())
            theirs, ours = MetaData(), MetaData()
            names = [name for name in inspect(made).get_table_names() if name != VERSION_TABLE]
            theirs.reflect(found, only=names)
            ours.reflect(made, only=names)
            for name in names:
                _move(found, theirs.tables[name], made, ours.tables[name])
    finally:
        target.dispose()


def _move(source: Connection, theirs: Table, target: Connection, ours: Table) -> None:
    rows = source.execution_options(yield_per=MANY).execute(select(theirs)).mappings()
    for some in rows.partitions(MANY):
        target.execute(insert(ours), [dict(row) for row in some])


def _count_on(connection: Connection) -> None:
    """Have PostgreSQL number new rows after those that were put there with their numbers."""
    for table in JournalModel.metadata.sorted_tables:
        key = table.autoincrement_column
        if key is None:
            continue
        named = {"name": table.name, "key": key.name}
        sequence = connection.execute(text("SELECT pg_get_serial_sequence(:name, :key)"), named).scalar()
        if sequence:
            last = connection.execute(select(func.coalesce(func.max(key), 0))).scalar_one()
            connection.execute(text("SELECT setval(:sequence, :next, false)"), {"sequence": sequence, "next": last + 1})


@contextmanager
def _made(path: Path) -> Iterator[None]:
    """Make a file that only its owner may read; remove it again if it cannot be filled."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        raise UsageError(f"{path} is there already", hint="name a file that is not") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _settle(path: Path) -> None:
    """Have a file reach the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
