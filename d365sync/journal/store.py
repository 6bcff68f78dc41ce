"""The journal: what we did, kept so that we never overwrite a person and can put things back.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.goals.modes import OVERRIDE
from d365sync.core.goals.putback import WrittenGoal
from d365sync.core.goals.writes import PERCENTAGE, SENT, as_stored
from d365sync.core.values import format_instant, parse_instant, plain
from d365sync.database import HINTS, fault_of, first_line, open_engine
from d365sync.errors import JournalError
from d365sync.journal.backfills import Backfills
from d365sync.journal.copies import load_copy, write_copy
from d365sync.journal.formats import format_of, make, refuse_newer
from d365sync.journal.latest import asked, latest, left_open
from d365sync.journal.lease import HINT
from d365sync.journal.models import FORMAT, JournalModel, OwnerRow, RunRow, WriteRow
from d365sync.journal.pruning import Pruned, prune
from d365sync.journal.upgrading import Keeping, upgrade_kept

MODELS = (RunRow, WriteRow, OwnerRow)
RUNS, WRITES, OWNERS = (JournalModel.metadata.tables[str(model.__tablename__)] for model in MODELS)

Number: TypeAlias = Decimal | int
Values: TypeAlias = Mapping[str, Number | None]


_CHANCE = 4
"""Random bytes of a run's id: enough for thousands of runs at one instant, since ``--now`` lets the clock stand."""


class WriteOutcome(StrEnum):
    """How one write ended; INTENDED is also what a crash leaves behind."""

    INTENDED = "intended"
    DONE = "done"
    CONFLICT = "conflict"
    GONE = "gone"
    FAILED = "failed"


MAYBE_DONE = (WriteOutcome.INTENDED, WriteOutcome.DONE)


