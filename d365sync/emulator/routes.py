"""Addresses: which part of the service answers a path below ``/api/data/v9.x/``.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from werkzeug.wrappers import Response

from d365sync.emulator.actions import ACTIONS, unbound_action
from d365sync.emulator.batch import answer_batch
from d365sync.emulator.bulk import BULK, ELASTIC_ONLY, bulk_message
from d365sync.emulator.calls import Call, json_response
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.functions import FUNCTIONS, UNDONE_FUNCTIONS, call_function
from d365sync.emulator.keys import read_key
from d365sync.emulator.metadata.csdl import metadata_document
from d365sync.emulator.metadata.keys import create_key, delete_key
from d365sync.emulator.metadata.made import create_column, create_table, delete_column, delete_table
from d365sync.emulator.metadata.reads import definition_of, read_definitions, read_relationships
from d365sync.emulator.reads import count_collection, read_collection, read_row
from d365sync.emulator.refuse import NAMESPACE, Refusal, bad_uri, no_segment, not_implemented
from d365sync.emulator.rowpaths import Segment, below_row
from d365sync.emulator.writes import create_row, delete_row, update_row

_SEGMENT = re.compile(r"([^/()']+)(?:\(((?:'[^']*'|[^()'])*)\))?(?:/|$)")
UNDONE = ("GlobalOptionSetDefinitions",)
UNDONE_CHANGES: Mapping[tuple[str, bool], tuple[str, ...]] = {
    ("EntityDefinitions", True): ("PUT",),
    ("RelationshipDefinitions", False): ("POST",),
    ("RelationshipDefinitions", True): ("PUT", "DELETE"),
}
"""Methods that are known and not imitated, at and below definitions without and with a key.

Source: Create and update table definitions, Create and update column definitions, Create and update table relationships
using the Web API.
"""


def route(call: Call, path: str) -> Response:
    """Answer a call; ``path`` is what follows the service root.

    Raises:
        Refusal: no such address, or whatever the addressed part refuses.
    """
    if not path:
        return _only_get(call, lambda: _service_document(call))
    (name, key), *rest = _segments(path)
    named = _named(call, name, key, rest)
    if named is not None:
        return named
    facts = call.store.catalogue.sets.get(name)
    if facts is None:
        if call.request.method == "POST" and key is None and not rest:
            return unbound_action(call, name)
        raise no_segment(name)
    return _route_table(call, facts, key, rest)


def _named(call: Call, name: str, key: str | None, rest: list[Segment]) -> Response | None:
    """Answer what is no table, None when the name is none of those."""
    method = call.request.method
    if name in UNDONE or name in UNDONE_FUNCTIONS:
        raise not_implemented(f"'{name}'")
    if method in UNDONE_CHANGES.get((name, key is not None), ()):
        raise not_implemented(f"{method} of '{'/'.join((name, *(segment for segment, _ in rest)))[:200]}'")
    if name == "EntityDefinitions":
        return _definitions(call, key, rest)
    if name == "RelationshipDefinitions":
        return _only_get(call, lambda: read_relationships(call, key, rest))
    if rest:
        return None
    if name in FUNCTIONS:
        return _only_get(call, lambda: call_function(call, name, key))
    plain: Mapping[str, tuple[str, Callable[[], Response]]] = {
        "$batch": ("POST", lambda: answer_batch(call, route)),
        "$metadata": ("GET", lambda: _metadata(call)),
        **{one: ("POST", lambda: unbound_action(call, name)) for one in ACTIONS},
    }
    return _answer(call, dict([plain[name]])) if name in plain and key is None else None


def _segments(path: str) -> list[Segment]:
    found: list[Segment] = []
    position = 0
    while position < len(path):
        match = _SEGMENT.match(path, position)
        if match is None:
            raise bad_uri(f"Bad Request - Error in query syntax: '{path}'.")
        found.append((match[1], match[2]))
        position = match.end()
    return found


def _route_table(call: Call, facts: TableFacts, key: str | None, rest: list[Segment]) -> Response:
    if key is None:
        return _answer(call, _below_set(call, facts, rest))
    named = read_key(key, facts, call.store, call.arguments)
    if rest:
        return _answer(call, below_row(call, named, rest))
    return _answer(
        call,
        {
            "GET": lambda: read_row(call, named),
            "PATCH": lambda: update_row(call, named),
            "DELETE": lambda: delete_row(call, named),
        },
    )


def _below_set(call: Call, facts: TableFacts, rest: list[Segment]) -> Mapping[str, Callable[[], Response]]:
    """Return what answers an address of a whole table, or below it, by HTTP method."""
    if not rest:
        return {"GET": lambda: read_collection(call, facts), "POST": lambda: create_row(call, facts)}
    (name, inside), *further = rest
    if inside is None and not further:
        if name == "$count":
            return {"GET": lambda: count_collection(call, facts)}
        message = name.removeprefix(NAMESPACE)
        if name.startswith(NAMESPACE) and (message in BULK or message == ELASTIC_ONLY):
            return {"POST": lambda: bulk_message(call, facts, message)}
    raise _undone_bound(facts, name)


def _undone_bound(facts: TableFacts, name: str) -> Refusal:
    if name.startswith(NAMESPACE):
        return not_implemented(f"the message '{name.removeprefix(NAMESPACE)[:100]}' on '{facts.table.entity_set_name}'")
    return no_segment(name)


def _answer(call: Call, by_method: Mapping[str, Callable[[], Response]]) -> Response:
    answer = by_method.get(call.request.method)
    if answer is None:
        allowed = ", ".join(by_method)
        text = f"The requested resource does not support http method '{call.request.method}'."
        raise Refusal(405, "0x80060888", text, {"Allow": allowed})
    return answer()


def _only_get(call: Call, answer: Callable[[], Response]) -> Response:
    return _answer(call, {"GET": answer})


def _definitions(call: Call, key: str | None, rest: list[Segment]) -> Response:
    answers = {"GET": lambda: read_definitions(call, key, rest)}
    if key is None and not rest:
        answers["POST"] = lambda: create_table(call)
    elif key is not None and not rest:
        answers["DELETE"] = lambda: delete_table(call, key)
    elif key is not None and len(rest) == 1 and rest[0][0] == "Attributes":
        column = rest[0][1]
        if column is None:
            answers["POST"] = lambda: create_column(call, key)
        else:
            answers["DELETE"] = lambda: delete_column(call, key, column)
    elif key is not None and len(rest) == 1 and rest[0][0] == "Keys":
        inside = rest[0][1]
        if inside is None:
            answers["POST"] = lambda: create_key(call, definition_of(call, key))
        else:
            answers["DELETE"] = lambda: delete_key(call, definition_of(call, key), inside)
    return _answer(call, answers)


def _metadata(call: Call) -> Response:
    annotated = call.arguments.get("annotations", "false").lower() == "true"
    return Response(metadata_document(call.store.catalogue, annotated=annotated), content_type="application/xml")


def _service_document(call: Call) -> Response:
    sets = [{"name": name, "kind": "EntitySet", "url": name} for name in sorted(call.store.catalogue.sets)]
    return json_response({"@odata.context": f"{call.root}$metadata", "value": sets})
