"""Asking a running service on this machine how it is; what a container's health check does.

IO: HTTP on the loopback interface, without any proxy.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from d365sync.service.health import Address

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said; ``status`` None when it did not answer."""

    status: int | None
    text: str

    @property
    def well(self) -> bool:
        """Whether it is as it should be."""
        return self.status == http.client.OK


def ask(address: Address, path: str, *, token: str = "") -> Answer:
    """Ask for ``/livez`` or ``/readyz``; never raises for what the network does."""
    where = address.to_ask
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = http.client.HTTPConnection(where.host, where.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(65_536).decode("utf-8", "replace").strip())
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        doubt = "is `d365sync run` running, and is daemon.listen this address?"
        return Answer(None, f"no answer from {where.host}:{where.port}: {why} ({doubt})")
    finally:
        connection.close()
