"""One emulated organization: loaded from a folder, reachable in process or served over TLS.

IO: files, sockets.
"""

from __future__ import annotations

import datetime as dt
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import requests

from d365sync.emulator.app import EmulatorApp
from d365sync.emulator.clock import Clock
from d365sync.emulator.inprocess import mounted_session
from d365sync.emulator.jobs import run_due_jobs
from d365sync.emulator.orgfolder import load_org
from d365sync.emulator.server import serving
from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.store import Store
from d365sync.emulator.tokens import Credentials

DEFAULT_SETTINGS = EmulatorSettings()


class Emulator:
    """An organization and its service; ``app`` is a WSGI application, ``clock`` may be frozen or moved."""

    def __init__(self, store: Store, clock: Clock, credentials: Credentials) -> None:
        self.store = store
        self.clock = clock
        self.credentials = credentials
        self.app = EmulatorApp(store, credentials)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        now: dt.datetime | None = None,
        settings: EmulatorSettings = DEFAULT_SETTINGS,
        page_size: int | None = None,
        credentials: Credentials | None = None,
    ) -> Emulator:
        """Load an org folder.

        ``now`` freezes the clock (None follows real time); ``page_size`` lowers the largest page.

        Raises:
            OrgFolderError: the folder is not right.
        """
        if page_size is not None:
            settings = replace(settings, max_page_size=page_size)
        clock = Clock(now)
        known = credentials or Credentials()
        return cls(load_org(Path(path), clock, settings, known.client_id), clock, known)

    def run_jobs(self) -> int:
        """Run the system jobs that are due, as the next request would, and return how many ran."""
        with self.store.locked:
            return run_due_jobs(self.store)

    def session(self) -> requests.Session:
        """Return a session whose every ``https://`` request this emulator answers, in process."""
        return mounted_session(self.app)

    def serve(self, port: int = 0) -> AbstractContextManager[tuple[str, Path]]:
        """Serve over TLS while the returned context is open; it yields the address and the CA's certificate file."""
        return serving(self.app, port, self.clock.now)

    def authority(self, origin: str) -> str:
        """Return the sign-in authority below an origin such as ``https://localhost:8443``."""
        return f"{origin}/{self.credentials.tenant_id}"
