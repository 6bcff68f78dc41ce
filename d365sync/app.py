"""The one place that builds the parts and joins them; owns the clock.

IO: opens databases and an HTTP session.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from d365sync import logs
from d365sync.config import Config
from d365sync.dataverse.gate import MonotonicTimer, Timer
from d365sync.errors import ConfigError, D365SyncError, MirrorError
from d365sync.journal.lease import Lease
from d365sync.secretstore import resolve_secret
from d365sync.sync.care import look_after, open_databases
from d365sync.sync.cycle import CycleResult, run_cycle
from d365sync.sync.guarding import NOTHING, Accepted
from d365sync.sync.holding import held
from d365sync.sync.mending import mend
from d365sync.sync.snapshot import Line

if TYPE_CHECKING:
    import requests

    from d365sync.dataverse.auth import TokenSource
    from d365sync.dataverse.auth.certificate import Certificate
    from d365sync.dataverse.client import DataverseClient

Clock = Callable[[], dt.datetime]


def system_clock() -> dt.datetime:
    """Return the present instant, to the second, in UTC."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class App:
    """Everything built from one configuration.

    ``clock`` gives the instant that is worked as of, ``real_clock`` the present one, by which leases run.
    ``sign_in_until`` is the end of the certificate that signs in, None without one.
    """

    config: Config
    line: Line
    clock: Clock
    real_clock: Clock = system_clock
    sign_in_until: dt.datetime | None = None

    @property
    def token_expires_at(self) -> dt.datetime | None:
        """When the access token in use ends; None before the first, or where that is not told."""
        return self.line.client.transport.token_expires_at

    def lease(self) -> AbstractContextManager[Lease]:
        """Hold the lease of the databases for the time of a command; see :func:`d365sync.sync.holding.held`.

        Raises:
            LeaseError: another instance holds it.
        """
        return held(self.line.journal, self.line.mirror, self.real_clock)

    def sync(
        self, *, command: str = "sync", write: bool, full: bool = False, accepted: Accepted = NOTHING
    ) -> CycleResult:
        """Run one cycle; see :func:`d365sync.sync.cycle.run_cycle`. A damaged mirror is made again, and pulled."""
        cycle = partial(run_cycle, self.line, command=command, write=write, full=full, accepted=accepted)
        try:
            look_after(self.line)
            return cycle()
        except MirrorError as error:
            if not mend(self.line.mirror, error, self.real_clock()):
                raise
            return cycle()

    def close(self) -> None:
        """Close databases."""
        self.line.mirror.close()
        self.line.journal.close()


def build(
    config: Config,
    *,
    clock: Clock = system_clock,
    real_clock: Clock = system_clock,
    environ: Mapping[str, str] = os.environ,
    session: requests.Session | None = None,
    line_options: Mapping[str, Any] | None = None,
    timer: Timer | None = None,
    say: Callable[[str], None] | None = None,
    offline: bool = False,
) -> App:
    """Build the application; ``session`` is the seam at which tests put the emulator.

    ``offline`` is for commands that only read what is mirrored: no secret is needed, and no request is possible.

    Raises:
        ConfigError: a secret, certificate or CA bundle that cannot be read, or a database URL that cannot be used.
        MirrorError, JournalError: a database that cannot be opened.
    """
    client = (
        cast("DataverseClient", _NoClient())
        if offline
        else make_client(config, environ=environ, session=session, timer=timer, say=say)
    )
    _make_room(config)
    mirror, journal = open_databases(config, real_clock, offline=offline)
    line = Line(
        config=config,
        client=client,
        mirror=mirror,
        journal=journal,
        clock=clock,
    )
    by_certificate = config.dataverse.auth == "certificate" and not offline
    until = certificate_of(config, environ).expires_at if by_certificate else None
    return App(config, replace(line, **(line_options or {})), clock, real_clock, until)


def _make_room(config: Config) -> None:
    """Make the folders of the databases where the folders above them are there: NAME/mirror.db of a new environment."""
    for url in (config.storage.mirror, config.storage.journal):
        kind, _, path = config.database_url(url).partition(":///")
        if kind == "sqlite" and path:
            with suppress(OSError):  # whoever opens the database says what is wrong
                Path(path).parent.mkdir(mode=0o750, exist_ok=True)


@contextmanager
def opened(config: Config, **options: Any) -> Iterator[App]:
    """Build the application and close it at the end; options as for :func:`build`."""
    app = build(config, **options)
    try:
        yield app
    finally:
        app.close()


class _NoClient:
    """Stands where the client would, for commands that ask Dataverse nothing; they import none of the network."""

    def __getattr__(self, name: str) -> Any:
        raise D365SyncError(f"{name}: this command works offline")


