"""Literals of a ``$filter``, typed against the column they are compared with.

Pure.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal, InvalidOperation

from d365sync.core.schema import CHOICE_TYPES, GUID_TYPES, TEXT_TYPES, Column, ColumnType, DateBehavior
from d365sync.core.values import Value, parse_guid, parse_instant, parse_on
from d365sync.emulator.odata.tokens import Token
from d365sync.emulator.refuse import Refusal, bad_uri

_NUMBERS = CHOICE_TYPES | {
    ColumnType.INTEGER,
    ColumnType.BIGINT,
    ColumnType.DECIMAL,
    ColumnType.MONEY,
    ColumnType.DOUBLE,
}
_EDM = {
    "string": "Edm.String",
    "guid": "Edm.Guid",
    "datetime": "Edm.DateTimeOffset",
    "date": "Edm.Date",
    "number": "Edm.Decimal",
    "name": "Edm.Boolean",
}
MAX_DIGITS = 400
KINDS = {"eq": "Equal", "ne": "NotEqual", "gt": "GreaterThan", "ge": "GreaterThanOrEqual", "lt": "LessThan"}


def edm_type(column: Column) -> str:
    """Return the OData type of a column."""
    if column.type in GUID_TYPES:
        return "Edm.Guid"
    if column.type in TEXT_TYPES or column.type is ColumnType.MULTISELECT:
        return "Edm.String"
    if column.type is ColumnType.DATETIME:
        return "Edm.Date" if column.date_behavior is DateBehavior.DATE_ONLY else "Edm.DateTimeOffset"
    special = {
        ColumnType.BOOLEAN: "Edm.Boolean",
        ColumnType.BIGINT: "Edm.Int64",
        ColumnType.MONEY: "Edm.Decimal",
        ColumnType.DECIMAL: "Edm.Decimal",
        ColumnType.DOUBLE: "Edm.Double",
    }
    return special.get(column.type, "Edm.Int32")


def literal_value(column: Column, token: Token, operator: str) -> Value:
    """Return what a literal means for the column.

    Assumed: a bare date beside a date-and-time column means midnight UTC.

    Raises:
        Refusal: the literal's type does not go with the column's.
    """
    wanted = edm_type(column)
    match token.kind:
        case "guid" if wanted == "Edm.Guid":
            return parse_guid(token.text)
        case "string" if wanted == "Edm.String":
            return unquote(token.text)
        case "number" if column.type in _NUMBERS:
            return _number(column, token.text)
        case "name" if wanted == "Edm.Boolean" and token.text in ("true", "false"):
            return token.text == "true"
        case "date" | "datetime":
            return _moment(wanted, token, operator)
    raise incompatible(wanted, _EDM.get(token.kind, token.kind), operator)


def _number(column: Column, text: str) -> Value:
    if len(text) > MAX_DIGITS:
        raise bad_uri(f"The number '{text[:40]}…' is too long.")
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise bad_uri(f"The number '{text}' is too large.") from None
    if column.type is ColumnType.DOUBLE:
        return float(number)
    return int(text) if text.lstrip("-").isdecimal() else number


def unquote(text: str) -> str:
    """Return the content of a quoted literal."""
    return text[1:-1].replace("''", "'")


def incompatible(left: str, right: str, operator: str) -> Refusal:
    """Refuse a comparison of two types."""
    return bad_uri(
        "A binary operator with incompatible types was detected. Found operand types "
        f"'{left}' and '{right}' for operator kind '{KINDS.get(operator, operator)}'."
    )


def _moment(wanted: str, token: Token, operator: str) -> dt.date:
    try:
        if wanted == "Edm.Date" and token.kind == "date":
            return parse_on(token.text)
        if wanted == "Edm.DateTimeOffset":
            return parse_instant(token.text)
    except ValueError:
        raise bad_uri(f"Unrecognized 'Edm.DateTimeOffset' literal '{token.text}'.") from None
    raise incompatible(wanted, _EDM[token.kind], operator)
