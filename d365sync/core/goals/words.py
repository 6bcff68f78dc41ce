"""Words for people: states, statuses, values and conditions of a query.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.ast import Condition, Placeholder
from d365sync.core.schema import Column, DateBehavior
from d365sync.core.values import Value, format_instant, plain

STATE_NAMES: Mapping[str, tuple[str, ...]] = {
    "opportunity": ("open", "won", "lost"),
    "lead": ("open", "qualified", "disqualified"),
    "quote": ("draft", "active", "won", "closed"),
    "salesorder": ("active", "submitted", "cancelled", "fulfilled", "invoiced"),
    "invoice": ("active", "closed", "paid", "cancelled"),
    "incident": ("active", "resolved", "cancelled"),
    "campaignresponse": ("open", "closed", "cancelled"),
    "phonecall": ("open", "completed", "cancelled"),
    "appointment": ("open", "completed", "cancelled", "scheduled"),
    "task": ("open", "completed", "cancelled"),
    "email": ("open", "completed", "cancelled"),
}
"""Names of ``statecode`` 0, 1, 2 … of the tables goals usually count. Source: table references (statecode)."""


def state_words(table: str, code: Value) -> str:
    """Return a state in words: ``won (statecode 1)``, or the code alone where the table's names are not known."""
    names = STATE_NAMES.get(table, ())
    if code is None:
        return "no state"
    if isinstance(code, int) and 0 <= code < len(names):
        return f"{names[code]} (statecode {code})"
    return f"statecode {code}"


def value_words(value: Value, names: Mapping[str, str], zone: ZoneInfo, column: Column | None = None) -> str:
    """Return a value in words: a user's name for an id, a day in ``zone`` beside an instant, ``empty`` for null."""
    if value is None or value == frozenset():
        return "empty"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, dt.datetime):
        wall = column is not None and column.date_behavior is DateBehavior.TIME_ZONE_INDEPENDENT
        return value.strftime("%Y-%m-%d %H:%M:%S") if wall else instant_words(value, zone)
    if isinstance(value, frozenset):
        return ", ".join(str(one) for one in sorted(value))
    if isinstance(value, str):
        return names.get(value, value)
    return str(value)


def instant_words(instant: dt.datetime, zone: ZoneInfo) -> str:
    """Return an instant, with the day and time it is in ``zone`` where that is not UTC."""
    if zone.key == "UTC":
        return format_instant(instant)
    return f"{format_instant(instant)} ({instant.astimezone(zone):%Y-%m-%d %H:%M} {zone.key})"


def condition_words(condition: Condition, names: Mapping[str, str]) -> str:
    """Return a condition as it is asked: ``estimatedvalue ge 10000``, ``account.name like Acme%``."""
    subject = f"{condition.entityname}.{condition.attribute}" if condition.entityname else condition.attribute
    if condition.valueof is not None:
        return f"{subject} {condition.operator} {condition.valueof}"
    values = ", ".join(v.name if isinstance(v, Placeholder) else names.get(v, v) for v in condition.values)
    return f"{subject} {condition.operator} {values}".rstrip()
