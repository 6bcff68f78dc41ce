"""Rows named by an address inside a body: ``@odata.bind`` and ``@odata.id``.

An address is relative, or begins with the root of the service that is called, its version included. Source: Associate
and disassociate table rows using the Web API; Use an alternate key to reference a record; a public report of an
absolute address with another version; the OData library (the text of the refusal). ``Assumed:``

- the code of that refusal
- an address that begins with a slash is below the service root, unless it begins as the root's path does

Pure.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from d365sync.emulator.keys import RowKey, read_key
from d365sync.emulator.refuse import bad_uri
from d365sync.emulator.store import Store

_ABSOLUTE = re.compile(r"(https?://[^/?#]*)(/.*)?", re.IGNORECASE | re.DOTALL)
_PATH = re.compile(r"(?:/[\w-]+)?/api/data/.*", re.DOTALL)
_ADDRESS = re.compile(r"(\w+)\(((?:'[^']*'|[^()'])*)\)")


def referenced(raw: Any, store: Store, root: str) -> RowKey | None:
    """Return the row an address names; ``root`` is that of the service. None when it is the address of no row.

    Raises:
        Refusal: it is an address of another service, or the key in it is not one of the table.
    """
    if not isinstance(raw, str):
        return None
    match = _ADDRESS.fullmatch(_below(unquote(raw), root))
    facts = store.catalogue.sets.get(match[1]) if match else None
    return None if match is None or facts is None else read_key(match[2], facts, store, {})


def is_absolute(raw: Any) -> bool:
    """Say whether an address is absolute."""
    return isinstance(raw, str) and _ABSOLUTE.fullmatch(raw) is not None


def _below(address: str, root: str) -> str:
    """Return what stands below the service root in an address."""
    own = urlsplit(root)
    absolute = _ABSOLUTE.fullmatch(address)
    path = address if absolute is None else absolute[2] or "/"
    elsewhere = absolute is not None and absolute[1].lower() != f"{own.scheme}://{own.netloc}".lower()
    if not elsewhere and path.startswith(own.path):
        return path.removeprefix(own.path)
    if absolute is not None or _PATH.fullmatch(address):
        raise bad_uri(f"The URI '{address[:200]}' is not valid because it is not based on '{root}'.")
    return address.removeprefix("/")
