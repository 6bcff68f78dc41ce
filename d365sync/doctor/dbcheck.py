"""Looking at the databases thoroughly: damage, leftovers, sizes, who holds the lease, who may read the files.

IO: files, SQL.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

from sqlalchemy import Connection

from d365sync.config import Config
from d365sync.core.counts import counted
from d365sync.database import open_engine, transaction
from d365sync.doctor import storage
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Verdict
from d365sync.doctor.service import lease_told
from d365sync.errors import D365SyncError, DatabaseError, Fault
from d365sync.journal import checking as journal_checking
from d365sync.journal.lease import HINT as JOURNAL_HINT
from d365sync.journal.models import FORMAT
from d365sync.mirror import checking as mirror_checking
from d365sync.mirror.store import HINT as MIRROR_HINT
from d365sync.sync.holding import is_gone

OTHERS = stat.S_IRWXG | stat.S_IRWXO
Found = TypeVar("Found")


def check_databases(config: Config) -> Iterator[Check]:
    """Yield a line for each thing looked at."""
    case = Case(config, _nobody_asks, lambda: case.machine.real_clock())
    yield from _journal(case)
    yield from _mirror(config)
    if storage.uses_sqlite(case):
        yield storage.version_told(sqlite3.sqlite_version_info)
        yield from storage.disks(case)
    for path in storage.database_files(config):
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & OTHERS:
            yield Check("file", Verdict.WARN, f"{path} has mode {mode:04o}: others may use it", f"chmod 600 {path}")


def _nobody_asks() -> NoReturn:
    raise D365SyncError("the databases are looked at without the network")


def _journal(case: Case) -> Iterator[Check]:
    config = case.config
    if _is_missing(config, config.storage.journal):
        yield Check("journal", Verdict.OK, "there is none yet")
        return
    try:
        found = _look(config.database_url(config.storage.journal), journal_checking.facts)
    except D365SyncError as error:
        yield Check("journal", Verdict.FAIL, str(error), error.hint or JOURNAL_HINT, error.exit_code)
        return
    if found is None:
        yield Check("journal", Verdict.OK, "there is none yet")
        return
    if found.damage:
        yield Check("journal", Verdict.FAIL, f"it is damaged: {found.damage}", JOURNAL_HINT, 1)
    else:
        told = f"{counted(found.runs, 'run')}, {counted(found.writes, 'write')}, {_size(found.size_bytes)}"
        yield Check("journal", Verdict.OK, f"format {found.format}, {told}{f', of {found.url}' if found.url else ''}")
    if found.format != FORMAT:
        mend = "`d365sync db upgrade`; any command that opens it does the same"
        yield Check("format", Verdict.WARN, f"it has format {found.format}, this version writes {FORMAT}", mend)
    if found.orphans:
        mend = "they are ignored; if there are many, compare with a copy"
        yield Check("journal rows", Verdict.WARN, f"{counted(found.orphans, 'write')} of no run", mend)
    if found.open_writes:
        told = f"{counted(found.open_writes, 'write')} whose outcome is not known; the next sync looks at the goals"
        yield Check("open writes", Verdict.OK, told)
    gone = found.lease is not None and is_gone(found.lease.holder)
    yield lease_told(found.lease, case.machine.real_clock(), is_gone=gone)


def _mirror(config: Config) -> Iterator[Check]:
    if _is_missing(config, config.storage.mirror):
        yield Check("mirror", Verdict.OK, "there is none yet")
        return
    try:
        found = _look(config.database_url(config.storage.mirror), mirror_checking.facts)
    except D365SyncError as error:
        yield Check("mirror", Verdict.FAIL, str(error), error.hint or MIRROR_HINT, error.exit_code)
        return
    if found.damage:
        yield Check("mirror", Verdict.FAIL, f"it is damaged: {found.damage}", MIRROR_HINT, 1)
    elif not found.is_current:
        told = "there is none yet, or one of another version, which the next sync makes again"
        yield Check("mirror", Verdict.OK, told)
    else:
        yield Check("mirror", Verdict.OK, f"{counted(found.tables, 'table')}, {_size(found.size_bytes)}")
    if found.orphans:
        mend = "`d365sync sync --full` makes the mirror again"
        yield Check("mirror rows", Verdict.WARN, f"left over: {', '.join(found.orphans[:5])}", mend)


def _is_missing(config: Config, url: str) -> bool:
    path = config.database_path(url)
    return path is not None and not path.exists()


def _look(url: str, look: Callable[[Connection], Found]) -> Found:
    def failure(message: str, fault: Fault) -> DatabaseError:
        return DatabaseError(message, fault=fault)

    engine = open_engine(url, durable=False)
    try:
        with transaction(engine, failure) as connection:
            return look(connection)
    finally:
        engine.dispose()


def _size(count: int | None) -> str:
    return "size unknown" if count is None else storage.in_bytes(count)
