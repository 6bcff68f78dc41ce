"""The way to the server: names, proxy, TLS, an answer, and what time it is there.

IO: DNS, HTTP.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from requests.utils import get_environ_proxies, select_proxy

from d365sync.config import Config
from d365sync.core.clouds import sign_in_host
from d365sync.core.counts import counted
from d365sync.dataverse.greeting import Peer
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Stop, Verdict, failure
from d365sync.errors import ConfigError, RemoteError

SLOW_DNS_S = 2.0
"""Every new connection waits so long for the name."""
SKEW_WARN_S = 120
SKEW_FAIL_S = 300
"""Assumed: a clock that is wrong by more is not forgiven where times of signatures are checked."""
RENEWED_DAYS = 14
"""Days before its end by which a server's certificate should have been renewed."""


@dataclass(frozen=True, slots=True)
class Route:
    """How requests go: by a proxy (empty: none), and why."""

    proxy: str
    why: str

    @property
    def host(self) -> str:
        """The proxy's host and port, without its user and password."""
        parts = urlsplit(self.proxy)
        return f"{parts.hostname}:{self.port}"

    @property
    def port(self) -> int:
        """The proxy's port."""
        parts = urlsplit(self.proxy)
        return parts.port or (443 if parts.scheme == "https" else 80)


def route_to(url: str, configured: str) -> Route:
    """Return how requests to an address go: as configured, else as the environment (or the system) says.

    Raises:
        ValueError: the proxy's address is none.
    """
    if configured:
        return Route(configured, "dataverse.proxy")
    found = select_proxy(url, get_environ_proxies(url))
    if found:
        address = found if "://" in found else f"http://{found}"
        return Route(address, "HTTPS_PROXY of the environment, or the system's settings")
    if getproxies().get("https") or getproxies().get("all"):
        return Route("", f"NO_PROXY exempts {urlsplit(url).hostname} from HTTPS_PROXY")
    return Route("", "neither dataverse.proxy nor HTTPS_PROXY names one")


def hosts_of(config: Config) -> list[str]:
    """Return the hosts that are asked: the organization's, and where to sign in (managed: this machine)."""
    remote = config.dataverse
    host = urlsplit(remote.url).hostname or ""
    if remote.auth == "managed_identity":
        return [host]
    authority = remote.authority or sign_in_host(urlsplit(remote.token_resource).hostname or "", remote.cloud)
    return list(dict.fromkeys([host, urlsplit(authority).hostname or ""]))


def names(case: Case) -> Iterator[Check]:
    """Resolve the hosts that this machine must resolve: the proxy's, where there is one.

    Raises:
        Stop: the one that requests go to first has no address.
    """
    route = _route(case)
    hosts = [urlsplit(route.proxy).hostname or ""] if route.proxy else hosts_of(case.config)
    stop: Check | None = None
    for host in hosts:
        check = _named(case, host)
        if check.verdict is Verdict.FAIL and stop is None and host == hosts[0]:
            stop = check
            continue
        yield check
    if stop is not None:
        raise Stop(stop)


def _named(case: Case, host: str) -> Check:
    if is_address(host):
        return Check("DNS", Verdict.OK, f"{host} is an address itself")
    begun = case.machine.timer()
    try:
        addresses: Sequence[str] = case.machine.resolve(host)
        why = ""
    except (OSError, UnicodeError) as error:
        addresses, why = (), getattr(error, "strerror", None) or "the name cannot be looked up"
    return resolved(host, addresses, case.machine.timer() - begun, why)


