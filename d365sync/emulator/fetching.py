"""``GET set?fetchXml=…``: a FetchXML query, answered by the evaluator and written in Web API shape.

Source: Use FetchXML with the Web API; Page results using FetchXML.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from d365sync.core.fetchxml.ast import Fetch, Filter, Link
from d365sync.core.fetchxml.evaluate import evaluate_result
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.fetchxml.result import Result
from d365sync.emulator.callers import caller_context
from d365sync.emulator.calls import Call
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.cookie import Cookie, check_fetch_cookie, write_fetch_cookie
from d365sync.emulator.odata.fetched import FetchedEncoder
from d365sync.emulator.odata.pages import braced_key, page_size, wire_text
from d365sync.emulator.refuse import bad_query, bad_uri
from d365sync.emulator.stored import StoredTables
from d365sync.errors import FetchXmlError

MORE = "Microsoft.Dynamics.CRM.morerecords"
COOKIE = "Microsoft.Dynamics.CRM.fetchxmlpagingcookie"
PARAMETER = "fetchXml"


def answer_fetch(call: Call, facts: TableFacts) -> tuple[dict[str, Any], int | None]:
    """Return the document of a query without its totals, and the number of its rows if it asks for that.

    Raises:
        Refusal: the query is malformed, does not fit, is over another table, or asks for too much.
    """
    options = sorted(name for name in call.arguments if name.startswith("$"))
    if options:
        raise bad_uri(f"The query option '{options[0]}' cannot be used together with {PARAMETER}.")
    try:
        fetch = _parsed(call, facts)
        context = caller_context(call.store, call.user_id, call.store.clock.now())
        result = evaluate_result(fetch, _tables(call, fetch), call.store.catalogue.schema, context)
    except FetchXmlError as error:
        raise bad_query(error) from error
    encoder = FetchedEncoder(call.store, facts, fetch, result, call.preferences)
    document = {"@odata.context": _context(call, facts, encoder), **_paging(call, facts, fetch, result)}
    document["value"] = [encoder.encode(at) for at in range(len(result.rows))]
    return document, result.total if fetch.return_total else None


def _tables(call: Call, fetch: Fetch) -> StoredTables:
    """Return the rows the query may see. Assumed: the names of lookups are read whoever may read their rows."""
    tables = call.store.catalogue.tables
    read = {fetch.entity, *(link.name for link in _all_links(fetch))} & tables.keys()
    return StoredTables(call.store, {name: call.access.test("Read", tables[name]) for name in read})


def _parsed(call: Call, facts: TableFacts) -> Fetch:
    fetch = parse_fetch(call.arguments[PARAMETER])
    if fetch.entity != facts.name and fetch.entity in call.store.catalogue.tables:  # the check refuses unknown ones
        raise bad_uri(
            f"The entity '{fetch.entity}' of the query is not that of the entity set '{facts.table.entity_set_name}'."
        )
    for name in sorted({link.name for link in _all_links(fetch)}):
        if name in call.store.catalogue.tables:
            call.need("Read", call.store.catalogue.tables[name])
    if fetch.paging_cookie:
        check_fetch_cookie(fetch.paging_cookie)
    if fetch.top is not None:
        return fetch
    size = page_size(call.preferences, call.store)
    return replace(fetch, count=min(fetch.count or size, size))


def _all_links(node: Fetch | Link | Filter) -> Iterator[Link]:
    inner = node.filters if isinstance(node, Filter) else () if node.filter is None else (node.filter,)
    for one in inner:
        yield from _all_links(one)
    for link in node.links:
        yield link
        yield from _all_links(link)


def _context(call: Call, facts: TableFacts, encoder: FetchedEncoder) -> str:
    inside = f"({','.join(encoder.selected)})" if encoder.selected else ""
    return f"{call.root}$metadata#{facts.table.entity_set_name}{inside}"


def _paging(call: Call, facts: TableFacts, fetch: Fetch, result: Result) -> dict[str, Any]:
    if not result.more:
        return {}
    document: dict[str, Any] = {}
    if call.preferences.wants(COOKIE) and _has_cookie(fetch, facts, result):
        names = list(dict.fromkeys(order.attribute or "" for order in fetch.orders if order.attribute != facts.key))
        first, last = (
            [*(wire_text(facts, rows.row, name) for name in names), braced_key(facts, rows.row)]
            for rows in (result.combinations[0], result.combinations[-1])
        )
        cookie = Cookie(result.page + 1, tuple(zip([*names, facts.key], last, strict=True)))
        document[f"@{COOKIE}"] = write_fetch_cookie(cookie, first)
    if call.preferences.wants(MORE):
        document[f"@{MORE}"] = True
    return document


def _has_cookie(fetch: Fetch, facts: TableFacts, result: Result) -> bool:
    """Whether a place in the answer can be named: by columns of the entity, ending with its key."""
    orders = [order for link in _all_links(fetch) for order in link.orders]
    own = all(order.entityname is None and order.attribute in facts.columns for order in fetch.orders)
    return own and not orders and not fetch.aggregate and facts.key in result.columns
