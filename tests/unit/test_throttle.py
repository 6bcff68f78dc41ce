from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from d365sync.dataverse.throttle import MOST, Throttle
from tests.scripted import JSON, VirtualTimer, answer, transport


def at_once_in_threads(calls: Sequence[Callable[[], int]], threads: int) -> list[int]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda call: call(), calls))


@pytest.mark.parametrize(
    ("hint", "workers"),
    [
        ("4", 4),
        ("52", MOST),
        (" 6 ", 6),
        ("4.0", 4),
        ("1,200.00", MOST),
        ("", 8),
        ("many", 8),
        ("-3", 8),
        ("0", 8),
        ("\u0664", 8),
        ("1", 1),
    ],
)
def test_it_begins_where_the_server_says(hint: str, workers: int) -> None:
    sender, _server, _timer = transport(lambda _request: answer(headers={**JSON, "x-ms-dop-hint": hint}))
    sender.send("GET", f"{sender.api_root}/goals")
    assert sender.throttle.workers == workers


def test_it_halves_on_complaints_and_grows_slowly() -> None:
    throttle = Throttle(16)
    with throttle.place() as one, throttle.place() as other:
        throttle.complained(one)
        throttle.complained(other)
    assert throttle.workers == 8
    for _ in range(8):
        throttle.succeeded()
    assert throttle.workers == 8
    throttle.succeeded()
    assert throttle.workers == 9
    for _ in range(1000):
        throttle.succeeded()
    assert throttle.workers == 16
    for _ in range(10):
        with throttle.place() as round_:
            throttle.complained(round_)
    assert throttle.workers == 1


def test_never_more_at_once_than_there_are_places() -> None:
    lock = threading.Lock()
    at_once, most = 0, 0

    def reply(_request: requests.PreparedRequest) -> requests.Response:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002)
        with lock:
            at_once -= 1
        return answer()

    sender, _server, _timer = transport(reply, VirtualTimer(), concurrency=3)
    calls = [lambda: sender.send("GET", f"{sender.api_root}/goals").status for _ in range(40)]
    assert at_once_in_threads(calls, 10) == [200] * 40
    assert most == 3
    traffic = sender.usage.since()
    assert (traffic.requests, traffic.answers) == (40, {"GET 200": 40})


def test_a_token_refused_to_many_is_renewed_once() -> None:
    barrier = threading.Barrier(4, timeout=5)

    def reply(request: requests.PreparedRequest) -> requests.Response:
        if request.headers["Authorization"] == "Bearer token-1":
            barrier.wait()
            return answer(401, b"no")
        return answer()

    sender, _server, _timer = transport(reply, concurrency=4)
    calls = [lambda: sender.send("GET", f"{sender.api_root}/goals").status] * 4
    assert at_once_in_threads(calls, 4) == [200] * 4
    assert sender._tokens.made == 2  # type: ignore[attr-defined]
