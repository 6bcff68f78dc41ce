"""Working where nobody else does: an environment's lease, held between its cycles, renewed by a thread of its own.

IO: SQL, through the journal and the mirror; a thread.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from contextlib import suppress

import structlog

from d365sync.app import App, Clock
from d365sync.errors import D365SyncError, LeaseLostError
from d365sync.journal.lease import Lease
from d365sync.sync.holding import TTL, shown, take

log = structlog.get_logger(__name__)

SHORTEST = dt.timedelta(seconds=6)
RENEWALS = 3
"""How often a lease is renewed, and asked for by who waits, in the time that it lasts."""


def ttl_for(every: dt.timedelta) -> dt.timedelta:
    """Return how long a lease lasts unless it is renewed: less than an interval, so that another takes over in two."""
    return max(SHORTEST, min(TTL, every)) if every else TTL


class Tenure:
    """One environment's lease; ``on_lost`` is called, in another thread, when a renewal finds that it is another's."""

    def __init__(self, holder: str, ttl: dt.timedelta, clock: Clock, on_lost: Callable[[], None]) -> None:
        self.ttl = ttl
        self._holder = holder
        self._clock = clock
        self._on_lost = on_lost
        self._app: App | None = None
        self._lease: Lease | None = None
        self._ended = threading.Event()
        self._failing = False

    @property
    def epoch(self) -> int | None:
        """The epoch of the lease that is held."""
        return None if self._lease is None else self._lease.epoch

    def hold(self, app: App) -> bool:
        """Take the lease of an application's databases, or renew it; False when another instance holds it.

        Raises:
            LeaseLostError: it was held here and is another's now.
            JournalError, MirrorError: the databases.
        """
        if self._lease is not None and self._app is app:
            try:
                self._lease = app.line.journal.renew_lease(self._lease, self._clock(), self.ttl)
            except LeaseLostError:
                self.lose()
                raise
            return True
        self.release()
        lease = take(app.line.journal, app.line.mirror, self._holder, self._clock(), self.ttl)
        if lease is None:
            return False
        self._app, self._lease, self._ended = app, lease, threading.Event()
        threading.Thread(target=self._keep, args=(self._ended,), name="lease", daemon=True).start()
        return True

    def whose(self, app: App) -> str:
        """Say who holds the lease."""
        found = app.line.journal.lease()
        return shown(found.holder) if found else "another instance"

    def lose(self) -> None:
        """Hold it no longer, since it is another's."""
        self._ended.set()
        self._app = self._lease = None

    def release(self) -> None:
        """Give it back, if it is held; that this fails only makes others wait for its end."""
        app, lease = self._app, self._lease
        self.lose()
        if app is not None and lease is not None:
            with suppress(D365SyncError):
                app.line.journal.release_lease(lease)

    def renew(self) -> None:
        """Renew it, if it is held; nothing is raised: whoever lost it is told, and what fails is tried again."""
        app, lease = self._app, self._lease
        if app is None or lease is None:
            return
        try:
            app.line.journal.renew_lease(lease, self._clock(), self.ttl)
        except LeaseLostError:
            if self._lease is lease:
                self._on_lost()
        except D365SyncError as error:
            if not self._failing:
                log.warning("lease.not_renewed", reason=str(error))
            self._failing = True
        else:
            self._failing = False

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(self.ttl.total_seconds() / RENEWALS):
            self.renew()
