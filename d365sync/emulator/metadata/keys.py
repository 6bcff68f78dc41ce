"""Definitions of alternate keys: ``EntityDefinitions(…)/Keys`` read, made and removed.

Source: Define alternate keys for a table; Work with alternate keys (EntityKeyMetadata; at most ten keys). Assumed: the
index is there at once, so a key is active as soon as it is made, and one that rows break is refused; the codes of
refusals; that the platform's own keys are listed, and their names.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from werkzeug.wrappers import Response

from d365sync.emulator.calls import Call, empty_response, json_response
from d365sync.emulator.facts import AlternateKey, TableFacts
from d365sync.emulator.keys import duplicates
from d365sync.emulator.metadata.conditions import parse_conditions
from d365sync.emulator.metadata.documents import Document, label_document, metadata_id
from d365sync.emulator.refuse import Refusal, invalid
from d365sync.emulator.schema.loader import check_key
from d365sync.errors import SchemaError

MAX_KEYS = 10
INVALID_OPERATION = "0x8004023b"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{1,7}_\w{1,80}")


def key_document(facts: TableFacts, key: AlternateKey) -> Document:
    """Return the definition of an alternate key."""
    return {
        "MetadataId": _id(facts, key),
        "HasChanged": None,
        "LogicalName": key.name,
        "SchemaName": key.name,
        "EntityLogicalName": facts.name,
        "DisplayName": label_document(key.name),
        "KeyAttributes": list(key.columns),
        "EntityKeyIndexStatus": "Active",
        "IsManaged": key.managed,
    }


def key_documents(call: Call, facts: TableFacts) -> list[Document]:
    """Return the definitions of a table's keys that a request asks for."""
    found = [key_document(facts, key) for key in facts.keys]
    text = call.arguments.get("$filter")
    return found if text is None else list(filter(parse_conditions(text), found))


def read_one_key(call: Call, facts: TableFacts, inside: str) -> Response:
    """Answer ``GET EntityDefinitions(…)/Keys(…)``."""
    context = f"{call.root}$metadata#EntityDefinitions('{facts.name}')/Keys/$entity"
    return json_response({"@odata.context": context, **key_document(facts, _found(facts, inside))})


def create_key(call: Call, facts: TableFacts) -> Response:
    """Answer ``POST EntityDefinitions(…)/Keys``."""
    call.need_privilege("prvCreateEntityKey", "entitykey")
    body = call.body()
    name, columns = body.get("SchemaName"), body.get("KeyAttributes")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise invalid(f"The SchemaName {str(name)[:100]!r} is not valid: it needs a customization prefix.")
    if not isinstance(columns, list) or not all(isinstance(one, str) for one in columns):
        raise invalid(f"The key {name} needs KeyAttributes, a list of columns.")
    key = AlternateKey(name.lower(), tuple(columns))
    _check(call, facts, key)
    _redefine(call, facts, (*facts.keys, key))
    address = f"{call.root}EntityDefinitions({metadata_id(facts.name)})/Keys({_id(facts, key)})"
    return empty_response(204, {"OData-EntityId": address})


def delete_key(call: Call, facts: TableFacts, inside: str) -> Response:
    """Answer ``DELETE EntityDefinitions(…)/Keys(…)``."""
    call.need_privilege("prvDeleteEntityKey", "entitykey")
    gone = _found(facts, inside)
    if gone.managed:
        raise Refusal(405, INVALID_OPERATION, f"The key {gone.name} is part of the platform and cannot be removed.")
    _redefine(call, facts, [key for key in facts.keys if key != gone])
    return empty_response(204)


def _check(call: Call, facts: TableFacts, key: AlternateKey) -> None:
    try:
        check_key(facts.name, key, facts.table.columns)
    except SchemaError as error:
        raise invalid(str(error)) from error
    if any(one.name == key.name or set(one.columns) == set(key.columns) for one in facts.keys):
        raise invalid(f"A key with the name {key.name} or with the same columns already exists in {facts.name}.")
    if len(facts.keys) >= MAX_KEYS:
        raise invalid(f"The table {facts.name} has {MAX_KEYS} keys already.")
    shared = duplicates(key, call.store.rows(facts.name).values())
    if shared is not None:
        raise invalid(f"The key {key.name} cannot be made: rows of {facts.name} have the same values.")


def _redefine(call: Call, facts: TableFacts, keys: Sequence[AlternateKey]) -> None:
    call.store.redefine(call.store.catalogue.having(replace(facts, keys=tuple(keys))))


def _found(facts: TableFacts, inside: str) -> AlternateKey:
    for key in facts.keys:
        if inside.lower() in (_id(facts, key), f"logicalname='{key.name}'"):
            return key
    raise Refusal(404, "0x80060888", f"Could not find a key with specified key: {inside[:100]}.")


def _id(facts: TableFacts, key: AlternateKey) -> str:
    return metadata_id("key", facts.name, key.name)
