"""Tables and columns made and removed over the API, as Microsoft's client does it.

``POST CreateEntities`` (or ``EntityDefinitions``), ``POST EntityDefinitions(…)/Attributes``, and DELETE of both.
Lookups and relationships are not made; keys are in their own module. Source: Create and update table definitions using
the Web API; the requests of the official Python client. Assumed: what CreateEntities answers, the codes of refusals,
that removing takes the values with it, and that only what has a customization prefix may be removed.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from werkzeug.wrappers import Response

from d365sync.emulator.calls import Call, empty_response
from d365sync.emulator.facts import Catalogue, ColumnFacts, TableFacts, describe
from d365sync.emulator.messages import list_messages
from d365sync.emulator.metadata.documents import metadata_id
from d365sync.emulator.metadata.reads import definition_of
from d365sync.emulator.refuse import Refusal, invalid, not_implemented
from d365sync.emulator.schema.loader import column_with_companions, table_facts
from d365sync.emulator.schema.specs import ColumnSpec, TableSpec
from d365sync.errors import SchemaError

Built = TypeVar("Built")

_KIND = re.compile(r"#?Microsoft\.Dynamics\.CRM\.(?:Complex)?(\w+?)AttributeMetadata")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{1,7}_\w{1,80}")
MADE = {
    "String": "string",
    "Memo": "memo",
    "Integer": "integer",
    "BigInt": "bigint",
    "Double": "double",
    "Money": "money",
    "Boolean": "boolean",
    "Picklist": "picklist",
}
INVALID_OPERATION = "0x8004023b"


def create_tables(call: Call) -> Response:
    """Answer ``POST CreateEntities``: every table of the list, or none."""
    call.need_privilege("prvCreateEntity", "entity")
    bodies = call.body().get("Entities")
    if not isinstance(bodies, list) or not all(isinstance(one, dict) for one in bodies):
        raise invalid("Required field 'Entities' is missing for the action CreateEntities.")
    tables = dict(call.store.catalogue.tables)
    for body in bodies:
        made = _table(body, tables)
        tables[made.name] = made
    call.store.redefine(Catalogue.of(tables.values()))
    list_messages(call.store)
    return empty_response(204)


def create_table(call: Call) -> Response:
    """Answer ``POST EntityDefinitions``."""
    call.need_privilege("prvCreateEntity", "entity")
    made = _table(call.body(), call.store.catalogue.tables)
    call.store.redefine(call.store.catalogue.having(made))
    list_messages(call.store)
    return empty_response(204, {"OData-EntityId": f"{call.root}EntityDefinitions({metadata_id(made.name)})"})


def delete_table(call: Call, key: str) -> Response:
    """Answer ``DELETE EntityDefinitions(…)``: only of custom tables that no other table refers to."""
    call.need_privilege("prvDeleteEntity", "entity")
    facts = definition_of(call, key)
    _need_custom(facts.name)
    others = [one for one in call.store.catalogue.tables.values() if one.name != facts.name]
    for other in others:
        if any(facts.name in column.column.targets for column in other.columns.values()):
            raise Refusal(
                405, INVALID_OPERATION, f"The table {facts.name} cannot be deleted: {other.name} refers to it."
            )
    call.store.redefine(Catalogue.of(others))
    list_messages(call.store)
    return empty_response(204)


def create_column(call: Call, key: str) -> Response:
    """Answer ``POST EntityDefinitions(…)/Attributes``."""
    call.need_privilege("prvCreateAttribute", "attribute")
    facts, body = definition_of(call, key), call.body()
    name = _name(body)
    if name in facts.columns:
        raise invalid(f"The column {name} already exists in the table {facts.name}.")
    added = _built(facts.name, lambda: column_with_companions(facts.name, name, _column(body), facts.key))
    _redefine(call, facts, [*facts.columns.values(), *added])
    address = f"{call.root}EntityDefinitions({metadata_id(facts.name)})/Attributes({metadata_id(facts.name, name)})"
    return empty_response(204, {"OData-EntityId": address})


def delete_column(call: Call, key: str, column_key: str) -> Response:
    """Answer ``DELETE EntityDefinitions(…)/Attributes(…)``."""
    call.need_privilege("prvDeleteAttribute", "attribute")
    facts = definition_of(call, key)
    for name in facts.columns:
        if column_key.lower() in (metadata_id(facts.name, name), f"logicalname='{name}'"):
            _need_custom(name)
            if name in (facts.key, facts.table.primary_name):
                raise Refusal(405, INVALID_OPERATION, f"The column {name} of the table {facts.name} cannot be deleted.")
            if any(name in key.columns for key in facts.keys):
                raise Refusal(405, INVALID_OPERATION, f"The column {name} of {facts.name} is in an alternate key.")
            gone = {name, f"{name}_base"}
            _redefine(call, facts, [one for one in facts.columns.values() if one.name not in gone])
            call.store.forget_columns(facts.name, gone)
            return empty_response(204)
    raise Refusal(404, "0x80060888", f"Could not find an attribute with specified key: {column_key}.")


def _redefine(call: Call, facts: TableFacts, columns: Sequence[ColumnFacts]) -> None:
    table = replace(facts.table, columns={one.name: one.column for one in columns})
    changed = describe(table, columns, facts.ownership, facts.privilege, facts.collections, facts.keys, bulk=facts.bulk)
    call.store.redefine(call.store.catalogue.having(changed))


def _table(body: Mapping[str, Any], tables: Mapping[str, TableFacts]) -> TableFacts:
    name = _name(body)
    if name in tables:
        raise invalid(f"An entity with the name {name} already exists.")
    attributes = body.get("Attributes")
    if not isinstance(attributes, list) or not all(isinstance(one, dict) for one in attributes):
        raise invalid(f"The table {name} needs Attributes.")
    columns: dict[str, str | ColumnSpec] = {_name(one): _column(one) for one in attributes}
    primary = [_name(one) for one in attributes if one.get("IsPrimaryName") is True]
    if len(primary) != 1:
        raise invalid(f"The table {name} needs one attribute with IsPrimaryName.")
    owned = body.get("OwnershipType", "UserOwned") == "UserOwned"
    spec = TableSpec(
        columns=columns,
        primary_key=f"{name}id",
        primary_name=primary[0],
        ownership="user" if owned else "org",
        change_tracking=body.get("ChangeTrackingEnabled") is True,
    )
    return _built(name, lambda: table_facts(name, spec, None))


def _built(name: str, build: Callable[[], Built]) -> Built:
    try:
        return build()
    except (SchemaError, ValueError) as error:
        raise invalid(f"The definition of {name} is not valid: {error}") from error


def _name(body: Mapping[str, Any]) -> str:
    name = body.get("SchemaName")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise invalid(
            f"The SchemaName {str(name)[:100]!r} is not valid: it needs a customization prefix, as in new_Name."
        )
    return name.lower()


def _column(body: Mapping[str, Any]) -> ColumnSpec:
    match = _KIND.fullmatch(str(body.get("@odata.type")))
    kind = match[1] if match else str(body.get("@odata.type"))
    options: dict[int, str] = {}
    if kind == "Decimal":
        type_text = f"decimal:{_whole(body.get('Precision'), 2)}"
    elif kind == "DateTime":
        behavior = body.get("DateTimeBehavior")
        value = behavior.get("Value", "UserLocal") if isinstance(behavior, dict) else "UserLocal"
        type_text = f"datetime:{str(value).lower()}"
    elif kind in MADE:
        type_text = MADE[kind]
        options = _options(body) if kind in ("Picklist", "Boolean") else {}
    else:
        raise not_implemented(f"a column of type '{kind}'")
    return ColumnSpec(
        type_text,
        options=options,
        min=_whole(body.get("MinValue"), None),
        max=_whole(body.get("MaxValue"), None),
        max_length=_whole(body.get("MaxLength"), None),
    )


def _options(body: Mapping[str, Any]) -> dict[int, str]:
    given = body.get("OptionSet")
    if not isinstance(given, dict):
        return {}
    listed = given.get("Options") or [given.get("FalseOption"), given.get("TrueOption")]
    found: dict[int, str] = {}
    for one in listed if isinstance(listed, list) else []:
        value = _whole(one.get("Value"), None) if isinstance(one, dict) else None
        if value is not None:
            found[value] = _label(one.get("Label"))
    return found


def _label(document: Any) -> str:
    labels = document.get("LocalizedLabels") if isinstance(document, dict) else None
    first = labels[0] if isinstance(labels, list) and labels else None
    return str(first.get("Label", "")) if isinstance(first, dict) else ""


def _whole(value: Any, default: Any) -> Any:
    if value is None or isinstance(value, bool):
        return default
    return int(value) if isinstance(value, int | Decimal) else default


def _need_custom(name: str) -> None:
    if "_" not in name:
        raise Refusal(405, INVALID_OPERATION, f"{name} belongs to the system and cannot be deleted.")
