"""Telling systemd how the service fares: ready, reloading, stopping, alive.

Datagrams of ``NAME=value`` lines to the socket that ``NOTIFY_SOCKET`` names, a path or an abstract address (``@…``).
Without one nothing is sent; that a message cannot be sent never matters.

Source: sd_notify(3), sd_watchdog_enabled(3).

IO: a socket.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

MICROSECONDS = 1_000_000


class Notifier:
    """One address to tell; ``watchdog_s`` is the time within which it wants to hear that the service is alive."""

    def __init__(self, address: str = "", watchdog_s: float = 0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int | None = None) -> Notifier:
        """Return the notifier that the environment asks for; a watchdog that waits for another process is none."""
        asked, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        mine = not whose or whose == str(os.getpid() if pid is None else pid)
        watchdog_s = int(asked) / MICROSECONDS if asked.isascii() and asked.isdigit() and mine else 0
        return cls(environ.get("NOTIFY_SOCKET", ""), watchdog_s)

    def ready(self, status: str) -> None:
        """Say that the service is up, or up again after a reload."""
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is being read again."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, within_s: float) -> None:
        """Say that the service stops, and how long that may take."""
        self.tell("STOPPING=1", "STATUS=stopping", f"EXTEND_TIMEOUT_USEC={int(within_s * MICROSECONDS)}")

    def alive(self, *, extend_s: float = 0) -> None:
        """Feed the watchdog; ``extend_s`` asks for so much more time for what takes long."""
        self.tell("WATCHDOG=1", *([f"EXTEND_TIMEOUT_USEC={int(extend_s * MICROSECONDS)}"] if extend_s else []))

    def status(self, text: str) -> None:
        """Say in one line what the service does."""
        self.tell(f"STATUS={text}")

    def tell(self, *lines: str) -> None:
        """Send lines as one message; what is inside a line stays one line."""
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        message = "\n".join(" ".join(line.splitlines()) for line in lines)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), self._address)
