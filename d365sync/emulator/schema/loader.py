"""Builds the catalogue of tables from the shipped data and an org's additions.

Columns every table has (``createdon``, ``versionnumber``, …), the owner columns, and the companions of money
(``_base``, currency, exchange rate) are added here, so the data lists only what is particular.

IO: package data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from importlib import resources

import msgspec

from d365sync.core.schema import Column, ColumnType, Table
from d365sync.emulator.facts import AlternateKey, Catalogue, ColumnFacts, Ownership, TableFacts, describe
from d365sync.emulator.schema.specs import ColumnKind, ColumnSpec, TableSpec, column_kind, entity_set_name
from d365sync.errors import SchemaError

Specs = dict[str, TableSpec]

_AUDIT = {
    "createdon": ColumnSpec("datetime:userlocal", "r"),
    "modifiedon": ColumnSpec("datetime:userlocal", "r"),
    "createdby": ColumnSpec("lookup:systemuser", "r"),
    "modifiedby": ColumnSpec("lookup:systemuser", "r"),
    "createdonbehalfby": ColumnSpec("lookup:systemuser", "r"),
    "modifiedonbehalfby": ColumnSpec("lookup:systemuser", "r"),
}
_VERSION = {"versionnumber": ColumnSpec("bigint", "r")}
_OWNERS = {
    "ownerid": ColumnSpec("owner"),
    "owningbusinessunit": ColumnSpec("lookup:businessunit", "r"),
    "owninguser": ColumnSpec("lookup:systemuser", "r"),
    "owningteam": ColumnSpec("lookup:team", "r"),
}
_CURRENCY = {
    "transactioncurrencyid": ColumnSpec("lookup:transactioncurrency"),
    "exchangerate": ColumnSpec("decimal:12", "r"),
}
_UNAUDITED = (
    "teammembership",
    "privilege",
    "roleprivileges",
    "systemuserroles",
    "teamroles",
    "principalobjectaccess",
)
_LABELS = {0: "No", 1: "Yes"}
KEY_TYPES = (
    ColumnType.STRING,
    ColumnType.INTEGER,
    ColumnType.DECIMAL,
    ColumnType.DATETIME,
    ColumnType.LOOKUP,
    ColumnType.PICKLIST,
)


@cache
def shipped_specs() -> Mapping[str, TableSpec]:
    """Return the shipped tables, by logical name."""
    folder = resources.files("d365sync.emulator.schema") / "tables"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".json")), key=lambda entry: entry.name)
    specs = (msgspec.json.decode(file.read_bytes(), type=TableSpec, strict=False) for file in files)
    return {spec.logical_name or "": spec for spec in specs}


def read_additions(text: bytes) -> Specs:
    """Read an org folder's ``schema.json``.

    Raises:
        ValueError: it is not of that shape.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, TableSpec], strict=False)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def build_catalogue(
    additions: Mapping[str, TableSpec], tracking: Mapping[str, bool], bulk: Mapping[str, bool] | None = None
) -> Catalogue:
    """Return the shipped tables with the additions; ``tracking`` and ``bulk`` override what tables can do, by name.

    Raises:
        SchemaError: an addition names an unknown type, table or column.
    """
    specs = dict(shipped_specs())
    for name, spec in additions.items():
        specs[name] = _merged(name, specs.get(name), spec)
    bulk = bulk or {}
    for name, what in [*((one, "change tracking") for one in tracking), *((one, "bulk messages") for one in bulk)]:
        if name not in specs:
            raise SchemaError(f"there is no table '{name}' whose {what} could be set", table=name)
    for name in additions:
        _check_targets(name, specs)
    changed = additions.keys() | tracking.keys() | bulk.keys()
    made = Catalogue.of(
        table_facts(name, spec, tracking.get(name), bulk.get(name)) if name in changed else _shipped_facts(name)
        for name, spec in specs.items()
    )
    for name, spec in additions.items():
        for collection in spec.collections.keys() - made.tables[name].collections.keys():
            text = f"schema.json: the collection '{collection}' of '{name}' needs a table and its lookup to '{name}'"
            raise SchemaError(text, table=name)
    return made


@cache
def _shipped_facts(name: str) -> TableFacts:
    return table_facts(name, shipped_specs()[name], None)


def _merged(name: str, shipped: TableSpec | None, added: TableSpec) -> TableSpec:
    if shipped is None:
        return added
    for fact in ("primary_key", "entity_set"):
        if getattr(added, fact) not in (None, getattr(shipped, fact)):
            raise SchemaError(f"schema.json: {fact} of the shipped table '{name}' cannot change", table=name)
    changes = {key: value for key, value in msgspec.structs.asdict(added).items() if value not in (None, {})}
    for fact in ("columns", "collections", "keys"):
        changes[fact] = {**getattr(shipped, fact), **getattr(added, fact)}
    return msgspec.structs.replace(shipped, **changes)


def _check_targets(name: str, specs: Mapping[str, TableSpec]) -> None:
    for column, given in specs[name].columns.items():
        for target in _kind(name, column, _spec(given)).targets:
            if target not in specs and target not in ("bulkoperation",):
                raise SchemaError(f"schema.json: {name}.{column} points to '{target}', which is no table", table=name)


