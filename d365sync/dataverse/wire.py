"""The Web API's messages as values: rows, pages, errors, request bodies.

Source: Compose HTTP requests and handle errors; Query data using the Web API; Use change tracking.

Pure.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from d365sync.core.schema import GUID_TYPES, TEXT_TYPES, Column, ColumnType, DateBehavior, Table
from d365sync.core.values import Value, format_instant, is_etag, parse_guid, parse_instant, parse_on
from d365sync.errors import (
    AuthError,
    BookmarkExpiredError,
    ConflictError,
    MisfitError,
    ProtocolError,
    RejectedError,
    RemoteError,
    RetryableError,
)

LOOKUP_LOGICAL_NAME = "Microsoft.Dynamics.CRM.lookuplogicalname"
ETAG = "@odata.etag"

TOO_DEEP = "the answer is JSON nested too deeply"
EXPIRED_BOOKMARK = "0x80044352"
RETRYABLE_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
HINTS = {
    "0x80072560": "create an application user for the app registration in this environment",
    "0x80040220": "give the application user a security role with that privilege (read at organization level)",
    "0x80042F09": "give the application user a security role",
}
ACT_ON_BEHALF = "prvActOnBehalfOfAnotherUser"
ACT_ON_BEHALF_HINT = (
    f"give the application user itself (not a team of it) a security role with {ACT_ON_BEHALF}, such as Delegate"
)
"""Source: Impersonate another user (direct assignment required)."""

Entry = TypeVar("Entry")

_TENANT = re.compile(r"authorization_uri=\"?https://[^/\s]+/([0-9a-fA-F-]{36})/")
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f]")
_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Page:
    """One page of rows: typed rows, ids of deleted rows, and where to go on.

    Exactly one of ``next_link`` and ``delta_link`` is set when there is more, or when changes are tracked.
    """

    rows: Sequence[Mapping[str, Value]]
    deleted: Sequence[str] = ()
    next_link: str | None = None
    delta_link: str | None = None
    size_bytes: int = field(default=0, compare=False)


def decode_json(body: bytes) -> Any:
    """Decode a JSON document; numbers with a fraction become Decimal, exactly.

    Raises:
        ProtocolError: the body is not JSON (an HTML page with status 200, a truncated answer).
    """
    try:
        return _decoder.decode(body)
    except RecursionError:
        raise ProtocolError(TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError) as error:
        start = body[:40].decode("utf-8", "replace").strip()
        raise ProtocolError(f"the answer is not JSON ({error}); it begins with {start!r}") from None


def decode_object(body: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        ProtocolError: the body is not a JSON object.
    """
    document = decode_json(body)
    if not isinstance(document, dict):
        raise ProtocolError("the answer is JSON but not an object")
    return document


def encode_body(columns: Mapping[str, object]) -> bytes:
    """Encode the columns of a write: Decimals as bare numbers, instants with ``Z``."""
    return _encoder.encode({name: _outgoing(value) for name, value in columns.items()})


def read_page(body: bytes, table: Table, columns: Iterable[str]) -> Page:
    """Decode one page of a collection.

    Raises:
        ProtocolError: not a collection, or a value that is not of its column's type.
    """
    return Page(*page_of(decode_object(body), table, RowReader(table, columns).read), len(body))


def page_of(
    document: object, table: Table, read: Callable[[Mapping[str, Any]], Entry]
) -> tuple[list[Entry], list[str], str | None, str | None]:
    """Return what a page is made of: its rows as ``read`` makes them, ids of deleted rows, next and delta link.

    Raises:
        ProtocolError: not a collection, or what ``read`` raises.
    """
    entries = document.get("value") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(entries, list):
        raise ProtocolError(f"the answer for {table.entity_set_name} has no list of rows")
    rows: list[Entry] = []
    deleted: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise ProtocolError(f"a row of {table.entity_set_name} is not an object")
        if is_deletion(entry):
            deleted.append(_guid(entry.get("id"), table, "id"))
        else:
            rows.append(read(entry))
    return rows, deleted, _link(document, "@odata.nextLink"), _link(document, "@odata.deltaLink")


def is_deletion(entry: Mapping[str, object]) -> bool:
    """Say whether an entry of a delta page is a deleted row. Source: Use change tracking (``$deletedEntity``)."""
    context = entry.get("@odata.context")
    return isinstance(context, str) and context.endswith("/$deletedEntity")


