"""What doctor says of names, proxies, certificates and clocks: values in, a line out."""

from __future__ import annotations

import datetime as dt

import pytest

from d365sync.config import Config, parse
from d365sync.dataverse.greeting import Peer, claims_of
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Stop, Verdict
from d365sync.doctor.network import (
    Route,
    hosts_of,
    names,
    proxy,
    resolved,
    route_to,
    server_certificate,
    skewed,
    unreachable_proxy,
)
from tests.emulated import NOW
from tests.examined import machine

URL = "https://contoso.crm4.dynamics.com"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.delenv(spelled, raising=False)


def configured(**dataverse: object) -> Config:
    identity = {"url": URL, "auth": "managed_identity"}
    from pathlib import Path

    return parse({"dataverse": identity | dataverse}, {}, folder=Path())


def lines(ask: object, config: Config, **other: object) -> list[Check]:
    """Return the lines of a step, and that which ended it."""
    case = Case(config, lambda: pytest.fail("nothing is to be asked"), lambda: NOW, machine(**other))
    found = []
    try:
        found += ask(case)  # type: ignore[operator]
    except Stop as stop:
        found.append(stop.check)
    return found


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "took_s", "verdict", "words"),
    [
        (["192.0.2.1"], 0.012, "OK", "1 address (IPv4), told in 12 ms"),
        (["192.0.2.1", "2001:db8::1"], 0.5, "OK", "2 addresses (IPv4 and IPv6)"),
        (["fe80::1%eth0"], 0.5, "OK", "IPv6"),
        (["192.0.2.1"], 2.5, "WARN", "took 2.5 s"),
        ([], 0.1, "FAIL", "has no address"),
    ],
)
def test_a_name_is_told_with_its_addresses(addresses: list[str], took_s: float, verdict: str, words: str) -> None:
    check = resolved("crm.example", addresses, took_s)
    assert (check.verdict, words in check.found) == (verdict, True)
    assert bool(check.mend) == (verdict != "OK")
    assert check.exit_code == (5 if verdict == "FAIL" else 0)


def dead(host: str) -> tuple[str, ...]:
    raise OSError(-2, "Name or service not known")


def test_a_dead_name_of_the_organization_ends_the_way_there() -> None:
    (check,) = lines(names, configured(), resolve=dead)
    assert (check.verdict, check.name) == (Verdict.FAIL, "DNS")
    assert "contoso.crm4.dynamics.com has no address: Name or service not known" in check.found


def test_with_a_proxy_its_name_alone_is_looked_up() -> None:
    asked: list[str] = []

    def resolve(host: str) -> tuple[str, ...]:
        asked.append(host)
        return ("192.0.2.9",)

    lines(names, configured(proxy="http://proxy.example:3128"), resolve=resolve)
    assert asked == ["proxy.example"]


def test_a_name_that_no_one_could_have_is_a_line_too() -> None:
    def resolve(host: str) -> tuple[str, ...]:
        return tuple(host.encode("idna").decode())

    (check,) = lines(names, configured(url=f"https://{'a' * 64}.example"), resolve=resolve)
    assert check.verdict is Verdict.FAIL


def test_the_sign_in_service_is_looked_up_too_but_for_a_managed_identity() -> None:
    secret = {
        "auth": "client_secret",
        "client_secret": "env:S",
        "tenant_id": "t",
        "client_id": f"{0:08}-0000-0000-0000-{0:012}",
    }
    assert hosts_of(configured(**secret)) == ["contoso.crm4.dynamics.com", "login.microsoftonline.com"]
    assert hosts_of(configured()) == ["contoso.crm4.dynamics.com"]
    assert hosts_of(configured(**secret, authority="https://adfs.example/adfs"))[1] == "adfs.example"


# -- the proxy -------------------------------------------------------------------------------------------------------


def test_without_a_proxy_it_says_so() -> None:
    assert route_to(URL, "").why == "neither dataverse.proxy nor HTTPS_PROXY names one"


def test_the_configured_proxy_goes_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://other.example:8080")
    monkeypatch.setenv("NO_PROXY", "contoso.crm4.dynamics.com")
    assert route_to(URL, "http://proxy.example:3128") == Route("http://proxy.example:3128", "dataverse.proxy")


def test_a_host_that_is_exempt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert "HTTPS_PROXY" in route_to(URL, "").why
    monkeypatch.setenv("NO_PROXY", ".dynamics.com")
    assert route_to(URL, "") == Route("", "NO_PROXY exempts contoso.crm4.dynamics.com from HTTPS_PROXY")


@pytest.mark.parametrize(("address", "host"), [("http://u:secret@p.example", "p.example:80"), ("https://p", "p:443")])
def test_a_proxy_is_named_without_its_password(address: str, host: str) -> None:
    assert Route(address, "").host == host
    assert "secret" not in unreachable_proxy(Route(address, "dataverse.proxy"), "refused").found


def test_a_proxy_that_is_not_there_ends_the_way() -> None:
    def refuse(_host: str, _port: int) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    config = configured(proxy="http://proxy.example:3128")
    (check,) = lines(proxy, config, connect=refuse)
    assert (check.verdict, check.exit_code) == (Verdict.FAIL, 5)
    assert check.found == "proxy.example:3128 cannot be reached: Connection refused"
    (well,) = lines(proxy, config)
    assert well.found == "proxy.example:3128 can be reached; by dataverse.proxy"


# -- certificates and clocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "verdict"), [(400, "OK"), (14, "OK"), (13, "WARN"), (0, "WARN")])
def test_a_server_certificate_that_ends_soon_is_told(days: int, verdict: str) -> None:
    peer = Peer("crm.example", "Example CA", NOW + dt.timedelta(days=days, hours=1), "TLSv1.3")
    check = server_certificate(peer, NOW)
    assert (check.verdict, "issued by Example CA" in check.found) == (verdict, True)


def test_a_private_authority_is_named_as_one() -> None:
    check = server_certificate(Peer("crm.example", "Our CA", None), NOW, private=frozenset({"Our CA"}))
    assert "Our CA, a private authority of dataverse.ca_bundle" in check.found


@pytest.mark.parametrize(
    ("seconds", "verdict", "code"),
    [(0, "OK", 0), (120, "OK", 0), (-121, "WARN", 0), (300, "WARN", 0), (301, "FAIL", 1), (-86400, "FAIL", 1)],
)
def test_a_clock_that_is_wrong_is_told_by_how_much(seconds: int, verdict: str, code: int) -> None:
    check = skewed(seconds)
    assert (check.verdict, check.exit_code) == (verdict, code)


@pytest.mark.parametrize("token", ["", "opaque", "a.b", "a.%%.c", "a.bnVsbA.c", "a.W10.c"])
def test_a_token_that_cannot_be_read_says_nothing(token: str) -> None:
    assert claims_of(token) == {}
