"""Care of the two databases: looked through once a day, a damaged mirror made again, old runs forgotten.

IO: SQL, files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import structlog

from d365sync.config import Config
from d365sync.errors import Fault, MirrorError
from d365sync.journal.store import Journal
from d365sync.journal.upgrading import Keeping
from d365sync.mirror.damage import set_aside
from d365sync.mirror.store import Mirror
from d365sync.sync.holding import is_gone, own_name, refused
from d365sync.sync.snapshot import Line

log = structlog.get_logger(__name__)


def open_databases(config: Config, clock: Callable[[], dt.datetime], *, offline: bool) -> tuple[Mirror, Journal]:
    """Open the mirror and the journal; a mirror too damaged to be opened is put aside, unless one only looks.

    Raises:
        MirrorError, JournalError: one cannot be opened.
        LeaseError: the mirror is damaged, and another instance works with it.
    """
    journal = Journal.open(
        config.database_url(config.storage.journal), keeping=Keeping(folder=config.folder, clock=clock)
    )
    try:
        return _open_mirror(config, journal, clock, offline=offline), journal
    except BaseException:
        journal.close()
        raise


def look_after(line: Line) -> None:
    """Once a day look both databases through, and forget runs older than ``storage.keep``.

    Raises:
        JournalError, MirrorError: one is damaged.
    """
    now = line.clock()
    if not line.mirror.is_due(now):
        return
    line.journal.verify()
    line.mirror.verify(now)
    keep = line.config.storage.keep
    if keep:
        pruned = line.journal.prune(now - dt.timedelta(seconds=keep), now)
        if pruned.runs or pruned.writes:
            log.info("journal.pruned", runs=pruned.runs, writes=pruned.writes)


def _open_mirror(config: Config, journal: Journal, clock: Callable[[], dt.datetime], *, offline: bool) -> Mirror:
    url = config.database_url(config.storage.mirror)
    try:
        return Mirror.open(url)
    except MirrorError as error:
        path = config.database_path(config.storage.mirror)
        if offline or path is None or error.fault is not Fault.DAMAGED:
            raise
        found = journal.lease()
        if found and found.holder != own_name() and not found.is_over(clock()) and not is_gone(found.holder):
            raise refused(found, clock()) from error
        aside = set_aside(path, clock())
        log.warning("mirror.damaged", reason=str(error), kept_as=str(aside), next="everything is pulled again")
    return Mirror.open(url)
