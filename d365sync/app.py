"""The one place that builds the parts and joins them; owns the clock.

IO: opens databases and an HTTP session.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from d365sync import logs
from d365sync.config import Config, resolve_secret
from d365sync.dataverse.gate import MonotonicTimer, Timer
from d365sync.errors import ConfigError, D365SyncError
from d365sync.journal.store import Journal
from d365sync.mirror.store import Mirror
from d365sync.sync.cycle import CycleResult, Line, run_cycle

if TYPE_CHECKING:
    import requests

    from d365sync.dataverse.client import DataverseClient

Clock = Callable[[], dt.datetime]


def system_clock() -> dt.datetime:
    """Return the present instant, to the second, in UTC."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class App:
    """Everything built from one configuration."""

    config: Config
    line: Line
    clock: Clock

    def sync(self, *, command: str = "sync", write: bool, full: bool = False) -> CycleResult:
        """Run one cycle; see :func:`d365sync.sync.cycle.run_cycle`."""
        return run_cycle(self.line, command=command, write=write, full=full)

    def close(self) -> None:
        """Close databases."""
        self.line.mirror.close()
        self.line.journal.close()


def build(
    config: Config,
    *,
    clock: Clock = system_clock,
    environ: Mapping[str, str] = os.environ,
    session: requests.Session | None = None,
    line_options: Mapping[str, Any] | None = None,
    timer: Timer | None = None,
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
        else make_client(config, environ=environ, session=session, timer=timer)
    )
    line = Line(
        config=config,
        client=client,
        mirror=Mirror.open(config.database_url(config.storage.mirror)),
        journal=Journal.open(config.database_url(config.storage.journal)),
        clock=clock,
    )
    return App(config, replace(line, **(line_options or {})), clock)


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
) -> DataverseClient:
    """Build the Dataverse client of a configuration; ``timer`` is the clock by which it waits.

    Raises:
        ConfigError: the secret, the certificate or the CA bundle cannot be read.
    """
    from d365sync.dataverse.auth import MsalTokens, SignIn
    from d365sync.dataverse.client import DataverseClient
    from d365sync.dataverse.retry import RetryPolicy
    from d365sync.dataverse.session import make_session

    remote = config.dataverse
    logs.hide(urlsplit(remote.proxy).password or "")
    session = session or make_session(_ca_bundle(config), remote.proxy)
    sign_in = SignIn(remote.url, remote.tenant_id, remote.client_id, _credential(config, environ), remote.authority)
    return DataverseClient(
        session,
        remote.url,
        MsalTokens(sign_in, session, remote.timeout),
        retry=RetryPolicy(budget_s=remote.retry_budget, timer=timer or MonotonicTimer()),
        page_size=remote.page_size,
        timeout_s=remote.timeout,
        concurrency=remote.concurrency,
    )


def _ca_bundle(config: Config) -> str | None:
    if not config.dataverse.ca_bundle:
        return None
    path = config.resolve(config.dataverse.ca_bundle)
    if not path.is_file():
        raise ConfigError(f"the file of dataverse.ca_bundle, {path}, is not there")
    return str(path)


def _credential(config: Config, environ: Mapping[str, str]) -> str | Mapping[str, Any]:
    from d365sync.dataverse.auth import certificate_credential

    remote = config.dataverse
    if remote.auth == "certificate":
        password = (
            resolve_secret(remote.certificate_password, environ, config.folder) if remote.certificate_password else ""
        )
        logs.hide(password)
        return certificate_credential(config.resolve(remote.certificate.removeprefix("file:")), password)
    secret = resolve_secret(remote.client_secret, environ, config.folder)
    logs.hide(secret)
    return secret