def table_facts(name: str, spec: TableSpec, tracking: bool | None, bulk: bool | None = None) -> TableFacts:
    """Return a table as written down, with the columns every table has.

    Custom tables have the bulk messages unless they say otherwise. Source: Use bulk operation messages (availability).

    Raises:
        SchemaError: it has no key, or names a column type or column that is not there, or an alternate key cannot be.
    """
    ownership = Ownership(spec.ownership or ("user" if "ownerid" in spec.columns else "org"))
    if spec.primary_key is None:
        raise SchemaError(f"schema.json: table '{name}' needs a primary_key", table=name)
    columns = [
        facts
        for column, given in _all_columns(name, spec, ownership).items()
        for facts in _with_base(_column_facts(name, column, given, spec.primary_key))
    ]
    table = Table(
        logical_name=name,
        entity_set_name=spec.entity_set or entity_set_name(name),
        primary_id=spec.primary_key,
        primary_name=spec.primary_name,
        columns={facts.name: facts.column for facts in columns},
        change_tracking=_first(tracking, spec.change_tracking, True),
        hierarchy_parent=spec.hierarchy_parent,
        object_type_code=spec.object_type_code,
    )
    for named in (spec.primary_name, spec.hierarchy_parent):
        if named is not None and named not in table.columns:
            raise SchemaError(f"schema.json: table '{name}' has no column '{named}'", table=name, column=named)
    own = shipped_specs()[name].keys if name in shipped_specs() else {}
    keys = tuple(AlternateKey(key, tuple(names), managed=key in own) for key, names in spec.keys.items())
    for key in keys:
        if not key.managed:
            check_key(name, key, table.columns)
    has_bulk = _first(bulk, spec.bulk_messages, "_" in name)
    return describe(table, columns, ownership, spec.privilege or name, spec.collections, keys, bulk=has_bulk)


def check_key(table: str, key: AlternateKey, columns: Mapping[str, Column]) -> None:
    """Refuse an alternate key over columns that are not there or cannot be part of one.

    Source: Define alternate keys for a table (types of columns; lookups of one table here).

    Raises:
        SchemaError: so.
    """
    for name in key.columns:
        if name not in columns:
            raise SchemaError(f"the key '{key.name}' of '{table}' names no column '{name}'", table=table, column=name)
        if columns[name].type not in KEY_TYPES or columns[name].is_polymorphic:
            raise SchemaError(f"the column '{name}' cannot be in the key '{key.name}' of '{table}'", table=table)
    if not key.columns or len(set(key.columns)) != len(key.columns):
        raise SchemaError(f"the key '{key.name}' of '{table}' needs columns, each once", table=table)


def _first(*answers: bool | None) -> bool:
    return next(answer for answer in answers if answer is not None)


def _all_columns(name: str, spec: TableSpec, ownership: Ownership) -> dict[str, ColumnSpec]:
    key = {spec.primary_key or "": ColumnSpec("uniqueidentifier", "c")}
    own = {column: _spec(given) for column, given in spec.columns.items()}
    owners = _OWNERS if ownership is Ownership.USER else {}
    money = any(column.type == "money" for column in own.values())
    audit = {} if name in _UNAUDITED else _AUDIT
    return {**key, **owners, **(_CURRENCY if money else {}), **own, **audit, **_VERSION, **own}


def _spec(given: str | ColumnSpec) -> ColumnSpec:
    return ColumnSpec(given) if isinstance(given, str) else given


def _kind(table: str, column: str, spec: ColumnSpec) -> ColumnKind:
    try:
        return column_kind(spec.type)
    except ValueError as error:
        raise SchemaError(f"schema.json: {table}.{column}: {error}", table=table, column=column) from None


def _column_facts(table: str, name: str, spec: ColumnSpec, key: str) -> ColumnFacts:
    kind = _kind(table, name, spec)
    is_boolean = kind.type is ColumnType.BOOLEAN
    column = Column(
        logical_name=name,
        type=kind.type,
        date_behavior=kind.behavior,
        precision=kind.precision,
        targets=kind.targets,
        valid_for_create="c" in spec.access,
        valid_for_update="u" in spec.access and name != key,
        is_primary_id=name == key,
        is_secured=spec.secured,
        labels=tuple((spec.options or (_LABELS if is_boolean else {})).items()),
    )
    return ColumnFacts(
        column=column,
        navigation=_navigation(name, kind, spec),
        options=spec.options or (_LABELS if is_boolean else {}),
        states=spec.states,
        default=_default(kind, spec),
        date_format=_date_format(kind, spec),
        minimum=None if spec.min is None else Decimal(spec.min),
        maximum=None if spec.max is None else Decimal(spec.max),
        max_length=spec.max_length,
    )


def _navigation(name: str, kind: ColumnKind, spec: ColumnSpec) -> Mapping[str, str]:
    if spec.navigation:
        return spec.navigation
    split = kind.type is ColumnType.CUSTOMER or (kind.type is ColumnType.LOOKUP and len(kind.targets) > 1)
    return {target: f"{name}_{target}" if split else name for target in kind.targets}


def _default(kind: ColumnKind, spec: ColumnSpec) -> bool | int | None:
    if spec.default is not None:
        return spec.default
    return {ColumnType.STATE: 0, ColumnType.STATUS: 1}.get(kind.type)


def _date_format(kind: ColumnKind, spec: ColumnSpec) -> str | None:
    if kind.type is not ColumnType.DATETIME:
        return None
    return spec.format or ("DateOnly" if kind.behavior == "DateOnly" else "DateAndTime")


def column_with_companions(table: str, name: str, spec: ColumnSpec, key: str) -> list[ColumnFacts]:
    """Return a column as written down, and its ``_base`` amount if it is money.

    Raises:
        SchemaError: there is no such column type.
    """
    return list(_with_base(_column_facts(table, name, spec, key)))


def _with_base(facts: ColumnFacts) -> Iterable[ColumnFacts]:
    yield facts
    if facts.column.type is ColumnType.MONEY and not facts.name.endswith("_base"):
        yield ColumnFacts(
            Column(
                logical_name=f"{facts.name}_base",
                type=ColumnType.MONEY,
                precision=4,
                is_base_currency=True,
                is_secured=facts.column.is_secured,
                valid_for_create=False,
                valid_for_update=False,
            )
        )