class RowReader:
    """Reads rows of one table: the key, the columns asked for, the etag."""

    def __init__(self, table: Table, columns: Iterable[str]) -> None:
        self._table = table
        names = dict.fromkeys([table.primary_id, *columns])
        self._columns = [(table.column(name), _converter(table.column(name))) for name in names]

    def read(self, raw: Mapping[str, Any], damaged: dict[str, str] | None = None) -> dict[str, Value]:
        """Return a row by logical name; a column that is not in the answer is None, and so is an etag that is none.

        With ``damaged``, a value that is not of its column's type becomes None and its column is added there, with the
        reason; the key must be right all the same.

        Raises:
            MisfitError: a value is not of its column's type, without ``damaged``.
            ProtocolError: the key is missing.
        """
        row: dict[str, Value] = {}
        for column, convert in self._columns:
            value = raw.get(column.property_name)
            target = raw.get(f"{column.property_name}@{LOOKUP_LOGICAL_NAME}") if column.is_polymorphic else None
            try:
                row[column.logical_name] = None if value is None else convert(value)
                if column.is_polymorphic:
                    row[column.type_name] = None if target is None else _as_text(target)
            except (ValueError, TypeError, ArithmeticError, RecursionError):
                place = f"{self._table.logical_name}.{column.logical_name}"
                record = f" (row {str(raw.get(self._table.primary_id))[:40]})"
                reason = f"{place}: {_shown(value)} is not a {column.type} value{record}"
                if damaged is None or column.logical_name == self._table.primary_id:
                    raise MisfitError(reason) from None
                damaged[column.logical_name] = reason
                row |= {column.logical_name: None, **({column.type_name: None} if column.is_polymorphic else {})}
        if row[self._table.primary_id] is None:
            raise ProtocolError(f"a row of {self._table.entity_set_name} has no {self._table.primary_id}")
        etag = raw.get(ETAG)
        row[ETAG] = etag if isinstance(etag, str) and is_etag(etag) else None
        return row


def select_clause(table: Table, columns: Iterable[str]) -> str:
    """Return the ``$select`` text for columns: lookups as ``_name_value``, the key first, in name order."""
    names = [table.primary_id, *sorted(set(columns) - {table.primary_id})]
    return ",".join(table.column(name).property_name for name in names)


def check_link(link: str, api_root: str) -> str:
    """Return a next or delta link if it stays on the API it came from.

    Raises:
        ProtocolError: it points to another scheme, host, port or path; the token must not go there.
    """
    home = urlsplit(api_root)
    try:
        link.encode()
        target = urlsplit(link)
        same = target.scheme == home.scheme == "https" and (_place(target) == _place(home))
    except ValueError:
        target, same = urlsplit(""), False
    path = unquote(unquote(target.path))
    steps = path.removeprefix(home.path.rstrip("/")).split("/")
    inside = target.path.startswith(home.path.rstrip("/") + "/") and not {"..", "."} & set(steps) and "//" not in path
    if not (same and inside) or _UNPRINTED.search(link) or "\\" in path:
        raise ProtocolError(
            f"the server sent a link to {target.scheme}://{target.hostname}, away from {home.netloc}; not followed"
        )
    return link


def delta_token(link: str) -> str:
    """Return the token of a delta link, still percent-encoded.

    Raises:
        ProtocolError: it has none.
    """
    found = re.search(r"[?&](?:\$|%24)deltatoken=([^&#]+)", link)
    if found is None:
        raise ProtocolError("a delta link has no token")
    return found.group(1)


def _place(target: SplitResult) -> tuple[str, int]:
    """Return host and port; raise ValueError for what may be read in two ways: user names, other letters than ASCII."""
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?", target.netloc):
        raise ValueError(target.netloc)
    return target.hostname or "", target.port or 443


