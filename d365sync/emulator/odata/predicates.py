"""What the parts of a ``$filter`` mean for a row.

Nulls: as in FetchXML, ``ne`` and the negated text functions keep rows whose column is empty, all other
comparisons drop them. A row that a lookup does not lead to has nulls only. Source: Filter rows using OData (text is
compared without case; ``contains`` and its family honour the wildcards ``%``, ``_`` and ``[]``). Assumed: the nulls,
and that text is folded and patterns are read as FetchXML does.

Pure.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from d365sync.core.fetchxml.like import matches
from d365sync.core.fetchxml.truth import key_of
from d365sync.core.schema import TEXT_TYPES, Column
from d365sync.core.values import Row, Value
from d365sync.emulator.odata.literals import edm_type, incompatible

Predicate = Callable[[Row], bool]

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}
OPPOSITE = {"eq": "ne", "ne": "eq", "gt": "le", "le": "gt", "ge": "lt", "lt": "ge"}
MIRRORED = {"eq": "eq", "ne": "ne", "gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}
TEXT_FUNCTIONS = {"contains": "%{}%", "startswith": "{}%", "endswith": "%{}"}
_NUMBERS = {"Edm.Int32", "Edm.Int64", "Edm.Decimal", "Edm.Double"}


@dataclass(frozen=True, slots=True)
class Operand:
    """A column as a filter names it, and how its value is found from a row."""

    column: Column
    read: Callable[[Row], Value]


def both(one: Predicate | None, other: Predicate | None) -> Predicate | None:
    """Return the predicate that holds when both do; None holds for every row."""
    if one is None or other is None:
        return one or other
    return lambda row: one(row) and other(row)


def null_test(operand: Operand, word: str) -> Predicate:
    """Return the comparison with null."""
    read = operand.read
    if word == "eq":
        return lambda row: read(row) is None
    if word == "ne":
        return lambda row: read(row) is not None
    return lambda _row: False


def compare(operand: Operand, word: str, wanted: Value, *, ne_keeps_null: bool) -> Predicate:
    """Return the comparison with a literal."""
    read, test, keeps_null = operand.read, OPERATORS[word], word == "ne" and ne_keeps_null
    if operand.column.type in TEXT_TYPES:
        folded = _folded(str(wanted))
        return lambda row: keeps_null if (value := read(row)) is None else test(_folded(str(value)), folded)
    return lambda row: keeps_null if (value := read(row)) is None else test(value, wanted)


def compare_two(left: Operand, word: str, right: Operand) -> Predicate:
    """Return the comparison of two columns.

    Raises:
        Refusal: their types do not go together.
    """
    types = {edm_type(left.column), edm_type(right.column)}
    if len(types) > 1 and not types <= _NUMBERS:
        raise incompatible(edm_type(left.column), edm_type(right.column), word)
    test, keeps_null = OPERATORS[word], word == "ne"

    def compared(row: Row) -> bool:
        one, other = left.read(row), right.read(row)
        if one is None or other is None:
            return keeps_null and one is not other
        if isinstance(one, str) and isinstance(other, str):
            return test(_folded(one), _folded(other))
        return test(one, other)

    return compared


def text_test(operand: Operand, function: str, wanted: str, *, negated: bool) -> Predicate:
    """Return ``contains``, ``startswith`` or ``endswith``."""
    read, pattern = operand.read, _folded(TEXT_FUNCTIONS[function].replace("{}", wanted))

    def fits(row: Row) -> bool:
        value = read(row)
        return negated if value is None else matches(_folded(str(value)), pattern) is not negated

    return fits


def _folded(text: str) -> str:
    return str(key_of(text))
