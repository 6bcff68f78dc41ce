"""Fills in what a document may leave to the schema: the columns that a link joins by.

Without ``from`` a link joins by the linked table's key, as old samples have it. Without both it joins an intersect
table by the column that both sides name like the key of the outer table.
Source: Join tables using FetchXML; error 0x80041111 (both or none). Assumed: which column an omitted one is.

Pure.
"""

from __future__ import annotations

from dataclasses import replace

from d365sync.core.fetchxml.ast import Fetch, Filter, Link
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.schema import Schema, Table


def settled(fetch: Fetch, schema: Schema) -> Fetch:
    """Return the query with every join column named; the same object where none was left out.

    Tables that the schema does not have are passed over: checking refuses them.

    Raises:
        FetchXmlError: a link without from and to leads to a table that has no such column.
    """
    table = schema.tables.get(fetch.entity)
    if table is None or not _omits(fetch):
        return fetch
    return replace(fetch, filter=_filter(fetch.filter, table, schema), links=_links(fetch.links, table, schema))


def _omits(node: Fetch | Link | Filter) -> bool:
    links = any(not link.from_ or _omits(link) for link in node.links)
    inner = node.filters if isinstance(node, Filter) else () if node.filter is None else (node.filter,)
    return links or any(map(_omits, inner))


def _filter(node: Filter | None, table: Table, schema: Schema) -> Filter | None:
    if node is None or not _omits(node):
        return node
    inner = tuple(one for one in (_filter(each, table, schema) for each in node.filters) if one is not None)
    return replace(node, filters=inner, links=_links(node.links, table, schema))


def _links(links: tuple[Link, ...], parent: Table, schema: Schema) -> tuple[Link, ...]:
    return tuple(_link(link, parent, schema) for link in links)


def _link(link: Link, parent: Table, schema: Schema) -> Link:
    table = schema.tables.get(link.name)
    if table is None:
        return link
    if not link.to and parent.primary_id not in table.columns:
        raise refusal(f"a link to '{link.name}' needs both from and to", link, code="0x80041111")
    return replace(
        link,
        from_=link.from_ or (table.primary_id if link.to else parent.primary_id),
        to=link.to or parent.primary_id,
        filter=_filter(link.filter, table, schema),
        links=_links(link.links, table, schema),
    )
