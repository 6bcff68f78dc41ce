"""What a rollup field asks of a record in the native rollup, and the days of a goal.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from zoneinfo import ZoneInfo

from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.values import Row, Value
from d365sync.emulator.percentages import ROLLUP_COLUMNS, as_decimal
from d365sync.emulator.store import Store

_PARENTS = {"opportunityproduct": "opportunity"}
"""Source: Define goal metric and rollup fields (the state of the parent opportunity)."""
_SUMMED = {
    "money": (ColumnType.MONEY,),
    "decimal": (ColumnType.DECIMAL, ColumnType.DOUBLE),
    "integer": (ColumnType.INTEGER,),
}
"""Column types a metric can sum. Source: Define goal metric and rollup fields (the types must match)."""
_DAY = dt.timedelta(days=1)


class UnusableError(Exception):
    """Something a goal's rollup needs cannot be used; the text says what."""


@dataclass(frozen=True, slots=True)
class Period:
    """A goal's days, both ends included, and the instants those days begin and end: ``begins <= t < ends``."""

    first: dt.date
    last: dt.date
    begins: dt.datetime
    ends: dt.datetime

    @classmethod
    def of(cls, first: dt.date, last: dt.date, zone: ZoneInfo) -> Period:
        """Return the period of two days, which begin and end in a zone."""
        return cls(first, last, _midnight(first, zone), _midnight(last + _DAY, zone))

    def holds(self, column: Column, value: Value) -> bool:
        """Say whether a date counts. Source: Roll up goal totals (start and end dates are in); null never counts."""
        if not isinstance(value, dt.date):
            return False
        if not isinstance(value, dt.datetime):
            return self.first <= value <= self.last
        if column.date_behavior is DateBehavior.USER_LOCAL:
            return self.begins <= value < self.ends
        return self.first <= value.date() <= self.last

    def elapsed(self, today: dt.date) -> tuple[int, int]:
        """Return how much has passed as a fraction from 0 to 1: numerator and denominator, in days.

        Source: Create goal hierarchy, goals, and targets ((today - start) / (end - start)). Assumed: it stays
        within 0 and 1, and a period of one day is over on that day.
        """
        days = (self.last - self.first).days
        if days <= 0:
            return int(today >= self.first), 1
        return min(max((today - self.first).days, 0), days), days


def _midnight(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(dt.UTC)


@dataclass(frozen=True, slots=True)
class Field:
    """A rollup field as the schema reads it.

    ``parent`` and ``lookup`` say where a record's parent row is, if one is needed; ``states`` are the values
    asked of state and status; ``amount`` is the column summed, None when records are counted.
    """

    attribute: str
    table: Table
    parent: str | None
    lookup: str | None
    date: Column
    date_of_parent: bool
    states: Mapping[str, Value]
    state_of_parent: bool
    amount: str | None

    def takes(self, row: Row, period: Period, store: Store) -> bool:
        """Say whether a record passes the tests of date, state and status."""
        parent: Row = {}
        if self.parent is not None:
            parent = store.get(self.parent, row.get(self.lookup or "")) or {}
        dated, stated = parent if self.date_of_parent else row, parent if self.state_of_parent else row
        in_state = all(stated.get(name) == wanted for name, wanted in self.states.items())
        return in_state and period.holds(self.date, dated.get(self.date.logical_name))

    def value(self, row: Row) -> Decimal:
        """Return what a record adds; an empty amount adds nothing."""
        amount = 1 if self.amount is None else row.get(self.amount)
        return Decimal(0) if amount is None else as_decimal(amount)


def read_field(field: Row, kind: str, schema: Schema, *, counts: bool) -> Field:
    """Resolve a rollup field. Assumed: without entityfordateattribute the date is on the source table.

    Raises:
        SchemaError: a table or column is unknown.
        UnusableError: the field has no meaning for the metric.
    """
    attribute = _attribute_of(field, kind)
    table = schema.table(str(field.get("sourceentity")))
    dated = schema.table(str(field.get("entityfordateattribute") or table.logical_name))
    date = dated.column(str(field.get("dateattribute")))
    if date.type is not ColumnType.DATETIME:
        raise UnusableError(f"'{date.logical_name}' is no date")
    date_of_parent = dated.logical_name != table.logical_name
    state_of_parent = field.get("isstateparententityattribute") is True
    parent = dated.logical_name if date_of_parent else _PARENTS.get(table.logical_name) if state_of_parent else None
    if state_of_parent and parent is None:
        raise UnusableError(f"'{table.logical_name}' has no parent table whose state could be asked")
    stated = schema.table(parent) if state_of_parent and parent else table
    wanted = {"statecode": field.get("sourcestate"), "statuscode": field.get("sourcestatus")}
    return Field(
        attribute=attribute,
        table=table,
        parent=parent,
        lookup=None if parent is None else _lookup(table, parent),
        date=date,
        date_of_parent=date_of_parent,
        states={stated.column(name).logical_name: value for name, value in wanted.items() if value is not None},
        state_of_parent=state_of_parent,
        amount=None if counts else _summed(table, str(field.get("sourceattribute")), kind),
    )


def _attribute_of(field: Row, kind: str) -> str:
    attribute = str(field.get("goalattribute"))
    if attribute not in ROLLUP_COLUMNS or not attribute.endswith(kind):
        raise UnusableError(f"'{attribute}' is no column a metric of {kind} fills")
    return attribute


def _lookup(table: Table, parent: str) -> str:
    """Return the lookup that names the parent row. Assumed: ``<parent>id``, else the only one to that table."""
    found = [column.logical_name for column in table.columns.values() if column.is_lookup and parent in column.targets]
    if f"{parent}id" in found:
        return f"{parent}id"
    if len(found) != 1:
        raise UnusableError(f"'{table.logical_name}' has {len(found)} lookups to '{parent}'")
    return found[0]


def _summed(table: Table, name: str, kind: str) -> str:
    """Return the column summed: for money the base currency's, at the rate stored on the record.

    Source: Goal table reference (goals are in base currency); Transaction Currency table.
    """
    column: Column | None = table.column(name)
    if column is not None and column.type not in _SUMMED[kind]:
        raise UnusableError(f"'{name}' is not of a type a metric of {kind} sums")
    if kind == "money":
        column = table.base_of(name)
    if column is None:
        raise UnusableError(f"'{name}' has no amount in base currency")
    return column.logical_name
