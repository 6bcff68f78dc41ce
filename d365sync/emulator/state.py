"""The emulator's state in a file: every row and deletion, so that it can go on where it stopped.

The file is JSON: values as the Web API spells them, under logical names. It holds rows only; tables come from the
org folder, so tables and columns that were made over the API are not kept.

IO: files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d365sync.core.values import Row, Value, format_instant, parse_instant
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.messages import list_messages
from d365sync.emulator.store import VERSION, Deletion, Store
from d365sync.emulator.wire import WireError, decode_json, encode_json, read_value, writer
from d365sync.errors import OrgFolderError

FORMAT = 1


def save_state(store: Store, path: Path) -> None:
    """Write the whole state or none of it.

    Raises:
        OSError: the file cannot be written.
    """
    with store.locked:
        document = {
            "format": FORMAT,
            "version": store.version,
            "tables": {
                name: _table(store, facts)
                for name, facts in store.loaded.tables.items()
                if name in store.catalogue.tables
            },
        }
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(encode_json(document))
    beside.replace(path)


def load_state(store: Store, path: Path) -> None:
    """Put a saved state in place of the rows of the org folder.

    Raises:
        OrgFolderError: the file is not a state, or does not fit the org's tables.
    """
    try:
        document = decode_json(path.read_bytes())
        if document["format"] != FORMAT:
            raise OrgFolderError(f"{path}: the state has format {document['format']}, {FORMAT} is expected")
        for name, table in document["tables"].items():
            facts = store.catalogue.tables[name]
            rows = [_read_row(facts, raw) for raw in table["rows"]]
            store.restore(name, rows, [Deletion(v, one, parse_instant(at)) for v, one, at in table["deleted"]])
        store.version = int(document["version"])
        list_messages(store)
    except (OSError, WireError, KeyError, TypeError, ValueError) as error:
        raise OrgFolderError(f"{path} is not a state of this organization: {error}") from None


def _table(store: Store, facts: TableFacts) -> dict[str, Any]:
    writers = {name: writer(one.column) for name, one in facts.columns.items()}
    rows = [_written(row, writers) for row in store.rows(facts.name).values()]
    deleted = [[one.version, one.id, format_instant(one.deleted_at)] for one in store.all_deletions(facts.name)]
    return {"rows": rows, "deleted": deleted}


def _written(row: Row, writers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: write(value) if (write := writers[name]) else value for name, value in row.items() if name in writers}


def _read_row(facts: TableFacts, raw: Mapping[str, Any]) -> dict[str, Value]:
    row: dict[str, Value] = {}
    for name, value in raw.items():
        known = facts.columns.get(name)
        row[name] = value if known is None or name == VERSION else read_value(known.column, value)
    return row
