"""The edges of the network, with real sockets: certificates, proxies, answers that never end (rows 3, 8 and 32)."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from d365sync.app import make_client
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.retry import RetryPolicy
from d365sync.dataverse.session import make_session
from d365sync.dataverse.transport import Transport
from d365sync.emulator import Emulator
from d365sync.errors import RemoteError, RetryableError
from tests import canary
from tests.emulated import NOW, configuration
from tests.network import Certified, Proxy, listening, speaking_tls
from tests.scripted import Tokens, VirtualTimer

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
LOGIN = "clerk:p%40ss-of-the-proxy"
PASSWORD = "p@ss-of-the-proxy"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.delenv(spelled, raising=False)


@pytest.fixture(scope="module")
def remote() -> Iterator[tuple[Emulator, dict[str, str]]]:
    emulator = Emulator.load(SMALL, now=NOW)
    with emulator.serve() as (url, ca_file):
        yield emulator, {"url": url, "authority": emulator.authority(url), "ca_bundle": str(ca_file)}


def client(emulator: Emulator, folder: Path, **dataverse: Any) -> DataverseClient:
    return make_client(configuration(emulator, folder, dataverse=dataverse), environ={}, timer=VirtualTimer())


def silence(url: str, ca_file: Path | None = None, **options: Any) -> RemoteError:
    """Return why an address gives no answer, when it is greeted."""
    session = make_session(str(ca_file) if ca_file else None, **options)
    with pytest.raises(RemoteError) as caught:
        DataverseClient(Transport(session, url, Tokens(), retry=RetryPolicy())).greet()
    return caught.value


# -- certificates (row 32) -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "known", "found", "mend"),
    [
        ({}, False, "unable to get local issuer certificate", "dataverse.ca_bundle"),
        ({"by_itself": True}, True, "self-signed certificate", "dataverse.ca_bundle"),
        ({"host": "other.example"}, True, "not valid for 'localhost'", "for another host"),
        ({"until": YESTERDAY}, True, "certificate has expired", "clock"),
    ],
    ids=["private CA", "self-signed", "wrong host", "expired"],
)
def test_a_certificate_that_is_not_good_is_told_with_its_mend(
    made: dict[str, Any], known: bool, found: str, mend: str, tmp_path: Path
) -> None:
    certified = Certified(**made)
    reached: list[socket.socket] = []
    with speaking_tls(certified.context(tmp_path), reached.append) as url:
        error = silence(url, certified.ca_file(tmp_path) if known else None)
    assert found in str(error)
    assert mend in error.hint
    assert "\n" not in str(error)
    assert (error.exit_code, reached) == (1, [])


def test_a_private_authority_is_trusted_for_dataverse_and_for_signing_in(
    remote: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    emulator, place = remote
    assert client(emulator, tmp_path, **place).who_am_i()[0]["UserId"]
    with pytest.raises(RemoteError, match="sign-in service") as caught:
        client(emulator, tmp_path, **{**place, "ca_bundle": ""}).sign_in()
    assert (caught.value.exit_code, "ca_bundle" in caught.value.hint) == (1, True)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_server_of_old_versions_of_tls_is_not_talked_to(tmp_path: Path) -> None:
    certified = Certified()
    context = certified.context(tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with speaking_tls(context, lambda _connection: None) as url:
        assert "TLS" in str(silence(url, certified.ca_file(tmp_path)))


def test_a_server_without_tls_is_told_apart(tmp_path: Path) -> None:
    def plain(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with listening(plain) as port:
        error = silence(f"https://localhost:{port}", Certified().ca_file(tmp_path))
    assert "speaks TLS" in error.hint


def test_a_connection_that_breaks_within_the_handshake_is_worth_a_repeat() -> None:
    with listening(lambda connection: connection.close()) as port:
        error = silence(f"https://localhost:{port}")
    assert isinstance(error, RetryableError)
    assert error.exit_code == 5


# -- proxies ---------------------------------------------------------------------------------------------------------


def address(port: int, login: str = "") -> str:
    return f"http://{login}{'@' if login else ''}127.0.0.1:{port}"


@pytest.mark.parametrize("login", ["", LOGIN], ids=["open", "with a password"])
def test_a_proxy_is_used_for_dataverse_and_for_signing_in(
    login: str, remote: tuple[Emulator, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator, place = remote
    canary.plant(PASSWORD, tmp_path)
    proxy = Proxy(login=f"clerk:{PASSWORD}" if login else "")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with listening(proxy.serve) as port:
        made = client(emulator, tmp_path, **place, proxy=address(port, login))
        made.sign_in()
        assert len(proxy.asked) == 1
        assert made.who_am_i()
    assert proxy.targets == {place["url"].removeprefix("https://")}


@pytest.mark.parametrize(
    ("proxy", "found", "mend", "code"),
    [
        (Proxy(login="clerk:other"), "refuses: 407", "user and a password", 1),
        (Proxy(refuses="403 Forbidden by the company"), "refuses: 403 Forbidden by the company", "allow this host", 1),
        (Proxy(refuses="502 Bad Gateway"), "refuses: 502", "try again", 5),
    ],
)
def test_a_proxy_that_refuses_is_named_without_its_password(
    proxy: Proxy, found: str, mend: str, code: int, tmp_path: Path
) -> None:
    canary.plant(PASSWORD, tmp_path)
    with listening(proxy.serve) as port:
        error = silence("https://localhost:1", proxy=address(port, LOGIN))
    assert f"the proxy 127.0.0.1:{port} {found}" in str(error)
    assert mend in error.hint
    assert error.exit_code == code
    assert "p%40ss" not in f"{error}{error.hint}"


def test_a_proxy_that_is_not_there_is_told_apart_from_a_server_that_is_not() -> None:
    error = silence("https://localhost:1", proxy="http://127.0.0.1:1")
    assert "the proxy 127.0.0.1:1 cannot be reached" in str(error)
    assert isinstance(error, RetryableError)
    assert "proxy" not in str(silence("https://localhost:1"))


@pytest.mark.parametrize("exempt", [False, True])
def test_the_environment_names_a_proxy_and_the_hosts_without_one(
    exempt: bool, remote: tuple[Emulator, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator, place = remote
    proxy = Proxy()
    with listening(proxy.serve) as port:
        monkeypatch.setenv("HTTPS_PROXY", address(port))
        if exempt:
            monkeypatch.setenv("NO_PROXY", "localhost")
        assert client(emulator, tmp_path, **place).who_am_i()
    assert bool(proxy.asked) is not exempt


# -- answers without an end (rows 3 and 8) ---------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["head", "body"])
def test_an_answer_that_drips_is_given_up_as_a_whole(part: str, tmp_path: Path) -> None:
    """Each byte comes well within the time-out of the next one."""
    over = threading.Event()
    start = b"HTTP/1.1 200 OK\r\n"
    first = start if part == "head" else start + b"Content-Type: application/json\r\nContent-Length: 99999\r\n\r\n"

    def drip(connection: socket.socket) -> None:
        connection.sendall(first)
        with suppress(OSError):
            for _ in range(200):
                over.wait(0.02)
                connection.sendall(b"x")

    certified = Certified()
    with speaking_tls(certified.context(tmp_path), drip) as url:
        session = make_session(str(certified.ca_file(tmp_path)), timeout_s=0.06)
        begun = time.monotonic()
        with pytest.raises(requests.RequestException):
            session.get(url, timeout=5)
        took = time.monotonic() - begun
        over.set()
    assert 0.25 < took < 3


def test_the_sign_in_service_may_not_drip_either(tmp_path: Path) -> None:
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        with suppress(OSError):
            for _ in range(200):
                over.wait(0.02)
                connection.sendall(b" ")

    emulator = Emulator.load(SMALL, now=NOW)
    certified = Certified()
    with speaking_tls(certified.context(tmp_path), drip) as url:
        place = {"url": url, "authority": f"{url}/tenant", "ca_bundle": str(certified.ca_file(tmp_path))}
        config = configuration(emulator, tmp_path, dataverse=place)
        session = make_session(place["ca_bundle"], timeout_s=0.06)
        with pytest.raises(RetryableError, match="no answer in time"):
            make_client(config, environ={}, session=session, timer=VirtualTimer()).sign_in()
        over.set()


def test_a_netrc_gives_nothing_away(
    remote: tuple[Emulator, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, place = remote
    netrc = tmp_path / "netrc"
    netrc.write_text("default login clerk password known", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    assert "Authorization" not in make_session(place["ca_bundle"]).get(place["url"]).request.headers
