"""Formatted values: the text a person would see. Source: Compose HTTP requests (formatted values annotation).

Assumed: English, M/D/YYYY, the reader's zone is UTC; money with its currency's symbol and precision.

Pure.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import cast

from d365sync.core.schema import CHOICE_TYPES, ColumnType
from d365sync.core.values import Row, Value
from d365sync.emulator.facts import ColumnFacts
from d365sync.emulator.kept import CURRENCY, base_currency
from d365sync.emulator.shown import shown_row
from d365sync.emulator.store import Store
from d365sync.emulator.wire import at_scale


def formatted(facts: ColumnFacts, value: Value, row: Row, store: Store) -> str | None:
    """Return the formatted value; None for columns that have none (text, guids)."""
    column = facts.column
    if column.is_lookup:
        return _name_of(facts, value, row, store)
    match column.type:
        case ColumnType.BOOLEAN:
            return facts.options.get(int(cast("bool", value)))
        case ColumnType.MONEY:
            return _money(facts, cast("Decimal", value), row, store)
        case ColumnType.DATETIME:
            return _moment(facts, cast("dt.date", value))
        case ColumnType.MULTISELECT:
            chosen = sorted(cast("frozenset[int]", value))
            return "; ".join(facts.options.get(one, str(one)) for one in chosen)
        case ColumnType.DECIMAL | ColumnType.INTEGER | ColumnType.BIGINT | ColumnType.DOUBLE:
            return f"{value:,}"
    return facts.options.get(cast("int", value)) if column.type in CHOICE_TYPES else None


def lookup_target(facts: ColumnFacts, row: Row) -> str:
    """Return the table a lookup's value points to."""
    column = facts.column
    return str(row.get(column.type_name) or column.targets[0]) if column.is_polymorphic else column.targets[0]


def _name_of(facts: ColumnFacts, value: Value, row: Row, store: Store) -> str | None:
    target = lookup_target(facts, row)
    found = shown_row(store, target, value)
    if found is None:
        return None
    name = store.catalogue.tables[target].table.primary_name
    return str(found[name]) if name and found.get(name) is not None else None


def _money(facts: ColumnFacts, value: Decimal, row: Row, store: Store) -> str:
    in_base = facts.column.is_base_currency or row.get(CURRENCY) is None
    currency = store.get("transactioncurrency", base_currency(store) if in_base else row.get(CURRENCY)) or {}
    places = currency.get("currencyprecision")
    shown = at_scale(abs(value), places if isinstance(places, int) else 2, store.settings.rounding)
    text = f"{currency.get('currencysymbol') or ''}{shown:,}"
    return f"({text})" if value < 0 else text


def _moment(facts: ColumnFacts, value: dt.date) -> str:
    day = f"{value.month}/{value.day}/{value.year}"
    if facts.date_format == "DateOnly" or not isinstance(value, dt.datetime):
        return day
    return f"{day} {value.hour % 12 or 12}:{value.minute:02d} {'AM' if value.hour < 12 else 'PM'}"
