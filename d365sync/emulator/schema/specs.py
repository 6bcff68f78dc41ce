"""How a table is written down: the shape of ``tables/*.json`` and of an org folder's ``schema.json``.

A column is a type text (``"money"``, ``"decimal:5"``, ``"datetime:dateonly"``, ``"lookup:account,contact"``) or an
object with further facts. ``access`` holds ``c`` and ``u`` for valid on create and update; ``r`` is neither.

Pure.
"""

from __future__ import annotations

import msgspec

from d365sync.core.schema import ColumnType, DateBehavior

BEHAVIORS = {behavior.value.lower(): behavior for behavior in DateBehavior}
FIXED_TARGETS = {ColumnType.OWNER: ("systemuser", "team"), ColumnType.CUSTOMER: ("account", "contact")}
DEFAULT_DECIMAL_PRECISION = 10


class ColumnSpec(msgspec.Struct, forbid_unknown_fields=True):
    """One column as written down; see the module."""

    type: str
    access: str = "cu"
    options: dict[int, str] = {}
    states: dict[int, int] = {}
    default: bool | int | None = None
    format: str | None = None
    min: int | None = None
    max: int | None = None
    max_length: int | None = None
    navigation: dict[str, str] = {}
    secured: bool = False


class TableSpec(msgspec.Struct, forbid_unknown_fields=True):
    """One table as written down; what is None takes its default when the table is built."""

    columns: dict[str, str | ColumnSpec]
    logical_name: str | None = None
    primary_key: str | None = None
    primary_name: str | None = None
    entity_set: str | None = None
    hierarchy_parent: str | None = None
    change_tracking: bool | None = None
    object_type_code: int | None = None
    privilege: str | None = None
    ownership: str | None = None
    collections: dict[str, tuple[str, str]] = {}
    keys: dict[str, list[str]] = {}
    bulk_messages: bool | None = None


class ColumnKind(msgspec.Struct, frozen=True):
    """What a type text says."""

    type: ColumnType
    behavior: DateBehavior | None = None
    precision: int | None = None
    targets: tuple[str, ...] = ()


def column_kind(text: str) -> ColumnKind:
    """Read a type text.

    Raises:
        ValueError: it is not one.
    """
    name, _, argument = text.partition(":")
    try:
        kind = ColumnType(name)
    except ValueError:
        raise ValueError(f"there is no column type '{name}'") from None
    match kind:
        case ColumnType.DATETIME:
            return ColumnKind(kind, behavior=_behavior(argument))
        case ColumnType.DECIMAL:
            return ColumnKind(kind, precision=_precision(argument))
        case ColumnType.MONEY:
            return ColumnKind(kind, precision=4)
        case ColumnType.LOOKUP:
            return ColumnKind(kind, targets=_targets(argument))
    if argument:
        raise ValueError(f"type '{name}' takes nothing after a colon")
    return ColumnKind(kind, targets=FIXED_TARGETS.get(kind, ()))


def entity_set_name(logical_name: str) -> str:
    """Return the entity set name a custom table gets: its name in the plural."""
    if logical_name.endswith("y"):
        return f"{logical_name[:-1]}ies"
    return f"{logical_name}es" if logical_name.endswith(("s", "x", "ch")) else f"{logical_name}s"


def _behavior(argument: str) -> DateBehavior:
    if argument not in BEHAVIORS:
        raise ValueError(f"a datetime column needs a behaviour: one of {', '.join(BEHAVIORS)}")
    return BEHAVIORS[argument]


def _precision(argument: str) -> int:
    if not argument:
        return DEFAULT_DECIMAL_PRECISION
    if not argument.isdecimal() or int(argument) > 12:
        raise ValueError(f"'{argument}' is not a number of decimal places (0 to 12)")
    return int(argument)


def _targets(argument: str) -> tuple[str, ...]:
    targets = tuple(part.strip() for part in argument.split(",") if part.strip())
    if not targets:
        raise ValueError("a lookup column needs the tables it points to, as in lookup:account")
    return targets