@dataclass(frozen=True, slots=True)
class Run:
    """One cycle as the journal knows it; ``finished_at`` None means it is under way, or was killed."""

    id: str
    command: str
    mode: str
    started_at: dt.datetime
    finished_at: dt.datetime | None
    outcome: str | None
    counts: Mapping[str, int]
    message: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A write about to be sent: the columns as read and as they shall be, and the etag it holds for."""

    goal_id: str
    title: str
    etag: str
    before: Values
    after: Values


@dataclass(frozen=True, slots=True)
class Ending:
    """How the write of a number ended; ``after`` are the columns as Dataverse stored them, if it said so."""

    number: int
    outcome: WriteOutcome
    etag: str | None = None
    message: str = ""
    after: Values | None = None


class Journal(Backfills):
    """One journal database."""

    def __init__(self, engine: Engine, *, keeping: Keeping | None = None) -> None:
        super().__init__(engine)
        keeping = keeping or Keeping()
        with self._transaction() as connection:
            found = format_of(connection)
        refuse_newer(found)
        if found is None:
            with self._transaction(writes=True) as connection:
                if format_of(connection) is None:
                    make(connection)
        elif found < FORMAT:
            with self._transaction(writes=True) as connection:
                upgrade_kept(engine, connection, keeping)

    @classmethod
    def open(cls, url: str, *, keeping: Keeping | None = None) -> Journal:
        """Open, or make, the journal at a database URL; an older one is upgraded, after a copy of it was put aside.

        Raises:
            ConfigError: the URL cannot be used.
            JournalError: the database cannot be opened, or is of a newer version.
            LeaseError: it must be upgraded, and another instance works with it.
        """
        engine = open_engine(url, durable=True)
        try:
            return cls(engine, keeping=keeping)
        except BaseException:
            engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def owner(self) -> tuple[str, str] | None:
        """Return address and id of the organization it belongs to, None when it has none yet."""
        with self._transaction() as connection:
            row = connection.execute(select(OWNERS.c.url, OWNERS.c.organization_id)).one_or_none()
        return None if row is None else (str(row[0]), str(row[1]))

    def belong_to(self, url: str, organization_id: str) -> None:
        """Note the organization it belongs to."""
        with self._transaction(writes=True) as connection:
            connection.execute(delete(OWNERS))
            connection.execute(insert(OWNERS).values(id=1, url=url, organization_id=organization_id))

    def start_run(self, command: str, mode: str, now: dt.datetime) -> str:
        """Note that a cycle begins; return its id, which sorts by time: ``20261120T090000Z-5f0c21ab``."""
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(_CHANCE)}"
        with self._transaction(writes=True) as connection:
            connection.execute(
                insert(RUNS).values(
                    id=run_id, command=command, mode=mode, started_at=format_instant(now), counts="{}", message=""
                )
            )
        return run_id

    def finish_run(self, run_id: str, outcome: str, counts: Mapping[str, int], message: str, now: dt.datetime) -> None:
        """Note how a cycle ended."""
        values = {
            "outcome": outcome,
            "counts": json.dumps(dict(counts)),
            "message": message,
            "finished_at": format_instant(now),
        }
        with self._transaction(writes=True) as connection:
            connection.execute(update(RUNS).where(RUNS.c.id == run_id).values(**values))

    def intend(self, run_id: str, writes: Iterable[Intent], now: dt.datetime) -> list[int]:
        """Note writes before they are sent, all or none; return their numbers in order."""
        with self._transaction(writes=True) as connection:
            return [_insert(connection, run_id, write, now) for write in writes]

    def done(self, endings: Iterable[Ending], now: dt.datetime) -> None:
        """Note how writes ended, all or none."""
        with self._transaction(writes=True) as connection:
            for ending in endings:
                values = {
                    "outcome": ending.outcome.value,
                    "done_at": format_instant(now),
                    "etag_after": ending.etag,
                    "message": ending.message,
                }
                if ending.after is not None:
                    values["after"] = _dump(ending.after)
                connection.execute(update(WRITES).where(WRITES.c.id == ending.number).values(**values))

    def prune(self, before: dt.datetime, now: dt.datetime, *, try_only: bool = False) -> Pruned:
        """Forget runs and writes begun before an instant, except what tells our overrides from a person's.

        ``try_only``: tell what that would be, and forget nothing.
        """
        with self._transaction(writes=True) as connection, connection.begin_nested() as attempt:
            done = prune(connection, before, now)
            if try_only:
                attempt.rollback()
            return done

    def copy_to(self, path: Path) -> None:
        """Write the journal as it is at this moment to a new file of mode 0600; others may go on writing.

        Raises:
            UsageError: the file is there already, or cannot be made.
            JournalError: the journal cannot be read.
        """
        try:
            write_copy(self._engine, path)
        except (SQLAlchemyError, sqlite3.Error) as error:
            fault = fault_of(error)
            words = first_line(error) if isinstance(error, SQLAlchemyError) else str(error)
            raise JournalError(
                f"the journal cannot be copied: {words}", hint=HINTS.get(fault, HINT), fault=fault
            ) from error

    def load(self, path: Path) -> None:
        """Put the rows of a copy of this version's format in place of all that are here, in one transaction."""
        with self._transaction(writes=True) as connection:
            load_copy(connection, path)

    def written_values(self, goals: Iterable[str]) -> dict[str, tuple[Values, ...]]:
        """Return, per goal, the nine columns it may hold by our hand: as last written, or as a later attempt left open.

        They are what mode override wrote; goals that it never wrote are left out.
        """
        found: dict[str, list[Values]] = {}
        done, intended = WriteOutcome.DONE.value, WriteOutcome.INTENDED.value
        with self._transaction() as connection:
            for some in asked(goals):
                for row in connection.execute(latest(some, OVERRIDE, done)).mappings():
                    found[row["goal_id"]] = [_load(row["after"])]
                for row in connection.execute(left_open(some, OVERRIDE, intended, done)).mappings():
                    sent = {name: value for name, value in _load(row["after"]).items() if name != PERCENTAGE}
                    found.setdefault(row["goal_id"], []).extend(as_stored(sent))
        return {goal_id: tuple(values) for goal_id, values in found.items()}

    def kept_values(self, goals: Iterable[str], mode: str = OVERRIDE) -> dict[str, Values]:
        """Return, of the goals in which Dataverse last stored something else than was sent in a mode, both.

        In the shape of :func:`d365sync.core.goals.writes.stored`.
        """
        last: dict[str, str] = {}
        with self._transaction() as connection:
            for some in asked(goals):
                rows = connection.execute(latest(some, mode, WriteOutcome.DONE.value)).mappings()
                last |= {str(row["goal_id"]): str(row["after"]) for row in rows}
        return {goal_id: _load(after) for goal_id, after in last.items() if f'"{SENT}' in after}

    def attempts(self, goals: Iterable[str], mode: str) -> dict[str, dt.datetime]:
        """Return, per goal, when it was last tried in a mode, whatever came of it; goals never tried are left out."""
        with self._transaction() as connection:
            rows = [row for some in asked(goals) for row in connection.execute(latest(some, mode)).mappings()]
        return {str(row["goal_id"]): parse_instant(str(row["intended_at"])) for row in rows}

    def unsettled(self, goals: Iterable[str], mode: str) -> dict[str, WriteOutcome]:
        """Return the goals whose last write in a mode met another's change, or has no known outcome."""
        with self._transaction() as connection:
            rows = [row for some in asked(goals) for row in connection.execute(latest(some, mode)).mappings()]
        found = {str(row["goal_id"]): WriteOutcome(row["outcome"]) for row in rows}
        return {goal: one for goal, one in found.items() if one in (WriteOutcome.CONFLICT, WriteOutcome.INTENDED)}

    def native_values(self) -> dict[str, Values]:
        """Return, per goal, the columns as they were before d365sync took the goal over.

        A goal that was handed back and taken over again counts from the last time.
        """
        statement = (
            select(WRITES.c.goal_id, WRITES.c.before, WRITES.c.after)
            .where(WRITES.c.outcome == WriteOutcome.DONE.value, _in_mode(OVERRIDE))
            .order_by(WRITES.c.id)
        )
        native: dict[str, Values] = {}
        ours: dict[str, Values] = {}
        with self._transaction() as connection:
            for goal_id, before_text, after_text in connection.execute(statement):
                before = _load(before_text)
                if goal_id not in ours or any(before.get(name) != ours[goal_id].get(name) for name in VALUE_COLUMNS):
                    native[goal_id] = before
                ours[goal_id] = _load(after_text)
        return native

    def goals_written(self, goals: Iterable[str], mode: str) -> frozenset[str]:
        """Return which of these goals runs of a mode wrote, or may have written."""
        with self._transaction() as connection:
            return frozenset(
                str(row["goal_id"])
                for some in asked(goals)
                for outcome in MAYBE_DONE
                for row in connection.execute(latest(some, mode, outcome.value)).mappings()
            )

    def runs(self, limit: int) -> Sequence[Run]:
        """Return the last cycles, the newest first."""
        statement = select(RUNS).order_by(RUNS.c.started_at.desc(), RUNS.c.id.desc()).limit(limit)
        with self._transaction() as connection:
            return [_run(row) for row in connection.execute(statement).mappings()]

    def run(self, run_id: str) -> Run | None:
        """Return a run, None when the journal does not know it."""
        with self._transaction() as connection:
            row = connection.execute(select(RUNS).where(RUNS.c.id == run_id)).mappings().one_or_none()
        return None if row is None else _run(row)

    def written_by(self, run_id: str) -> Sequence[WrittenGoal]:
        """Return what a run wrote, or may have written, goal by goal; later runs are those of the same mode."""
        known = WRITES.c.outcome.in_([one.value for one in MAYBE_DONE])
        mine = select(WRITES).where(WRITES.c.run_id == run_id, known).order_by(WRITES.c.id)
        mode = select(RUNS.c.mode).where(RUNS.c.id == run_id).scalar_subquery()
        alike = WRITES.c.run_id.in_(select(RUNS.c.id).where(RUNS.c.mode == mode))
        later = (
            select(WRITES.c.goal_id, WRITES.c.id, WRITES.c.run_id)
            .where(WRITES.c.run_id != run_id, known, alike)
            .order_by(WRITES.c.id)
        )
        with self._transaction() as connection:
            rows = [dict(row) for row in connection.execute(mine).mappings()]
            others = [(str(goal), int(number), str(run)) for goal, number, run in connection.execute(later)]
        last = {row["goal_id"]: row for row in rows}
        first = {row["goal_id"]: row for row in reversed(rows)}
        after = {goal: run for goal, number, run in others if goal in last and number > int(last[goal]["id"])}
        return [_written_goal(first[goal], row, after.get(goal)) for goal, row in last.items()]

    def counts_since(self, instant: dt.datetime) -> Sequence[Mapping[str, int]]:
        """Return the counts of the cycles that began at or after an instant."""
        statement = select(RUNS.c.counts).where(RUNS.c.started_at >= format_instant(instant))
        with self._transaction() as connection:
            return [json.loads(text) for text in connection.execute(statement).scalars()]


