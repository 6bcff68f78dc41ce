"""Values as JSON carries them, both ways: what a Web API body means, and how a row's value is written.

Money and decimals keep their scale as bare JSON numbers (``5000000.0000``). Source: Web API types and
operations; Behavior and format of the date and time column.

Pure.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import msgspec

from d365sync.core.schema import Column, ColumnType, DateBehavior
from d365sync.core.values import Value, parse_guid, parse_instant, parse_on

EXACT = Context(prec=60)
EARLIEST = dt.datetime(1753, 1, 1, tzinfo=dt.UTC)
INT32 = range(-(2**31), 2**31)
INT64 = range(-(2**63), 2**63)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?")
_CHOICES = re.compile(r"-?\d+(,-?\d+)*")
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class WireError(ValueError):
    """A JSON value that is not one of the column's type; the text completes "column …"."""


def decode_json(body: bytes) -> Any:
    """Read JSON with exact numbers: whole ones are int, all others Decimal.

    Raises:
        WireError: it is not JSON.
    """
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(str(error)) from None


def encode_json(document: Any) -> bytes:
    """Write JSON; decimals as bare numbers with the scale they have."""
    return _ENCODER.encode(document)


def read_value(column: Column, raw: Any, *, rounding: str | None = None) -> Value:
    """Return the value a JSON value means for this column; null and empty text are None.

    ``rounding`` (a :mod:`decimal` constant) brings money and decimals to the column's scale; None refuses
    what has more places. Assumed: empty text is stored as null.

    Raises:
        WireError: the JSON value is not one of the column's type.
    """
    if raw is None or raw == "":
        return None
    if column.type in (ColumnType.MONEY, ColumnType.DECIMAL):
        return _number(column, raw, rounding)
    return _READERS[column.type](column, raw)


def writer(column: Column) -> Callable[[Any], Any] | None:
    """Return what turns a value of this column into its JSON value; None when it is written as it is."""
    match column.type:
        case ColumnType.DECIMAL:
            return lambda value: msgspec.Raw(format(value, "f").encode())
        case ColumnType.DATETIME if column.date_behavior is DateBehavior.DATE_ONLY:
            return lambda value: value.isoformat()
        case ColumnType.DATETIME:
            return lambda value: value.isoformat()[:19] + "Z"
        case ColumnType.MULTISELECT:
            return lambda value: ",".join(str(one) for one in sorted(value))
    return None


def at_scale(value: Decimal, places: int, rounding: str) -> Decimal:
    """Return the number with exactly ``places`` decimal places."""
    return value.quantize(Decimal(1).scaleb(-places), rounding=rounding, context=EXACT)


def _number(column: Column, raw: Any, rounding: str | None) -> Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal):
        raise _wrong(column, raw, "a number")
    value = Decimal(raw)
    if value.adjusted() > 18:
        raise WireError(f"holds {raw}, which is too large")
    places = column.precision if column.precision is not None else 10
    scaled = at_scale(value, places, rounding or "ROUND_HALF_UP")
    if rounding is None and scaled != value:
        raise WireError(f"holds {value}, which has more than {places} decimal places")
    return scaled


def _text(column: Column, raw: Any) -> str:
    if not isinstance(raw, str):
        raise _wrong(column, raw, "a text")
    return raw


def _guid(column: Column, raw: Any) -> str:
    try:
        return parse_guid(_text(column, raw))
    except ValueError:
        raise WireError(f"holds {str(raw)[:60]!r}, which is not a guid") from None


def _integer(column: Column, raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise _wrong(column, raw, "a whole number")
    if raw not in (INT64 if column.type is ColumnType.BIGINT else INT32):
        raise WireError(f"holds {raw}, which does not fit")
    return raw


def _boolean(column: Column, raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise _wrong(column, raw, "true or false")
    return raw


def _double(column: Column, raw: Any) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal):
        raise _wrong(column, raw, "a number")
    return float(raw)


def _multi(column: Column, raw: Any) -> frozenset[int]:
    if not isinstance(raw, str) or not _CHOICES.fullmatch(raw):
        raise _wrong(column, raw, 'a list of choices such as "1,3"')
    return frozenset(int(part) for part in raw.split(","))


def _datetime(column: Column, raw: Any) -> dt.date:
    date_only = column.date_behavior is DateBehavior.DATE_ONLY
    wanted = "a date, YYYY-MM-DD" if date_only else "a date and time, YYYY-MM-DDThh:mm:ssZ"
    if not isinstance(raw, str) or not _INSTANT.fullmatch(raw) or (date_only and "T" in raw):
        raise _wrong(column, raw, wanted)
    try:
        value: dt.date = parse_on(raw) if date_only else parse_instant(raw)
    except (ValueError, OverflowError):
        raise _wrong(column, raw, wanted) from None
    if value < (EARLIEST.date() if date_only else EARLIEST):
        raise WireError(f"holds {raw}, which is before 1753")
    return value


def _wrong(column: Column, raw: Any, wanted: str) -> WireError:
    return WireError(f"holds {_shown(raw)}, which is not {wanted} ({column.type})")


def _shown(raw: Any) -> str:
    text = str(raw) if isinstance(raw, Decimal) else repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."


_READERS: dict[ColumnType, Callable[[Column, Any], Value]] = {
    ColumnType.UNIQUEIDENTIFIER: _guid,
    ColumnType.LOOKUP: _guid,
    ColumnType.OWNER: _guid,
    ColumnType.CUSTOMER: _guid,
    ColumnType.STRING: _text,
    ColumnType.MEMO: _text,
    ColumnType.ENTITYNAME: _text,
    ColumnType.INTEGER: _integer,
    ColumnType.BIGINT: _integer,
    ColumnType.PICKLIST: _integer,
    ColumnType.STATE: _integer,
    ColumnType.STATUS: _integer,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DOUBLE: _double,
    ColumnType.MULTISELECT: _multi,
    ColumnType.DATETIME: _datetime,
}
