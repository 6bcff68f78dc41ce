"""``$metadata``: the tables, functions and actions as CSDL XML.

Source: Web API types and operations; Web API EntityType reference (namespace Microsoft.Dynamics.CRM, alias mscrm,
lookups as ``_name_value`` beside their navigation property); OData CSDL 4.0. Assumed: choices are whole numbers, as on
rows; lookups that may name several tables, such as owners, lead to ``principal`` where a user or a team is meant and to
``crmbaseentity`` otherwise; the term of change tracking stands on every entity set, true or false.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from d365sync.core.schema import Column, ColumnType
from d365sync.emulator.facts import Catalogue, TableFacts
from d365sync.emulator.metadata.operations import COMPLEX, ENUMS, Operation, served_operations
from d365sync.emulator.odata.literals import edm_type

NAMESPACE = "Microsoft.Dynamics.CRM"
ALIAS = "mscrm"
EDMX = "http://docs.oasis-open.org/odata/ns/edmx"
EDM = "http://docs.oasis-open.org/odata/ns/edm"
TRACKING = "Org.OData.Capabilities.V1.ChangeTracking"
KEYS = "OData.Community.Keys.V1"
BASE = "crmbaseentity"
PRINCIPAL = "principal"
_BASE_TYPE = f"{ALIAS}.{BASE}"


def metadata_document(catalogue: Catalogue, *, annotated: bool) -> bytes:
    """Return the whole document; ``annotated`` adds what each entity set can do."""
    ET.register_namespace("edmx", EDMX)
    ET.register_namespace("", EDM)
    root = ET.Element(f"{{{EDMX}}}Edmx", Version="4.0")
    services = ET.SubElement(root, f"{{{EDMX}}}DataServices")
    schema = _add(services, "Schema", Namespace=NAMESPACE, Alias=ALIAS)
    _add(schema, "EntityType", Name=BASE, Abstract="true")
    principal = _add(schema, "EntityType", Name=PRINCIPAL, BaseType=_BASE_TYPE)
    _add(_add(principal, "Key"), "PropertyRef", Name="ownerid")
    _add(principal, "Property", Name="ownerid", Type="Edm.Guid", Nullable="false")
    for facts in catalogue.tables.values():
        _entity_type(schema, facts, catalogue)
    operations = served_operations(catalogue.tables)
    _operations(schema, operations)
    container = _add(schema, "EntityContainer", Name="System")
    for facts in catalogue.tables.values():
        _entity_set(container, facts, catalogue, annotated=annotated)
    _imports(container, operations)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _add(parent: ET.Element, name: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, f"{{{EDM}}}{name}", attributes)


def _entity_type(schema: ET.Element, facts: TableFacts, catalogue: Catalogue) -> None:
    element = _add(schema, "EntityType", Name=facts.name, BaseType=_BASE_TYPE)
    _add(_add(element, "Key"), "PropertyRef", Name=facts.key)
    for one in facts.columns.values():
        _property(element, one.column)
    for name, (lookup, targets) in facts.navigation.items():
        _single(element, facts, name, lookup, targets, catalogue)
    if facts.keys:
        _alternate_keys(element, facts)
    for name, (table, lookup) in facts.collections.items():
        if table in catalogue.tables:
            partner = catalogue.tables[table].columns[lookup].navigation.get(facts.name)
            shown = {"Name": name, "Type": f"Collection({ALIAS}.{table})"}
            _add(element, "NavigationProperty", **shown, **({"Partner": partner} if partner else {}))


def _alternate_keys(element: ET.Element, facts: TableFacts) -> None:
    """Source: Web API EntityTypes (alternate keys)."""
    listed = _add(_add(element, "Annotation", Term=f"{KEYS}.AlternateKeys"), "Collection")
    for key in facts.keys:
        record = _add(listed, "Record", Type=f"{KEYS}.AlternateKey")
        parts = _add(_add(record, "PropertyValue", Property="Key"), "Collection")
        for name in (facts.columns[one].column.property_name for one in key.columns):
            part = _add(parts, "Record", Type=f"{KEYS}.PropertyRef")
            _add(part, "PropertyValue", Property="Alias", String=name)
            _add(part, "PropertyValue", Property="Name", PropertyPath=name)


def _property(element: ET.Element, column: Column) -> None:
    attributes = {"Name": column.property_name, "Type": edm_type(column)}
    if column.is_primary_id:
        attributes["Nullable"] = "false"
    if column.type in (ColumnType.STRING, ColumnType.MEMO):
        attributes["Unicode"] = "true"
    if attributes["Type"] == "Edm.Decimal":
        attributes["Scale"] = "Variable"
    found = _add(element, "Property", **attributes)
    if not (column.valid_for_create or column.valid_for_update):
        _add(found, "Annotation", Term="Org.OData.Core.V1.Computed", Bool="true")


def _single(
    element: ET.Element, facts: TableFacts, name: str, lookup: str, targets: tuple[str, ...], catalogue: Catalogue
) -> None:
    known = [target for target in targets if target in catalogue.tables]
    people = set(targets) <= {"systemuser", "team"}
    kind = known[0] if len(targets) == 1 and known else PRINCIPAL if people and len(targets) > 1 else BASE
    attributes = {"Name": name, "Type": f"{ALIAS}.{kind}"}
    if kind not in (BASE, PRINCIPAL):
        partner = [one for one, (table, column) in catalogue.tables[kind].collections.items()
                   if (table, column) == (facts.name, lookup)]  # fmt: skip
        attributes.update({"Partner": partner[0]} if partner else {})
    found = _add(element, "NavigationProperty", **attributes)
    key = "ownerid" if kind == PRINCIPAL else catalogue.tables[kind].key if kind in catalogue.tables else None
    if key is not None:
        own = facts.columns[lookup].column.property_name
        _add(found, "ReferentialConstraint", Property=own, ReferencedProperty=key)


def _operations(schema: ET.Element, operations: Sequence[Operation]) -> None:
    for name, members in ENUMS.items():
        enum = _add(schema, "EnumType", Name=name)
        for value, member in enumerate(members):
            _add(enum, "Member", Name=member, Value=str(value))
    for name, properties in COMPLEX.items():
        _complex(schema, name, properties)
    for one in operations:
        _operation(schema, one)


def _operation(schema: ET.Element, one: Operation) -> None:
    """Add an operation, and the type of its answer. Source: Use Web API functions; Use Web API actions."""
    answer = f"{one.name}Response"
    if one.signature.answer:
        _complex(schema, answer, one.signature.answer)
    element = _add(schema, one.kind, Name=one.name, **({"IsBound": "true"} if one.parameter else {}))
    for name, kind in (*([one.parameter] if one.parameter else ()), *one.signature.parameters.items()):
        needed = {} if name in one.signature.optional else {"Nullable": "false"}
        _add(element, "Parameter", Name=name, Type=kind, **needed)
    if one.signature.answer:
        _add(element, "ReturnType", Type=f"{ALIAS}.{answer}", Nullable="false")


def _complex(schema: ET.Element, name: str, properties: Mapping[str, str]) -> None:
    element = _add(schema, "ComplexType", Name=name, **({} if properties else {"OpenType": "true"}))
    for one, kind in properties.items():
        _add(element, "Property", Name=one, Type=kind)


def _entity_set(container: ET.Element, facts: TableFacts, catalogue: Catalogue, *, annotated: bool) -> None:
    element = _add(container, "EntitySet", Name=facts.table.entity_set_name, EntityType=f"{NAMESPACE}.{facts.name}")
    for name, (_, targets) in facts.navigation.items():
        if len(targets) == 1 and targets[0] in catalogue.tables:
            target = catalogue.tables[targets[0]].table.entity_set_name
            _add(element, "NavigationPropertyBinding", Path=name, Target=target)
    for name, (table, _) in facts.collections.items():
        if table in catalogue.tables:
            target = catalogue.tables[table].table.entity_set_name
            _add(element, "NavigationPropertyBinding", Path=name, Target=target)
    if annotated:
        record = _add(_add(element, "Annotation", Term=TRACKING), "Record")
        _add(record, "PropertyValue", Property="Supported", Bool=str(facts.table.change_tracking).lower())


def _imports(container: ET.Element, operations: Sequence[Operation]) -> None:
    for one in operations:
        if one.parameter is None:
            _add(container, f"{one.kind}Import", Name=one.name, **{one.kind: f"{NAMESPACE}.{one.name}"})
