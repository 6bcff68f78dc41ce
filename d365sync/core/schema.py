"""Tables and columns as metadata describes them: what the compiler, the mirror and the emulator agree on.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from d365sync.errors import SchemaError


class ColumnType(StrEnum):
    """Column types, spelled as ``AttributeType`` spells them in EntityDefinitions, lower case."""

    UNIQUEIDENTIFIER = "uniqueidentifier"
    STRING = "string"
    MEMO = "memo"
    ENTITYNAME = "entityname"
    INTEGER = "integer"
    BIGINT = "bigint"
    DECIMAL = "decimal"
    DOUBLE = "double"
    MONEY = "money"
    BOOLEAN = "boolean"
    PICKLIST = "picklist"
    MULTISELECT = "multiselectpicklist"
    STATE = "state"
    STATUS = "status"
    DATETIME = "datetime"
    LOOKUP = "lookup"
    OWNER = "owner"
    CUSTOMER = "customer"


LOOKUP_TYPES = frozenset({ColumnType.LOOKUP, ColumnType.OWNER, ColumnType.CUSTOMER})
GUID_TYPES = LOOKUP_TYPES | {ColumnType.UNIQUEIDENTIFIER}
CHOICE_TYPES = frozenset({ColumnType.PICKLIST, ColumnType.STATE, ColumnType.STATUS})
TEXT_TYPES = frozenset({ColumnType.STRING, ColumnType.MEMO, ColumnType.ENTITYNAME})


class DateBehavior(StrEnum):
    """``DateTimeBehavior`` of a date column. Source: behavior-format-date-time-attribute."""

    USER_LOCAL = "UserLocal"
    DATE_ONLY = "DateOnly"
    TIME_ZONE_INDEPENDENT = "TimeZoneIndependent"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    ``date_behavior`` is set exactly for DATETIME; ``precision`` is the number of decimal places of
    DECIMAL and MONEY; ``targets`` are the tables a lookup may point to; ``is_base_currency`` marks
    the ``_base`` companion of a money column; ``is_primary_id`` the key. ``labels`` are the options of a choice or
    two-options column by value, in the reader's language; empty where nobody asked for them. A column that
    ``is_secured`` shows its values only to whom a column security profile lets read it.
    """

    logical_name: str
    type: ColumnType
    date_behavior: DateBehavior | None = None
    precision: int | None = None
    targets: tuple[str, ...] = ()
    is_base_currency: bool = False
    valid_for_create: bool = True
    valid_for_update: bool = True
    is_primary_id: bool = False
    labels: tuple[tuple[int, str], ...] = ()
    is_secured: bool = False

    @property
    def is_lookup(self) -> bool:
        """Whether the Web API spells the column ``_name_value``."""
        return self.type in LOOKUP_TYPES

    @property
    def is_polymorphic(self) -> bool:
        """Whether a row must also say which table the lookup points to (``<name>type``)."""
        return self.is_lookup and (self.type is not ColumnType.LOOKUP or len(self.targets) > 1)

    @property
    def property_name(self) -> str:
        """The Web API property: ``_ownerid_value`` for lookups, the logical name otherwise."""
        return f"_{self.logical_name}_value" if self.is_lookup else self.logical_name

    @property
    def type_name(self) -> str:
        """The companion that holds a polymorphic lookup's table: ``owneridtype``."""
        return f"{self.logical_name}type"


@dataclass(frozen=True, slots=True)
class Table:
    """One table; ``columns`` is keyed by logical name.

    ``hierarchy_parent`` names the lookup column of the table's hierarchical relationship, if it has one
    (``under``, ``above`` and their family need it).
    """

    logical_name: str
    entity_set_name: str
    primary_id: str
    primary_name: str | None
    columns: Mapping[str, Column] = field(repr=False)
    change_tracking: bool = False
    optimistic_concurrency: bool = True
    hierarchy_parent: str | None = None
    object_type_code: int | None = None

    def column(self, logical_name: str) -> Column:
        """Return the column.

        Raises:
            SchemaError: the table has no such column.
        """
        try:
            return self.columns[logical_name]
        except KeyError:
            raise SchemaError(
                f"table '{self.logical_name}' has no column '{logical_name}'",
                table=self.logical_name,
                column=logical_name,
            ) from None

    def base_of(self, logical_name: str) -> Column | None:
        """Return the base-currency column of a money column: its ``_base`` companion, or itself if it is one.

        None when the table has no companion for it.
        """
        column = self.column(logical_name)
        return column if column.is_base_currency else self.columns.get(f"{logical_name}_base")


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables known, keyed by logical name."""

    tables: Mapping[str, Table]

    @classmethod
    def of(cls, tables: Iterable[Table]) -> Schema:
        """Build a schema from tables."""
        return cls({table.logical_name: table for table in tables})

    def table(self, logical_name: str) -> Table:
        """Return the table.

        Raises:
            SchemaError: there is no such table.
        """
        try:
            return self.tables[logical_name]
        except KeyError:
            raise SchemaError(f"there is no table '{logical_name}'", table=logical_name) from None
