"""A server made of a function, behind a real ``requests`` session, and a clock that moves only when somebody waits."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from d365sync.dataverse.gate import check_stopped
from d365sync.dataverse.retry import RetryPolicy
from d365sync.dataverse.transport import Transport

URL = "https://org.example"
JSON = {"Content-Type": "application/json; odata.metadata=minimal"}
Reply = Callable[[requests.PreparedRequest], requests.Response]


class VirtualTimer:
    """Time that passes by waiting alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 1000.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self._now

    def wait_until(self, at: float) -> None:
        check_stopped()
        with self._lock:
            if at > self._now:
                self.waits.append(at - self._now)
                self._now = at


class Scripted(BaseAdapter):
    """Answers each request by a function; remembers what came, and when by the timer."""

    def __init__(self, reply: Reply, timer: VirtualTimer) -> None:
        super().__init__()
        self._reply = reply
        self._timer = timer
        self.seen: list[tuple[float, requests.PreparedRequest]] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        self.seen.append((self._timer.now(), request))
        return self._reply(request)

    def close(self) -> None:
        """Nothing is held open."""


class Tokens:
    """Gives token-1 until a fresh one is asked for."""

    def __init__(self) -> None:
        self.made = 1

    def token(self, *, fresh: bool = False) -> str:
        self.made += fresh
        return f"token-{self.made}"


def answer(
    status: int = 200, body: bytes = b'{"value":[]}', headers: Mapping[str, str] = JSON, *, length: int | None = None
) -> requests.Response:
    """Make a response; ``length`` is a Content-Length to lie with."""
    all_headers = {**headers, **({"Content-Length": str(length)} if length is not None else {})}
    response = requests.Response()
    response.status_code = status
    response.headers = CaseInsensitiveDict(all_headers)
    response.raw = HTTPResponse(
        body=io.BytesIO(body), headers=HTTPHeaderDict(all_headers), status=status, preload_content=False
    )
    return response


def transport(
    reply: Reply, timer: VirtualTimer | None = None, *, concurrency: int = 0, **policy: Any
) -> tuple[Transport, Scripted, VirtualTimer]:
    """Build a transport on a scripted server; waits without Retry-After are as long as they may be."""
    timer = timer or VirtualTimer()
    server = Scripted(reply, timer)
    session = requests.Session()
    session.mount("https://", server)
    retry = RetryPolicy(timer=timer, **{"chance": lambda _low, high: high, **policy})
    return Transport(session, URL, Tokens(), retry=retry, concurrency=concurrency), server, timer


def by_turns(*replies: requests.Response | Exception | Callable[[], requests.Response]) -> Reply:
    """Answer by each in turn, then with an empty page."""
    left = list(replies)
    lock = threading.Lock()

    def reply(_request: requests.PreparedRequest) -> requests.Response:
        with lock:
            one = left.pop(0) if left else answer()
        if isinstance(one, Exception):
            raise one
        return one if isinstance(one, requests.Response) else one()

    return reply