def error_of(status: int, headers: Mapping[str, str], body: bytes, what: str) -> RemoteError:
    """Turn an error answer into the exception that says what to do next. ``what`` names the request."""
    code, text = _error_text(body)
    details: dict[str, Any] = {
        "status": status,
        "code": code,
        "request_id": request_id(headers),
        "hint": ACT_ON_BEHALF_HINT if ACT_ON_BEHALF.lower() in text.lower() else HINTS.get(code, ""),
    }
    message = f"{what}: {text or 'no explanation'} (HTTP {status}{f', {code}' if code else ''})"
    if status == 412:
        return ConflictError(message, **details)
    if code == EXPIRED_BOOKMARK:
        return BookmarkExpiredError(message, **details)
    if status in RETRYABLE_STATUSES:
        return RetryableError(message, retry_after_s=retry_after(headers), **details)
    if status in (401, 403):
        return AuthError(message, **details)
    return RejectedError(message, **details)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After``, 0 for a time that is past; None when it is absent or cannot be read.

    A date counts from the answer's own ``Date``, so that this machine's clock does not matter. Source: RFC 9110.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]+)?", text):
        return max(0.0, float(text))
    try:
        asked, sent = (parsedate_to_datetime(value) for value in (text, headers.get("Date", "")))
        return max(0.0, (asked - sent).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def tenant_named(challenge: str) -> str:
    """Return the tenant that a ``WWW-Authenticate`` header names, in lower case; empty when it names none.

    Source: public captures of the challenge (``authorization_uri=https://HOST/TENANT/oauth2/authorize``).
    """
    found = _TENANT.search(challenge)
    return found[1].lower() if found else ""


def request_id(headers: Mapping[str, str]) -> str:
    """Return the id under which Microsoft's support finds the request."""
    return headers.get("x-ms-service-request-id") or headers.get("REQ_ID") or ""


def _error_text(body: bytes) -> tuple[str, str]:
    """Read code and message defensively: gateways answer other shapes, HTML or plain text."""
    try:
        document = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError, RecursionError):
        text = re.sub(r"<[^>]*>", " ", body[:2000].decode("utf-8", "replace"))
        return "", " ".join(text.split())[:200]
    error = document.get("error", document) if isinstance(document, dict) else {}
    if not isinstance(error, dict):
        return "", str(error)[:200]
    message = error.get("message") or error.get("Message") or ""
    return str(error.get("code") or ""), " ".join(str(message).split())[:400]


def _shown(value: object) -> str:
    """Return the beginning of a value; numbers of thousands of digits, and what is nested so, cannot be spelled."""
    try:
        return ascii(str(value)[:40]) if isinstance(value, str) and not value.isprintable() else repr(str(value)[:40])
    except ValueError:
        return "a number of too many digits"
    except RecursionError:
        return "a value nested too deeply"


def _link(document: Mapping[str, object], name: str) -> str | None:
    link = document.get(name)
    return link if isinstance(link, str) and link else None


def _guid(value: object, table: Table, name: str) -> str:
    try:
        return parse_guid(str(value))
    except ValueError:
        raise ProtocolError(f"{table.logical_name}.{name}: {str(value)[:40]!r} is not an id") from None


def _converter(column: Column) -> Callable[[Any], Value]:
    if column.type in GUID_TYPES:
        return lambda value: parse_guid(_as_text(value))
    if column.type in TEXT_TYPES:
        return _as_text
    if column.type is ColumnType.DATETIME:
        return _as_on if column.date_behavior is DateBehavior.DATE_ONLY else _as_instant
    converters: Mapping[ColumnType, Callable[[Any], Value]] = {
        ColumnType.MONEY: _as_decimal,
        ColumnType.DECIMAL: _as_decimal,
        ColumnType.DOUBLE: _as_float,
        ColumnType.BOOLEAN: _as_bool,
        ColumnType.MULTISELECT: _as_choices,
    }
    return converters.get(column.type, _as_whole)


def _as_text(value: object) -> str:
    """Return a text that can be stored anywhere: no half of a surrogate pair, no NUL (PostgreSQL has none)."""
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    value.encode()
    return value


def _as_instant(value: object) -> dt.datetime:
    text = _as_text(value)
    if "T" not in text:
        raise ValueError(text)
    return parse_instant(text)


def _as_on(value: object) -> dt.date:
    return parse_on(_as_text(value))


def _as_decimal(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise TypeError
    return Decimal(value)


def _as_float(value: object) -> float:
    return float(_as_decimal(value))


def _as_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _as_whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _as_choices(value: object) -> frozenset[int]:
    return frozenset(int(part) for part in _as_text(value).split(",") if part)


def _outgoing(value: object) -> object:
    if isinstance(value, dt.datetime):
        return format_instant(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    return value
