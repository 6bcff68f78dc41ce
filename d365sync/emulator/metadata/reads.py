"""Answers to ``EntityDefinitions…``: addresses, ``$select``, ``$expand``, casts.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from werkzeug.wrappers import Response

from d365sync.emulator.calls import JSON, Call, json_response
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.metadata.conditions import parse_conditions
from d365sync.emulator.metadata.documents import (
    BASE_PROPERTIES,
    Document,
    column_documents,
    metadata_id,
    option_set,
    relationship_documents,
    table_document,
)
from d365sync.emulator.metadata.keys import key_document, key_documents, read_one_key
from d365sync.emulator.refuse import NAMESPACE, Refusal, bad_uri, no_segment, not_implemented
from d365sync.emulator.wire import encode_json

_KEY = re.compile(r"(?:LogicalName=)?'([\w]+)'")
_EXPANDED = re.compile(r"(\w+)(?:\(\$select=([\w,\s]*)\))?(?:,|$)")
_OPTIONED = ("Picklist", "MultiSelectPicklist", "State", "Status", "Boolean")
_PLAIN = ("UniqueIdentifier", "String", "Memo", "Integer", "BigInt", "Decimal", "Double", "Money", "DateTime")
KINDS = frozenset(f"{name}AttributeMetadata" for name in (*_PLAIN, "Lookup", "EntityName", *_OPTIONED))
RELATIONSHIPS = ("OneToManyRelationships", "ManyToOneRelationships", "ManyToManyRelationships")
KNOWN = ("$select", "$filter", "$expand")
_KEPT = 64
"""How many different answers about a table's columns are kept."""


def read_definitions(call: Call, key: str | None, rest: Sequence[tuple[str, str | None]]) -> Response:
    """Answer an address that begins with ``EntityDefinitions``.

    ``key`` is what stands in its brackets; ``rest`` are the further segments with theirs.
    """
    call.need_privilege("prvReadEntity", "entity")
    for name in call.arguments:
        if name.startswith("$") and name not in KNOWN:
            raise not_implemented(f"the query option '{name}' on definitions")
    if key is None:
        return _list_tables(call)
    facts = definition_of(call, key)
    if not rest:
        document = _shaped_table(call, facts)
        return json_response({"@odata.context": f"{call.root}$metadata#EntityDefinitions/$entity", **document})
    if rest[0][0] in RELATIONSHIPS and len(rest) == 1 and rest[0][1] is None:
        return _list_relationships(call, facts, rest[0][0])
    if rest[0][0] == "Keys" and len(rest) == 1:
        return _read_keys(call, facts, rest[0][1])
    if rest[0][0] != "Attributes" or len(rest) > 2:
        raise not_implemented(f"the address 'EntityDefinitions(…)/{rest[0][0]}'")
    call.need_privilege("prvReadAttribute", "attribute")
    return _read_columns(call, facts, rest[0][1], rest[1][0] if len(rest) == 2 else None)


def _read_keys(call: Call, facts: TableFacts, inside: str | None) -> Response:
    if inside is not None:
        return read_one_key(call, facts, inside)
    context = f"{call.root}$metadata#EntityDefinitions('{facts.name}')/Keys"
    select = call.arguments.get("$select")
    value = [_selected(one, select, one.keys(), "EntityKeyMetadata") for one in key_documents(call, facts)]
    return json_response({"@odata.context": context, "value": value})


def _list_tables(call: Call) -> Response:
    keep = parse_conditions(call.arguments["$filter"]) if "$filter" in call.arguments else None
    tables = [facts for facts in call.store.catalogue.tables.values() if keep is None or keep(table_document(facts))]
    context = f"{call.root}$metadata#EntityDefinitions"
    return json_response({"@odata.context": context, "value": [_shaped_table(call, facts) for facts in tables]})


def definition_of(call: Call, key: str) -> TableFacts:
    """Return the table that stands in the brackets of ``EntityDefinitions(…)``.

    Raises:
        Refusal: there is none.
    """
    match = _KEY.fullmatch(key)
    wanted = match[1] if match else None
    for facts in call.store.catalogue.tables.values():
        if facts.name == wanted or metadata_id(facts.name) == key.lower():
            return facts
    raise Refusal(404, "0x80060888", f"Could not find an entity with specified key: {key}.")


def _shaped_table(call: Call, facts: TableFacts) -> Document:
    document = table_document(facts)
    shaped = _selected(document, call.arguments.get("$select"), document.keys(), "EntityMetadata")
    for name, select in _expanded(call.arguments.get("$expand", "")):
        if name in RELATIONSHIPS:
            shaped[name] = [_related(one, select) for one in _relationships(call, facts, name)]
        elif name == "Keys":
            keys = [key_document(facts, key) for key in facts.keys]
            shaped["Keys"] = [_selected(one, select, one.keys(), "EntityKeyMetadata") for one in keys]
        elif name == "Attributes":
            shaped["Attributes"] = [_uncast(one, select) for one in column_documents(facts)]
        else:
            raise not_implemented(f"$expand of '{name}' on EntityDefinitions")
    return shaped


def _list_relationships(call: Call, facts: TableFacts, name: str) -> Response:
    found = _relationships(call, facts, name)
    if "$filter" in call.arguments:
        found = list(filter(parse_conditions(call.arguments["$filter"]), found))
    context = f"{call.root}$metadata#EntityDefinitions('{facts.name}')/{name}"
    return json_response(
        {"@odata.context": context, "value": [_related(one, call.arguments.get("$select")) for one in found]}
    )


