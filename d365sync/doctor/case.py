"""What the checks are made of: the configuration, the machine, and what earlier checks found.

IO: the operating system, when asked.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d365sync.config import Config
from d365sync.core.goals.goal import GoalBook
from d365sync.core.schema import Schema
from d365sync.core.values import Row
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.greeting import Greeting
from d365sync.sync.access import Held

CONNECT_S = 10
"""How long a connection may take to come about."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the checks ask of this machine; each can be another in a test."""

    resolve: Callable[[str], tuple[str, ...]] = field(default=lambda host: resolved_by_system(host))
    connect: Callable[[str, int], None] = field(default=lambda host, port: connected(host, port))
    listen_error: Callable[[str, int], OSError | None] = field(default=lambda host, port: bind_error(host, port))
    timer: Callable[[], float] = time.monotonic
    real_clock: Callable[[], dt.datetime] = field(default=lambda: dt.datetime.now(dt.UTC))
    user_id: Callable[[], int | None] = field(default=lambda: os.geteuid() if hasattr(os, "geteuid") else None)
    free_bytes: Callable[[Path], int] = field(default=lambda folder: shutil.disk_usage(folder).free)
    kind_of_disk: Callable[[Path], str] = field(default=lambda folder: file_system(folder))
    sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


@dataclass(slots=True)
class Case:
    """One examination. ``make_client`` builds the client, without signing in; facts are None until they are found."""

    config: Config
    make_client: Callable[[], DataverseClient]
    now: Callable[[], dt.datetime]
    machine: Machine = field(default_factory=Machine)
    certificate_until: Callable[[], dt.datetime] | None = None
    greeting: Greeting | None = None
    tenant: str = ""
    user_id: str = ""
    organization_id: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)
    held: Held = field(default_factory=dict)
    schema: Schema = field(default_factory=lambda: Schema.of([]))
    rows: Mapping[str, list[Row]] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    _book: GoalBook | None = None
    _client: DataverseClient | None = None

    @property
    def client(self) -> DataverseClient:
        """The client; built when first asked for.

        Raises:
            ConfigError: a secret, certificate or CA bundle cannot be read.
        """
        if self._client is None:
            self._client = self.make_client()
        return self._client

    @property
    def book(self) -> GoalBook:
        """What defines the goals; asked for only where it was read."""
        from d365sync.core.goals.book import build_book

        if self._book is None:
            self._book = build_book(self.rows, self.config.rollup.zone, self.config.reading)
        return self._book


def resolved_by_system(host: str) -> tuple[str, ...]:
    """Return the addresses of a host name, each once.

    Raises:
        OSError: there are none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def connected(host: str, port: int) -> None:
    """Open a connection, and close it.

    Raises:
        OSError: it cannot be opened.
    """
    socket.create_connection((host, port), CONNECT_S).close()


def bind_error(host: str, port: int) -> OSError | None:
    """Return why nobody can listen at an address now, None when one can."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(info[0], info[1]) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name == "posix"))
            trial.bind(info[4])
            trial.listen()
    except OSError as error:
        return error
    return None


def file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on, as the system calls it; empty when it does not say.

    On Windows ``remote`` stands for every drive of another machine.
    """
    import psutil

    text = str(folder)
    if text.startswith(("\\\\", "//")):
        return "remote"
    held = [one for one in psutil.disk_partitions(all=True) if _is_below(folder, one.mountpoint)]
    place = max(held, key=lambda one: len(one.mountpoint), default=None)
    if place is None:
        return ""
    return "remote" if "remote" in place.opts.split(",") else str(place.fstype)


def _is_below(folder: Path, mountpoint: str) -> bool:
    try:
        return folder.is_relative_to(mountpoint)
    except ValueError:
        return False
