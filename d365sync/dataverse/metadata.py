"""Reading table definitions: which columns there are, of which type, and how the table can be followed.

Source: Query table definitions using the Web API (derived column types need a cast).

IO: HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from d365sync.core.schema import LOOKUP_TYPES, Column, ColumnType, DateBehavior, Schema, Table
from d365sync.dataverse.together import Get, Outcome, get_together
from d365sync.dataverse.wire import decode_object
from d365sync.errors import NOT_THERE, ProtocolError, RejectedError, RemoteError

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient

TABLE_PROPERTIES = (
    "LogicalName,EntitySetName,PrimaryIdAttribute,PrimaryNameAttribute,ChangeTrackingEnabled,"
    "IsOptimisticConcurrencyEnabled,ObjectTypeCode"
)
RELATIONSHIPS = "ManyToOneRelationships($select=ReferencedEntity,ReferencingAttribute,IsHierarchical)"
"""Expanded with the table, so that its hierarchy costs no request of its own.

Source: Query hierarchical data (a relationship of a table with itself, IsHierarchical)."""
COLUMN_PROPERTIES = (
    "LogicalName,AttributeType,AttributeTypeName,IsValidForRead,IsValidForCreate,IsValidForUpdate,"
    "IsPrimaryId,AttributeOf,IsSecured"
)
"""Source: Query table definitions using the Web API; Column-level security by using code (IsSecured)."""
LOGICAL_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}")
CASTS: Mapping[str, str] = {
    "DateTimeAttributeMetadata": "LogicalName,DateTimeBehavior",
    "DecimalAttributeMetadata": "LogicalName,Precision",
    "MoneyAttributeMetadata": "LogicalName,Precision,IsBaseCurrency",
    "LookupAttributeMetadata": "LogicalName,Targets",
}
LABELLED: Mapping[ColumnType, str] = {
    ColumnType.BOOLEAN: "Boolean",
    ColumnType.PICKLIST: "Picklist",
    ColumnType.STATE: "State",
    ColumnType.STATUS: "Status",
}
OPTIONS = "OptionSet,GlobalOptionSet"
"""Source: Query table definitions using the Web API (options of choice columns, local and global)."""
TYPE_NAMES = {"MultiSelectPicklistType": ColumnType.MULTISELECT}
"""``AttributeTypeName`` where ``AttributeType`` says only Virtual."""


def read_schema(client: DataverseClient, names: Iterable[str]) -> Schema:
    """Return the definitions of the tables that exist, all with one request; a name that is not a table is left out.

    Raises:
        RemoteError: the definitions cannot be read.
        ProtocolError: a definition is not what the protocol promises.
    """
    wanted = [name for name in sorted(set(names)) if LOGICAL_NAME.fullmatch(name)]
    gets = [get for name in wanted for get in _gets(name)]
    outcomes = get_together(client, gets)
    width = len(CASTS) + 2
    tables = [_table(name, outcomes[at * width : (at + 1) * width]) for at, name in enumerate(wanted)]
    return Schema.of(table for table in tables if table is not None)


def read_table(client: DataverseClient, name: str) -> Table | None:
    """Return one table's definition, None when there is no such table."""
    return read_schema(client, [name]).tables.get(name)


def _gets(name: str) -> list[Get]:
    """Return what is asked of one table: itself, its columns, and of some types more."""
    address = f"EntityDefinitions(LogicalName='{name}')"
    casts = (
        Get(f"{address}/Attributes/Microsoft.Dynamics.CRM.{cast}", {"$select": properties})
        for cast, properties in CASTS.items()
    )
    return [
        Get(address, {"$select": TABLE_PROPERTIES, "$expand": RELATIONSHIPS}),
        Get(f"{address}/Attributes", {"$select": COLUMN_PROPERTIES}),
        *casts,
    ]


def _table(name: str, outcomes: Sequence[Outcome]) -> Table | None:
    if isinstance(outcomes[0], RejectedError) and outcomes[0].status == NOT_THERE:
        return None
    head, columns, *casts = [decode_object(_body(outcome)) for outcome in outcomes]
    attributes = _entries(name, columns)
    details: dict[str, dict[str, Any]] = {}
    for entry in (entry for cast in casts for entry in _entries(name, cast)):
        details.setdefault(str(entry.get("LogicalName")), {}).update(entry)
    made = [_column(entry, details.get(str(entry.get("LogicalName")), {})) for entry in attributes]
    return Table(
        logical_name=_text(head, "LogicalName"),
        entity_set_name=_text(head, "EntitySetName"),
        primary_id=_text(head, "PrimaryIdAttribute"),
        primary_name=_text(head, "PrimaryNameAttribute") if head.get("PrimaryNameAttribute") else None,
        columns={column.logical_name: column for column in made if column is not None},
        change_tracking=head.get("ChangeTrackingEnabled") is True,
        optimistic_concurrency=head.get("IsOptimisticConcurrencyEnabled") is not False,
        object_type_code=_whole(head, "ObjectTypeCode"),
        hierarchy_parent=_hierarchy_parent(name, head.get("ManyToOneRelationships")),
    )


