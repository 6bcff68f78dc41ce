"""``$metadata``: the tables, functions and actions as CSDL XML.

Source: Web API types and operations; Web API EntityType reference (namespace Microsoft.Dynamics.CRM, alias mscrm,
lookups as ``_name_value`` beside their navigation property); OData CSDL 4.0. Assumed: choices are whole numbers, as on
rows; lookups that may name several tables, such as owners, lead to ``principal`` where a user or a team is meant and to
``crmbaseentity`` otherwise; the term of change tracking stands on every entity set, true or false.

Pure.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from d365sync.core.schema import Column, ColumnType
from d365sync.emulator.facts import Catalogue, TableFacts
from d365sync.emulator.odata.literals import edm_type

NAMESPACE = "Microsoft.Dynamics.CRM"
ALIAS = "mscrm"
EDMX = "http://docs.oasis-open.org/odata/ns/edmx"
EDM = "http://docs.oasis-open.org/odata/ns/edm"
TRACKING = "Org.OData.Capabilities.V1.ChangeTracking"
BASE = "crmbaseentity"
PRINCIPAL = "principal"
_BASE_TYPE = f"{ALIAS}.{BASE}"
_FUNCTIONS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "WhoAmI": ({}, {"BusinessUnitId": "Edm.Guid", "UserId": "Edm.Guid", "OrganizationId": "Edm.Guid"}),
    "RetrieveVersion": ({}, {"Version": "Edm.String"}),
    "RetrieveTotalRecordCount": (
        {"EntityNames": "Collection(Edm.String)"},
        {"EntityRecordCountCollection": f"{ALIAS}.EntityRecordCountCollection"},
    ),
}
_COMPLEX = {
    "EntityRecordCountCollection": {
        "Count": "Edm.Int32",
        "IsReadOnly": "Edm.Boolean",
        "Keys": "Collection(Edm.String)",
        "Values": "Collection(Edm.Int64)",
    },
    "CreateMultipleResponse": {"Ids": "Collection(Edm.Guid)"},
}
_ACTIONS: dict[str, dict[str, str]] = {
    "WinOpportunity": {"Status": "Edm.Int32", "OpportunityClose": _BASE_TYPE},
    "LoseOpportunity": {"Status": "Edm.Int32", "OpportunityClose": _BASE_TYPE},
}
_BOUND_ACTIONS = {"Recalculate": "goal"}
_BULK_ACTIONS = {"CreateMultiple": "CreateMultipleResponse", "UpdateMultiple": None, "UpsertMultiple": None}
"""What the actions bound to every collection return."""


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
    _operations(schema, catalogue)
    container = _add(schema, "EntityContainer", Name="System")
    for facts in catalogue.tables.values():
        _entity_set(container, facts, catalogue, annotated=annotated)
    _imports(container)
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
    for name, (table, lookup) in facts.collections.items():
        if table in catalogue.tables:
            partner = catalogue.tables[table].columns[lookup].navigation.get(facts.name)
            shown = {"Name": name, "Type": f"Collection({ALIAS}.{table})"}
            _add(element, "NavigationProperty", **shown, **({"Partner": partner} if partner else {}))


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


def _operations(schema: ET.Element, catalogue: Catalogue) -> None:
    for name, properties in _COMPLEX.items():
        _complex(schema, name, properties)
    for name, (parameters, answer) in _FUNCTIONS.items():
        _complex(schema, f"{name}Response", answer)
        function = _add(schema, "Function", Name=name)
        for parameter, kind in parameters.items():
            _add(function, "Parameter", Name=parameter, Type=kind, Nullable="false")
        _add(function, "ReturnType", Type=f"{ALIAS}.{name}Response", Nullable="false")
    for name, parameters in _ACTIONS.items():
        action = _add(schema, "Action", Name=name)
        for parameter, kind in parameters.items():
            _add(action, "Parameter", Name=parameter, Type=kind, Nullable="false")
    for name, table in _BOUND_ACTIONS.items():
        if table in catalogue.tables:
            action = _add(schema, "Action", Name=name, IsBound="true")
            _add(action, "Parameter", Name="entity", Type=f"{ALIAS}.{table}", Nullable="false")
    for name, returned in _BULK_ACTIONS.items():
        _bulk_action(schema, name, returned)


def _bulk_action(schema: ET.Element, name: str, answer: str | None) -> None:
    """Source: CreateMultiple, UpdateMultiple and UpsertMultiple actions (bound to a collection of any table)."""
    action = _add(schema, "Action", Name=name, IsBound="true")
    for parameter in ("entityset", "Targets"):
        _add(action, "Parameter", Name=parameter, Type=f"Collection({_BASE_TYPE})", Nullable="false")
    if answer is not None:
        _add(action, "ReturnType", Type=f"{ALIAS}.{answer}", Nullable="false")


def _complex(schema: ET.Element, name: str, properties: dict[str, str]) -> None:
    element = _add(schema, "ComplexType", Name=name)
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


def _imports(container: ET.Element) -> None:
    for name in _FUNCTIONS:
        _add(container, "FunctionImport", Name=name, Function=f"{NAMESPACE}.{name}")
    for name in _ACTIONS:
        _add(container, "ActionImport", Name=name, Action=f"{NAMESPACE}.{name}")
