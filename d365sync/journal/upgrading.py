"""Upgrading a journal: nobody else works with it, a copy is put aside, the migrations run, all in one transaction.

IO: files, SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import Connection, Engine, select

from d365sync.database import HINTS, open_engine, transaction
from d365sync.errors import Fault, JournalError, UsageError
from d365sync.journal.copies import copy_name, unused, write_copy
from d365sync.journal.formats import FORMATS, format_of, refuse_while_held, upgrade
from d365sync.journal.lease import HINT
from d365sync.journal.models import FORMAT

log = structlog.get_logger(__name__)


def _present() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where copies go, and what time it is.

    ``folder`` None: beside the journal, where it is a file. ``copies`` False: none is made.
    """

    folder: Path | None = None
    copies: bool = True
    clock: Callable[[], dt.datetime] = field(default=_present)

    def place(self, engine: Engine) -> tuple[Path, str]:
        """Return the folder of copies, and the beginning of their names.

        Raises:
            JournalError: there is none.
        """
        database = engine.url.database
        if engine.dialect.name == "sqlite" and database not in (None, "", ":memory:"):
            return Path(str(database)).parent, Path(str(database)).stem
        if self.folder is None:
            raise JournalError(
                "there is no folder for a copy of the journal", hint="make one: `d365sync db backup FILE`"
            )
        return self.folder, "journal"


def upgrade_kept(engine: Engine, connection: Connection, keeping: Keeping) -> None:
    """Bring a journal to this version's format, within the connection's writing transaction.

    Raises:
        LeaseError: another instance works with it.
        JournalError: no copy can be put aside.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(select(FORMATS.c.version).with_for_update())
    found = format_of(connection)
    if found is None or found >= FORMAT:
        return
    refuse_while_held(connection, found, keeping.clock())
    kept = _put_aside(engine, found, keeping) if keeping.copies else None
    upgrade(connection, found=found)
    log.warning("journal.upgraded", format=FORMAT, before=found, copy=str(kept) if kept else "none")


def _put_aside(engine: Engine, found: int, keeping: Keeping) -> Path:
    folder, stem = keeping.place(engine)
    path = unused(folder / copy_name(stem, f"format-{found}", keeping.clock()))
    try:
        write_copy(engine, path)
    except UsageError as error:
        raise JournalError(
            f"the journal has format {found} and stays so, because no copy of it can be put aside: {error}",
            hint="make room or rights for it, or upgrade without one: `d365sync db upgrade --no-backup`",
        ) from error
    return path


def present_format(url: str) -> int | None:
    """Return the format of the journal at a database URL, None when there is none. Changes nothing.

    Raises:
        JournalError: the database cannot be read.
    """

    def failure(message: str, fault: Fault) -> JournalError:
        return JournalError(f"the journal failed: {message}", hint=HINTS.get(fault, HINT), fault=fault)

    engine = open_engine(url, durable=True)
    try:
        with transaction(engine, failure) as connection:
            return format_of(connection)
    finally:
        engine.dispose()
