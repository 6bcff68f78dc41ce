"""Which operators of a query ask for the calling user, so that its rows depend on who runs it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Link
from d365sync.core.fetchxml.operators import USER_OPERATORS

LANGUAGE_OPERATOR = "eq-userlanguage"
CALLER_OPERATORS = USER_OPERATORS | {LANGUAGE_OPERATOR}
"""Source: FetchXML condition operators reference (operators that refer to the current user)."""


def caller_operators(fetch: Fetch) -> frozenset[str]:
    """Return the operators of a query that ask for the calling user; none when everybody sees the same rows."""
    return frozenset(one.operator for one in _conditions(fetch) if one.operator in CALLER_OPERATORS)


def depends_on_caller(fetch: Fetch) -> bool:
    """Say whether the rows of a query depend on who runs it (apart from what that user may read)."""
    return bool(caller_operators(fetch))


def _conditions(fetch: Fetch) -> Iterator[Condition]:
    """Yield every condition of a query, those of its links and of the links in filters included."""
    pending: list[Link | Filter] = [*fetch.links, *([fetch.filter] if fetch.filter else [])]
    while pending:
        node = pending.pop()
        if isinstance(node, Link):
            pending.extend([node.filter] if node.filter else [])
        else:
            yield from node.conditions
            pending.extend(node.filters)
        pending.extend(node.links)
