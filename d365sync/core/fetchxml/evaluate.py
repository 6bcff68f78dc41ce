"""FetchXML answered over Python rows: the slow, obvious reading.

The emulator answers with it, and tests judge the compiled SQL by it.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from d365sync.core.fetchxml.ast import Fetch
from d365sync.core.fetchxml.check import check_fetch
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.joining import Joiner
from d365sync.core.fetchxml.result import Result, shaped
from d365sync.core.schema import Schema
from d365sync.core.values import Row, Value

_NO_PLACEHOLDERS: Mapping[str, Value] = {}


def evaluate(
    fetch: Fetch,
    tables: Mapping[str, Sequence[Row]],
    schema: Schema,
    context: Context,
    *,
    placeholders: Mapping[str, Value] = _NO_PLACEHOLDERS,
) -> list[Row]:
    """Return the rows of the entity that take part, each once, in the order given.

    Order, paging, aggregates and selected columns of the query play no part here. A table absent from
    ``tables`` is empty; a column absent from a row is null. ``placeholders`` gives the values of placeholders.

    Raises:
        FetchXmlError: the query does not fit the schema, or needs a user that the context does not know.
    """
    fetch = check_fetch(fetch, schema, context)
    key = schema.table(fetch.entity).primary_id
    found: dict[Value, Row] = {}
    for combination in Joiner(tables, schema, context, placeholders).combinations(fetch):
        found.setdefault(combination.row[key], combination.row)
    return list(found.values())


def evaluate_result(
    fetch: Fetch,
    tables: Mapping[str, Sequence[Row]],
    schema: Schema,
    context: Context,
    *,
    placeholders: Mapping[str, Value] = _NO_PLACEHOLDERS,
) -> Result:
    """Return what the query returns: rows with their selected columns or aggregates, in order, one page.

    Rows of the entity come once per combination with linked rows. Tables are given as for :func:`evaluate`.

    Raises:
        FetchXmlError: as for :func:`evaluate`, and where the answer exceeds a limit of the platform.
    """
    fetch = check_fetch(fetch, schema, context)
    return shaped(fetch, Joiner(tables, schema, context, placeholders))
