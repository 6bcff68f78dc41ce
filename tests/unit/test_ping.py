from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests

from d365sync import logs
from d365sync.service.ping import ATTEMPTS, MOST_WAITING, Pinger, getter
from tests import canary

URL = "https://hc.example/7c6a9d1e-33aa-4c5e-9f1b-2f6f7a1b9c0d"
RID = "0f6a7b0e-1111-4222-8333-444455556666"


def pinger(get: Callable[[str], int]) -> Pinger:
    return Pinger(URL, get, wait=lambda _seconds: None)


def events() -> list[str]:
    return [line for line in canary.log.getvalue().splitlines() if '"ping.' in line]


def test_begin_end_and_failure_are_told_in_order() -> None:
    asked: list[str] = []

    def get(url: str) -> int:
        asked.append(url.removeprefix(URL))
        return 200

    one = pinger(get)
    one.start(RID)
    one.success(RID)
    one.fail(RID)
    one.close(10)
    assert asked == [f"/start?rid={RID}", f"?rid={RID}", f"/fail?rid={RID}"]
    assert events() == []


def test_a_monitor_that_fails_is_asked_a_few_times_and_named_once_without_the_secret() -> None:
    count = 0

    def get(_url: str) -> int:
        nonlocal count
        count += 1
        if count <= ATTEMPTS:
            raise requests.ConnectionError(f"no route to {URL}")
        return 500 if count <= 2 * ATTEMPTS else 200

    one = pinger(get)
    for _ in range(3):
        one.start(RID)
    one.close(10)
    assert count == 2 * ATTEMPTS + 1
    failing, recovered = events()
    assert '"reason": "ConnectionError"' in failing
    assert '"failures": 2' in recovered
    assert logs.redact(f"cannot reach {URL}/fail") == "cannot reach https://hc.example/***/fail"


def test_a_monitor_that_hangs_holds_nobody_up_and_only_so_many_pings_wait() -> None:
    begun, release, asked = threading.Event(), threading.Event(), []

    def get(url: str) -> int:
        asked.append(url)
        begun.set()
        release.wait(10)
        return 200

    one = pinger(get)
    one.start("first")
    begun.wait(10)
    for number in range(2 * MOST_WAITING):
        one.start(str(number))
    release.set()
    one.close(10)
    assert len(asked) <= MOST_WAITING + 1
    assert asked[-1].endswith(f"rid={2 * MOST_WAITING - 1}")


def test_without_an_address_nothing_is_sent() -> None:
    one = Pinger("", lambda _url: 1 // 0)
    one.start(RID)
    one.close()
    assert events() == []


@contextmanager
def monitor(status: int) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/ping", asked
        server.shutdown()
        thread.join()


def test_a_ping_is_a_request_that_follows_nothing() -> None:
    with monitor(302) as (url, asked), requests.Session() as session:
        assert getter(session, {})(f"{url}?rid=1") == 302
    assert asked == ["/ping?rid=1"]
