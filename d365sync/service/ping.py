"""The dead-man switch: a monitor elsewhere hears of each cycle's begin, end and failure; silence makes it call.

``URL/start``, ``URL`` and ``URL/fail`` are asked with the run's id. Pings are sent by a thread of their own, in order:
a monitor that is slow or gone delays no cycle, and that it cannot be told is said once. Nothing of a run is sent along.

Source: healthchecks.io, Pinging API (success and fail signals, run ids) and Reliability tips (time-out, retries).

IO: HTTP.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from d365sync import logs

if TYPE_CHECKING:
    import requests

log = structlog.get_logger(__name__)

TIMEOUT_S = 10
ATTEMPTS = 3
LONGEST_WAIT_S = 5
MOST_WAITING = 20
"""Pings kept for a monitor that does not answer; older ones say nothing any more."""
SECRET_LENGTH = 12
"""Parts of an address of at least so many characters are hidden: whoever knows them can ping."""


class Pinger:
    """Tells one address; ``get`` sends a request, ``wait`` lets seconds pass between attempts."""

    def __init__(self, url: str, get: Callable[[str], int], wait: Callable[[float], None] | None = None) -> None:
        self._url = url
        self._get = get
        self._stopped = threading.Event()
        self._wait = wait or self._rest
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING)
        self._changed = threading.Condition()
        self._sender: threading.Thread | None = None
        self._failures = 0
        self._host = urlsplit(url).netloc.rpartition("@")[2]
        _hide_parts(url)

    def start(self, rid: str) -> None:
        """Tell that a cycle begins."""
        self._put(f"/start?rid={rid}")

    def success(self, rid: str) -> None:
        """Tell that a cycle ended well."""
        self._put(f"?rid={rid}")

    def fail(self, rid: str) -> None:
        """Tell that a cycle failed."""
        self._put(f"/fail?rid={rid}")

    def close(self, within_s: float = 0) -> None:
        """Send what waits, for so long at most, and end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=within_s)
            self._waiting.clear()
            self._stopped.set()
            self._changed.notify_all()

    def _put(self, tail: str) -> None:
        if not self._url:
            return
        with self._changed:
            self._waiting.append(tail)
            self._changed.notify_all()
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_all, name="ping", daemon=True)
                self._sender.start()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped.is_set())
                if not self._waiting:
                    return
                tail = self._waiting[0]
            self._note(self._send(tail))
            with self._changed:
                if self._waiting and self._waiting[0] is tail:
                    self._waiting.popleft()
                self._changed.notify_all()

    def _send(self, tail: str) -> str:
        """Send one ping, several times if it must be; return what is wrong, nothing when it arrived."""
        from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(max=LONGEST_WAIT_S),
            retry=retry_if_result(bool),
            sleep=self._wait,
        )
        try:
            return retrying(self._once, tail)
        except RetryError as error:
            return str(error.last_attempt.result())

    def _once(self, tail: str) -> str:
        try:
            status = self._get(self._url + tail)
        except Exception as error:  # noqa: BLE001 - whatever it is, it concerns no cycle
            return type(error).__name__
        return "" if 200 <= status < 300 else f"HTTP {status}"

    def _rest(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _note(self, fault: str) -> None:
        if fault and not self._failures:
            log.warning("ping.failing", host=self._host, reason=fault)
        elif not fault and self._failures:
            log.info("ping.recovered", host=self._host, failures=self._failures)
        self._failures = self._failures + 1 if fault else 0


def nobody() -> Pinger:
    """Return a pinger that tells nobody."""
    return Pinger("", lambda _url: 0)


def getter(session: requests.Session, proxies: dict[str, str]) -> Callable[[str], int]:
    """Return what asks an address by a session and returns the status."""

    def get(url: str) -> int:
        with session.get(url, timeout=TIMEOUT_S, allow_redirects=False, stream=True, proxies=proxies) as answer:
            return answer.status_code

    return get


def _hide_parts(url: str) -> None:
    """Keep what makes an address secret out of logs and errors."""
    parts = urlsplit(url)
    for text in (parts.password or "", *parts.path.split("/"), *parts.query.replace("&", "=").split("=")):
        if len(text) >= SECRET_LENGTH or text == parts.password:
            logs.hide(text)
