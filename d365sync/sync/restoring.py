"""Putting a copy of the journal in place of the journal: looked at first, never under the feet of an instance.

The journal that is replaced is kept, and its lease stays taken for good, so that an instance that still has it open
does not work with it.

IO: files, SQL.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from d365sync.config import Config
from d365sync.core.values import format_instant
from d365sync.errors import DatabaseError, Fault, JournalError, MirrorError, UsageError
from d365sync.journal.copies import Copy, bring_up_to_date, check_copy, copy_name, unused
from d365sync.journal.store import Journal
from d365sync.journal.upgrading import Keeping
from d365sync.mirror.store import Mirror
from d365sync.sync.holding import is_gone, refused

FOR_EVER = dt.timedelta(days=365 * 100)
COMPANIONS = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, and where the journal that was replaced is kept; None when there was none."""

    copy: Copy
    kept_as: Path | None


def restore(config: Config, path: Path, now: dt.datetime) -> Restored:
    """Put a copy in place of the journal.

    Raises:
        UsageError: it is no copy, or one of another organization.
        JournalError: it is damaged, or of a newer version; the journal is untouched.
        LeaseError: an instance works with the journal.
    """
    copy = check_copy(path)
    journal = _present(config, now)
    try:
        _compare(copy, config, journal)
        epoch = _take_for_ever(journal, now, f"db restore at {format_instant(now)}") if journal else 0
        place = config.database_path(config.storage.journal)
        if place is None:
            if journal is None:
                raise JournalError("the journal's database cannot be used", hint="see `d365sync db check`")
            return Restored(copy, _load(config, path, journal, epoch, now))
    finally:
        if journal is not None:
            journal.close()
    return Restored(copy, _swap(place, path, epoch, now))


def _present(config: Config, now: dt.datetime) -> Journal | None:
    """Open the journal that is there; None when it is too damaged for that."""
    url = config.database_url(config.storage.journal)
    try:
        return Journal.open(url, keeping=Keeping(folder=config.folder, clock=lambda: now))
    except JournalError as error:
        if error.fault is not Fault.DAMAGED:
            raise
        return None


def _compare(copy: Copy, config: Config, journal: Journal | None) -> None:
    """Refuse a copy of another organization than the journal's and the mirror's."""
    owners = []
    with suppress(DatabaseError):
        owners.append(("journal", journal.owner() if journal else None))
    with suppress(MirrorError):
        mirror = Mirror.open(config.database_url(config.storage.mirror))
        try:
            owners.append(("mirror", mirror.owner()))
        finally:
            mirror.close()
    for name, owner in owners:
        if owner and copy.organization_id and owner[1].lower() != copy.organization_id.lower():
            raise UsageError(
                f"the copy is of organization {copy.organization_id} ({copy.url}), "
                f"the {name} of {owner[1]} ({owner[0]})",
                hint="take a copy of this organization's journal, or the other configuration",
            )


def _take_for_ever(journal: Journal, now: dt.datetime, holder: str) -> int:
    """Take the lease of the journal that goes, so that nobody else does; return its epoch."""
    try:
        found = journal.lease()
        gone = found.epoch if found and is_gone(found.holder) else None
        lease = journal.acquire_lease(holder, now, FOR_EVER, instead_of=gone)
        if lease is None:
            raise refused(journal.lease(), now)
    except JournalError as error:
        if error.fault is not Fault.DAMAGED:
            raise
        return 0
    return lease.epoch


def _swap(place: Path, path: Path, epoch: int, now: dt.datetime) -> Path | None:
    """Put a copy beside the file, bring it up to date there, and rename both."""
    staged = place.with_name(f"{place.name}.restoring")
    staged.unlink(missing_ok=True)
    os.close(os.open(staged, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    shutil.copyfile(path, staged)
    bring_up_to_date(staged, epoch=epoch)
    kept = unused(place.with_name(f"{place.name}.replaced-{now:%Y%m%dT%H%M%SZ}")) if place.exists() else None
    for companion in COMPANIONS if kept else ():
        with suppress(FileNotFoundError):
            Path(f"{place}{companion}").rename(f"{kept}{companion}")
    staged.replace(place)
    return kept


def _load(config: Config, path: Path, journal: Journal, epoch: int, now: dt.datetime) -> Path:
    """Write a copy of the journal that goes, then put the rows of the other in its place, in one transaction."""
    kept = unused(config.folder / copy_name("journal", "replaced", now))
    journal.copy_to(kept)
    with tempfile.TemporaryDirectory() as folder:
        staged = Path(folder) / "journal.db"
        shutil.copyfile(path, staged)
        bring_up_to_date(staged, epoch=epoch)
        journal.load(staged)
    return kept
