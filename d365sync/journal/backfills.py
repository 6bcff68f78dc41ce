"""Backfills under way: their windows, and their batches with the marks of those that are done.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import insert, or_, select, update

from d365sync.core.goals.backfill import Batch, Window
from d365sync.core.values import format_instant
from d365sync.journal.lease import Leased
from d365sync.journal.models import BackfillBatchRow, BackfillRow, JournalModel, RunRow

RUNS, BACKFILLS, BATCHES = (
    JournalModel.metadata.tables[str(model.__tablename__)] for model in (RunRow, BackfillRow, BackfillBatchRow)
)
UNDER_WAY = or_(RUNS.c.outcome.is_(None), RUNS.c.outcome.in_(("failed", "refused")))
"""A run that did not come to its end: killed, broken off, failed, or stopped by a guard as it went on."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill that did not come to its end; ``accepted`` is the number of goals that guards let pass, None for none.

    ``done`` are the numbers of the batches that are.
    """

    run_id: str
    window: Window
    accepted: int | None
    batches: tuple[Batch, ...]
    done: frozenset[int]


class Backfills(Leased):
    """A journal that knows backfills."""

    def begin_backfill(self, run_id: str, window: Window, mode: str, accepted: int | None) -> None:
        """Note that a backfill begins."""
        values = {
            "run_id": run_id,
            "first_on": window.first_on.isoformat(),
            "last_on": window.last_on.isoformat(),
            "mode": mode,
            "accepted": accepted,
        }
        with self._transaction(writes=True) as connection:
            connection.execute(insert(BACKFILLS).values(**values))

    def add_batches(self, run_id: str, batches: Sequence[Batch]) -> None:
        """Note what a backfill has to do, before any of it is done."""
        rows = [
            {"run_id": run_id, "number": one.number, "period": one.period, "goals": json.dumps(one.goal_ids)}
            for one in batches
        ]
        if rows:
            with self._transaction(writes=True) as connection:
                connection.execute(insert(BATCHES), rows)

    def open_backfill(self, window: Window, mode: str) -> Backfill | None:
        """Return the last backfill of a window in a mode if it did not come to its end, else None."""
        statement = (
            select(BACKFILLS.c.run_id, BACKFILLS.c.accepted, UNDER_WAY.label("open"))
            .join(RUNS, RUNS.c.id == BACKFILLS.c.run_id)
            .where(
                BACKFILLS.c.first_on == window.first_on.isoformat(),
                BACKFILLS.c.last_on == window.last_on.isoformat(),
                BACKFILLS.c.mode == mode,
            )
            .order_by(BACKFILLS.c.number.desc())
            .limit(1)
        )
        with self._transaction() as connection:
            found = connection.execute(statement).one_or_none()
            if found is None or not found.open:
                return None
            rows = connection.execute(
                select(BATCHES).where(BATCHES.c.run_id == found.run_id).order_by(BATCHES.c.number)
            ).mappings()
            parts = [
                (Batch(row["number"], row["period"], tuple(json.loads(row["goals"]))), row["done_at"]) for row in rows
            ]
        done = frozenset(batch.number for batch, done_at in parts if done_at is not None)
        return Backfill(found.run_id, window, found.accepted, tuple(batch for batch, _ in parts), done)

    def resume_run(self, run_id: str) -> None:
        """Note that a run which did not come to its end goes on."""
        values: Mapping[str, object] = {"outcome": None, "finished_at": None, "message": ""}
        with self._transaction(writes=True) as connection:
            connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(**values))

    def batch_done(self, run_id: str, number: int, now: dt.datetime) -> None:
        """Note that every goal of a batch has been written or left alone."""
        mine = (BATCHES.c.run_id == run_id) & (BATCHES.c.number == number)
        with self._transaction(writes=True) as connection:
            connection.execute(update(BATCHES).where(mine).values(done_at=format_instant(now)))
