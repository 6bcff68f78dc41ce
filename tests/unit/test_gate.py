from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from d365sync.dataverse.gate import Gate, MonotonicTimer, interruptible
from d365sync.errors import RetryableError
from d365sync.sync.streams import side_by_side
from tests.scripted import VirtualTimer, answer, by_turns, transport

DATE = "Fri, 20 Nov 2026 09:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "at_least", "at_most"),
    [
        ({"Retry-After": "2"}, 2, 2.1 + 1e-6),
        ({"Retry-After": "Fri, 20 Nov 2026 09:00:20 GMT", "Date": DATE}, 20, 21),
        ({"Retry-After": "Fri, 20 Nov 2026 08:00:00 GMT", "Date": DATE}, 0, 2),
        ({"Retry-After": "Fri, 20 Nov 2026 08:00:00 GMT"}, 0, 2),
        ({}, 0, 2),
        ({"Retry-After": "0"}, 0, 2),
        ({"Retry-After": "-5"}, 0, 2),
        ({"Retry-After": "soon"}, 0, 2),
        ({"Retry-After": "1_0"}, 0, 2),
    ],
)
def test_a_throttled_request_waits_as_long_as_it_is_told(
    headers: dict[str, str], at_least: float, at_most: float
) -> None:
    sender, server, timer = transport(by_turns(answer(429, headers=headers)))
    began = timer.now()
    sender.send("POST", f"{sender.api_root}/goals", body=b"{}")
    assert at_least <= timer.now() - began <= at_most
    assert [at - began for at, _request in server.seen] == [0, timer.now() - began]


@pytest.mark.parametrize("asked", ["301", "999999999999999999999", "Fri, 20 Nov 2099 09:00:00 GMT"])
def test_a_wait_beyond_the_budget_is_not_begun_and_nobody_sends_meanwhile(asked: str) -> None:
    sender, server, timer = transport(by_turns(answer(429, headers={"Retry-After": asked, "Date": DATE})))
    for _ in range(2):
        with pytest.raises(RetryableError) as caught:
            sender.send("GET", f"{sender.api_root}/goals")
        assert caught.value.exit_code == 5
        assert "retry_budget" in caught.value.hint
    assert (len(server.seen), timer.waits) == (1, [])
    assert sender.usage.since().throttled_s == 0


def test_no_thread_sends_while_the_server_asks_for_patience() -> None:
    timer = VirtualTimer()
    lock = threading.Lock()
    shut: list[tuple[float, float]] = []
    count = 0

    def reply(_request: object) -> object:
        nonlocal count
        with lock:
            count += 1
            if count % 7:
                return answer()
            shut.append((timer.now(), timer.now() + 5))
        return answer(429, headers={"Retry-After": "5"})

    sender, server, _timer = transport(reply, timer, attempts=100, budget_s=10_000)  # type: ignore[arg-type]

    def work() -> None:
        for _ in range(20):
            sender.send("GET", f"{sender.api_root}/goals")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moments = [at for at, _request in server.seen]
    assert len(shut) >= 20
    assert [at for at in moments for begin, end in shut if begin < at < end] == []
    assert sender.usage.requests == len(moments) == 160 + len(shut)


def test_a_wait_that_is_lengthened_meanwhile_goes_on() -> None:
    class Lengthening(VirtualTimer):
        def wait_until(self, at: float) -> None:
            super().wait_until(at)
            if len(self.waits) == 1:
                gate.shut(10)

    timer = Lengthening()
    gate = Gate(timer)
    assert gate.shut(5) == 5
    assert gate.shut(3) == 0
    gate.pass_through(give_up_at=2000)
    assert timer.now() == 1015


def test_a_wait_can_be_broken_off() -> None:
    gate, stop = Gate(MonotonicTimer()), threading.Event()
    gate.shut(60)
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    with interruptible(stop), pytest.raises(RetryableError):
        gate.pass_through(began + 100)
    assert time.monotonic() - began < 5


def test_streams_that_are_closed_do_not_wait_for_the_server() -> None:
    gate = Gate(MonotonicTimer())
    gate.shut(60)

    def waiting() -> Iterator[int]:
        gate.pass_through(time.monotonic() + 100)
        yield 1

    began = time.monotonic()
    events = side_by_side([lambda: iter([0]), waiting], workers=2)
    assert next(events).item == 0
    events.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5


def test_nobody_slips_through_between_an_answer_that_asks_to_wait_and_the_wait() -> None:
    """Whoever waits for the place of the throttled request finds the gate shut, however long its thread takes."""
    moved = threading.Event()
    asked_at: list[float] = []
    sent_at: list[float] = []

    class Watched(VirtualTimer):
        def wait_until(self, at: float) -> None:
            moved.set()
            super().wait_until(at)

    def reply(_request: requests.PreparedRequest) -> requests.Response:
        sent_at.append(timer.now())
        if len(sent_at) == 1:
            asked_at.append(timer.now() + 5)
            return answer(429, b"{}", {"Content-Type": "application/json", "Retry-After": "5"})
        moved.set()
        return answer()

    def dawdle(_low: float, high: float) -> float:
        moved.wait(0.2)
        return high

    timer = Watched()
    line, _server, _timer = transport(reply, timer, concurrency=1, chance=dawdle)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(line.send, "GET", f"{line.api_root}/goals") for _ in range(2)]:
            done.result()
    assert min(sent_at[1:]) >= asked_at[0]
