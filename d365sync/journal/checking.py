"""What can be told of a journal without changing it: damage, rows that belong to nothing, size, lease.

IO: SQL.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from d365sync.database import first_damage, size_of
from d365sync.journal.formats import format_of, refuse_newer
from d365sync.journal.lease import Lease, read_lease
from d365sync.journal.models import FORMAT, JournalModel, OwnerRow, RunRow, WriteRow

RUNS, WRITES, OWNERS = (
    JournalModel.metadata.tables[str(model.__tablename__)] for model in (RunRow, WriteRow, OwnerRow)
)


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """A journal looked at; ``damage`` and ``lease`` are None when there is none. ``open_writes`` have no outcome."""

    format: int | None
    damage: str | None
    url: str
    runs: int
    writes: int
    open_writes: int
    orphans: int
    size_bytes: int | None
    lease: Lease | None


def facts(connection: Connection) -> JournalFacts | None:
    """Look a journal through, within one transaction; None when there is none yet.

    Raises:
        JournalError: it is of a newer version.
    """
    found = format_of(connection)
    if found is None:
        return None
    refuse_newer(found)

    def count(statement: object) -> int:
        return int(connection.execute(statement).scalar_one())  # type: ignore[call-overload]

    return JournalFacts(
        format=found,
        damage=first_damage(connection, thorough=True),
        url=str(connection.execute(select(OWNERS.c.url)).scalar_one_or_none() or ""),
        runs=count(select(func.count()).select_from(RUNS)),
        writes=count(select(func.count()).select_from(WRITES)),
        open_writes=count(select(func.count()).where(WRITES.c.outcome == "intended")),
        orphans=count(select(func.count()).where(WRITES.c.run_id.not_in(select(RUNS.c.id)))),
        size_bytes=size_of(connection, list(JournalModel.metadata.tables)),
        lease=read_lease(connection) if found == FORMAT else None,
    )
