"""The lease: one instance at a time writes, and one that lost its turn cannot write any more, whatever it believes.

The journal has one row that says who holds the lease until when. Its epoch grows with each new holder. A database
object that is fenced checks in each of its writing transactions that holder and epoch are still its own, and keeps the
row from changing until that transaction ends. So a process that was paused and wakes finds its writes refused.

Times come from the caller; they decide only who may take over, never who may write.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Insert, Update, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from d365sync.core.values import format_instant, parse_instant
from d365sync.database import HINTS, first_damage, transaction
from d365sync.errors import Fault, JournalError, LeaseLostError
from d365sync.journal.models import JournalModel, LeaseRow

LEASES = JournalModel.metadata.tables[str(LeaseRow.__tablename__)]
HINT = (
    "restore the journal from a copy: `d365sync db restore FILE`; "
    "without it d365sync cannot tell its own overrides from a person's"
)
NOBODY = ""
_EVER = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may write: ``holder`` since the instant ``since``, and until ``until`` unless renewed. Instants are UTC."""

    holder: str
    epoch: int
    until: dt.datetime
    since: dt.datetime

    def is_over(self, now: dt.datetime) -> bool:
        """Say whether another instance may take it."""
        return self.until <= now


class Leased:
    """A database with a lease; every transaction of it that writes goes through here."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fence: Lease | None = None

    def acquire_lease(
        self, holder: str, now: dt.datetime, ttl: dt.timedelta, *, above: int = 0, instead_of: int | None = None
    ) -> Lease | None:
        """Take the lease for ``ttl`` if nobody holds it at ``now``; None when somebody does.

        The new epoch is greater than any before, and greater than ``above``. ``instead_of`` is the epoch of a holder
        known to be gone, which need not be waited for.
        """
        with self._transaction(writes=True, fenced=False) as connection:
            connection.execute(_nobody(connection.dialect.name))
            free = [LEASES.c.holder == NOBODY, LEASES.c.until <= format_instant(now)]
            if instead_of is not None:
                free.append(LEASES.c.epoch == instead_of)
            epoch = connection.execute(select(LEASES.c.epoch).with_for_update()).scalar_one()
            taken = connection.execute(
                update(LEASES)
                .where(or_(*free))
                .values(
                    holder=holder,
                    epoch=max(int(epoch), above) + 1,
                    since=format_instant(now),
                    until=format_instant(now + ttl),
                )
            )
            return read_lease(connection) if taken.rowcount else None

    def renew_lease(self, lease: Lease, now: dt.datetime, ttl: dt.timedelta) -> Lease:
        """Hold the lease until ``ttl`` after ``now``; one that is over but that nobody took can be renewed.

        Raises:
            LeaseLostError: another instance took it, or it was ended.
        """
        with self._transaction(writes=True, fenced=False) as connection:
            kept = connection.execute(_own(lease).values(until=format_instant(now + ttl)))
            found = read_lease(connection)
        if not kept.rowcount or found is None:
            raise lost(lease, found)
        return found

    def release_lease(self, lease: Lease) -> None:
        """Give the lease back, so that another instance need not wait; nothing happens if it was lost."""
        with self._transaction(writes=True, fenced=False) as connection:
            connection.execute(_own(lease).values(holder=NOBODY, until=_EVER))

    def lease(self) -> Lease | None:
        """Return who holds the lease, or held it last and did not give it back; None when nobody does."""
        with self._transaction() as connection:
            return read_lease(connection)

    def verify(self) -> None:
        """Look the database through.

        Raises:
            JournalError: it is damaged.
        """
        with self._transaction() as connection:
            wrong = first_damage(connection)
        if wrong:
            raise JournalError(f"the journal is damaged: {wrong}", hint=HINT, fault=Fault.DAMAGED)

    def fence(self, lease: Lease | None) -> None:
        """From now on refuse every writing transaction of this object once the lease is another's; None lifts that.

        Those transactions then raise :class:`LeaseLostError`, and nothing of them is stored.
        """
        self._fence = lease

    @contextmanager
    def _transaction(self, *, writes: bool = False, fenced: bool = True) -> Iterator[Connection]:
        def failure(message: str, fault: Fault) -> JournalError:
            return JournalError(f"the journal failed: {message}", hint=HINTS.get(fault, HINT), fault=fault)

        with transaction(self._engine, failure, writes=writes) as one:
            if writes and fenced and self._fence is not None:
                _check(one, self._fence)
            yield one


def lost(lease: Lease, found: Lease | None) -> LeaseLostError:
    """Return the error that a lease is not one's own any more; ``found`` is who holds it now."""
    whose = "nobody holds it now" if found is None else f"{found.holder} took it at {format_instant(found.since)}"
    return LeaseLostError(
        f"{lease.holder} lost its lease: {whose}",
        hint="nothing was stored since; let one instance work at a time, and look whether this one was paused",
    )


def _check(connection: Connection, lease: Lease) -> None:
    """Keep the row as it is until the transaction ends, and compare it with a lease."""
    found = read_lease(connection, keep=True)
    if found is None or (found.epoch, found.holder) != (lease.epoch, lease.holder):
        raise lost(lease, found)


def read_lease(connection: Connection, *, keep: bool = False) -> Lease | None:
    """Return who holds the lease, None when nobody does; ``keep`` it from changing until the transaction ends."""
    statement = select(LEASES.c.holder, LEASES.c.epoch, LEASES.c.until, LEASES.c.since)
    row = connection.execute(statement.with_for_update(read=True) if keep else statement).one_or_none()
    if row is None or row[0] == NOBODY:
        return None
    return Lease(str(row[0]), int(row[1]), parse_instant(row[2]), parse_instant(row[3]))


def _own(lease: Lease) -> Update:
    return update(LEASES).where(LEASES.c.epoch == lease.epoch, LEASES.c.holder == lease.holder)


def _nobody(dialect: str) -> Insert:
    """Return the statement that makes the row, held by nobody, if it is not there."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(LEASES).values(id=1, holder=NOBODY, epoch=0, since=_EVER, until=_EVER).on_conflict_do_nothing()
