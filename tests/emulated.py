"""The real application against the emulator in process: no socket, no patching, the real client and real MSAL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from d365sync.app import App, Clock, opened, system_clock
from d365sync.config import Config, parse
from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.values import Value
from d365sync.dataverse.gate import Timer
from d365sync.emulator import Emulator
from tests import canary

URL = "https://emulator.test"
NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)


def configuration(emulator: Emulator, folder: Path, **sections: Mapping[str, object]) -> Config:
    """Return a configuration for the emulator, with its databases in a folder; mode override."""
    credentials = emulator.credentials
    document: dict[str, Any] = {
        "dataverse": {
            "url": URL,
            "tenant_id": credentials.tenant_id,
            "client_id": credentials.client_id,
            "client_secret": canary.plant(credentials.client_secret, folder),
            "authority": f"{URL}/{credentials.tenant_id}",
            **sections.pop("dataverse", {}),
        },
        "writeback": {"mode": "override"},
        **sections,
    }
    return parse(document, {}, folder=folder)


@contextmanager
def application(
    emulator: Emulator,
    folder: Path,
    *,
    now: dt.datetime = NOW,
    session: requests.Session | None = None,
    timer: Timer | None = None,
    real_clock: Clock = system_clock,
    offline: bool = False,
    **sections: Mapping[str, object],
) -> Iterator[App]:
    """Build the application against an emulator; the other options as of :func:`d365sync.app.build`."""
    config = configuration(emulator, folder, **sections)
    session = session or emulator.session()
    clocks = {"clock": lambda: now, "real_clock": real_clock}
    with opened(config, **clocks, environ={}, session=session, timer=timer, offline=offline) as app:
        yield app


def goal_values(emulator: Emulator) -> dict[str, dict[str, Value]]:
    """Return the nine columns and the percentage of every goal the emulator holds, by title."""
    columns = (*VALUE_COLUMNS, "percentage")
    return {
        str(row["title"]): {column: row.get(column) for column in columns}
        for row in emulator.store.rows("goal").values()
    }
