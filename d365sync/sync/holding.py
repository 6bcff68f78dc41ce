"""Holding the lease while something is done: taken before, renewed in the background, given back at the end.

A holder is named ``HOST:PID:RUN-BEGAN``, which tells a process from a later one of the same number, and this run of the
machine from another. So a process that was killed on this machine need not be waited for.

IO: SQL, through the journal and the mirror; a thread; asks the operating system about processes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from d365sync.core.values import format_instant
from d365sync.errors import D365SyncError, Fault, LeaseError, LeaseLostError, MirrorError
from d365sync.journal.lease import Lease
from d365sync.journal.store import Journal
from d365sync.sync.mending import mend

if TYPE_CHECKING:
    from d365sync.mirror.store import Mirror

log = structlog.get_logger(__name__)

TTL = dt.timedelta(seconds=60)
"""How long a lease lasts after it was last renewed."""
RENEWALS = 3
"""How often it is renewed in that time."""

Clock = Callable[[], dt.datetime]
_HOLDER = re.compile(r"(?P<host>.*):(?P<pid>\d+):(?P<machine>\w+)-(?P<began>\w+)")
_UNKNOWN = "unknown"


def own_name() -> str:
    """Return the name under which this process holds leases."""
    return f"{socket.gethostname()}:{os.getpid()}:{_machine()}-{_began(os.getpid())}"


def is_gone(holder: str) -> bool:
    """Say whether a holder was a process of this machine that has ended; False when that cannot be told."""
    import psutil

    found = _HOLDER.fullmatch(holder)
    if found is None or (found["host"], found["machine"]) != (socket.gethostname(), _machine()):
        return False
    pid = int(found["pid"])
    return not psutil.pid_exists(pid) or _began(pid) not in (_UNKNOWN, found["began"])


def shown(holder: str) -> str:
    """Say in words who a holder is."""
    found = _HOLDER.fullmatch(holder)
    return holder if found is None else f"process {found['pid']} on {found['host']}"


def take(journal: Journal, mirror: Mirror, holder: str, now: dt.datetime, ttl: dt.timedelta = TTL) -> Lease | None:
    """Take the lease of an organization's databases and fence both; None when another instance holds it.

    A holder of this machine that has ended is not waited for. A mirror that has seen a greater epoch than the journal
    (which was put back from a backup, then) raises the journal's.
    """
    above = _known_epoch(mirror)
    lease = journal.acquire_lease(holder, now, ttl, above=above)
    if lease is None:
        found = journal.lease()
        if found is None or not is_gone(found.holder):
            return None
        lease = journal.acquire_lease(holder, now, ttl, above=above, instead_of=found.epoch)
        if lease is None:
            return None
        log.warning("lease.taken-over", holder=found.holder, reason="its process has ended")
    journal.fence(lease)
    try:
        mirror.fence(lease.epoch)
    except MirrorError as error:
        if not mend(mirror, error, now):
            raise
        mirror.fence(lease.epoch)
    return lease


@contextmanager
def held(journal: Journal, mirror: Mirror, clock: Clock, ttl: dt.timedelta = TTL) -> Iterator[Lease]:
    """Hold the lease for the time of a command; it is renewed by a thread of its own.

    Raises:
        LeaseError: another instance holds it.
        LeaseLostError: at a write, once another instance has taken it.
    """
    lease = take(journal, mirror, own_name(), clock(), ttl)
    if lease is None:
        raise refused(journal.lease(), clock())
    stop = threading.Event()
    renewing = threading.Thread(target=_keep_renewing, args=(journal, lease, clock, ttl, stop), name="lease")
    renewing.daemon = True
    renewing.start()
    try:
        yield lease
    finally:
        stop.set()
        renewing.join()
        with suppress(D365SyncError):
            journal.release_lease(lease)


def refused(found: Lease | None, now: dt.datetime) -> LeaseError:
    """Return the error that another instance holds the lease: who, since when, until when, and what to do."""
    if found is None:
        return LeaseError("another instance held the lease a moment ago", hint="run it again")
    ends = f"until {format_instant(found.until)} unless it renews it" if not found.is_over(now) else "it is over now"
    return LeaseError(
        f"another instance works here: {shown(found.holder)} has held the lease since {format_instant(found.since)}, "
        f"{ends}",
        hint="wait until it is done, or stop it; one that is gone loses the lease by itself at that time, "
        "or at once by `d365sync db unlock`",
    )


def _keep_renewing(journal: Journal, lease: Lease, clock: Clock, ttl: dt.timedelta, stop: threading.Event) -> None:
    while not stop.wait(ttl.total_seconds() / RENEWALS):
        try:
            journal.renew_lease(lease, clock(), ttl)
        except LeaseLostError as error:
            log.warning("lease.lost", reason=str(error))
            return
        except D365SyncError as error:
            log.warning("lease.not-renewed", reason=str(error))


def _known_epoch(mirror: Mirror) -> int:
    """Return the epoch that a mirror has; 0 if it is too damaged to tell, and will be made again."""
    try:
        return mirror.epoch()
    except MirrorError as error:
        if error.fault is not Fault.DAMAGED:
            raise
        return 0


def _machine() -> str:
    """Return what numbers of processes mean something in: this run of the machine, and of the container."""
    import psutil

    try:
        run = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        text = f"{run}{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        text = str(round(psutil.boot_time(), -2))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _began(pid: int) -> str:
    """Return when a process began, in a unit that does not move with the clock where there is one."""
    import psutil

    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return "ended"
        if Path("/proc/self/stat").exists():
            return (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
            )
        return str(int(psutil.Process(pid).create_time()))
    except (psutil.Error, OSError):
        return _UNKNOWN
