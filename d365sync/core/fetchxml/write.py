"""Tree to FetchXML text: indented, one element a line, so that people can read and paste it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape, quoteattr

from d365sync.core.fetchxml.ast import Attribute, Condition, Fetch, Filter, Link, Order
from d365sync.core.fetchxml.operators import OPERATORS, Arity
from d365sync.core.fetchxml.refusal import refusal

_INDENT = "  "
_ESCAPES = {"\r": "&#13;"}


def write_fetch(fetch: Fetch) -> str:
    """Write a query as FetchXML, ending in a line break; parsing it gives the same tree, paths aside.

    Attributes that never change the answer are not kept by the tree and so not written.

    Raises:
        FetchXmlError: a condition still holds a placeholder.
    """
    return "\n".join(_fetch(fetch)) + "\n"


def _fetch(fetch: Fetch) -> Iterator[str]:
    attributes = [
        ("distinct", _flag(fetch.distinct)),
        ("aggregate", _flag(fetch.aggregate)),
        ("top", _number(fetch.top)),
        ("count", _number(fetch.count)),
        ("page", _number(fetch.page)),
        ("paging-cookie", fetch.paging_cookie),
        ("returntotalrecordcount", _flag(fetch.return_total)),
        ("useraworderby", _flag(fetch.raw_order)),
        ("aggregatelimit", _number(fetch.aggregate_limit)),
    ]
    yield from _element("fetch", attributes, _element("entity", [("name", fetch.entity)], _entity(fetch)))


def _entity(fetch: Fetch) -> Iterator[str]:
    if fetch.no_attributes:
        yield "<no-attrs/>"
    yield from _inside(fetch)


def _inside(node: Fetch | Link) -> Iterator[str]:
    if node.all_attributes:
        yield "<all-attributes/>"
    for attribute in node.attributes:
        yield from _attribute(attribute)
    if node.filter is not None:
        yield from _filter(node.filter)
    for link in node.links:
        yield from _link(link)
    for order in node.orders:
        yield from _order(order)


def _attribute(node: Attribute) -> Iterator[str]:
    attributes = [
        ("name", node.name),
        ("alias", node.alias),
        ("aggregate", node.aggregate),
        ("groupby", _flag(node.groupby)),
        ("dategrouping", node.dategrouping),
        ("distinct", _flag(node.distinct)),
        ("usertimezone", None if node.usertimezone else "false"),
        ("rowaggregate", node.rowaggregate),
    ]
    yield from _element("attribute", attributes)


def _filter(node: Filter) -> Iterator[str]:
    children = [line for condition in node.conditions for line in _condition(condition)]
    children += [line for inner in node.filters for line in _filter(inner)]
    children += [line for link in node.links for line in _link(link)]
    yield from _element("filter", [("type", node.type)], children)


def _condition(node: Condition) -> Iterator[str]:
    values = [_text(node, value) for value in node.values]
    operator = OPERATORS.get(node.operator)
    single = len(values) == 1 and (operator is None or operator.arity is not Arity.LIST)
    attributes = [
        ("entityname", node.entityname),
        ("attribute", node.attribute),
        ("operator", node.operator),
        ("value", values[0] if single else None),
        ("valueof", node.valueof),
    ]
    children = [] if single else [f"<value>{escape(value, _ESCAPES)}</value>" for value in values]
    yield from _element("condition", attributes, children)


def _link(node: Link) -> Iterator[str]:
    attributes = [
        ("name", node.name),
        ("from", node.from_ or None),
        ("to", node.to or None),
        ("alias", node.alias),
        ("link-type", node.link_type),
    ]
    yield from _element("link-entity", attributes, _inside(node))


def _order(node: Order) -> Iterator[str]:
    attributes = [
        ("entityname", node.entityname),
        ("attribute", node.attribute),
        ("alias", node.alias),
        ("descending", _flag(node.descending)),
    ]
    yield from _element("order", attributes)


def _element(tag: str, attributes: Iterable[tuple[str, str | None]], children: Iterable[str] = ()) -> Iterator[str]:
    start = " ".join([f"<{tag}", *(f"{name}={quoteattr(value)}" for name, value in attributes if value is not None)])
    lines = list(children)
    if not lines:
        yield f"{start}/>"
        return
    yield f"{start}>"
    for line in lines:
        yield _INDENT + line
    yield f"</{tag}>"


def _flag(value: bool) -> str | None:
    return "true" if value else None


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _text(condition: Condition, value: object) -> str:
    if not isinstance(value, str):
        raise refusal("a placeholder has no spelling in FetchXML; fill it in first", condition)
    return value
