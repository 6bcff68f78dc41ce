"""The latest writes of given goals: found by index, so that a long history costs nothing.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Select, Text, and_, column, exists, func, select, values
from sqlalchemy.sql.selectable import CTE

from d365sync.journal.models import JournalModel, RunRow, WriteRow

RUNS, WRITES = (JournalModel.metadata.tables[str(model.__tablename__)] for model in (RunRow, WriteRow))
AT_ONCE = 500
"""Goals asked for in one statement: both databases allow many more parameters."""


def asked(goals: Iterable[str]) -> Iterator[Sequence[str]]:
    """Yield goals, each once, as many at a time as one statement asks for."""
    ids = list(dict.fromkeys(goals))
    yield from (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))


def latest(goals: Sequence[str], mode: str, outcome: str | None = None) -> Select[tuple[object, ...]]:
    """Return the statement for the last write of each goal in a mode, of one outcome if it is given."""
    wanted = _asked(goals)
    return select(WRITES).select_from(wanted.join(WRITES, WRITES.c.id == _last(wanted.c.goal_id, mode, outcome)))


def left_open(goals: Sequence[str], mode: str, outcome: str, ended: str) -> Select[tuple[object, ...]]:
    """Return the statement for the writes of one outcome that came after the last one that ``ended``; in order."""
    wanted = _asked(goals)
    since = func.coalesce(_last(wanted.c.goal_id, mode, ended), 0)
    mine = and_(WRITES.c.goal_id == wanted.c.goal_id, WRITES.c.outcome == outcome, WRITES.c.id > since)
    return (
        select(WRITES)
        .select_from(wanted.join(WRITES, mine))
        .where(_in_mode(WRITES.c.run_id, mode))
        .order_by(WRITES.c.id)
    )


def _asked(goals: Sequence[str]) -> CTE:
    return values(column("goal_id", Text), name="asked").data([(goal,) for goal in goals]).cte("asked")


def _last(goal: ColumnElement[str], mode: str, outcome: str | None) -> ColumnElement[int]:
    one = WRITES.alias("one")
    tests = [one.c.goal_id == goal, _in_mode(one.c.run_id, mode)]
    if outcome is not None:
        tests.append(one.c.outcome == outcome)
    return select(one.c.id).where(*tests).order_by(one.c.id.desc()).limit(1).scalar_subquery()


def _in_mode(run: ColumnElement[str], mode: str) -> ColumnElement[bool]:
    return exists().where(RUNS.c.id == run, RUNS.c.mode == mode)
