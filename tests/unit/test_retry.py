from __future__ import annotations

import pytest
import requests

from d365sync.errors import RejectedError, RetryableError
from tests.scripted import answer, by_turns, transport

BUSY = {"Retry-After": "7"}


def failing(times: int, status: int = 500) -> list[requests.Response | Exception]:
    return [answer(status, b"<html>oh</html>", {"Content-Type": "text/html"}) for _ in range(times)]


def test_waits_grow_without_advice_and_follow_it_with() -> None:
    sender, server, timer = transport(by_turns(*failing(2, 503), answer(503, headers=BUSY)))
    assert sender.send("GET", f"{sender.api_root}/goals").status == 200
    assert timer.waits == [2, 4, pytest.approx(7 * 1.05)]
    assert len(server.seen) == 4
    assert sender.usage.since().retries == 3


def test_a_wait_is_capped_unless_the_server_asks_for_more() -> None:
    sender, _server, timer = transport(by_turns(*failing(2), answer(503, headers={"Retry-After": "90"})), longest_s=3)
    sender.send("GET", f"{sender.api_root}/goals")
    assert timer.waits == [2, 3, pytest.approx(90 * 1.05)]


def test_after_the_last_attempt_the_failure_comes_out() -> None:
    sender, server, _timer = transport(by_turns(*failing(9)))
    with pytest.raises(RetryableError, match="oh"):
        sender.send("GET", f"{sender.api_root}/goals")
    assert len(server.seen) == 8


def test_a_write_whose_outcome_is_unknown_is_not_repeated() -> None:
    for failure in (requests.ConnectionError("reset"), requests.ReadTimeout("late"), *failing(1, 502)):
        sender, server, _timer = transport(by_turns(answer(), failure))
        sender.send("GET", f"{sender.api_root}/goals")
        with pytest.raises(RetryableError) as caught:
            sender.send("PATCH", f"{sender.api_root}/goals(1)", body=b"{}")
        assert caught.value.status not in (429, 503)
        assert len(server.seen) == 2


def test_a_write_that_was_not_carried_out_or_may_be_repeated_is() -> None:
    for failure, options in ((answer(429), {}), (answer(503), {}), (failing(1, 504)[0], {"idempotent": True})):
        sender, server, _timer = transport(by_turns(failure, answer(204, b"")))
        assert sender.send("PATCH", f"{sender.api_root}/goals(1)", body=b"{}", **options).status == 204
        assert len(server.seen) == 2


def test_a_refusal_is_not_repeated() -> None:
    sender, server, timer = transport(by_turns(answer(400, b'{"error":{"code":"","message":"no"}}')))
    with pytest.raises(RejectedError):
        sender.send("GET", f"{sender.api_root}/goals")
    assert (len(server.seen), timer.waits) == (1, [])


def test_a_host_that_never_answered_is_tried_three_times() -> None:
    sender, server, _timer = transport(by_turns(*[requests.ConnectionError("refused")] * 9))
    with pytest.raises(RetryableError):
        sender.send("GET", f"{sender.api_root}/goals")
    assert len(server.seen) == 3


def test_all_requests_together_have_one_budget_of_repeats() -> None:
    sender, server, _timer = transport(by_turns(*failing(50)), retries=5)
    for _ in range(3):
        with pytest.raises(RetryableError):
            sender.send("GET", f"{sender.api_root}/goals")
    assert len(server.seen) == 3 + 5


@pytest.mark.parametrize("failures", [11, 12, 30])
def test_a_server_that_only_fails_costs_a_dozen_requests(failures: int) -> None:
    sender, server, timer = transport(by_turns(*failing(failures)), attempts=4)
    outcomes = []
    for _ in range(10):
        try:
            outcomes.append(sender.send("GET", f"{sender.api_root}/goals").status)
        except RetryableError as error:
            outcomes.append(error.exit_code)
    if failures == 11:
        assert (outcomes[:3], len(server.seen)) == ([5, 5, 200], 19)
    else:
        assert (outcomes, len(server.seen)) == ([5] * 10, 12)
    if failures == 12:
        timer.wait_until(timer.now() + 30)
        assert sender.send("GET", f"{sender.api_root}/goals").status == 200
        assert sender.send("GET", f"{sender.api_root}/goals").status == 200
    if failures == 30:
        timer.wait_until(timer.now() + 30)
        with pytest.raises(RetryableError):
            sender.send("GET", f"{sender.api_root}/goals")
        assert len(server.seen) == 13
