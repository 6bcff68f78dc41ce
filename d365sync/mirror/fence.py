"""The fence of a mirror: the epoch of the one instance that may write, checked in each of its transactions.

The epoch is that of the journal's lease. The check keeps the row from changing until the transaction ends, so that
nothing is stored after another instance has put its own epoch there.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from d365sync.core.values import format_instant, parse_instant
from d365sync.errors import LeaseLostError
from d365sync.mirror.models import Fence, MirrorModel

FENCES = MirrorModel.metadata.tables[str(Fence.__tablename__)]


def stored_epoch(connection: Connection) -> int:
    """Return the greatest epoch that ever wrote, 0 when none did."""
    return int(connection.execute(select(FENCES.c.epoch)).scalar_one_or_none() or 0)


def raise_fence(connection: Connection, epoch: int) -> None:
    """Store an epoch.

    Raises:
        LeaseLostError: a greater one is stored.
    """
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(FENCES).values(id=1, epoch=epoch).on_conflict_do_nothing())
    found = int(connection.execute(select(FENCES.c.epoch).with_for_update()).scalar_one())
    if found > epoch:
        raise _lost(epoch, found)
    connection.execute(update(FENCES).values(epoch=epoch))


def check(connection: Connection, epoch: int) -> None:
    """Keep the stored epoch as it is until the transaction ends, and compare it with one's own.

    Raises:
        LeaseLostError: it is another.
    """
    found = int(connection.execute(select(FENCES.c.epoch).with_for_update(read=True)).scalar_one_or_none() or 0)
    if found != epoch:
        raise _lost(epoch, found)


def checked_at(connection: Connection) -> dt.datetime | None:
    """Return when the mirror was last looked through, None when it never was."""
    found = connection.execute(select(FENCES.c.checked_at)).scalar_one_or_none()
    return parse_instant(found) if found else None


def note_checked(connection: Connection, now: dt.datetime) -> None:
    """Note that the mirror was looked through."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    connection.execute(insert(FENCES).values(id=1, epoch=0).on_conflict_do_nothing())
    connection.execute(update(FENCES).values(checked_at=format_instant(now)))


def _lost(epoch: int, found: int) -> LeaseLostError:
    return LeaseLostError(
        f"the mirror is another instance's now: it has epoch {found}, this one {epoch}",
        hint="nothing was stored since; let one instance work at a time, and look whether this one was paused",
    )
