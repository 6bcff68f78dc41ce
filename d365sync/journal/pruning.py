"""Forgetting old runs and writes, but nothing that tells our overrides from a person's.

Of the old writes of a goal in one write mode the last one that was done stays, what was begun after it and has no known
outcome, and the last one of all, if no newer one tells how the goal stands. The one that was done gets the numbers from
before the oldest of its chain: each write began from what the one before left, so it now says what the goal held before
d365sync took it over. Since it is not what its run did any more, it moves to the run that pruned.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, func, select, update

from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.values import format_instant
from d365sync.journal.models import BackfillBatchRow, BackfillRow, JournalModel, RunRow, WriteRow

RUNS, WRITES, BACKFILLS, BATCHES = (
    JournalModel.metadata.tables[str(model.__tablename__)]
    for model in (RunRow, WriteRow, BackfillRow, BackfillBatchRow)
)
PRUNE = "prune"
DONE, INTENDED = "done", "intended"
MANY = 1_000


@dataclass(slots=True)
class Pruned:
    """What was forgotten, and how many old writes were kept for what they tell."""

    runs: int = 0
    writes: int = 0
    kept: int = 0


@dataclass(slots=True)
class _Chain:
    """The old writes of one goal in one mode that are to stay; ``native`` is what the goal held before the chain."""

    last: int | None = None
    native: str = ""
    after: str = ""
    open: list[int] = field(default_factory=list)


def prune(connection: Connection, before: dt.datetime, now: dt.datetime) -> Pruned:
    """Forget the runs and writes begun before an instant, within a writing transaction."""
    instant = format_instant(before)
    done = Pruned()
    for mode in list(connection.execute(select(RUNS.c.mode).distinct().order_by(RUNS.c.mode)).scalars()):
        _prune_mode(connection, mode, instant, now, done)
    with_writes = select(WRITES.c.run_id)
    old = (RUNS.c.started_at < instant) | (RUNS.c.command == PRUNE)
    done.runs = connection.execute(delete(RUNS).where(old, RUNS.c.id.not_in(with_writes))).rowcount
    for table in (BATCHES, BACKFILLS):
        connection.execute(delete(table).where(table.c.run_id.not_in(select(RUNS.c.id))))
    return done


def _prune_mode(connection: Connection, mode: str, instant: str, now: dt.datetime, done: Pruned) -> None:
    alike = WRITES.c.run_id.in_(select(RUNS.c.id).where(RUNS.c.mode == mode))
    old = (WRITES.c.intended_at < instant) & alike
    chains = _chains(connection.execute(select(WRITES).where(old).order_by(WRITES.c.id)))
    done_last = _greatest(connection, alike, WRITES.c.outcome == DONE)
    kept = {chain.last: chain.native for chain in chains.values() if chain.last is not None}
    open_ = [number for goal, chain in chains.items() for number in chain.open if number > done_last.get(goal, 0)]
    known = set(connection.execute(select(WRITES.c.id).where(old)).scalars())
    open_ += sorted((set(_greatest(connection, alike).values()) & known) - kept.keys() - set(open_))
    forgotten = [number for number in sorted(known) if number not in kept.keys() | set(open_)]
    for some in _some(forgotten):
        connection.execute(delete(WRITES).where(WRITES.c.id.in_(some)))
    if kept or open_:
        _move(connection, mode, now, kept, open_)
    done.writes += len(forgotten)
    done.kept += len(kept) + len(open_)


def _greatest(connection: Connection, *tests: ColumnElement[bool]) -> dict[str, int]:
    """Return the number of each goal's last write that passes the tests."""
    last = select(WRITES.c.goal_id, func.max(WRITES.c.id)).where(*tests).group_by(WRITES.c.goal_id)
    return {str(goal): int(number) for goal, number in connection.execute(last)}


def _chains(rows: Iterable[Row[tuple[object, ...]]]) -> dict[str, _Chain]:
    chains: dict[str, _Chain] = {}
    for row in rows:
        one = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
        chain = chains.setdefault(str(one["goal_id"]), _Chain())
        if one["outcome"] == INTENDED:
            chain.open.append(int(one["id"]))
        elif one["outcome"] == DONE:
            before, after = str(one["before"]), str(one["after"])
            if chain.last is None or not _same(before, chain.after):
                chain.native = before
            chain.last, chain.after, chain.open = int(one["id"]), after, []
    return chains


def _same(before: str, after: str) -> bool:
    """Say whether a write began from what the one before left."""
    first, second = (json.loads(text, parse_int=str) for text in (before, after))
    return all(_number(first.get(name)) == _number(second.get(name)) for name in VALUE_COLUMNS)


def _number(stored: str | None) -> Decimal | None:
    return None if stored is None else Decimal(stored)


def _move(connection: Connection, mode: str, now: dt.datetime, kept: dict[int, str], open_: list[int]) -> None:
    """Give what stays to a run of its own, and the last writes what their chains began from."""
    run = f"{now:%Y%m%dT%H%M%SZ}-{PRUNE}-{mode}"
    connection.execute(delete(RUNS).where(RUNS.c.id == run, RUNS.c.id.not_in(select(WRITES.c.run_id))))
    if connection.execute(select(RUNS.c.id).where(RUNS.c.id == run)).first() is None:
        at = format_instant(now)
        values = {"command": PRUNE, "mode": mode, "started_at": at, "finished_at": at, "outcome": "ok"}
        message = "keeps the last of the older writes of each goal"
        connection.execute(RUNS.insert().values(id=run, counts="{}", message=message, **values))
    statement = update(WRITES).where(WRITES.c.id == bindparam("number")).values(run_id=run, before=bindparam("native"))
    for some in _some(list(kept)):
        connection.execute(statement, [{"number": number, "native": kept[number]} for number in some])
    for some in _some(open_):
        connection.execute(update(WRITES).where(WRITES.c.id.in_(some)).values(run_id=run))


def _some(numbers: list[int]) -> Iterable[list[int]]:
    for start in range(0, len(numbers), MANY):
        yield numbers[start : start + MANY]
