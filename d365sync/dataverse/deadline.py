"""A TLS socket that gives up an answer which takes too long as a whole.

A time-out of a socket is about the next byte: a server that sends one byte every minute never meets it. Here the time
of an answer counts from the last byte of its request, for its head and its body alike.

Source: Python's ssl module (``SSLContext.sslsocket_class``).

IO: sockets.
"""

from __future__ import annotations

import ssl
import time
from typing import Any, ClassVar


class _PromptSocket(ssl.SSLSocket):
    """Receives no longer than ``limit_s`` after it last sent something."""

    limit_s: ClassVar[float]
    _until: float | None = None

    def sendall(self, *args: Any, **options: Any) -> None:
        """Send, and give the answer its time from then on."""
        super().sendall(*args, **options)
        self._until = time.monotonic() + self.limit_s

    def recv_into(self, *args: Any, **options: Any) -> int:
        """Receive what there is.

        Raises:
            TimeoutError: the answer's time is over.
        """
        usual = self.gettimeout()
        left = None if self._until is None else self._until - time.monotonic()
        if left is None or (usual is not None and usual <= left):
            return super().recv_into(*args, **options)
        if left <= 0:
            raise TimeoutError(f"the answer takes longer than {self.limit_s:g} s")
        self.settimeout(left)
        try:
            return super().recv_into(*args, **options)
        finally:
            self.settimeout(usual)


def within(limit_s: float) -> type[ssl.SSLSocket]:
    """Return the class of sockets that give each answer so many seconds."""
    return type("PromptSocket", (_PromptSocket,), {"limit_s": limit_s})
