"""Parameters and operands of compiled SQL: value texts in the spelling the mirror stores.

The compiler's own reading of value texts; the evaluator has another.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Literal, TypeAlias

from d365sync.core.fetchxml.ast import Condition, Placeholder
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.dates import Bound, date_literal, end_literal
from d365sync.core.fetchxml.names import table_name
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.schema import GUID_TYPES, Column, ColumnType, Schema
from d365sync.core.storage import FOLD_SUFFIX, fold, scale_of, without_accents
from d365sync.core.values import format_instant, parse_guid

Dialect: TypeAlias = Literal["sqlite", "postgresql"]
Stored: TypeAlias = int | float | str

NEVER = "(1 = 0)"
ALWAYS = "(1 = 1)"

_FOLDED = frozenset({ColumnType.STRING, ColumnType.MEMO})
_CHUNK = 32


@dataclass(slots=True)
class Parameters:
    """Collects the values of a statement under names of its own."""

    prefix: str
    values: dict[str, Stored] = field(default_factory=dict)

    def add(self, value: Stored) -> str:
        """Take a value in and return the SQL that stands for it: ``:p1``."""
        name = f"{self.prefix}{len(self.values) + 1}"
        self.values[name] = value
        return f":{name}"


@dataclass(frozen=True, slots=True)
class Target:
    """What one statement is compiled for."""

    schema: Schema
    context: Context
    dialect: Dialect
    placeholders: Mapping[str, str]
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Operand:
    """The other side of a comparison, as SQL.

    A value between two storable ones (0.5 beside a whole number) has no spelling of its own: ``floor`` and
    ``ceiling`` are its neighbours, and ``exact`` says that both are the value itself.
    """

    floor: Stored | Placeholder
    ceiling: Stored | Placeholder
    target: Target

    @property
    def exact(self) -> bool:
        """Whether the value can be stored as it is."""
        return self.floor == self.ceiling

    @property
    def low(self) -> str:
        """SQL for the largest storable value that is not above."""
        return self._sql(self.floor)

    @property
    def high(self) -> str:
        """SQL for the smallest storable value that is not below."""
        return self._sql(self.ceiling)

    def _sql(self, value: Stored | Placeholder) -> str:
        if isinstance(value, Placeholder):
            return self.target.placeholders[value.name]
        return self.target.parameters.add(value)


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def stored_column(alias: str, column: Column) -> str:
    """Return the SQL of the stored column itself."""
    return f"{alias}.{quoted(column.logical_name)}"


def compared_column(alias: str, column: Column) -> str:
    """Return the SQL that comparisons look at: the folded shadow of a text column, otherwise the column."""
    return f"{alias}.{quoted(column.logical_name + shadow_suffix(column))}"


def shadow_suffix(column: Column) -> str:
    """Return what to add to a column's name to compare it; table names need no folding, they are lower case."""
    return FOLD_SUFFIX if column.type in _FOLDED else ""


def combine(terms: Iterable[str], word: Literal["AND", "OR"]) -> str:
    """Join conditions into one parenthesised unit, in chunks: databases limit how deep an expression may be."""
    parts = list(terms)
    while len(parts) > _CHUNK:
        parts = [_chain(parts[at : at + _CHUNK], word) for at in range(0, len(parts), _CHUNK)]
    return _chain(parts, word)


def _chain(parts: list[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else "(" + f" {word} ".join(parts) + ")"


def operand(condition: Condition, at: int, column: Column, target: Target) -> Operand:
    """Return a condition's value, the one at a position, as an operand for a column.

    Raises:
        FetchXmlError: the value cannot be spelled for the column, or nothing is bound to the placeholder.
    """
    value = condition.values[at]
    if isinstance(value, Placeholder):
        if value.name not in target.placeholders:
            raise refusal(f"nothing is bound to the placeholder '{value.name}'", condition)
        return Operand(value, value, target)
    try:
        ends = at == 1 and condition.operator.endswith("between")
        floor, ceiling = _neighbours(value, column, target, ends=ends)
    except (ValueError, ArithmeticError) as error:
        raise refusal(str(error), condition) from error
    return Operand(floor, ceiling, target)


def folded_text(text: str, target: Target) -> str:
    """Return a text as comparisons and patterns see it, blanks at its end included."""
    return fold(text) if target.context.accents_count else without_accents(fold(text))


def spell_bound(bound: Bound) -> str:
    """Return a date bound in stored spelling; bounds are whole seconds."""
    return format_instant(bound) if isinstance(bound, dt.datetime) else bound.isoformat()


def _neighbours(text: str, column: Column, target: Target, *, ends: bool) -> tuple[Stored, Stored]:
    if column.type in (ColumnType.MONEY, ColumnType.DECIMAL):
        return _scaled(text, scale_of(column))
    if column.type is ColumnType.DATETIME:
        return _date((end_literal if ends else date_literal)(text, column, target.context))
    exact = _exact(text, column, target)
    return exact, exact


def _scaled(text: str, scale: int) -> tuple[int, int]:
    with localcontext() as arithmetic:
        arithmetic.prec = 80
        scaled = Decimal(text.strip()).scaleb(scale)
        return int(scaled.to_integral_value(ROUND_FLOOR)), int(scaled.to_integral_value(ROUND_CEILING))


def _date(value: Bound) -> tuple[str, str]:
    if not isinstance(value, dt.datetime) or value.microsecond == 0:
        return spell_bound(value), spell_bound(value)
    floor = value.replace(microsecond=0)
    return spell_bound(floor), spell_bound(floor + dt.timedelta(seconds=1))


def _exact(text: str, column: Column, target: Target) -> Stored:
    if column.type in _FOLDED:
        folded = folded_text(text, target)
        return folded if target.context.trailing_blanks_count else folded.rstrip(" ")
    if column.type is ColumnType.ENTITYNAME:
        return table_name(text, target.schema)
    if column.type in GUID_TYPES:
        return parse_guid(text)
    if column.type is ColumnType.BOOLEAN:
        return 1 if text.strip().lower() in ("1", "true") else 0
    return float(text) if column.type is ColumnType.DOUBLE else int(text)