def is_address(host: str) -> bool:
    """Say whether a host is an IP address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def resolved(host: str, addresses: Sequence[str], took_s: float, why: str = "") -> Check:
    """Return the check of a name by the addresses it has, and the seconds it took to be told them."""
    if not addresses:
        mend = "check the address in the configuration, and the name servers of this machine"
        return Check("DNS", Verdict.FAIL, f"{host} has no address: {why or 'none was told'}", mend, 5)
    kinds = sorted({ipaddress.ip_address(one.partition("%")[0]).version for one in addresses})
    said = (
        f"{host} has {counted(len(addresses), 'address', 'addresses')} ({' and '.join(f'IPv{kind}' for kind in kinds)})"
    )
    if took_s > SLOW_DNS_S:
        mend = "look at the name servers of this machine: the first may not answer"
        return Check("DNS", Verdict.WARN, f"{said}, but it took {took_s:.1f} s to be told", mend)
    return Check("DNS", Verdict.OK, f"{said}, told in {took_s * 1000:.0f} ms")


def proxy(case: Case) -> Iterator[Check]:
    """Say which proxy is used and why, and whether it can be reached.

    Raises:
        Stop: it cannot.
    """
    route = _route(case)
    if not route.proxy:
        yield Check("proxy", Verdict.OK, f"none: {route.why}")
        return
    host = urlsplit(route.proxy).hostname or ""
    try:
        case.machine.connect(host, route.port)
    except OSError as error:
        raise Stop(unreachable_proxy(route, error.strerror or "no answer in time")) from None
    yield Check("proxy", Verdict.OK, f"{route.host} can be reached; by {route.why}")


def unreachable_proxy(route: Route, why: str) -> Check:
    """Return the check of a proxy that gives no connection."""
    mend = f"check {route.why}, or name hosts that need no proxy in NO_PROXY"
    if route.why == "dataverse.proxy":
        mend = "check dataverse.proxy; leave it empty where no proxy is needed"
    return Check("proxy", Verdict.FAIL, f"{route.host} cannot be reached: {why}", mend, 5)


def reach(case: Case) -> Iterator[Check]:
    """Ask without a token: whether there is a way to the server, and whose tenant it is.

    Raises:
        Stop: no answer; the line is about the proxy or TLS where that is where it ended.
    """
    try:
        greeting = case.client.greet()
    except ConfigError as error:
        raise Stop(failure("reach", error)) from None
    except RemoteError as error:
        name = error.at or "reach"
        raise Stop(replace(failure(name, error), topic=name)) from None
    case.greeting = greeting
    case.tenant = greeting.tenant
    of_tenant = f", of tenant {greeting.tenant}" if greeting.tenant else ""
    yield Check("reach", Verdict.OK, f"the server answers{of_tenant}")


def tls(case: Case) -> Iterator[Check]:
    """Say whose certificate was verified, and how long it lasts."""
    peer = case.greeting.peer if case.greeting is not None else None
    if peer is not None:
        yield server_certificate(peer, case.machine.real_clock(), private=_private(case.config))


def server_certificate(peer: Peer, now: dt.datetime, *, private: frozenset[str] = frozenset()) -> Check:
    """Return the check of a server's certificate by its end; ``private`` are the names of authorities of our own."""
    known = f"{peer.issuer}, a private authority of dataverse.ca_bundle" if peer.issuer in private else peer.issuer
    said = f"{peer.version or 'TLS'}; the certificate of {peer.subject} was issued by {known}"
    if peer.until is None:
        return Check("TLS", Verdict.OK, said)
    days = (peer.until - now).days
    said += f", valid until {peer.until.date().isoformat()}"
    if days < RENEWED_DAYS:
        mend = "have the server's certificate renewed; whoever runs the server (or the proxy that opens TLS) does that"
        return Check("TLS", Verdict.WARN, f"{said}: {counted(max(days, 0), 'day')} left", mend)
    return Check("TLS", Verdict.OK, said)


def clock(case: Case) -> Iterator[Check]:
    """Compare this machine's clock with the server's, if it tells."""
    greeting = case.greeting
    if greeting is not None and greeting.server_now is not None:
        yield skewed((case.now() - greeting.server_now).total_seconds())


def skewed(ahead_s: float) -> Check:
    """Return the check of a clock by the seconds it is ahead of the server's."""
    skew_s = abs(ahead_s)
    verdict = Verdict.OK if skew_s <= SKEW_WARN_S else Verdict.WARN if skew_s <= SKEW_FAIL_S else Verdict.FAIL
    if verdict is Verdict.OK:
        return Check("clock", verdict, f"{skew_s:.0f} s from the server's")
    found = f"this machine's clock is {skew_s:,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    return Check("clock", verdict, found, "set this machine's clock by a time server", int(verdict is Verdict.FAIL))


def _route(case: Case) -> Route:
    return route_to(case.config.dataverse.url, case.config.dataverse.proxy)


def _private(config: Config) -> frozenset[str]:
    """Return the names of the authorities that the configuration adds to the usual ones."""
    if not config.dataverse.ca_bundle:
        return frozenset()
    return authorities(config.resolve(config.dataverse.ca_bundle))


def authorities(bundle: Path) -> frozenset[str]:
    """Return the names of the certificates of a PEM file, none if it cannot be read."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        found = x509.load_pem_x509_certificates(bundle.read_bytes())
    except (OSError, ValueError):
        return frozenset()
    parts = (one.subject.get_attributes_for_oid(NameOID.COMMON_NAME) for one in found)
    return frozenset(str(one[0].value) for one in parts if one)
