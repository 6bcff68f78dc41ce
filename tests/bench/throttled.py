"""Being throttled: every third request is answered 429 with ``Retry-After: 2``; how long d365sync waits in all.

The emulator answers in process; time is virtual and passes by waiting alone, so the waits are exact and nothing sleeps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from requests.adapters import BaseAdapter

from d365sync.app import make_client
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from tests.bench.report import Line, within
from tests.emulated import NOW, configuration
from tests.scripted import VirtualTimer

DEMO = Path(__file__).parents[2] / "fixtures" / "orgs" / "demo"
ASKED_S = 2
THROTTLED = Fault("GET */opportunities*", every=3, status=429, retry_after=ASKED_S, code="0x80072322")


class TooEarlyError(Exception):
    """A request was sent while the server asked for patience."""


class Watching(BaseAdapter):
    """Hands requests on, and notes the times at which they were throttled, and which came too early."""

    def __init__(self, inner: BaseAdapter, timer: VirtualTimer) -> None:
        super().__init__()
        self._inner = inner
        self._timer = timer
        self._opens_at = 0.0
        self.throttled = 0
        self.early = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send it on."""
        if "/api/data/" in (request.url or ""):
            self.early += self._timer.now() < self._opens_at
        response = self._inner.send(request, *args, **options)
        if response.status_code == 429:
            self.throttled += 1
            self._opens_at = self._timer.now() + ASKED_S
        return response

    def close(self) -> None:
        """Nothing is held open."""


def throttled(part: str, reads: int) -> Iterator[Line]:
    """Read a table so many times, one read after another; compare the waiting with what was asked for."""
    emulator, timer = Emulator.load(DEMO, now=NOW), VirtualTimer()
    watching = Watching(mounted_session(FaultyApp(emulator.app, [THROTTLED])).get_adapter("https://x"), timer)
    session = requests.Session()
    session.mount("https://", watching)
    table = emulator.store.catalogue.schema.table("opportunity")
    with tempfile.TemporaryDirectory() as folder:
        client = make_client(configuration(emulator, Path(folder)), environ={}, session=session, timer=timer)
        began = timer.now()
        for _ in range(reads):
            for _page in client.rows(table, ["name"]):
                pass
    if watching.early or not watching.throttled:
        raise TooEarlyError(f"{watching.early} of {client.usage.requests} requests came too early")
    asked_s = float(ASKED_S * watching.throttled)
    name = f"{part}: {client.usage.requests} requests, {watching.throttled} of them throttled"
    yield within(name, ("waited", timer.now() - began), ("asked to wait", asked_s), 1.1)
