"""Health checks and metrics over a real socket."""

from __future__ import annotations

import datetime as dt
import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from d365sync.errors import ConfigError, MirrorError
from d365sync.service.asking import ask
from d365sync.service.health import Address, Server, address_of, serve
from d365sync.service.state import ServiceState

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
TOKEN = "a-token-for-health"


class Time:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def state(time: Time) -> ServiceState:
    return ServiceState(["alpha", "beta"], timer=time)


@pytest.fixture
def server(state: ServiceState) -> Iterator[Server]:
    running = serve("127.0.0.1:0", state, clock=lambda: NOW)
    yield running
    running.close()


@pytest.fixture
def guarded(state: ServiceState) -> Iterator[Server]:
    running = serve("127.0.0.1:0", state, clock=lambda: NOW, token=TOKEN, hosts=["d365sync.example.org"])
    yield running
    running.close()


def get(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=5)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def test_it_is_alive_until_the_loop_makes_no_progress(server: Server, state: ServiceState, time: Time) -> None:
    assert get(server, "/livez")[:2] == (200, "ok\n")
    time.s = state.patience_s + 1
    assert get(server, "/livez")[0] == 503
    assert get(server, "/readyz")[0] == 503
    state.beat()
    assert get(server, "/livez")[0] == 200


def test_it_is_ready_when_every_environment_has_succeeded(server: Server, state: ServiceState) -> None:
    assert get(server, "/readyz")[:2] == (503, "not ready\n")
    state.ended("alpha", "ok", NOW)
    assert get(server, "/readyz")[0] == 503
    state.update("beta", standby=True)
    assert get(server, "/readyz")[:2] == (200, "ready\n")


@pytest.mark.parametrize(("age_s", "status"), [(899, 200), (901, 503)])
def test_a_success_that_is_too_old_is_not_ready(server: Server, state: ServiceState, age_s: int, status: int) -> None:
    state.keep(["alpha"])
    state.ended("alpha", "partial", NOW - dt.timedelta(seconds=age_s), fresh_for_s=900)
    state.ended("alpha", "failed", NOW, error=OSError("no route"))
    assert get(server, "/readyz")[0] == status


def test_without_an_age_three_failures_in_a_row_are_not_ready(server: Server, state: ServiceState) -> None:
    state.keep(["alpha"])
    state.ended("alpha", "ok", NOW)
    found = []
    for _ in range(3):
        state.ended("alpha", "failed", NOW, error=OSError("no route"))
        found.append(get(server, "/readyz")[0])
    assert found == [200, 200, 503]


def test_a_database_that_fails_is_not_ready_at_once(guarded: Server, state: ServiceState) -> None:
    state.keep(["alpha"])
    state.ended("alpha", "ok", NOW)
    state.ended("alpha", "failed", NOW, error=MirrorError("the mirror failed: disk full"))
    status, text, _ = get(guarded, "/readyz", Authorization=f"Bearer {TOKEN}")
    assert (status, text) == (503, "not ready\nalpha: database\n")
    assert get(guarded, "/readyz")[1] == "not ready\n"


def test_metrics_are_read_by_the_parser_of_prometheus(server: Server, state: ServiceState) -> None:
    state.ended("alpha", "ok", NOW, counts={"GET 200": 3})
    status, text, headers = get(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert [one.value for one in families["d365sync_requests"].samples] == [3]
    assert "d365sync_build_info" in families


def test_metrics_need_the_token_where_there_is_one(guarded: Server) -> None:
    assert get(guarded, "/metrics")[0] == 401
    assert get(guarded, "/metrics", Authorization="Bearer other")[0] == 401
    assert get(guarded, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_beyond_this_machine_metrics_are_told_with_a_token_only(state: ServiceState) -> None:
    running = serve("0.0.0.0:0", state)
    near = Server.__new__(Server)
    near.address = running.address.to_ask
    try:
        assert get(near, "/metrics")[0] == 403
        assert get(near, "/livez")[0] == 200
    finally:
        running.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost@evil.example:80"])
def test_a_name_it_is_not_known_by_is_refused(guarded: Server, host: str) -> None:
    assert get(guarded, "/livez", Host=host)[0] in (400, 421)


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:9", "D365SYNC.example.org"])
def test_a_name_it_is_known_by_is_answered(guarded: Server, host: str) -> None:
    assert get(guarded, "/livez", Host=host)[0] == 200


def test_answers_are_not_kept_and_name_no_program(server: Server) -> None:
    _, _, headers = get(server, "/livez")
    assert headers["Cache-Control"] == "no-store"
    assert "ython" not in headers["Server"]
    assert get(server, "/", method="POST")[0] == 405
    assert get(server, "/other")[0] == 404
    assert get(server, "/livez", method="HEAD")[:2] == (200, "")


def test_the_health_check_asks_the_way_a_container_does(server: Server, state: ServiceState) -> None:
    assert ask(server.address, "/livez").well
    answer = ask(server.address, "/readyz")
    assert (answer.well, answer.status, answer.text) == (False, 503, "not ready")


def test_nobody_there_is_an_answer_too() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = ask(Address("127.0.0.1", taken.getsockname()[1]), "/livez")
    assert not answer.well
    assert "no answer from 127.0.0.1" in answer.text


def test_a_port_that_is_taken_is_a_fault_of_the_configuration(server: Server, state: ServiceState) -> None:
    with pytest.raises(ConfigError, match="nobody can listen on"):
        serve(f"127.0.0.1:{server.address.port}", state)


@pytest.mark.parametrize("listen", ["8365", "localhost", "127.0.0.1:99999", "http://localhost:1", "a@b:1", ":80"])
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"daemon\.listen"):
        address_of(listen)


def test_addresses_are_read() -> None:
    assert address_of("[::1]:80") == Address("::1", 80)
    assert [address_of(f"{one}:1").is_loopback for one in ("localhost", "127.9.9.9", "[::]", "d365")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert Address("::", 5).to_ask == Address("::1", 5)


def test_a_taken_address_is_told_as_an_error_and_nothing_else_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"nobody can listen on 127.0.0.1:{port}: it is in use"):
            serve(f"127.0.0.1:{port}", ServiceState())
    assert capsys.readouterr() == ("", "")
