"""How a value is stored in the mirror's SQL tables: one exact, sortable spelling per column type.

Both databases (SQLite, PostgreSQL) hold the same spellings, so a compiled query needs no database function:

===============================  ============================================================
column type                      stored as
===============================  ============================================================
guid, lookup                     text, 36 lower-case characters
text                             text as given, and its fold in ``<name>__fold`` (see :func:`fold`)
numbers, choices                 integer; two options 0/1
money                            integer, scaled by 10**4
decimal                          integer, scaled by 10**precision
floating point                   double precision
multi-select choice              text ``,1,3,``: ascending, each value between commas; empty is null
DateOnly                         text ``YYYY-MM-DD``
UserLocal, TimeZoneIndependent   text ``YYYY-MM-DDTHH:MM:SSZ``
===============================  ============================================================

Text sorts by code point (SQLite BINARY, PostgreSQL COLLATE "C").

Pure.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from decimal import Context, Decimal
from enum import Enum
from typing import Any

from d365sync.core.schema import GUID_TYPES, TEXT_TYPES, Column, ColumnType, DateBehavior
from d365sync.core.values import MONEY_SCALE, Value, format_instant, parse_instant

ACCENT_FUNCTION = "d365sync_without_accents"
"""The name under which SQLite knows :func:`without_accents`; used only by queries that ask for it."""
_ACCENTS = re.compile("[\u0300-\u036f]")
INT64_MAX = 2**63 - 1
FOLD_SUFFIX = "__fold"
EXACT = Context(prec=60)


class StorageRangeError(ValueError):
    """A value of the right type that 64 bits, scaled by the column's decimal places, cannot hold."""


class StoredAs(Enum):
    """The SQL type of a stored column."""

    INTEGER = "BIGINT"
    DOUBLE = "DOUBLE PRECISION"
    TEXT = "TEXT"


def stored_as(column: Column) -> StoredAs:
    """Return the SQL type a column is stored in."""
    if column.type is ColumnType.DOUBLE:
        return StoredAs.DOUBLE
    if column.type in GUID_TYPES | TEXT_TYPES or column.type in (ColumnType.DATETIME, ColumnType.MULTISELECT):
        return StoredAs.TEXT
    return StoredAs.INTEGER


def is_plain(column: Column) -> bool:
    """Say whether the stored spelling of a column is its value: text, ids, whole numbers."""
    kept = {ColumnType.MULTISELECT, ColumnType.DATETIME, ColumnType.MONEY, ColumnType.DECIMAL, ColumnType.BOOLEAN}
    return column.type not in kept


def has_fold(column: Column) -> bool:
    """Say whether the column has a folded shadow ``<name>__fold`` beside it."""
    return column.type in TEXT_TYPES


def fold(text: str) -> str:
    """Fold text for comparison: Dataverse compares text without regard to case.

    Source: Query data using FetchXML, filter rows (comparisons are case-insensitive). Accents are kept: see
    :func:`without_accents`.
    """
    return text.casefold()


def without_accents(text: str) -> str:
    """Return folded text without combining accents, for organizations whose collation does not regard them.

    Source: language collations (some base languages are accent-insensitive). Assumed: accents are the combining
    diacritical marks U+0300 to U+036F of the decomposed text.
    """
    return _ACCENTS.sub("", unicodedata.normalize("NFD", text))


def scale_of(column: Column) -> int:
    """Return the number of decimal places kept for a money or decimal column."""
    if column.type is ColumnType.MONEY:
        return MONEY_SCALE
    return 10 if column.precision is None else column.precision


def encode(column: Column, value: Value) -> int | float | str | None:
    """Return the stored spelling of a value of this column; None stays None.

    Raises:
        ValueError: the value is not of the column's type, or has more decimal places than the column.
        StorageRangeError: it does not fit 64 bits once scaled.
    """
    if value is None:
        return None
    if stored_as(column) is StoredAs.TEXT:
        return _text(column, value)
    match column.type:
        case ColumnType.MONEY | ColumnType.DECIMAL:
            return _scaled(column, value)
        case ColumnType.BOOLEAN:
            return int(_expect(column, value, bool))
        case ColumnType.DOUBLE:
            return float(_expect(column, value, float, int, Decimal))
        case _:
            return _fits(column, _expect(column, value, int))


def decode(column: Column, stored: int | float | str | None) -> Value:
    """Return the value of a stored spelling: the inverse of :func:`encode`."""
    if stored is None:
        return None
    match column.type:
        case ColumnType.MONEY | ColumnType.DECIMAL:
            return Decimal(int(stored)).scaleb(-scale_of(column), EXACT)
        case ColumnType.DATETIME:
            date_only = column.date_behavior is DateBehavior.DATE_ONLY
            return dt.date.fromisoformat(str(stored)) if date_only else parse_instant(str(stored))
        case ColumnType.MULTISELECT:
            return frozenset(int(part) for part in str(stored).strip(",").split(","))
        case ColumnType.BOOLEAN:
            return bool(stored)
        case _:
            return stored


def _text(column: Column, value: Value) -> str | None:
    match column.type:
        case ColumnType.MULTISELECT:
            chosen = _expect(column, value, frozenset)
            return f",{','.join(str(one) for one in sorted(chosen))}," if chosen else None
        case ColumnType.DATETIME if column.date_behavior is DateBehavior.DATE_ONLY:
            if isinstance(value, dt.datetime):
                raise _mismatch(column, value)
            return str(_expect(column, value, dt.date).isoformat())
        case ColumnType.DATETIME:
            return format_instant(_expect(column, value, dt.datetime))
        case _:
            return str(_expect(column, value, str))


def _scaled(column: Column, value: Value) -> int:
    scaled = Decimal(_expect(column, value, int, Decimal)).scaleb(scale_of(column), EXACT)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{column.logical_name}: {value} has more than {scale_of(column)} decimal places")
    return _fits(column, int(scaled))


def _fits(column: Column, number: int) -> int:
    if abs(number) > INT64_MAX:
        raise StorageRangeError(f"{column.logical_name}: {number} does not fit 64 bits")
    return number


def _expect(column: Column, value: Value, *types: type[Any]) -> Any:
    if (isinstance(value, bool) and bool not in types) or not isinstance(value, types):
        raise _mismatch(column, value)
    return value


def _mismatch(column: Column, value: Value) -> ValueError:
    return ValueError(f"{column.logical_name}: {type(value).__name__} is not a {column.type} value")
