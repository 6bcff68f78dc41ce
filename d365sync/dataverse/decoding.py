"""Pages of rows, decoded once, straight to what is stored: exact, column by column, without a mapping per row.

A page of the shape the protocol promises is taken apart by a decoder made for its table and checked and respelled by
columns. Anything else (another spelling of an id, a number too large, a value of a wrong type) is read row by row by
:mod:`~d365sync.dataverse.wire`, which accepts it, or leaves the value out and names row and column: one meaning, two
speeds.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from operator import attrgetter
from types import NoneType
from typing import Any, TypeAlias

import msgspec

from d365sync.core.rowshape import ETAG_KEY, RowShape, Stored, StoredRow
from d365sync.core.schema import GUID_TYPES, TEXT_TYPES, Column, ColumnType, DateBehavior, Table
from d365sync.core.storage import EXACT, INT64_MAX, has_fold, scale_of
from d365sync.core.values import is_etag
from d365sync.dataverse.damaged import decode_damaged
from d365sync.dataverse.wire import LOOKUP_LOGICAL_NAME, TOO_DEEP, RowReader, decode_json, page_of
from d365sync.errors import ProtocolError

Values: TypeAlias = Sequence[Any]
Respell: TypeAlias = Callable[[Values], Sequence[Stored]]

DELETED = "/$deletedEntity"
NUL = b"\\u0000"
"""How a character that no database takes is spelled."""
ROWS_START, ROWS_END = b'"value":[', b'],"@odata.'
LINKS_WITHIN = 4096
"""Bytes at either end of a page in which its own properties are looked for before all of it is gone through."""
ROWS_AT_ONCE = 1000
"""Rows whose columns are respelled together: few passes, and they stay in the processor's cache."""
WIDEST = 18
"""Power of ten that fits 64 bits."""
_HOURS = frozenset(f"{hour:02}" for hour in range(24))
_SIXTIES = frozenset("012345")
_ALL_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_whole_numbers = msgspec.json.Decoder(list[int])
_BITS = {None: None, False: 0, True: 1}


@dataclass(frozen=True, slots=True)
class StoredPage:
    """One page in stored spelling; see :class:`~d365sync.core.rowshape.RowShape` for the order of a row.

    ``damaged`` says which values were left out, and why; their rows are there.
    """

    rows: Sequence[StoredRow]
    deleted: Sequence[str] = ()
    next_link: str | None = None
    delta_link: str | None = None
    size_bytes: int = field(default=0, compare=False)
    damaged: Sequence[str] = field(default=(), compare=False)


class Links(msgspec.Struct, rename={"next": "@odata.nextLink", "delta": "@odata.deltaLink"}, gc=False):
    """Where a page says to go on, now and later; its rows are passed over."""

    next: str | None = None
    delta: str | None = None


_links = msgspec.json.Decoder(Links)


