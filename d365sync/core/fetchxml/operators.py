"""The operators: how many values each takes and which column types it may test.

Source: FetchXML condition operators reference (operators by column type).
Assumed: orderings and ranges are allowed on choices and text as well, as the common query designer offers them;
other operators that the reference does not list for a type are refused, as is an x that is no whole number of at
least 1.

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from d365sync.core.schema import CHOICE_TYPES, GUID_TYPES, ColumnType


class Arity(Enum):
    """How many values an operator takes."""

    NONE = "no value"
    ONE = "one value"
    TWO = "two values"
    LIST = "at least one value"


class ValueKind(Enum):
    """What a value of an operator is."""

    COLUMN = "a value of the column's type"
    PATTERN = "text"
    COUNT = "a whole number of at least 1"
    YEAR = "a year"
    NUMBER = "a whole number"
    KEY = "a guid"


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator; ``hours`` marks those a DateOnly column refuses, ``valueof`` those that compare columns."""

    name: str
    arity: Arity
    types: frozenset[ColumnType]
    kinds: tuple[ValueKind, ...] = (ValueKind.COLUMN,)
    hours: bool = False
    valueof: bool = False

    def kind(self, index: int) -> ValueKind:
        """Return what the value at a position is."""
        return self.kinds[min(index, len(self.kinds) - 1)]


_ALL = frozenset(ColumnType)
_DATE = frozenset({ColumnType.DATETIME})
_TEXT = frozenset({ColumnType.STRING, ColumnType.MEMO})
_NUMBER = frozenset({ColumnType.INTEGER, ColumnType.BIGINT, ColumnType.DECIMAL, ColumnType.DOUBLE, ColumnType.MONEY})
_ORDERED = _NUMBER | _DATE | _TEXT | CHOICE_TYPES
_MULTI = frozenset({ColumnType.MULTISELECT})
_WHOLE = frozenset({ColumnType.INTEGER, ColumnType.BIGINT})

TEXT_OPERATORS = frozenset({"like", "not-like", "begins-with", "not-begin-with", "ends-with", "not-end-with"})
HIERARCHY_OPERATORS = frozenset({"under", "eq-or-under", "not-under", "above", "eq-or-above"})
USER_OPERATORS = frozenset(
    {
        "eq-userid",
        "ne-userid",
        "eq-userteams",
        "eq-useroruserteams",
        "eq-useroruserhierarchy",
        "eq-useroruserhierarchyandteams",
        "eq-businessid",
        "ne-businessid",
    }
)
_CALENDAR = [
    f"{side}-{unit}"
    for side in ("last", "this", "next")
    for unit in ("week", "month", "year", "fiscal-year", "fiscal-period")
] + ["today", "yesterday", "tomorrow", "last-seven-days", "next-seven-days"]
_ROLLING = [
    f"{side}-x-{unit}"
    for side in ("last", "next")
    for unit in ("hours", "days", "weeks", "months", "years", "fiscal-years", "fiscal-periods")
] + [f"olderthan-x-{unit}" for unit in ("minutes", "hours", "days", "weeks", "months", "years")]
_PERIOD_AND_YEAR = (ValueKind.NUMBER, ValueKind.YEAR)


def _table() -> list[Operator]:
    found = [Operator(name, Arity.ONE, _ALL, valueof=True) for name in ("eq", "ne", "neq")]
    found += [Operator(name, Arity.ONE, _ORDERED, valueof=True) for name in ("gt", "ge", "lt", "le")]
    found += [Operator(name, Arity.TWO, _ORDERED) for name in ("between", "not-between")]
    found += [Operator(name, Arity.LIST, _ALL) for name in ("in", "not-in")]
    found += [Operator(name, Arity.NONE, _ALL) for name in ("null", "not-null")]
    found += [Operator(name, Arity.ONE, _TEXT, (ValueKind.PATTERN,)) for name in TEXT_OPERATORS]
    found += [Operator(name, Arity.LIST, _MULTI) for name in ("contain-values", "not-contain-values")]
    found += [Operator(name, Arity.NONE, GUID_TYPES) for name in USER_OPERATORS]
    found += [Operator("eq-userlanguage", Arity.NONE, _WHOLE)]
    found += [Operator(name, Arity.ONE, GUID_TYPES, (ValueKind.KEY,)) for name in HIERARCHY_OPERATORS]
    return found + _dates()


def _dates() -> list[Operator]:
    found = [Operator(name, Arity.ONE, _DATE) for name in ("on", "on-or-after", "on-or-before")]
    found += [Operator(name, Arity.NONE, _DATE) for name in _CALENDAR]
    found += [
        Operator(name, Arity.ONE, _DATE, (ValueKind.COUNT,), hours=name.endswith(("hours", "minutes")))
        for name in _ROLLING
    ]
    found += [
        Operator("in-fiscal-year", Arity.ONE, _DATE, (ValueKind.YEAR,)),
        Operator("in-fiscal-period", Arity.ONE, _DATE, (ValueKind.NUMBER,)),
    ]
    found += [
        Operator(name, Arity.TWO, _DATE, _PERIOD_AND_YEAR)
        for name in (
            "in-fiscal-period-and-year",
            "in-or-before-fiscal-period-and-year",
            "in-or-after-fiscal-period-and-year",
        )
    ]
    return found


OPERATORS = {operator.name: operator for operator in _table()}
"""Every operator, by name."""

DATE_OPERATORS = frozenset(operator.name for operator in _dates())
"""The operators that become bounds before anything is compared."""

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
"""The spelling of a whole number; longer ones do not fit 64 bits."""
