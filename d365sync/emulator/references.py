"""Rows named by an address inside a body: ``@odata.bind`` and ``@odata.id``.

Source: Associate and disassociate table rows using the Web API; Use an alternate key to reference a record.

Pure.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from d365sync.emulator.keys import RowKey, read_key
from d365sync.emulator.store import Store

_ROOT = r"https://[^/]+(?:/[A-Za-z0-9_-]+)?/api/data/v9\.[0-2]/"
_ADDRESS = re.compile(rf"({_ROOT}|/api/data/v9\.[0-2]/|/)?(\w+)\(((?:'[^']*'|[^()'])*)\)")


def referenced(raw: Any, store: Store) -> RowKey | None:
    """Return the row an address names, absolute or below the service root; None when it is the address of none.

    Raises:
        Refusal: the key in it is not one of the table.
    """
    match = _ADDRESS.fullmatch(unquote(raw)) if isinstance(raw, str) else None
    facts = store.catalogue.sets.get(match[2]) if match else None
    return None if match is None or facts is None else read_key(match[3], facts, store, {})


def is_absolute(raw: Any) -> bool:
    """Say whether an address is absolute."""
    return isinstance(raw, str) and raw.startswith("https://")
