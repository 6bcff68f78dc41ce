"""Service protection: three limits for each user, on the emulator's clock; headers that tell what is left."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import requests

from d365sync.emulator.choices import chosen_settings
from d365sync.emulator.settings import UNLIMITED, ServiceLimits
from d365sync.errors import UsageError
from tests.unit.emulating import NOW, ORIGIN, Org, code, made_id
from tests.unit.test_emulator_batch import send, single

REQUESTS_LEFT = "x-ms-ratelimit-burst-remaining-xrm-requests"
SECONDS_LEFT = "x-ms-ratelimit-time-remaining-xrm-requests"


def org(**limits: Any) -> Org:
    return Org(limits=ServiceLimits(**limits))


def later(emulated: Org, seconds: float) -> None:
    emulated.emulator.clock.advance(dt.timedelta(seconds=seconds))


def asked(emulated: Org, times: int = 1) -> requests.Response:
    for _ in range(times):
        response = emulated.call("GET", "WhoAmI")
    return response


def test_the_window_slides_and_the_headers_tell_what_is_left() -> None:
    emulated = org(requests=3)
    assert asked(emulated).headers[REQUESTS_LEFT] == "2"
    later(emulated, 100)
    assert asked(emulated, 2).headers[REQUESTS_LEFT] == "0"
    refused = asked(emulated)
    assert code(refused) == (429, "0x80072322")
    assert refused.json()["error"]["message"] == (
        "Number of requests exceeded the limit of 3 over time window of 300 seconds."
    )
    assert (refused.headers["Retry-After"], refused.headers[REQUESTS_LEFT]) == ("300", "0")
    later(emulated, 299)
    assert asked(emulated).status_code == 429, "the first left the window; two and the refused one are in it"
    later(emulated, 1)
    assert asked(emulated).headers[REQUESTS_LEFT] == "1"


def test_after_the_wait_that_was_asked_for_there_is_room_and_not_before() -> None:
    for early, status in ((1, 429), (0, 200)):
        emulated = org(requests=2, window_s=60, refused_count=False)
        asked(emulated, 2)
        later(emulated, 10.5)
        wait_s = int(asked(emulated).headers["Retry-After"])
        assert wait_s == 50
        later(emulated, wait_s - early)
        assert asked(emulated).status_code == status


def test_pushing_on_lengthens_the_wait() -> None:
    emulated = org(requests=2, window_s=60)
    waits = []
    for _ in range(6):
        waits.append(asked(emulated).headers.get("Retry-After"))
        later(emulated, 10)
    assert waits == [None, None, "50", "50", "50", "50"], "by itself it would be 40, 30, 20, 10"


def test_execution_time_adds_up_and_a_batch_is_one_request_but_takes_its_time() -> None:
    emulated = org(request_ms=1500, execution_ms=1_200_000)
    assert asked(emulated).headers[SECONDS_LEFT] == "1,198.50"
    headers = send(emulated, *[single("GET WhoAmI")] * 4).headers
    assert (headers[REQUESTS_LEFT], headers[SECONDS_LEFT]) == ("5998", "1,192.50")
    emulated = org(request_ms=1000, execution_ms=2500)
    later(emulated, 1)
    asked(emulated, 3)
    later(emulated, 20)
    refused = asked(emulated)
    assert code(refused) == (429, "0x80072321")
    assert "exceeded limit of 2,500 milliseconds over time window of 300 seconds." in refused.text
    assert (refused.headers["Retry-After"], refused.headers[SECONDS_LEFT]) == ("280", "0.00")
    later(emulated, 280)
    assert asked(emulated).headers[SECONDS_LEFT] == "1.50"


def test_time_is_measured_unless_it_is_given() -> None:
    left = float(asked(org(), 5).headers[SECONDS_LEFT].replace(",", ""))
    assert 1100 < left <= 1200


def test_limits_are_each_users_own() -> None:
    emulated = org(requests=1, by_impersonated_user=True)
    assert asked(emulated).status_code == 200
    assert asked(emulated).status_code == 429
    someone = {"MSCRMCallerID": made_id("a", 1)}
    assert emulated.call("GET", "WhoAmI", headers=someone).status_code == 200
    assert emulated.call("GET", "WhoAmI", headers=someone).status_code == 429
    emulated = org(requests=1)
    asked(emulated)
    assert emulated.call("GET", "WhoAmI", headers=someone).status_code == 429


def test_who_is_not_signed_in_spends_nothing_and_signing_in_is_not_counted() -> None:
    emulated = org(requests=1)
    for _ in range(3):
        bare = emulated.call("GET", "WhoAmI", headers={"Authorization": "Bearer nobody"})
        assert bare.status_code == 401
        assert REQUESTS_LEFT not in bare.headers
        assert emulated.sign_in().status_code == 200
    assert asked(emulated).status_code == 200


def test_refused_requests_change_nothing() -> None:
    emulated = org(requests=1)
    asked(emulated)
    version = emulated.emulator.store.version
    assert emulated.post("accounts", {"name": "late"}).status_code == 429
    assert emulated.emulator.store.version == version


def test_limits_can_be_switched_off() -> None:
    emulated = Org(limits=UNLIMITED)
    headers = asked(emulated, 3).headers
    assert REQUESTS_LEFT not in headers
    assert SECONDS_LEFT not in headers


def test_a_window_by_passing_time_does_not_stand_still_with_the_clock() -> None:
    emulated = org(requests=1, window_s=1, by_passing_time=True)
    asked(emulated)
    assert emulated.emulator.clock.now() == NOW
    later(emulated, 3600)
    assert asked(emulated).status_code == 429


def test_further_headers_of_the_service() -> None:
    headers = Org().session.get(f"{ORIGIN}/api/data/v9.2/goals").headers
    assert headers["X-Source"].count(",") == 1
    assert "x-ms-dop-hint" in headers
    assert "x-ms-utilization-percent" not in headers
    assert "ReqClientId=" in headers["Set-Cookie"]
    assert "expires=Sat, 18-Apr-2076 12:00:00 GMT" in headers["Set-Cookie"]
    emulated = Org(dop_hint="17", utilization_percent="12", doubled_request_ids=True)
    headers = asked(emulated).headers
    assert (headers["x-ms-dop-hint"], headers["x-ms-utilization-percent"]) == ("17", "12")
    first, second = headers["REQ_ID"].split(",")
    assert first == second
    other, same = headers["x-ms-service-request-id"].split(",")
    assert other != same == first
    assert "x-ms-dop-hint" not in asked(Org(dop_hint="")).headers


def test_what_may_be_chosen_on_the_command_line() -> None:
    chosen = chosen_settings(["requests=10", "execution_ms=off"], no_limits=False, dop_hint="8", frozen=True)
    assert chosen.limits == ServiceLimits(requests=10, execution_ms=None, by_passing_time=True)
    assert chosen.dop_hint == "8"
    assert chosen_settings([], no_limits=True, dop_hint=None, frozen=False).limits == UNLIMITED
    for wrong in (
        "request=1",
        "requests=",
        "requests=-1",
        "requests=0",
        "requests=many",
        "window_s=off",
        "requests=\uff11",
    ):
        with pytest.raises(UsageError):
            chosen_settings([wrong], no_limits=False, dop_hint=None, frozen=False)
