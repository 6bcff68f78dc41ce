"""Definitions of tables and columns as JSON documents.

Besides the columns themselves the platform lists their companions: the name of a choice (``statecodename``,
Virtual), of a lookup (``owneridname``) and the table of a polymorphic one (``owneridtype``), each with
``AttributeOf``. They are listed here too, because a reader must know to pass over them.

Pure.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from d365sync.core.schema import CHOICE_TYPES, Column, ColumnType
from d365sync.emulator.facts import ColumnFacts, Ownership, TableFacts
from d365sync.emulator.refuse import NAMESPACE

Document = dict[str, Any]

_IDS = uuid.UUID("b3f6c7f2-2b0c-5a6e-8b1a-7a6d2f2f9f21")
_LANGUAGE = 1033
_CODES = {
    ColumnType.UNIQUEIDENTIFIER: "Uniqueidentifier",
    ColumnType.STRING: "String",
    ColumnType.MEMO: "Memo",
    ColumnType.ENTITYNAME: "EntityName",
    ColumnType.INTEGER: "Integer",
    ColumnType.BIGINT: "BigInt",
    ColumnType.DECIMAL: "Decimal",
    ColumnType.DOUBLE: "Double",
    ColumnType.MONEY: "Money",
    ColumnType.BOOLEAN: "Boolean",
    ColumnType.PICKLIST: "Picklist",
    ColumnType.MULTISELECT: "Virtual",
    ColumnType.STATE: "State",
    ColumnType.STATUS: "Status",
    ColumnType.DATETIME: "DateTime",
    ColumnType.LOOKUP: "Lookup",
    ColumnType.OWNER: "Owner",
    ColumnType.CUSTOMER: "Customer",
}
_KINDS = {
    "Uniqueidentifier": "UniqueIdentifierAttributeMetadata",
    "Owner": "LookupAttributeMetadata",
    "Customer": "LookupAttributeMetadata",
    "Virtual": "AttributeMetadata",
}
_OWNERSHIP = {
    Ownership.USER: "UserOwned",
    Ownership.ORGANIZATION: "OrganizationOwned",
    Ownership.BUSINESS_UNIT: "BusinessOwned",
}
BASE_PROPERTIES = frozenset(
    {
        "AttributeOf",
        "AttributeType",
        "AttributeTypeName",
        "EntityLogicalName",
        "HasChanged",
        "IsCustomAttribute",
        "IsPrimaryId",
        "IsPrimaryName",
        "IsSecured",
        "IsValidForCreate",
        "IsValidForRead",
        "IsValidForUpdate",
        "LogicalName",
        "MetadataId",
        "RequiredLevel",
        "SchemaName",
        "SourceType",
    }
)
"""What every column has; anything else needs a cast to the column's kind."""


def table_document(facts: TableFacts) -> Document:
    """Return the definition of a table, without its columns."""
    table = facts.table
    custom = "_" in facts.name
    return {
        "MetadataId": metadata_id(facts.name),
        "HasChanged": None,
        "LogicalName": facts.name,
        "SchemaName": facts.name,
        "EntitySetName": table.entity_set_name,
        "LogicalCollectionName": table.entity_set_name,
        "PrimaryIdAttribute": table.primary_id,
        "PrimaryNameAttribute": table.primary_name,
        "PrimaryImageAttribute": None,
        "ObjectTypeCode": table.object_type_code or 10_000,
        "OwnershipType": _OWNERSHIP.get(facts.ownership, "None"),
        "IsActivity": table.primary_id == "activityid" and facts.name != "activitypointer",
        "IsCustomEntity": custom,
        "IsIntersect": facts.name == "teammembership",
        "IsPrivate": False,
        "ChangeTrackingEnabled": table.change_tracking,
        "CanChangeTrackingBeEnabled": _managed(facts.name not in ("goal",), "canchangetrackingbeenabled"),
        "IsOptimisticConcurrencyEnabled": table.optimistic_concurrency,
    }


def column_documents(facts: TableFacts) -> Iterator[Document]:
    """Return the definitions of a table's columns and their companions, by logical name."""
    found = {one.name: _column_document(facts, one) for one in facts.columns.values()}
    for one in facts.columns.values():
        for companion in _companions(facts, one):
            found.setdefault(companion["LogicalName"], companion)
    return iter(found[name] for name in sorted(found))


def relationship_documents(tables: Iterable[TableFacts], known: Mapping[str, TableFacts]) -> Iterator[Document]:
    """Return the definitions of the one-to-many relationships whose lookups the tables hold."""
    for facts in tables:
        for column in facts.columns.values():
            for target, navigation in column.navigation.items():
                if target in known:
                    yield _relationship_document(facts, column, known[target], navigation)


def _relationship_document(facts: TableFacts, column: ColumnFacts, target: TableFacts, navigation: str) -> Document:
    there = [one for one, other in target.collections.items() if other == (facts.name, column.name)]
    collection = there[0] if there else f"{target.name}_{facts.name}_{column.name}"
    hierarchical = target.name == facts.name and column.name == facts.table.hierarchy_parent
    return {
        "MetadataId": metadata_id("relationship", facts.name, column.name, target.name),
        "HasChanged": None,
        "SchemaName": f"{target.name}_{facts.name}_{column.name}",
        "RelationshipType": "OneToManyRelationship",
        "ReferencedEntity": target.name,
        "ReferencedAttribute": target.key,
        "ReferencingEntity": facts.name,
        "ReferencingAttribute": column.name,
        "ReferencingEntityNavigationPropertyName": navigation,
        "ReferencedEntityNavigationPropertyName": collection,
        "IsCustomRelationship": "_" in column.name,
        "IsHierarchical": hierarchical,
    }


