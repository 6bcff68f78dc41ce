"""What a service needs besides: a user that is not root, the lease, its port, its monitor, its queue.

IO: SQL, sockets, HTTP.
"""

from __future__ import annotations

import datetime as dt
import errno
import http.client
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.pool import NullPool

from d365sync.app import ca_bundle_of
from d365sync.config import Config
from d365sync.core.schedule import in_words
from d365sync.core.values import format_instant
from d365sync.database import open_engine, transaction
from d365sync.dataverse.session import make_session, proxies_of
from d365sync.dataverse.silence import no_answer
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Verdict, failure, not_checked
from d365sync.doctor.storage import SQLITE, read_only
from d365sync.errors import ConfigError, D365SyncError, JournalError, RemoteError
from d365sync.journal.lease import LEASES, Lease, Leased
from d365sync.service.health import Address, address_of
from d365sync.service.jobs import HINT as QUEUE_HINT
from d365sync.service.jobs import conninfo
from d365sync.sync.holding import is_gone, shown

ROOT = 0
STALE = "nothing needs to be done: the next instance takes it over; look why the last one ended without giving it back"
ASK_S = 5
NO_PING = "/robots.txt"
"""What is asked of a monitor: an address that no monitor takes for a sign of life."""


def user(case: Case) -> Iterator[Check]:
    """Say as whom this runs, where the system numbers its users."""
    number = case.machine.user_id()
    if number is not None:
        yield user_told(number)


def user_told(number: int) -> Check:
    """Return the check of the user that runs this."""
    if number == ROOT:
        mend = "run d365sync, doctor too, as a user of its own that owns its configuration and databases"
        return Check("system user", Verdict.WARN, "this runs as root", mend)
    return Check("system user", Verdict.OK, f"not root (uid {number})")


def lease(case: Case) -> Iterator[Check]:
    """Say who holds the lease in the journal, where there is one."""
    try:
        found = lease_in(case.config.database_url(case.config.storage.journal))
    except D365SyncError:
        yield not_checked("lease", "journal")
        return
    yield lease_told(found, case.machine.real_clock(), is_gone=found is not None and is_gone(found.holder))


def lease_in(url: str) -> Lease | None:
    """Return who holds the lease of a journal; None when nobody does, or there is no journal yet.

    Raises:
        JournalError, ConfigError: the journal cannot be asked.
    """
    path = Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None
    if path is not None and not path.exists():
        return None
    engine = open_engine(url, durable=False) if path is None else _reading(path)
    try:
        with transaction(engine, _unasked) as connection:
            if not inspect(connection).has_table(LEASES.name):
                return None
        return Leased(engine).lease()
    finally:
        engine.dispose()


def _unasked(message: str, *_more: object) -> JournalError:
    return JournalError(f"the journal cannot be asked: {message}", hint="see the line about the journal")


def _reading(path: Path) -> Engine:
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(read_only(path), uri=True), poolclass=NullPool)


def lease_told(found: Lease | None, now: dt.datetime, *, is_gone: bool) -> Check:
    """Return the check of a lease at an instant; ``is_gone``: its process was of this machine and has ended."""
    if found is None:
        return Check("lease", Verdict.OK, "nobody holds it")
    said = f"{shown(found.holder)} has held it since {format_instant(found.since)} (epoch {found.epoch})"
    if is_gone:
        return Check("lease", Verdict.WARN, f"{said}, but that process has ended", STALE)
    if found.is_over(now):
        return Check("lease", Verdict.WARN, f"{said}, but did not renew it after {format_instant(found.until)}", STALE)
    return Check("lease", Verdict.OK, f"{said}, until {format_instant(found.until)} unless it renews it")


def schedule(case: Case) -> Iterator[Check]:
    """Say when the service would run its cycles."""
    daemon = case.config.daemon
    plan = daemon.schedule("", case.config.rollup.zone)
    next_at = format_instant(plan.due_after(case.now()))
    yield Check("schedule", Verdict.OK, f"{in_words(plan)}; the next would be due at {next_at}")


