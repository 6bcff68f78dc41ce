"""Bulk messages: CreateMultiple, UpdateMultiple, UpsertMultiple; DeleteMultiple is for elastic tables and refused.

One request, one transaction: the first row that is refused takes the others with it. Source: Use bulk operation
messages; CreateMultiple and UpsertMultiple actions; Troubleshoot Dataverse client errors; public reports of what tables
without the message, targets of several tables, and an alternate key in both places get. Assumed:

- status and code where DeleteMultiple is refused, and where ``@odata.type`` is missing or ``Targets`` empty
- an upsert that repeats a row is refused with the error of a key that is taken
- rows nested in a target are not made

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from werkzeug.wrappers import Response

from d365sync.emulator.calls import Call, empty_response, json_response
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.keys import RowKey, key_of
from d365sync.emulator.payload import TYPE, parse_payload, type_name
from d365sync.emulator.references import referenced
from d365sync.emulator.refuse import ARGUMENT, DUPLICATE, NOT_FOUND, Refusal, bad_payload, invalid
from d365sync.emulator.rows import create
from d365sync.emulator.wire import WireError, read_value
from d365sync.emulator.writes import change_row

Target = Mapping[str, Any]

ID = "@odata.id"
UNSUPPORTED = "0x80040800"
MIXED = {"CreateMultiple": ARGUMENT, "UpdateMultiple": "0x80041103", "UpsertMultiple": ARGUMENT}
"""What targets of another table get, by message."""
ELASTIC_ONLY = "DeleteMultiple"


def bulk_message(call: Call, facts: TableFacts, name: str) -> Response:
    """Answer ``POST set/Microsoft.Dynamics.CRM.<name>``; the name is one of :data:`BULK`, or DeleteMultiple.

    Raises:
        Refusal: the table has no such message, or one of the rows is refused.
    """
    if name == ELASTIC_ONLY:
        raise invalid("DeleteMultiple has not yet been implemented.")
    if not facts.bulk:
        text = f"The '{name}' method does not support entities of type '{facts.name}'."
        raise Refusal(400, UNSUPPORTED, f"{text} MessageProcessorCache returned MessageProcessor.Empty.")
    return BULK[name](call, facts, _targets(call, facts, name))


def _create_multiple(call: Call, facts: TableFacts, targets: Sequence[Target]) -> Response:
    call.need("Create", facts)
    ids = [_create(call, facts, target, {}) for target in targets]
    return json_response({"@odata.context": call.answer_context("CreateMultiple"), "Ids": ids})


def _update_multiple(call: Call, facts: TableFacts, targets: Sequence[Target]) -> Response:
    """Of several targets that name one row the first is carried out, the others are ignored: documented so."""
    call.need("Write", facts)
    keys = [_needed(_key(call, facts, target), facts) for target in targets]
    _check_there(call, facts, keys)
    done: set[str] = set()
    for key, target in zip(keys, targets, strict=True):
        row = key.row(call.store)
        row_id = str(row[facts.key])
        if row_id not in done:
            done.add(row_id)
            call.need_row("Write", facts, row)
            change_row(call, key, target)
    return empty_response(204)


def _upsert_multiple(call: Call, facts: TableFacts, targets: Sequence[Target]) -> Response:
    done: set[str] = set()
    for target in targets:
        key = _key(call, facts, target)
        row = None if key is None else key.row_if_any(call.store)
        if key is not None and row is not None:
            row_id = str(row[facts.key])
            if row_id in done:
                raise _duplicate()
            call.need_row("Write", facts, row)
            change_row(call, key, target)
        else:
            call.need("Create", facts)
            row_id = _create(call, facts, target, _given(call, key, target))
        done.add(row_id)
    return empty_response(204)


BULK = {"CreateMultiple": _create_multiple, "UpdateMultiple": _update_multiple, "UpsertMultiple": _upsert_multiple}
"""The bulk messages that tables may have, by name."""


def _create(call: Call, facts: TableFacts, target: Target, given: Mapping[str, Any]) -> str:
    changes = {**given, **parse_payload(target, facts, call.store, call.root, creating=True)}
    row_id = changes.get(facts.key)
    if row_id is not None and call.store.get(facts.name, row_id) is not None:
        raise _duplicate()
    return str(create(call.store, facts, changes, call.user_id, call.real_id)[facts.key])


def _given(call: Call, key: RowKey | None, target: Target) -> Mapping[str, Any]:
    """Return the columns that the address of a row to be made sets."""
    if key is None:
        return {}
    if not key.values:
        return {key.facts.key: key.row_id}
    columns = key.facts.columns
    if call.store.settings.upsert_key_in_body_fails and any(
        columns[name].column.property_name in target for name in key.values
    ):
        raise Refusal(400, "0x80040216", "An unexpected error occurred.")
    return key.values


def _targets(call: Call, facts: TableFacts, name: str) -> Sequence[Target]:
    targets = call.body().get("Targets")
    if not isinstance(targets, list) or not targets or not all(isinstance(one, dict) for one in targets):
        raise invalid(f"Required field 'Targets' is missing for the action {name}: a list of rows.")
    for target in targets:
        kind = target.get(TYPE)
        if not isinstance(kind, str):
            shown = f"'{TYPE}' is required with every item of 'Targets'."
            raise bad_payload(facts.table.entity_set_name, shown)
        table = type_name(kind)
        if table not in call.store.catalogue.tables:
            shown = f"A type named '{kind[:200]}' could not be resolved by the model."
            raise bad_payload(facts.table.entity_set_name, shown)
        if table != facts.name:
            text = f"The targets of {name} must all be rows of '{facts.name}', one is of '{table}'."
            raise Refusal(400, MIXED[name], text)
    return targets


def _key(call: Call, facts: TableFacts, target: Target) -> RowKey | None:
    """Return the row a target names by its address or its id, None when it names none."""
    if ID in target:
        key = referenced(target[ID], call.store, call.root)
        if key is None or key.facts.name != facts.name:
            shown = f"'{ID}' {str(target[ID])[:200]!r} is not the address of a row of this table."
            raise bad_payload(facts.table.entity_set_name, shown)
        return key
    try:
        row_id = read_value(facts.columns[facts.key].column, target.get(facts.key))
    except WireError as error:
        raise bad_payload(facts.table.entity_set_name, f"the property '{facts.key}' {error}.") from error
    return None if row_id is None else key_of(facts, str(row_id))


def _needed(key: RowKey | None, facts: TableFacts) -> RowKey:
    if key is None:
        raise invalid(f"Entity Id must be specified: each target needs '{facts.key}' or '{ID}'.")
    return key


def _check_there(call: Call, facts: TableFacts, keys: Sequence[RowKey]) -> None:
    missing = [key for key in keys if key.row_if_any(call.store) is None]
    for key in missing:
        if key.values:
            key.row(call.store)
    if missing:
        shown = ", ".join(dict.fromkeys(str(key.row_id) for key in missing))
        raise Refusal(404, NOT_FOUND, f"{facts.name} With Ids = {shown} Do Not Exist")


def _duplicate() -> Refusal:
    return Refusal(412, DUPLICATE, "Cannot insert duplicate key.")