@lru_cache(maxsize=1 << 16)
def metadata_id(*names: str) -> str:
    """Return the id of a definition; always the same for the same names."""
    return str(uuid.uuid5(_IDS, "/".join(names)))


def option_set(facts: TableFacts, column: ColumnFacts) -> Document:
    """Return the ``OptionSet`` of a choice or two-options column."""
    document: Document = {
        "MetadataId": metadata_id(facts.name, column.name, "options"),
        "HasChanged": None,
        "Name": f"{facts.name}_{column.name}",
        "IsGlobal": False,
        "OptionSetType": _CODES[column.column.type],
    }
    options = [_option(column, value, label) for value, label in column.options.items()]
    if column.column.type is ColumnType.BOOLEAN:
        return {**document, "FalseOption": options[0], "TrueOption": options[1]}
    return {**document, "Options": options}


def _option(column: ColumnFacts, value: int, label: str) -> Document:
    option: Document = {"Value": value, "Color": None, "ExternalValue": "", "Label": label_document(label)}
    if column.column.type is ColumnType.STATE:
        option["InvariantName"] = label
    if value in column.states:
        option["State"] = column.states[value]
    return option


def label_document(text: str) -> Document:
    """Return a label in the only language there is, English."""
    label = {
        "Label": text,
        "LanguageCode": _LANGUAGE,
        "IsManaged": True,
        "MetadataId": metadata_id("label", text),
        "HasChanged": None,
    }
    return {"LocalizedLabels": [label], "UserLocalizedLabel": label}


def _managed(value: bool, name: str) -> Document:
    return {"Value": value, "CanBeChanged": value, "ManagedPropertyLogicalName": name}


def _column_document(facts: TableFacts, column: ColumnFacts) -> Document:
    code = _CODES[column.column.type]
    multi = column.column.type is ColumnType.MULTISELECT
    kind = "MultiSelectPicklistAttributeMetadata" if multi else _KINDS.get(code, f"{code}AttributeMetadata")
    return {
        "@odata.type": f"#{NAMESPACE}{kind}",
        **_frame(facts, column.name, code, "MultiSelectPicklistType" if multi else f"{code}Type"),
        "IsPrimaryId": column.column.is_primary_id,
        "IsPrimaryName": column.name == facts.table.primary_name,
        "IsValidForCreate": column.column.valid_for_create,
        "IsValidForUpdate": column.column.valid_for_update,
        "IsSecured": column.column.is_secured,
        **_particulars(facts, column),
    }


def _frame(facts: TableFacts, name: str, code: str, type_name: str) -> Document:
    return {
        "MetadataId": metadata_id(facts.name, name),
        "HasChanged": None,
        "LogicalName": name,
        "SchemaName": name,
        "EntityLogicalName": facts.name,
        "AttributeType": code,
        "AttributeTypeName": {"Value": type_name},
        "AttributeOf": None,
        "IsCustomAttribute": "_" in name and not name.endswith("_base"),
        "IsValidForRead": True,
        "IsSecured": False,
        "RequiredLevel": _managed(False, "canmodifyrequirementlevelsettings") | {"Value": "None"},
        "SourceType": 0,
    }


def _particulars(facts: TableFacts, column: ColumnFacts) -> Mapping[str, Any]:
    one = column.column
    match one.type:
        case ColumnType.MONEY:
            return {**_range(column), "Precision": 4, "PrecisionSource": 2, **_money_facts(facts, one)}
        case ColumnType.DECIMAL | ColumnType.DOUBLE | ColumnType.INTEGER | ColumnType.BIGINT:
            places = {} if one.precision is None else {"Precision": one.precision}
            return {**_range(column), **places}
        case ColumnType.DATETIME:
            return {"Format": column.date_format, "DateTimeBehavior": {"Value": one.date_behavior}}
        case ColumnType.STRING | ColumnType.MEMO:
            return {
                "MaxLength": column.max_length or (100 if one.type is ColumnType.STRING else 2000),
                "Format": "Text",
            }
        case ColumnType.BOOLEAN:
            return {"DefaultValue": column.default}
        case ColumnType.PICKLIST | ColumnType.STATE | ColumnType.STATUS:
            return {"DefaultFormValue": column.default}
    return {"Targets": list(one.targets)} if one.is_lookup else {}


def _range(column: ColumnFacts) -> Document:
    return {"MinValue": column.minimum, "MaxValue": column.maximum}


def _money_facts(facts: TableFacts, column: Column) -> Document:
    name = column.logical_name
    source = name.removesuffix("_base") if column.is_base_currency else None
    return {"IsBaseCurrency": column.is_base_currency, "CalculationOf": source if source in facts.columns else None}


def _companions(facts: TableFacts, column: ColumnFacts) -> Iterator[Document]:
    one = column.column
    if one.is_lookup:
        yield _companion(facts, one, f"{column.name}name", "String")
        if one.is_polymorphic:
            yield _companion(facts, one, one.type_name, "EntityName")
    elif one.type in CHOICE_TYPES | {ColumnType.BOOLEAN, ColumnType.MULTISELECT}:
        yield _companion(facts, one, f"{column.name}name", "Virtual")


def _companion(facts: TableFacts, column: Column, name: str, code: str) -> Document:
    text = {"MaxLength": 100, "Format": "Text"} if code == "String" else {}
    return {
        **text,
        "@odata.type": f"#{NAMESPACE}{_KINDS.get(code, f'{code}AttributeMetadata')}",
        **_frame(facts, name, code, f"{code}Type"),
        "AttributeOf": column.logical_name,
        "IsPrimaryId": False,
        "IsPrimaryName": False,
        "IsValidForCreate": False,
        "IsValidForUpdate": False,
    }
