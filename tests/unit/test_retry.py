from __future__ import annotations

from collections.abc import Callable

import pytest

from d365sync.dataverse.retry import RetryPolicy
from d365sync.errors import RejectedError, RetryableError


def failing(*failures: Exception) -> Callable[[], str]:
    waiting = list(failures)

    def send() -> str:
        if waiting:
            raise waiting.pop(0)
        return "done"

    return send


def policy(waits: list[float], **options: float) -> RetryPolicy:
    return RetryPolicy(sleep=waits.append, chance=lambda _low, high: high, **options)  # type: ignore[arg-type]


def busy(retry_after_s: float | None = None) -> RetryableError:
    return RetryableError("busy", status=503, retry_after_s=retry_after_s)


def test_waits_grow_without_advice_and_follow_it_with() -> None:
    waits: list[float] = []
    send = failing(busy(), busy(), busy(7))
    assert policy(waits).run(send, again=lambda _error: True) == "done"
    assert waits == [2, 4, 8]  # the server's 7 and up to a second of jitter


def test_a_wait_is_capped_unless_the_server_asks_for_more() -> None:
    waits: list[float] = []
    policy(waits, longest_s=3).run(failing(busy(), busy(), busy(90)), again=lambda _error: True)
    assert waits == [2, 3, 91]


def test_after_the_last_attempt_the_failure_comes_out() -> None:
    with pytest.raises(RetryableError, match="busy"):
        policy([], attempts=2).run(failing(busy(), busy(), busy()), again=lambda _error: True)


def test_a_wait_longer_than_the_budget_is_not_begun() -> None:
    waits: list[float] = []
    with pytest.raises(RetryableError):
        policy(waits, budget_s=300).run(failing(busy(3600)), again=lambda _error: True)
    assert waits == []


def test_what_may_not_be_repeated_is_not() -> None:
    waits: list[float] = []
    with pytest.raises(RetryableError):
        policy(waits).run(failing(busy()), again=lambda _error: False)
    assert waits == []


def test_a_refusal_is_not_repeated() -> None:
    waits: list[float] = []
    with pytest.raises(RejectedError):
        policy(waits).run(failing(RejectedError("no")), again=lambda _error: True)
    assert waits == []