def make_client(
    config: Config,
    *,
    environ: Mapping[str, str] = os.environ,
    session: requests.Session | None = None,
    timer: Timer | None = None,
    say: Callable[[str], None] | None = None,
    late: bool = False,
) -> DataverseClient:
    """Build the Dataverse client of a configuration; ``timer`` is the clock by which it waits.

    ``say`` shows a message to a person who can sign in (device code); None when nobody is there. With ``late`` what is
    needed to sign in is read when a token is first needed, and its errors come then.

    Raises:
        ConfigError: the secret, the certificate or the CA bundle cannot be read.
    """
    from d365sync.dataverse.auth.source import LateTokens
    from d365sync.dataverse.client import DataverseClient
    from d365sync.dataverse.retry import RetryPolicy
    from d365sync.dataverse.session import make_session
    from d365sync.dataverse.transport import Transport

    remote = config.dataverse
    _hide_proxy_passwords(remote.proxy)
    http = session or make_session(ca_bundle_of(config), remote.proxy, timeout_s=remote.timeout)
    transport = Transport(
        http,
        remote.url,
        LateTokens(lambda: _tokens(config, environ, http, say, timer))
        if late
        else _tokens(config, environ, http, say, timer),
        retry=RetryPolicy(budget_s=remote.retry_budget, timer=timer or MonotonicTimer()),
        timeout_s=remote.timeout,
        concurrency=remote.concurrency,
        api_version=remote.api_version,
    )
    return DataverseClient(transport, page_size=remote.page_size)


def _hide_proxy_passwords(configured: str) -> None:
    """Hide the passwords of proxies, as they are spelled in an address and as they are sent."""
    for address in (configured, *getproxies().values()):
        try:
            password = urlsplit(address).password or ""
        except ValueError:  # no address: whoever uses it says so
            continue
        logs.hide(password)
        logs.hide(unquote(password))


def _tokens(
    config: Config,
    environ: Mapping[str, str],
    session: requests.Session,
    say: Callable[[str], None] | None,
    timer: Timer | None,
) -> TokenSource:
    """Return the way in that the configuration names."""
    from d365sync.dataverse.auth import SignIn
    from d365sync.dataverse.auth.application import ApplicationTokens
    from d365sync.dataverse.auth.device import Cache, DeviceTokens, open_cache
    from d365sync.dataverse.auth.identity import IdentityTokens

    remote = config.dataverse
    if remote.auth == "managed_identity":
        return IdentityTokens(remote.token_resource, remote.client_id, session)
    sign_in = SignIn(
        remote.token_resource,
        remote.tenant_id,
        remote.client_id,
        "" if remote.auth == "device_code" else _credential(config, environ),
        remote.authority,
        remote.cloud,
    )
    if remote.auth == "device_code":
        cache = open_cache(Cache(remote.sign_in_cache), config.resolve(remote.sign_in_cache_file))
        return DeviceTokens(sign_in, session, remote.timeout, cache=cache, say=say, timer=timer)
    return ApplicationTokens(sign_in, session, remote.timeout)


def ca_bundle_of(config: Config) -> str | None:
    """Return the file of further trust anchors, None without one.

    Raises:
        ConfigError: it is not there.
    """
    if not config.dataverse.ca_bundle:
        return None
    path = config.resolve(config.dataverse.ca_bundle)
    if not path.is_file():
        raise ConfigError(f"the file of dataverse.ca_bundle, {path}, is not there")
    return str(path)


def secret_of(config: Config, reference: str, environ: Mapping[str, str]) -> str:
    """Return the secret behind a reference of a configuration, and keep it out of logs from now on.

    Raises:
        ConfigError: it is not there.
    """
    secret = resolve_secret(reference, environ, config.folder)
    logs.hide(secret)
    return secret


def certificate_of(config: Config, environ: Mapping[str, str]) -> Certificate:
    """Read the certificate to sign in with.

    Raises:
        ConfigError: it cannot be read, or its password is wrong.
    """
    from d365sync.dataverse.auth.certificate import read_certificate

    remote = config.dataverse
    password = (
        resolve_secret(remote.certificate_password, environ, config.folder) if remote.certificate_password else ""
    )
    logs.hide(password)
    return read_certificate(config.resolve(remote.certificate.removeprefix("file:")), password)


def _credential(config: Config, environ: Mapping[str, str]) -> str | Mapping[str, Any]:
    remote = config.dataverse
    if remote.auth == "certificate":
        return certificate_of(config, environ).credential(with_chain=remote.certificate_chain)
    secret = resolve_secret(remote.client_secret, environ, config.folder)
    logs.hide(secret)
    return secret
