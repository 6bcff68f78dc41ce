"""What doctor finds with the emulator in process: names resolve, and the machine is one where all is well."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from d365sync.config import Config
from d365sync.dataverse.client import DataverseClient
from d365sync.doctor.case import Case, Machine
from d365sync.doctor.check import Check
from d365sync.doctor.steps import examine
from tests.emulated import NOW


def machine(**other: Any) -> Machine:
    """Return a machine where all is well, but for what is given."""
    well: dict[str, Any] = {
        "resolve": lambda _host: ("127.0.0.1",),
        "connect": lambda _host, _port: None,
        "listen_error": lambda _host, _port: None,
        "timer": lambda: 0.0,
        "user_id": lambda: 1000,
        "free_bytes": lambda _folder: 10**12,
        "kind_of_disk": lambda _folder: "ext4",
        "sqlite_version": (3, 51, 3),
    }
    return Machine(**well | other)


def examined(
    config: Config,
    client: DataverseClient | Callable[[], DataverseClient],
    *,
    now: dt.datetime = NOW,
    certificate_until: Callable[[], dt.datetime] | None = None,
    **other: Any,
) -> list[Check]:
    """Return every line of an examination; ``other`` is what differs on the machine."""
    make = (lambda: client) if isinstance(client, DataverseClient) else client
    return list(examine(Case(config, make, lambda: now, machine(**other), certificate_until)))
