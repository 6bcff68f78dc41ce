"""The databases: are they sound, on a disk that suits them, with room to grow, and for the eyes of few.

Nothing is made, migrated or written: SQLite files are opened for reading, PostgreSQL in a transaction that reads.

Source: SQLite, Write-Ahead Logging (network file systems; the WAL-reset bug of 3.7.0 to 3.51.2, mended in 3.51.3,
3.50.7 and 3.44.6), PRAGMA quick_check; PostgreSQL, access privilege inquiry functions.

IO: files, SQL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import text
from sqlalchemy.engine import make_url

from d365sync.config import Config
from d365sync.core.counts import counted
from d365sync.database import open_engine, transaction
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Verdict
from d365sync.errors import D365SyncError

SQLITE = "sqlite:///"
NETWORK_DISKS = ("nfs", "cifs", "smb", "remote", "9p", "drvfs", "afs", "sshfs", "gluster", "ceph", "lustre", "davfs")
"""How file systems are called (or begin) that other machines serve, after a leading ``fuse.``."""
LEAST_FREE = 50_000_000
ENOUGH_FREE = 500_000_000
UNITS = ("kB", "MB", "GB", "TB")
PATIENCE_S = 5.0
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
MENDS = {
    "mirror": "stop d365sync and delete the mirror; the next sync pulls it again",
    "journal": "stop d365sync and restore the journal from a backup; it cannot be rebuilt",
}
OLDEST_POSTGRESQL = 140000
"""The oldest release that PostgreSQL's makers still mend, as ``server_version_num`` has it."""


@dataclass(frozen=True, slots=True)
class Soundness:
    """What a check of a file found: damage, or why it could not be read; both empty where it is sound."""

    damage: str = ""
    unread: str = ""

    @property
    def sound(self) -> bool:
        """Whether it was read and nothing is wrong with it."""
        return not (self.damage or self.unread)


@dataclass(frozen=True, slots=True)
class Server:
    """What a PostgreSQL server tells of itself and of the user that asks."""

    version: int
    version_shown: str
    is_replica: bool
    may_create: bool
    may_make_temporary: bool
    is_superuser: bool
    user: str


def databases(case: Case) -> Iterator[Check]:
    """Look at the mirror and at the journal, each by itself."""
    for name, url in _urls(case.config).items():
        path = _path(url)
        yield _file(name, path) if path is not None else _server(name, url)


def _file(name: str, path: Path) -> Check:
    if not path.exists():
        return not_there_yet(name, path, may_make=os.access(_nearest(path.parent), os.W_OK))
    if not os.access(path, os.R_OK):
        return Check(name, Verdict.FAIL, f"{path} cannot be read by this user", f"run as its owner, or chown {path}", 1)
    return checked(name, path, quick_check(path), writable=os.access(path, os.W_OK))


def not_there_yet(name: str, path: Path, *, may_make: bool) -> Check:
    """Return the check of a database file that is not there."""
    if may_make:
        return Check(name, Verdict.OK, f"{path} is not there yet; the first sync makes it")
    return Check(
        name, Verdict.FAIL, f"{path} cannot be made by this user", f"make its folder, or set storage.{name}", 1
    )


def quick_check(path: Path, *, patience_s: float = PATIENCE_S) -> Soundness:
    """Return what SQLite finds wrong with a file; it waits so long where another program has it locked."""
    try:
        with closing(sqlite3.connect(read_only(path), uri=True, timeout=patience_s)) as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        return Soundness(damage=str(error)) if code in DAMAGE else Soundness(unread=str(error))
    return Soundness() if found == ["ok"] else Soundness(damage=found[0] if found else "it says nothing")


def read_only(path: Path) -> str:
    """Return the address by which SQLite opens a file for reading only. Source: SQLite, URI filenames."""
    text = path.absolute().as_posix()
    return f"file://{quote(text if text.startswith('/') else f'/{text}')}?mode=ro"


def checked(name: str, path: Path, found: Soundness, *, writable: bool) -> Check:
    """Return the check of a database file by what was found out about it."""
    if found.damage:
        said = " ".join(found.damage.split())[:200]
        return Check(name, Verdict.FAIL, f"{path} is damaged: {said}", MENDS[name], 1)
    if found.unread:
        mend = (
            "look for what keeps it open (a backup, a viewer), and at the rights of its folder; then run doctor again"
        )
        return Check(name, Verdict.WARN, f"{path} could not be checked: {found.unread}", mend)
    if not writable:
        mend = f"run as its owner, or chown {path}"
        return Check(name, Verdict.FAIL, f"{path} cannot be written by this user", mend, 1)
    return Check(name, Verdict.OK, f"{path} is sound, {in_bytes(path.stat().st_size)}")


def _server(name: str, url: str) -> Check:
    try:
        return served(name, _asked(url))
    except D365SyncError as error:
        return Check(name, Verdict.FAIL, str(error), error.hint or f"check storage.{name}, and that the server runs", 1)