def _body(outcome: Outcome) -> bytes:
    if isinstance(outcome, RemoteError):
        raise outcome
    return outcome


def read_labels(client: DataverseClient, wanted: Sequence[tuple[Table, Iterable[ColumnType]]]) -> list[Table]:
    """Return tables with the labels of their choice columns of these kinds, in the caller's language: one request.

    Raises:
        RemoteError, ProtocolError: as for :func:`read_schema`.
    """
    asked = [(at, kind) for at, (_, kinds) in enumerate(wanted) for kind in sorted(set(kinds))]
    outcomes = get_together(client, [_labels_get(wanted[at][0], kind) for at, kind in asked])
    columns = [dict(table.columns) for table, _ in wanted]
    for (at, _), outcome in zip(asked, outcomes, strict=True):
        for entry in _entries(wanted[at][0].logical_name, decode_object(_body(outcome))):
            name = _text(entry, "LogicalName")
            if name in columns[at]:
                columns[at][name] = replace(columns[at][name], labels=tuple(sorted(_labels(entry).items())))
    return [replace(table, columns=of_table) for (table, _), of_table in zip(wanted, columns, strict=True)]


def _labels_get(table: Table, kind: ColumnType) -> Get:
    cast = f"Microsoft.Dynamics.CRM.{LABELLED[kind]}AttributeMetadata"
    options = {"$select": "LogicalName", "$expand": OPTIONS}
    return Get(f"EntityDefinitions(LogicalName='{table.logical_name}')/Attributes/{cast}", options)


def _labels(entry: Mapping[str, Any]) -> dict[int, str]:
    option_set = _object(entry.get("OptionSet")) or _object(entry.get("GlobalOptionSet"))
    listed = option_set.get("Options")
    options = [option_set.get("FalseOption"), option_set.get("TrueOption")]
    labels: dict[int, str] = {}
    for option in map(_object, [*options, *(listed if isinstance(listed, list) else ())]):
        shown = _object(_object(option.get("Label")).get("UserLocalizedLabel")).get("Label")
        if isinstance(option.get("Value"), int) and isinstance(shown, str):
            labels[option["Value"]] = shown
    return labels


def _hierarchy_parent(name: str, relationships: object) -> str | None:
    """Return the lookup of the table's hierarchical relationship, None when it has none."""
    if not isinstance(relationships, list):
        raise ProtocolError(f"the definition of {name} has no list of relationships")
    for one in relationships:
        if isinstance(one, dict) and one.get("IsHierarchical") is True and one.get("ReferencedEntity") == name:
            return _text(one, "ReferencingAttribute")
    return None


def _entries(name: str, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = document.get("value")
    if not isinstance(entries, list):
        raise ProtocolError(f"the definition of {name} has no list of columns")
    return [entry for entry in entries if isinstance(entry, dict)]


def _column(entry: Mapping[str, Any], detail: Mapping[str, Any]) -> Column | None:
    """Read one column; None for what cannot be read or is only a companion (names of lookups, virtual columns)."""
    column_type = _type(entry)
    if column_type is None or entry.get("AttributeOf") or entry.get("IsValidForRead") is False:
        return None
    return Column(
        logical_name=_text(entry, "LogicalName"),
        type=column_type,
        date_behavior=_behavior(entry, detail) if column_type is ColumnType.DATETIME else None,
        precision=_whole(detail, "Precision"),
        targets=_targets(detail) if column_type in LOOKUP_TYPES else (),
        is_base_currency=detail.get("IsBaseCurrency") is True,
        valid_for_create=entry.get("IsValidForCreate") is not False,
        valid_for_update=entry.get("IsValidForUpdate") is not False,
        is_primary_id=entry.get("IsPrimaryId") is True,
        is_secured=entry.get("IsSecured") is True,
    )


def _type(entry: Mapping[str, Any]) -> ColumnType | None:
    try:
        return ColumnType(str(entry.get("AttributeType", "")).lower())
    except ValueError:
        return TYPE_NAMES.get(str(_object(entry.get("AttributeTypeName")).get("Value")))


def _behavior(entry: Mapping[str, Any], detail: Mapping[str, Any]) -> DateBehavior:
    value = _object(detail.get("DateTimeBehavior")).get("Value")
    try:
        return DateBehavior(str(value))
    except ValueError:
        raise ProtocolError(f"column {entry.get('LogicalName')} has the unknown date behaviour {value!r}") from None


def _targets(detail: Mapping[str, Any]) -> tuple[str, ...]:
    targets = detail.get("Targets") or []
    if not isinstance(targets, list) or not all(isinstance(one, str) for one in targets):
        raise ProtocolError(f"column {detail.get('LogicalName')} has the Targets {str(targets)[:40]}")
    return tuple(targets)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(entry: Mapping[str, Any], name: str) -> int | None:
    value = entry.get(name)
    if value is not None and type(value) is not int:
        raise ProtocolError(f"a table or column definition has the {name} {str(value)[:40]}")
    return value


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"a table or column definition has no {name}")
    return value
