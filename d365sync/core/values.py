"""The scalar values of Dataverse rows, and their wire spellings.

A row is a mapping from logical name to value. Lookups are keyed by their logical name
(``ownerid``, not ``_ownerid_value``) and hold a guid; the table a polymorphic lookup points to
stands beside it under the name the platform gives it, ``<lookup>type`` (``owneridtype``).

===============================  ==========================================================
column type                      Python value
===============================  ==========================================================
guid, lookup, owner, customer    ``str``: 36 lower-case characters, no braces
text, memo, entity name          ``str``
whole number, big integer        ``int``
choice, state, status            ``int``
two options                      ``bool``
money, decimal                   ``Decimal`` (never a float)
floating point number            ``float``
multi-select choice              ``frozenset[int]``
date, behaviour DateOnly         ``datetime.date``
date, behaviour UserLocal        aware ``datetime`` in UTC: an instant
date, TimeZoneIndependent        ``datetime`` tagged UTC, but meaning wall-clock time
===============================  ==========================================================

Pure.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TypeAlias

Value: TypeAlias = str | int | bool | Decimal | float | dt.date | dt.datetime | frozenset[int] | None
Row: TypeAlias = Mapping[str, Value]

MONEY_SCALE = 4
"""Stored decimal places of a Money column. Source: goal table reference, precision 4."""

_GUID = re.compile(r"\{?([0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})\}?")

_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')


def is_etag(text: str) -> bool:
    """Say whether a text is the etag of one version and may stand in a header; ``*`` is none.

    Source: RFC 9110, entity tags (only those of ASCII letters are taken).
    """
    return _ETAG.fullmatch(text) is not None


def parse_guid(text: str) -> str:
    """Return the guid in lower case without braces.

    Raises:
        ValueError: ``text`` is not a guid.
    """
    match = _GUID.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a guid: {text[:60]!r}")
    return match.group(1).lower()


def parse_instant(text: str) -> dt.datetime:
    """Read an ISO 8601 date and time with ``Z`` or an offset; the result is in UTC, to the second.

    A text without zone is taken as UTC, as the Web API does.
    Source: behavior-format-date-time-attribute (input may have Z or an offset; none means UTC).

    Raises:
        ValueError: ``text`` is not a date and time.
    """
    value = dt.datetime.fromisoformat(text.strip())
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.UTC)
    return value.astimezone(dt.UTC).replace(microsecond=0)


def format_instant(value: dt.datetime) -> str:
    """Write an instant as the Web API does: ``2026-01-31T20:30:00Z``.

    Raises:
        ValueError: ``value`` has no zone.
    """
    if value.tzinfo is None:
        raise ValueError("an instant needs a zone")
    return f"{value.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def parse_on(text: str) -> dt.date:
    """Read a calendar date, ``YYYY-MM-DD``.

    Raises:
        ValueError: ``text`` is not a calendar date.
    """
    return dt.date.fromisoformat(text.strip())


def plain(value: Decimal) -> str:
    """Write a decimal without exponent and without needless zeros: ``42500``, ``0.5``."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text if text not in ("-0", "") else "0"