def _in_mode(mode: str) -> ColumnElement[bool]:
    """Return the test for writes of the runs of one mode."""
    return WRITES.c.run_id.in_(select(RUNS.c.id).where(RUNS.c.mode == mode))


def _insert(connection: Connection, run_id: str, write: Intent, now: dt.datetime) -> int:
    values = {
        "run_id": run_id,
        "goal_id": write.goal_id,
        "title": write.title,
        "before": _dump(write.before),
        "after": _dump(write.after),
        "etag_before": write.etag,
        "intended_at": format_instant(now),
        "outcome": WriteOutcome.INTENDED.value,
        "message": "",
    }
    key = connection.execute(insert(WRITES).values(**values)).inserted_primary_key
    if key is None:
        raise JournalError("the journal gave no number to a write", hint=HINT)
    return int(key[0])


def _written_goal(first: Mapping[str, Any], last: Mapping[str, Any], later: str | None) -> WrittenGoal:
    done = last["outcome"] == WriteOutcome.DONE
    return WrittenGoal(
        goal_id=str(last["goal_id"]),
        title=str(last["title"]),
        before=_load(first["before"]),
        after=_load(last["after"]),
        etag=last["etag_after"],
        sure=done,
        later=later,
    )


def _run(row: RowMapping) -> Run:
    values = {str(key): value for key, value in row.items()}
    return Run(
        id=str(values["id"]),
        command=str(values["command"]),
        mode=str(values["mode"]),
        started_at=parse_instant(str(values["started_at"])),
        finished_at=parse_instant(str(values["finished_at"])) if values["finished_at"] else None,
        outcome=None if values["outcome"] is None else str(values["outcome"]),
        counts=json.loads(str(values["counts"])),
        message=str(values["message"]),
    )


def _dump(values: Values) -> str:
    return json.dumps({name: None if value is None else plain(Decimal(value)) for name, value in values.items()})


def _load(document: str) -> dict[str, Number | None]:
    return {name: None if value is None else Decimal(value) for name, value in json.loads(document).items()}
