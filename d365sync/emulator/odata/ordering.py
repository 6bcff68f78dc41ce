"""What ``$orderby`` means: several columns, each up or down.

Assumed: nulls sort first, text sorts without case, choices by value, lookups by id. Source: Order rows.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from d365sync.core.values import Row, Value
from d365sync.emulator.odata.options import Order


def ordered(rows: Sequence[Row], terms: Sequence[Order]) -> list[Row]:
    """Return rows in the order asked for; rows that are alike keep the order they have."""
    found = list(rows)
    for term in reversed(terms):
        found.sort(key=lambda row, name=term.column: sort_key(row.get(name)), reverse=term.descending)  # type: ignore[misc]
    return found


def sort_key(value: Value) -> tuple[Any, ...]:
    """Return what a value is sorted by."""
    if value is None:
        return (0,)
    if isinstance(value, str):
        return (1, value.casefold())
    return (1, sorted(value)) if isinstance(value, frozenset) else (1, value)
