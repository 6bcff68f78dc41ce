from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from d365sync.dataverse.gate import Gate, MonotonicTimer
from d365sync.dataverse.throttle import MOST, Throttle, side_by_side
from tests.scripted import JSON, VirtualTimer, answer, transport


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
    assert list(side_by_side(calls, lambda: 10)) == [200] * 40
    assert most == 3
    traffic = sender.usage.since()
    assert (traffic.requests, traffic.answers) == (40, {"GET 200": 40})


def test_results_come_in_order_and_calls_are_read_no_further_than_needed() -> None:
    begun = itertools.count(1)
    read = 0

    def calls() -> Iterator[Callable[[], int]]:
        nonlocal read
        for number in range(50):
            read += 1

            def call(number: int = number) -> int:
                time.sleep(0.002 if number % 3 else 0.004)
                next(begun)
                return number

            yield call

    results = side_by_side(calls(), lambda: 4)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert read <= 14
    results.close()  # type: ignore[attr-defined]
    assert next(begun) <= 15


def test_a_failure_ends_the_rest_and_breaks_off_their_waits() -> None:
    def failing() -> int:
        time.sleep(0.05)
        raise ValueError("broken")

    def waiting() -> int:
        gate = Gate(MonotonicTimer())
        gate.shut(60)
        gate.pass_through(time.monotonic() + 100)
        return 1

    began = time.monotonic()
    with pytest.raises(ValueError, match="broken"):
        list(side_by_side([failing, waiting, waiting, *[waiting] * 20], lambda: 3))
    assert time.monotonic() - began < 5


def test_a_token_refused_to_many_is_renewed_once() -> None:
    barrier = threading.Barrier(4, timeout=5)

    def reply(request: requests.PreparedRequest) -> requests.Response:
        if request.headers["Authorization"] == "Bearer token-1":
            barrier.wait()
            return answer(401, b"no")
        return answer()

    sender, _server, _timer = transport(reply, concurrency=4)
    calls = [lambda: sender.send("GET", f"{sender.api_root}/goals").status] * 4
    assert list(side_by_side(calls, lambda: 4)) == [200] * 4
    assert sender._tokens.made == 2  # type: ignore[attr-defined]
