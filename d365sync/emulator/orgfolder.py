"""Reads an org folder: one ``<entity set>.json`` per table, rows in Web API shape, and ``schema.json``.

Loaded rows are facts: read-only columns, rollup values and closed goals are stored as given; only what the
platform always keeps is added where it is absent. A folder that is not right is refused as a whole, before
anything is served.

IO: files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d365sync.core.schema import Column
from d365sync.core.values import Row, Value
from d365sync.emulator.clock import Clock
from d365sync.emulator.facts import Catalogue, TableFacts
from d365sync.emulator.goaltree import inherited_from_metric, place_in_trees
from d365sync.emulator.kept import completed
from d365sync.emulator.keys import duplicates
from d365sync.emulator.messages import list_messages
from d365sync.emulator.schema.loader import build_catalogue, read_additions
from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.store import VERSION, Store
from d365sync.emulator.supplied import Tables, supply
from d365sync.emulator.wire import WireError, decode_json, read_value
from d365sync.errors import OrgFolderError, SchemaError

SCHEMA_FILE = "schema.json"
TABLE_OF = "@Microsoft.Dynamics.CRM.lookuplogicalname"
_FIRST = ("transactioncurrency", "organization", "businessunit", "systemuser", "team", "metric", "opportunity")


def load_org(folder: Path, clock: Clock, settings: EmulatorSettings, client_id: str) -> Store:
    """Load a folder into a new store.

    Raises:
        OrgFolderError: the folder, a file, a row or a value is not right; the message says which.
    """
    if not folder.is_dir():
        raise OrgFolderError(f"the org folder {folder} is not there")
    catalogue = _catalogue(folder, settings)
    tables: Tables = {name: [] for name in catalogue.tables}
    for file in sorted(folder.glob("*.json")):
        if file.name != SCHEMA_FILE:
            facts = _facts_of(file, catalogue)
            tables[facts.name] = _read_file(file, facts)
    _resolve_polymorphic(tables, catalogue)
    supply(tables, client_id, settings)
    return _stored(tables, catalogue, clock, settings)


def _catalogue(folder: Path, settings: EmulatorSettings) -> Catalogue:
    file = folder / SCHEMA_FILE
    try:
        additions = read_additions(file.read_bytes()) if file.is_file() else {}
        return build_catalogue(additions, settings.change_tracking, settings.bulk_messages)
    except ValueError as error:
        raise OrgFolderError(f"{SCHEMA_FILE}: {error}") from error
    except SchemaError as error:
        raise OrgFolderError(str(error)) from error


def _facts_of(file: Path, catalogue: Catalogue) -> TableFacts:
    facts = catalogue.sets.get(file.stem)
    if facts is not None:
        return facts
    by_name = catalogue.tables.get(file.stem)
    mend = f"; name it {by_name.table.entity_set_name}.json" if by_name else ""
    raise OrgFolderError(f"{file.name}: there is no entity set '{file.stem}'{mend}")


def _read_file(file: Path, facts: TableFacts) -> list[dict[str, Value]]:
    try:
        document = decode_json(file.read_bytes())
    except WireError as error:
        raise OrgFolderError(f"{file.name}: not JSON: {error}") from error
    if not isinstance(document, list):
        raise OrgFolderError(f"{file.name}: a JSON array of rows is expected")
    reader = _RowReader(file.name, facts)
    rows = [reader.row(index, raw) for index, raw in enumerate(document)]
    reader.check_ids(rows)
    return rows


class _RowReader:
    """Turns raw rows of one file into typed ones; knows how each key of the JSON is to be read."""

    def __init__(self, file: str, facts: TableFacts) -> None:
        self._file = file
        self._facts = facts
        self._columns = {name: facts.columns[logical].column for name, logical in facts.properties.items()}
        self._types = {
            f"{column.property_name}{TABLE_OF}": column for column in self._columns.values() if column.is_polymorphic
        }

    def row(self, index: int, raw: Any) -> dict[str, Value]:
        if not isinstance(raw, dict):
            raise OrgFolderError(f"{self._file}: row {index} is not a JSON object")
        row: dict[str, Value] = {}
        for key, value in raw.items():
            column = self._columns.get(key)
            if column is not None:
                row[column.logical_name] = self._value(index, key, column, value)
            else:
                self._annotation(index, key, value, row)
        row.pop(VERSION, None)
        if row.get(self._facts.key) is None:
            raise OrgFolderError(f"{self._file}: row {index} has no '{self._facts.key}'")
        return row

    def check_ids(self, rows: list[dict[str, Value]]) -> None:
        seen: dict[Value, int] = {}
        for index, row in enumerate(rows):
            first = seen.setdefault(row[self._facts.key], index)
            if first != index:
                raise OrgFolderError(
                    f"{self._file}: row {index} has the same '{self._facts.key}' as row {first}: {row[self._facts.key]}"
                )

    def _value(self, index: int, key: str, column: Column, raw: Any) -> Value:
        try:
            return read_value(column, raw)
        except WireError as error:
            raise OrgFolderError(f"{self._file}: row {index}, column '{key}' {error}") from error

    def _annotation(self, index: int, key: str, value: Any, row: dict[str, Value]) -> None:
        column = self._types.get(key)
        if column is None:
            if key.partition("@")[0] in ("", *self._columns) and "@" in key:
                return
            raise OrgFolderError(f"{self._file}: row {index} has a column '{key}' that '{self._facts.name}' has not")
        if value not in column.targets:
            raise OrgFolderError(
                f"{self._file}: row {index}, '{key}' holds {value!r}, which is none of {', '.join(column.targets)}"
            )
        row[column.type_name] = str(value)


def _resolve_polymorphic(tables: Tables, catalogue: Catalogue) -> None:
    ids: dict[str, frozenset[Value]] = {}
    for facts in catalogue.tables.values():
        for column in (one.column for one in facts.columns.values() if one.column.is_polymorphic):
            for index, row in enumerate(tables[facts.name]):
                if row.get(column.logical_name) is not None and column.type_name not in row:
                    row[column.type_name] = _target(index, row, column, facts, tables, catalogue, ids)


def _target(
    index: int,
    row: Row,
    column: Column,
    facts: TableFacts,
    tables: Tables,
    catalogue: Catalogue,
    ids: dict[str, frozenset[Value]],
) -> str:
    for target in column.targets:
        if target not in ids and target in catalogue.tables:
            key = catalogue.tables[target].key
            ids[target] = frozenset(other.get(key) for other in tables[target])
        if row[column.logical_name] in ids.get(target, ()):
            return target
    raise OrgFolderError(
        f"{facts.table.entity_set_name}.json: row {index}, column '{column.property_name}' names a row that is in "
        f"none of {', '.join(column.targets)}; say which with '{column.property_name}{TABLE_OF}'"
    )


def _stored(tables: Tables, catalogue: Catalogue, clock: Clock, settings: EmulatorSettings) -> Store:
    store = Store(catalogue, clock, settings)
    now = clock.now()
    rest = sorted(name for name in tables if name not in _FIRST)
    store.restore("organization", [{**row, VERSION: 0} for row in tables["organization"]], ())
    for name in (*_FIRST, *rest):
        facts = catalogue.tables[name]
        moment: Mapping[str, Value] = {} if "createdon" not in facts.columns else {"createdon": now, "modifiedon": now}
        for row in tables[name]:
            given = {**inherited_from_metric(row, store), **row} if name == "goal" else row
            store.put(name, completed(facts, {**moment, **given}, store))
    place_in_trees(store)
    _check_keys(store)
    list_messages(store)
    return store


def _check_keys(store: Store) -> None:
    """Refuse rows that share the values of an alternate key."""
    for facts in store.catalogue.tables.values():
        for key in facts.keys:
            shared = duplicates(key, store.rows(facts.name).values())
            if shared is not None:
                shown = ", ".join(str(value) for value in shared)
                file = f"{facts.table.entity_set_name}.json"
                raise OrgFolderError(f"{file}: two rows have the same key '{key.name}': {shown}")