def read_relationships(call: Call, key: str | None, rest: Sequence[tuple[str, str | None]]) -> Response:
    """Answer an address that begins with ``RelationshipDefinitions``; ``key`` and ``rest`` as for definitions.

    All relationships are one-to-many, so the cast to that type leaves out nothing.
    """
    call.need_privilege("prvReadRelationship", "relationship")
    if rest and (len(rest) > 1 or rest[0] != (f"{NAMESPACE}OneToManyRelationshipMetadata", None)):
        raise not_implemented(f"the address 'RelationshipDefinitions/{rest[0][0]}'")
    tables = call.store.catalogue.tables
    found = list(relationship_documents(tables.values(), tables))
    select, context = call.arguments.get("$select"), f"{call.root}$metadata#RelationshipDefinitions"
    if key is not None:
        for one in found:
            if key in (one["MetadataId"], f"SchemaName='{one['SchemaName']}'"):
                return json_response({"@odata.context": f"{context}/$entity", **_related(one, select)})
        raise Refusal(404, "0x80060888", f"Could not find a relationship with specified key: {key}.")
    for name in call.arguments:
        if name.startswith("$") and name not in ("$select", "$filter"):
            raise not_implemented(f"the query option '{name}' on RelationshipDefinitions")
    if "$filter" in call.arguments:
        found = list(filter(parse_conditions(call.arguments["$filter"]), found))
    return json_response({"@odata.context": context, "value": [_related(one, select) for one in found]})


def _relationships(call: Call, facts: TableFacts, name: str) -> list[Document]:
    """The relationships in which a table refers (many to one) or is referred to (one to many)."""
    if name == "ManyToManyRelationships":
        return []
    if name == "ManyToOneRelationships":
        return list(relationship_documents([facts], call.store.catalogue.tables))
    tables = call.store.catalogue.tables
    every = relationship_documents(tables.values(), tables)
    return [one for one in every if one["ReferencedEntity"] == facts.name]


def _related(document: Document, select: str | None) -> Document:
    return _selected(document, select, document.keys(), "OneToManyRelationshipMetadata")


def _read_columns(call: Call, facts: TableFacts, key: str | None, cast: str | None) -> Response:
    asked = (call.root, key, cast, tuple(sorted(call.arguments.items())))
    body = facts.answered.get(asked)
    if body is None:
        body = encode_json(_columns_read(call, facts, key, cast))
        if len(facts.answered) < _KEPT:
            facts.answered[asked] = body
    return Response(body, content_type=JSON)


def _columns_read(call: Call, facts: TableFacts, key: str | None, cast: str | None) -> Document:
    if cast is not None and not cast.startswith(NAMESPACE):
        raise no_segment(cast)
    kind = cast.removeprefix(NAMESPACE) if cast else None
    documents: Iterable[Document] = column_documents(facts)
    if kind is not None:
        documents = _of_kind(documents, kind)
    if "$filter" in call.arguments:
        documents = list(filter(parse_conditions(call.arguments["$filter"]), documents))
    context = f"{call.root}$metadata#EntityDefinitions('{facts.name}')/Attributes{f'/{cast}' if cast else ''}"
    if key is None:
        return {"@odata.context": context, "value": [_column(call, facts, one, kind) for one in documents]}
    for one in documents:
        if key in (f"LogicalName='{one['LogicalName']}'", one["MetadataId"]):
            return {"@odata.context": f"{context}/$entity", **_column(call, facts, one, kind)}
    raise Refusal(404, "0x80060888", f"Could not find an attribute with specified key: {key}.")


def _of_kind(documents: Iterable[Document], kind: str) -> list[Document]:
    if kind not in KINDS:
        raise bad_uri(f"The type '{NAMESPACE}{kind}' is not derived from 'Microsoft.Dynamics.CRM.AttributeMetadata'.")
    return [one for one in documents if one["@odata.type"] == f"#{NAMESPACE}{kind}"]


def _column(call: Call, facts: TableFacts, document: Document, kind: str | None) -> Document:
    select = call.arguments.get("$select")
    if kind is None:
        if "$expand" in call.arguments:
            raise bad_uri("$expand on Attributes needs a cast to the type of the attribute.")
        return _uncast(document, select)
    shaped = _selected(document, select, document.keys(), kind)
    for name, inner in _expanded(call.arguments.get("$expand", "")):
        if name not in ("OptionSet", "GlobalOptionSet") or kind.removesuffix("AttributeMetadata") not in _OPTIONED:
            raise not_implemented(f"$expand of '{name}' on {kind}")
        options = option_set(facts, facts.columns[document["LogicalName"]])
        shaped[name] = (
            None if name == "GlobalOptionSet" else _selected(options, inner, options.keys(), "OptionSetMetadata")
        )
    return shaped


def _uncast(document: Document, select: str | None) -> Document:
    return _selected(document, select, BASE_PROPERTIES, "AttributeMetadata")


def _selected(document: Document, select: str | None, allowed: Iterable[str], kind: str) -> Document:
    if not select:
        return dict(document)
    names = [name.strip() for name in select.split(",") if name.strip()]
    for name in names:
        if name not in allowed:
            raise bad_uri(f"Could not find a property named '{name}' on type '{NAMESPACE}{kind}'.")
    kept: Mapping[str, Any] = {"@odata.type": document["@odata.type"]} if "@odata.type" in document else {}
    return {**kept, **{name: document[name] for name in names}, "MetadataId": document["MetadataId"]}


def _expanded(text: str) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    position = 0
    while position < len(text):
        match = _EXPANDED.match(text, position)
        if match is None:
            raise not_implemented(f"the $expand '{text[:200]}' on definitions")
        found.append((match[1], match[2]))
        position = match.end()
    return found
