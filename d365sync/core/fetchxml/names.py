"""What the names of a query stand for in the schema.

Pure.
"""

from __future__ import annotations

from d365sync.core.schema import (
    CHOICE_TYPES,
    GUID_TYPES,
    LOOKUP_TYPES,
    TEXT_TYPES,
    Column,
    ColumnType,
    Schema,
    Table,
)
from d365sync.core.storage import scale_of

_WHOLE = frozenset({ColumnType.INTEGER, ColumnType.BIGINT})
_FAMILIES = (GUID_TYPES, TEXT_TYPES - {ColumnType.ENTITYNAME}, CHOICE_TYPES, _WHOLE)


_NAMED = LOOKUP_TYPES | CHOICE_TYPES | {ColumnType.BOOLEAN}


def find_column(table: Table, name: str) -> Column | None:
    """Return the column of that name or the companion: ``<lookup>type`` (a table), ``<column>name`` (a text)."""
    return table.columns.get(name) or _companion(table, name)


def companion_owner(table: Table, name: str) -> Column | None:
    """Return the polymorphic lookup whose ``<lookup>type`` companion has that name."""
    lookup = table.columns.get(name.removesuffix("type"))
    return lookup if lookup is not None and lookup.is_polymorphic and lookup.type_name == name else None


def named_owner(table: Table, name: str) -> Column | None:
    """Return the lookup, choice or two-options column whose virtual ``<column>name`` companion has that name.

    The companion of a lookup is the primary name of the row it points to, that of a choice the option's label.
    Source: Query data using FetchXML, the virtual name columns that saved queries use.
    """
    owner = None if name in table.columns else table.columns.get(name.removesuffix("name"))
    return owner if owner is not None and owner.type in _NAMED and owner.logical_name != name else None


def name_columns(lookup: Column, schema: Schema) -> list[tuple[Table, Column]]:
    """Return the tables a lookup may point to, each with its primary name; tables that are not known are left out."""
    tables = [schema.tables[name] for name in lookup.targets if name in schema.tables]
    named = [(table, table.columns.get(table.primary_name or "")) for table in tables]
    return [(table, column) for table, column in named if column is not None and column.type is ColumnType.STRING]


def _companion(table: Table, name: str) -> Column | None:
    if companion_owner(table, name) is not None:
        return Column(name, ColumnType.ENTITYNAME)
    return None if named_owner(table, name) is None else Column(name, ColumnType.STRING)


def comparable(one: Column, other: Column) -> bool:
    """Say whether two columns can be compared with each other: the same type, and the same scale.

    Source: Filter rows using FetchXML, cross-column comparisons (columns of the same type).
    """
    if one.type is ColumnType.DECIMAL and other.type is ColumnType.DECIMAL:
        return scale_of(one) == scale_of(other)
    if one.type is ColumnType.DATETIME and other.type is ColumnType.DATETIME:
        return one.date_behavior is other.date_behavior
    return one.type is other.type or any(one.type in family and other.type in family for family in _FAMILIES)


def hierarchy_of(table: Table, column: Column, schema: Schema) -> Table | None:
    """Return the hierarchical table whose keys a column holds: its own table for the key, or the lookup's target.

    Of several targets exactly one may be hierarchical. Assumed: a hierarchy operator on a lookup tests the row
    it points to.
    """
    if column.logical_name == table.primary_id:
        found = [table]
    elif column.type in LOOKUP_TYPES:
        found = [schema.tables[name] for name in column.targets if name in schema.tables]
    else:
        found = []
    found = [candidate for candidate in found if candidate.hierarchy_parent is not None]
    return found[0] if len(found) == 1 else None


def split_reference(text: str) -> tuple[str | None, str]:
    """Split ``alias.column`` of a ``valueof``; the alias is None where the text is a column alone."""
    label, dot, name = text.partition(".")
    return (label, name) if dot else (None, text)


def table_name(text: str, schema: Schema) -> str:
    """Return the table a type column's value names, by logical name or by object type code.

    Raises:
        ValueError: the text is the code of no table of the schema.
    """
    name = text.strip().lower()
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        return name
    for table in schema.tables.values():
        if table.object_type_code == int(name):
            return table.logical_name
    raise ValueError(f"there is no table with the type code {name}")