def _asked(url: str) -> Server:
    """Ask a PostgreSQL server.

    Raises:
        ConfigError: the URL cannot be used.
        D365SyncError: it cannot be asked.
    """
    engine = open_engine(url, durable=False)
    where = make_url(url).render_as_string(hide_password=True)

    def failure(message: str, *_more: object) -> D365SyncError:
        return D365SyncError(f"{where} cannot be asked: {message}")

    try:
        with transaction(engine, failure) as connection:
            row = connection.execute(
                text(
                    "SELECT current_setting('server_version_num')::int, current_setting('server_version'), "
                    "pg_is_in_recovery(), coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), "
                    "has_database_privilege(current_database(), 'TEMPORARY'), "
                    "current_setting('is_superuser') = 'on', current_user"
                )
            ).one()
    finally:
        engine.dispose()
    return Server(*row)


def served(name: str, server: Server) -> Check:
    """Return the check of a PostgreSQL database by what its server tells."""
    said = f"PostgreSQL {server.version_shown}, as {server.user}"
    if server.is_replica:
        return Check(name, Verdict.FAIL, f"{said}: a read replica", f"set storage.{name} to the primary server", 1)
    if not server.may_create:
        mend = f'GRANT CREATE ON SCHEMA public TO "{server.user}", or make a schema of that name'
        return Check(name, Verdict.FAIL, f"{said}: may not make tables", mend, 1)
    if not server.may_make_temporary:
        mend = f'GRANT TEMPORARY ON DATABASE … TO "{server.user}"'
        return Check(name, Verdict.FAIL, f"{said}: may not make temporary tables", mend, 1)
    if server.version < OLDEST_POSTGRESQL:
        return Check(name, Verdict.WARN, f"{said}: no longer mended by its makers", "upgrade PostgreSQL")
    if server.is_superuser:
        return Check(name, Verdict.WARN, f"{said}: a superuser", "make a role of its own that owns its database only")
    return Check(name, Verdict.OK, said)


def uses_sqlite(case: Case) -> bool:
    """Say whether a database is a file of SQLite."""
    return any(_path(url) is not None for url in _urls(case.config).values())


def library(case: Case) -> Iterator[Check]:
    """Judge the version of SQLite that this Python uses."""
    yield version_told(case.machine.sqlite_version)


def version_told(version: tuple[int, ...]) -> Check:
    """Return the check of a version of SQLite."""
    shown = ".".join(str(part) for part in version)
    if has_wal_reset_bug(version):
        found = f"{shown} has the WAL-reset bug: a rare race of two connections at a checkpoint can damage a database"
        mend = (
            "use a Python with SQLite 3.51.3 (3.50.7, 3.44.6) or later, or PostgreSQL; back up the journal until then"
        )
        return Check("SQLite", Verdict.WARN, found, mend)
    return Check("SQLite", Verdict.OK, shown)


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Say whether a version of SQLite has the WAL-reset bug. Source: SQLite release history."""
    if version[:2] == (3, 44):
        return version < (3, 44, 6)
    if version[:2] == (3, 50):
        return version < (3, 50, 7)
    return (3, 7, 0) <= version < (3, 51, 3)


def disks(case: Case) -> Iterator[Check]:
    """Look at the disks of the database files: what kind, how much is free."""
    folders: dict[Path, int] = {}
    for path in filter(None, map(_path, _urls(case.config).values())):
        folder = _nearest(path.parent)
        folders[folder] = folders.get(folder, 0) + size_of(path)
    for folder, size in folders.items():
        yield room(folder, case.machine.free_bytes(folder), size, case.machine.kind_of_disk(folder))


def size_of(path: Path) -> int:
    """Return the bytes of a database file with its log."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(one.stat().st_size for one in files if one.is_file())


def room(folder: Path, free: int, size: int, kind: str) -> Check:
    """Return the check of a disk by its kind, the bytes free and the bytes the databases have on it."""
    if is_served(kind):
        found = f"{folder} is on a network drive ({kind}); SQLite's log needs a disk of this machine"
        return Check("disk", Verdict.FAIL, found, "set [storage] to a local disk, or use PostgreSQL", 1)
    said = f"{in_bytes(free)} free at {folder}, the databases have {in_bytes(size)}"
    mend = "make room, or set [storage] to another disk; a mirror that is read anew needs its size once more"
    if free < LEAST_FREE:
        return Check("disk", Verdict.FAIL, said, mend, 1)
    if free < max(ENOUGH_FREE, size):
        return Check("disk", Verdict.WARN, said, mend)
    return Check("disk", Verdict.OK, said)


def is_served(kind: str) -> bool:
    """Say whether a kind of file system is one that another machine serves."""
    return kind.lower().removeprefix("fuse.").startswith(NETWORK_DISKS)


def in_bytes(count: int) -> str:
    """Return a number of bytes in a unit that leaves a short number: ``3.4 MB``."""
    if count < 1000:
        return counted(count, "byte")
    power = min((len(str(count)) - 1) // 3, len(UNITS))
    return f"{count / 1000**power:.1f} {UNITS[power - 1]}"


def database_files(config: Config) -> list[Path]:
    """Return the database files that there are."""
    return [path for path in map(_path, _urls(config).values()) if path is not None and path.exists()]


def _urls(config: Config) -> Mapping[str, str]:
    storage = config.storage
    return {"mirror": config.database_url(storage.mirror), "journal": config.database_url(storage.journal)}


def _path(url: str) -> Path | None:
    return Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None


def _nearest(folder: Path) -> Path:
    """Return a folder, or the first above it that is there."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
