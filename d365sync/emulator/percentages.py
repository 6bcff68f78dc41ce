"""Goal columns by data type, and the percentage achieved.

Source: Define goal metric and rollup fields (which columns a metric fills); Create goal hierarchy, goals, and
targets (percentage = actual / target * 100).

Pure.
"""

from __future__ import annotations

from decimal import Decimal

from d365sync.core.values import Row, Value
from d365sync.emulator.wire import EXACT, at_scale

KINDS = ("money", "decimal", "integer")
"""By ``amountdatatype``: 0 Money, 1 Decimal, 2 Integer."""
CATEGORIES = ("actual", "inprogress", "customrollupfield")
QUERY_CATEGORIES = {"actual": "actual", "inprogress": "inprogress", "customrollupfield": "custom"}
ROLLUP_COLUMNS = frozenset(f"{category}{kind}" for category in CATEGORIES for kind in KINDS)
_LARGEST = Decimal(10) ** 11


def kind_of(goal: Row) -> str | None:
    """Return the goal's data type; None when it has none."""
    code = goal.get("amountdatatype")
    return KINDS[code] if isinstance(code, int) and 0 <= code < len(KINDS) else None


def percentage_of(goal: Row, rounding: str) -> Decimal | None:
    """Return 100 * actual / target as a whole number; None without actual or without a target other than 0.

    A value that does not fit the column is stored as 0. Source: error 0x8004F682.
    """
    kind = kind_of(goal)
    actual, target = goal.get(f"actual{kind}"), goal.get(f"target{kind}")
    if kind is None or actual is None or not target:
        return None
    share = EXACT.divide(100 * as_decimal(actual), as_decimal(target))
    whole = at_scale(share, 0, rounding)
    return whole if abs(whole) <= _LARGEST else Decimal(0)


def as_decimal(value: Value) -> Decimal:
    """Return a numeric value as a decimal; floating point by its shortest text."""
    return Decimal(str(value)) if isinstance(value, float) else Decimal(value)  # type: ignore[arg-type]
