"""Columns of the organization's own that take our numbers, for those who leave the native rollup on.

The configuration says which number goes into which column; the goal table's definition says whether it fits there.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from d365sync.core.goals.goal import SLOT_BY_COLUMN, VALUE_COLUMNS, DataType, Goal, Number
from d365sync.core.goals.rollup import GoalTotals
from d365sync.core.goals.writes import PERCENTAGE, STAMP, ColumnChange, GoalWrite, Skip, differing, no_etag
from d365sync.core.schema import Column, ColumnType, DateBehavior, Table
from d365sync.core.values import MONEY_SCALE, is_etag

OwnColumns: TypeAlias = Mapping[str, str]
"""Which of our numbers goes into which column: ``{"actualmoney": "new_actual"}``."""

SOURCES = (*VALUE_COLUMNS, PERCENTAGE, STAMP)
"""What can be written: the nine numbers, the percentage, and the time at which they were."""

WHOLE = (ColumnType.INTEGER, ColumnType.BIGINT)
FITTING: Mapping[DataType, tuple[ColumnType, ...]] = {
    DataType.MONEY: (ColumnType.MONEY, ColumnType.DECIMAL),
    DataType.DECIMAL: (ColumnType.DECIMAL,),
    DataType.INTEGER: (*WHOLE, ColumnType.DECIMAL),
}
PERCENT = (ColumnType.DECIMAL, *WHOLE)
TIMED = (DateBehavior.USER_LOCAL, DateBehavior.TIME_ZONE_INDEPENDENT)


def number_columns(columns: OwnColumns) -> tuple[str, ...]:
    """Return the columns that take numbers."""
    return tuple(target for source, target in columns.items() if source != STAMP)


def column_faults(goals: Table, columns: OwnColumns) -> tuple[str, ...]:
    """Say of every column that cannot take its number exactly why, one sentence each; none when all can."""
    found = ((source, target, _fault(goals, source, target)) for source, target in columns.items())
    return tuple(f"the column {target} for {source} {fault}" for source, target, fault in found if fault)


def plan_columns(
    columns: OwnColumns, goal: Goal, totals: GoalTotals, kept: Mapping[str, Number | None] | None = None
) -> GoalWrite | Skip | None:
    """Return the write that puts our numbers into these columns; None when they are there already.

    ``kept``: as of :func:`d365sync.core.goals.writes.plan_writes`. Columns that are not in the configuration, and both
    override flags, are not touched.
    """
    after = {target: _number(totals, source) for source, target in columns.items() if source != STAMP}
    changes = tuple(
        ColumnChange(name, goal.own.get(name), after[name], _why(goal.own.get(name)))
        for name in differing(goal.own, after, kept or {})
    )
    if not changes:
        return None
    if not is_etag(goal.etag):
        return no_etag(goal)
    return GoalWrite(goal.id, goal.title, goal.etag, changes, after, None, columns.get(STAMP, ""))


def _number(totals: GoalTotals, source: str) -> Number | None:
    return totals.percentage if source == PERCENTAGE else totals.totals[source]


def _why(held: Number | None) -> str:
    return "nothing is in it" if held is None else "holds another number"


def _fault(goals: Table, source: str, target: str) -> str:
    column = goals.columns.get(target)
    if column is None:
        return "is not there, or may not be read"
    if not column.valid_for_update:
        return "cannot be written"
    if source == STAMP:
        timed = column.type is ColumnType.DATETIME and column.date_behavior in TIMED
        return "" if timed else f"is {_kind(column)}; it must be a date and time"
    fitting = PERCENT if source == PERCENTAGE else FITTING[SLOT_BY_COLUMN[source].data_type]
    if column.type not in fitting:
        return f"is {_kind(column)}; it must be {' or '.join(fitting)}"
    places = _places(goals, source)
    if column.type is ColumnType.DECIMAL and (column.precision or 0) < places:
        return f"has {column.precision or 0} decimal places; {places} are needed, or numbers would be rounded"
    return ""


def _places(goals: Table, source: str) -> int:
    """Return how many decimal places a number may have: those of the goal's own column."""
    if source == PERCENTAGE or SLOT_BY_COLUMN[source].data_type is DataType.INTEGER:
        return 0
    if SLOT_BY_COLUMN[source].data_type is DataType.MONEY:
        return MONEY_SCALE
    own = goals.columns.get(source)
    return (own.precision if own else None) or 0


def _kind(column: Column) -> str:
    return f"{column.type} ({column.date_behavior})" if column.date_behavior else str(column.type)
