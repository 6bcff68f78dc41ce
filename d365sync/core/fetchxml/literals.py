"""Value texts of a document, typed by the column they are compared with.

Used to check documents and by the evaluator. The compiler does not use it: it spells values for storage by
rules of its own, so that a mistake here shows up as a disagreement.

Pure.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.dates import check_date_text, date_literal
from d365sync.core.fetchxml.names import table_name
from d365sync.core.fetchxml.operators import WHOLE_NUMBER
from d365sync.core.schema import CHOICE_TYPES, GUID_TYPES, Column, ColumnType, Schema
from d365sync.core.storage import INT64_MAX, scale_of
from d365sync.core.values import Value, parse_guid

_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,19}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})")
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?")
_WHOLE = CHOICE_TYPES | {ColumnType.INTEGER, ColumnType.BIGINT, ColumnType.MULTISELECT}
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def typed(text: str, column: Column, schema: Schema, context: Context) -> Value:
    """Return the value a text means for a column; for a multi-select column one option's value.

    Assumed: empty text is a value that no column holds, so it neither matches nor leaves out a row.

    Raises:
        ValueError: the text is not a value of the column's type.
    """
    if column.type is ColumnType.DATETIME:
        return date_literal(text, column, context)
    if column.type is ColumnType.ENTITYNAME:
        return table_name(text, schema)
    return _timeless(text, column)


def check_literal(text: str, column: Column, schema: Schema) -> None:
    """Refuse a text that is no value of the column's type, wherever and whenever it is asked.

    Raises:
        ValueError: the text is not a value of the column's type.
    """
    if column.type is ColumnType.DATETIME:
        check_date_text(text)
    elif column.type is ColumnType.ENTITYNAME:
        table_name(text, schema)
    else:
        _timeless(text, column)


def _timeless(text: str, column: Column) -> Value:
    if column.type in GUID_TYPES:
        return parse_guid(text)
    if column.type in (ColumnType.MONEY, ColumnType.DECIMAL):
        return _decimal(text.strip(), column)
    if column.type is ColumnType.DOUBLE:
        return _float(text.strip())
    if column.type is ColumnType.BOOLEAN:
        return _boolean(text)
    if column.type in _WHOLE:
        return _whole(text.strip())
    return text


def _whole(text: str) -> int:
    if WHOLE_NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text[:60]!r} is not a whole number")
    return int(text)


def _decimal(text: str, column: Column) -> Decimal:
    if _DECIMAL.fullmatch(text) is None:
        raise ValueError(f"{text[:60]!r} is not a decimal number")
    value = Decimal(text)
    if value.copy_abs() > Decimal(INT64_MAX).scaleb(-scale_of(column)):
        raise ValueError(f"{text[:60]!r} is too large for the column")
    return value


def _float(text: str) -> float:
    if _FLOAT.fullmatch(text) is None or not math.isfinite(float(text)):
        raise ValueError(f"{text[:60]!r} is not a number")
    return float(text)


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text[:60]!r} is not one of true, false, 1 and 0") from None