def links_of(body: bytes) -> Links:
    """Return the links of a page without decoding its rows; none also when it is no page, as decoding will tell.

    Raises:
        ProtocolError: it is nested too deeply.
    """
    found = _links_at_end(body)
    if found is not None:
        return found
    try:
        return _links.decode(body)
    except RecursionError:
        raise ProtocolError(TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        found = decode_damaged(body)
    except ProtocolError:
        return Links()
    links = [found.get(name) for name in Links.__struct_encode_fields__] if isinstance(found, dict) else []
    return Links(*(one if isinstance(one, str) else None for one in links))


def _links_at_end(body: bytes) -> Links | None:
    """Return the links that stand after the rows, where they usually do; None when that cannot be told.

    What is searched for can be no part of a string, in which quotation marks are escaped. If all from there on closes
    one object more than it opens, that object is the page. Names before the rows are looked through for further links.
    """
    end = body.rfind(ROWS_END, -LINKS_WITHIN)
    start = body.find(ROWS_START, 0, LINKS_WITHIN)
    if end < 0 or start < 0 or b"Link" in body[:start]:
        return None
    try:
        return _links.decode(b"{" + body[end + 2 :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class _UnusualError(Exception):
    """A page that the fast way does not take; it may be right all the same."""


class PageDecoder:
    """Decodes the pages of one table. One decoder may be used by many threads."""

    def __init__(self, shape: RowShape) -> None:
        self._shape = shape
        self._plan: list[tuple[int, Respell, bool]] = []
        names: list[str] = []
        for column in shape.columns:
            self._plan.append((len(names), _respell(column, shape), has_fold(column)))
            names.append(column.property_name)
            if column.is_polymorphic:
                self._plan.append((len(names), _text, False))
                names.append(f"{column.property_name}@{LOOKUP_LOGICAL_NAME}")
        self._etag = len(names)
        names.append(ETAG_KEY)
        marks = ("@odata.context", "id")
        self._usable = not set(marks) & set(names)
        fields = [f"f{at}" for at in range(len(names) + len(marks))]
        entry = msgspec.defstruct(
            "Entry",
            [(name, Any, None) for name in fields],
            rename=dict(zip(fields, (*names, *marks), strict=True)),
            gc=False,
        )
        envelope = msgspec.defstruct(
            "Envelope",
            [("value", list[entry]), ("next", str | None, None), ("delta", str | None, None)],  # type: ignore[valid-type]
            rename={"next": "@odata.nextLink", "delta": "@odata.deltaLink", "value": "value"},
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(envelope, float_hook=str.encode)
        self._context, self._id = attrgetter(fields[-2]), attrgetter(fields[-1])

    @property
    def table(self) -> Table:
        """The table whose pages these are."""
        return self._shape.table

    @property
    def column_names(self) -> tuple[str, ...]:
        """Logical names of the columns, the key first."""
        return self._shape.column_names

    def read(self, body: bytes) -> StoredPage:
        """Decode one page. A value that is not of its column's type is left out and named; its neighbours are there.

        Raises:
            ProtocolError: not a page, or a key that is none.
        """
        if self._usable and NUL not in body:
            try:
                return self.read_columns(body)
            except (_UnusualError, msgspec.DecodeError, ArithmeticError, ValueError, TypeError, RecursionError):
                pass
        return self.read_row_by_row(body)

    def read_row_by_row(self, body: bytes) -> StoredPage:
        """Decode one page of any spelling; see :meth:`read`."""
        shape = self._shape
        told: list[str] = []
        reader = RowReader(shape.table, shape.column_names)

        def read(raw: Mapping[str, Any]) -> StoredRow:
            damaged: dict[str, str] = {}
            row = shape.stored(reader.read(raw, damaged), damaged)
            told.extend(damaged.values())
            return row

        try:
            document = decode_json(body)
        except ProtocolError:
            document = decode_damaged(body)
        return StoredPage(*page_of(document, shape.table, read), len(body), told)

    def read_columns(self, body: bytes) -> StoredPage:
        """Decode one page of the usual spelling; any exception means that it must be read row by row."""
        envelope = self._decoder.decode(body)
        entries = envelope.value
        deleted: Sequence[str] = ()
        if any(map(self._context, entries)):
            gone = [one for one in entries if self._context(one)]
            if any(not str(self._context(one)).endswith(DELETED) for one in gone):
                raise _UnusualError
            deleted = _guids([self._id(one) for one in gone])
            entries = [one for one in entries if not self._context(one)]
        rows: list[StoredRow] = []
        for start in range(0, len(entries), ROWS_AT_ONCE):
            rows += self._rows(entries[start : start + ROWS_AT_ONCE])
        return StoredPage(rows, deleted, envelope.next or None, envelope.delta or None, size_bytes=len(body))

    def _rows(self, entries: Sequence[Any]) -> Sequence[StoredRow]:
        found = list(zip(*map(msgspec.structs.astuple, entries), strict=True))
        if None in found[0]:
            raise _UnusualError
        columns: list[Sequence[Stored]] = []
        for at, respell, folded in self._plan:
            column = respell(found[at])
            columns.append(column)
            if folded:
                columns.append([None if one is None else one.casefold() for one in column])  # type: ignore[union-attr]
        columns += [[None] * len(entries), _etags(found[self._etag])]
        return list(zip(*columns, strict=True))


def _respell(column: Column, shape: RowShape) -> Respell:
    if column.logical_name in shape.as_text:
        return _number_text
    if column.type in GUID_TYPES:
        return _guid_column
    if column.type in TEXT_TYPES:
        return _text
    if column.type is ColumnType.DATETIME:
        return _dates if column.date_behavior is DateBehavior.DATE_ONLY else _instants
    if column.type in (ColumnType.MONEY, ColumnType.DECIMAL):
        return _scaled(scale_of(column))
    respells: dict[ColumnType, Respell] = {
        ColumnType.DOUBLE: _doubles,
        ColumnType.BOOLEAN: _bits,
        ColumnType.MULTISELECT: _choices,
    }
    return respells.get(column.type, _whole)


def _only(values: Values, *types: type) -> set[type]:
    """Return the types of values, which must be among these or None."""
    found = set(map(type, values))
    if not found <= {NoneType, *types}:
        raise _UnusualError
    return found


def _present(values: Values, *types: type) -> Values:
    """Return the values that are there, which must be of these types."""
    return [one for one in values if one is not None] if NoneType in _only(values, *types) else values


def _text(values: Values) -> Sequence[Stored]:
    _only(values, str)
    return values


def _etags(values: Values) -> Sequence[Stored]:
    """Return the etags, None for what is none; usual ones (``W/"7"``) are known in a few passes over all at once."""
    present = _present(values, str)
    count = len(present)
    text = "\n".join(["", *present, ""])
    left = text.encode("ascii", "replace").translate(None, b"0123456789")
    if left == b"\n" + b'W/""\n' * count and text.count('\nW/"') == text.count('"\n') == count:
        return values
    return [None if one is None or not is_etag(one) else one for one in values]


def _whole(values: Values) -> Sequence[Stored]:
    present = _present(values, int)
    if present and not -INT64_MAX <= min(present) <= max(present) <= INT64_MAX:
        raise _UnusualError
    return values


def _bits(values: Values) -> Sequence[Stored]:
    _only(values, bool)
    return [_BITS[one] for one in values]


def _doubles(values: Values) -> Sequence[Stored]:
    _only(values, int, bytes)
    return [None if one is None else float(one) for one in values]


def _number_text(values: Values) -> Sequence[Stored]:
    _only(values, int, bytes)
    return [None if one is None else str(_decimal(one)) for one in values]


def _decimal(number: int | bytes) -> Decimal:
    """Return the number of a text that the JSON decoder found to be one."""
    return Decimal(number) if isinstance(number, int) else Decimal(number.decode("ascii"))


def _scaled(places: int) -> Respell:
    ending = b"." + b"0" * places + b","

    def respell(values: Values) -> Sequence[Stored]:
        types = _only(values, int, bytes)
        if int not in types:
            present = [one for one in values if one is not None] if NoneType in types else values
            text = b",".join(present) + b","
            if (
                text.translate(_ALL_ZEROS).count(ending) == len(present)
                and max(map(len, present), default=0) <= WIDEST + 1
            ):
                return _between_nothing(values, _without_points(text))
        return [None if one is None else _whole_number(one, places) for one in values]

    return respell


def _without_points(text: bytes) -> Sequence[int]:
    """Return numbers that all have the places that are kept, as whole numbers: their digits without the point."""
    digits = text[:-1].replace(b".", b"")
    try:
        return _whole_numbers.decode(b"[" + digits + b"]")
    except msgspec.DecodeError:  # zeros before the first digit are no JSON
        return list(map(int, digits.split(b","))) if digits else []


def _whole_number(number: int | bytes, places: int) -> int:
    exact = _decimal(number).scaleb(places, EXACT)
    if exact.adjusted() >= WIDEST:
        raise _UnusualError
    whole = int(exact)
    if whole != exact:
        raise _UnusualError
    return whole


def _between_nothing(values: Values, present: Sequence[int]) -> Sequence[Stored]:
    """Put the values that are there back to where they stood."""
    if len(present) == len(values):
        return present
    remaining = iter(present)
    return [None if one is None else next(remaining) for one in values]


def _choices(values: Values) -> Sequence[Stored]:
    _only(values, str)
    spelled: dict[Any, Stored] = {None: None}
    for one in set(values) - {None}:
        chosen = sorted({int(part) for part in one.split(",") if part})
        spelled[one] = f",{','.join(map(str, chosen))}," if chosen else None
    return [spelled[one] for one in values]


def _guid_column(values: Values) -> Sequence[Stored]:
    _guids(_present(values, str))
    return values


def _guids(present: Sequence[Any]) -> Sequence[str]:
    """Check that all are ids in lower case without braces, in a few passes over all of them at once."""
    text = _joined(present, 37)
    dashes = "-" * len(present)
    if any(text[at::37] != dashes for at in (8, 13, 18, 23)):
        raise _UnusualError
    if len(text.encode("ascii", "replace").translate(None, b"0123456789abcdef")) != 5 * len(present):
        raise _UnusualError
    return present


def _instants(values: Values) -> Sequence[Stored]:
    present = _present(values, str)
    text = _joined(present, 21)
    count = len(present)
    if any(text[at::21] != mark * count for at, mark in ((10, "T"), (13, ":"), (16, ":"), (19, "Z"))):
        raise _UnusualError
    if len(text.encode("ascii", "replace").translate(None, b"0123456789")) != 7 * count:
        raise _UnusualError
    if not (set(text[14::21]) <= _SIXTIES and set(text[17::21]) <= _SIXTIES):
        raise _UnusualError
    if not {one[11:13] for one in present} <= _HOURS:
        raise _UnusualError
    _check_days({one[:10] for one in present})
    return values


def _dates(values: Values) -> Sequence[Stored]:
    present = _present(values, str)
    _joined(present, 11)
    _check_days(set(present))
    return values


def _check_days(days: set[str]) -> None:
    for day in days:
        if not (day.isascii() and day[4] == day[7] == "-"):
            raise _UnusualError
        dt.date.fromisoformat(day)


def _joined(present: Sequence[Any], width: int) -> str:
    """Return all texts one after the other, each ended by a line feed and together ``width`` long.

    A text of another length would move all that follow, and be seen by the marks that stand elsewhere then. What is no
    text cannot be joined.
    """
    if not present:
        return ""
    text = "\n".join(present) + "\n"
    if len(text) != width * len(present) or text[width - 1 :: width] != "\n" * len(present):
        raise _UnusualError
    return text