def port(case: Case) -> Iterator[Check]:
    """Say whether the service could listen where it should, or does."""
    try:
        address = address_of(case.config.daemon.listen)
    except ConfigError as error:
        yield failure("listen", error)
        return
    yield port_told(
        case.config.daemon.listen, case.machine.listen_error(address.host, address.port), lambda: is_ours(address)
    )


def is_ours(address: Address) -> bool:
    """Say whether a d365sync answers at an address."""
    asked = address.to_ask
    connection = http.client.HTTPConnection(asked.host, asked.port, timeout=ASK_S)
    try:
        connection.request("GET", "/livez")
        return (connection.getresponse().getheader("Server") or "").startswith("d365sync")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def port_told(listen: str, error: OSError | None, is_ours: Callable[[], bool]) -> Check:
    """Return the check of where the service listens, by why nobody can listen there now."""
    if error is None:
        return Check("listen", Verdict.OK, f"{listen} is free")
    if error.errno != errno.EADDRINUSE:
        mend = "set daemon.listen to an address of this machine, and a port above 1023"
        return Check("listen", Verdict.WARN, f"the service cannot listen on {listen}: {error.strerror or error}", mend)
    if is_ours():
        return Check("listen", Verdict.OK, f"a service of d365sync listens on {listen}")
    mend = "set daemon.listen to another port, or stop what uses it"
    return Check("listen", Verdict.WARN, f"another program listens on {listen}", mend)


def has_ping(case: Case) -> bool:
    """Say whether a monitor is told of cycles."""
    return bool(case.config.daemon.ping)


def ping(case: Case) -> Iterator[Check]:
    """Ask the monitor's host for something that is no sign of life."""
    parts = urlsplit(case.config.daemon.ping)
    host = parts.netloc.rpartition("@")[2]
    yield ping_told(host, _asked(case.config, f"{parts.scheme}://{host}{NO_PING}", f"no answer from {host}"))


def _asked(config: Config, url: str, what: str) -> int | RemoteError:
    try:
        session = make_session(ca_bundle_of(config), config.dataverse.proxy, timeout_s=ASK_S)
        proxies = proxies_of(session)
        with session, session.head(url, timeout=ASK_S, allow_redirects=False, proxies=proxies) as answer:
            return answer.status_code
    except requests.RequestException as error:
        return no_answer(what, error)


def ping_told(host: str, answered: int | RemoteError) -> Check:
    """Return the check of a monitor by what its host answered; any status is an answer."""
    if isinstance(answered, RemoteError):
        return Check("ping", Verdict.WARN, str(answered), answered.hint or "check daemon.ping")
    return Check("ping", Verdict.OK, f"{host} can be reached; no ping was sent")


def queue_url(case: Case) -> str:
    """Return the database of the queue that machines share, empty where there is none."""
    return case.config.daemon.queue


def queue(case: Case) -> Iterator[Check]:
    """Ask the database of the queue that machines share."""
    try:
        yield queue_told(is_there=has_queue(queue_url(case)))
    except ConfigError as error:
        yield failure("queue", error)


def has_queue(url: str) -> bool:
    """Say whether the queue's tables are in a database.

    Raises:
        ConfigError: no PostgreSQL URL, the queue is not installed, or the database cannot be reached.
    """
    info = conninfo(url)
    try:
        import procrastinate  # noqa: F401 - that it can be imported is what is asked
        import psycopg
    except ImportError:
        raise ConfigError("daemon.queue needs Procrastinate, which is not installed", hint=QUEUE_HINT) from None
    try:
        with psycopg.connect(info, connect_timeout=ASK_S) as connection:
            found = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
    except psycopg.Error as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"the database of daemon.queue cannot be reached: {reason}",
            hint="check daemon.queue, and that its server runs",
        ) from None
    return found is not None and found[0] is not None


def queue_told(*, is_there: bool) -> Check:
    """Return the check of a queue whose database answers."""
    return Check(
        "queue", Verdict.OK, "it is there" if is_there else "its database answers; the service makes its tables"
    )
