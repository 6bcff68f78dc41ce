"""FetchXML text to tree.

Every element and attribute the language has is named here; anything else is refused with its path, because
an attribute that is ignored is a filter that silently does not filter.

Pure.
"""

from __future__ import annotations

from d365sync.core.fetchxml.ast import (
    JOIN_TYPES,
    QUANTIFIERS,
    Attribute,
    Condition,
    Fetch,
    Filter,
    Link,
    Order,
)
from d365sync.core.fetchxml.reader import DEFAULT_LIMITS, Element, Limits, read_xml
from d365sync.core.fetchxml.refusal import shorten

__all__ = ["DEFAULT_LIMITS", "Limits", "parse_fetch"]

# Attributes with a meaning here, then those that never change which rows match.
# Source: FetchXML reference (element pages); "Page results"; "Optimize performance using FetchXML".
_KNOWN = {
    "fetch": "distinct aggregate top count page paging-cookie returntotalrecordcount useraworderby mapping datasource"
    " version output-format no-lock latematerialize options aggregatelimit min-active-row-version savedqueryid",
    "entity": "name enableprefiltering prefilterparametername",
    "all-attributes": "",
    "no-attrs": "",
    "attribute": "name alias aggregate groupby dategrouping distinct usertimezone rowaggregate addedby build",
    "order": "attribute alias descending entityname",
    "link-entity": "name from to alias link-type visible intersect enableprefiltering prefilterparametername",
    "filter": "type isquickfindfields overridequickfindrecordlimitenabled overridequickfindrecordlimitdisabled hint",
    "condition": "attribute operator value valueof entityname uiname uitype uihidden",
    "value": "uiname uitype",
}
_CHILDREN = {
    "fetch": "entity",
    "entity": "all-attributes no-attrs attribute order link-entity filter",
    "link-entity": "all-attributes no-attrs attribute order link-entity filter",
    "filter": "filter condition link-entity",
    "condition": "value",
}
_MOST = 999_999_999
_ALLOWED = {tag: frozenset(names.split()) for tag, names in _KNOWN.items()}
_INSIDE = {tag: frozenset(_CHILDREN.get(tag, "").split()) for tag in _KNOWN}


def parse_fetch(text: str, *, limits: Limits = DEFAULT_LIMITS) -> Fetch:
    """Read a FetchXML document.

    Raises:
        FetchXmlError: the text is not well-formed, larger than ``limits`` allow, or holds an element, an
            attribute or a keyword the language does not have; ``path`` names the element.
    """
    root = read_xml(text, limits)
    if root.tag != "fetch":
        raise root.refuse(f"the document begins with '{root.tag}', not with 'fetch'")
    _check_names(root)
    return _fetch(root)


def _check_names(element: Element) -> None:
    unknown = sorted(set(element.attributes) - _ALLOWED[element.tag])
    if unknown:
        raise element.refuse(f"'{element.tag}' has no attribute '{unknown[0]}'")
    for child in element.children:
        if child.tag not in _INSIDE[element.tag]:
            raise child.refuse(f"'{shorten(child.tag, 40)}' is not allowed inside '{element.tag}'")
        _check_names(child)
    if element.tag != "value" and element.text.strip():
        raise element.refuse(f"text is not allowed inside '{element.tag}'")


def _fetch(root: Element) -> Fetch:
    _check_plain_mapping(root)
    entities = _named(root, "entity")
    if len(entities) != 1:
        raise root.refuse(f"a query has one entity element, this one has {len(entities)}")
    entity = entities[0]
    top, count, page = (_number(root, name) for name in ("top", "count", "page"))
    if top is not None and (count is not None or page is not None):
        raise root.refuse("top cannot be combined with count or page")
    return Fetch(
        entity=_required(entity, "name"),
        filter=_filters(entity),
        links=_links(entity),
        attributes=tuple(_attribute(child) for child in _named(entity, "attribute")),
        all_attributes=bool(_named(entity, "all-attributes")),
        no_attributes=bool(_named(entity, "no-attrs")),
        orders=tuple(_order(child) for child in _named(entity, "order")),
        distinct=_flag(root, "distinct", "0x80041115"),
        aggregate=_flag(root, "aggregate"),
        top=top,
        count=count,
        page=page,
        paging_cookie=root.attributes.get("paging-cookie"),
        return_total=_flag(root, "returntotalrecordcount"),
        raw_order=_flag(root, "useraworderby"),
        aggregate_limit=_number(root, "aggregatelimit"),
    )


def _check_plain_mapping(root: Element) -> None:
    if root.attributes.get("mapping", "logical") != "logical":
        raise root.refuse(f"mapping '{root.attributes['mapping']}' is not supported, only 'logical'")
    if "datasource" in root.attributes:
        raise root.refuse("datasource reads the archive, which is not mirrored")


def _filters(parent: Element) -> Filter | None:
    filters = tuple(_filter(child) for child in _named(parent, "filter"))
    if len(filters) <= 1:
        return filters[0] if filters else None
    return Filter(filters=filters, path=parent.path)


def _filter(element: Element) -> Filter:
    kind = element.attributes.get("type", "and")
    if kind not in ("and", "or"):
        raise element.refuse(f"filter type '{kind}' is neither 'and' nor 'or'", "0x800410FE")
    return Filter(
        type="or" if kind == "or" else "and",
        conditions=tuple(_condition(child) for child in _named(element, "condition")),
        filters=tuple(_filter(child) for child in _named(element, "filter")),
        links=_links(element),
        path=element.path,
    )


def _condition(element: Element) -> Condition:
    return Condition(
        attribute=_required(element, "attribute"),
        operator=_required(element, "operator"),
        values=_values(element),
        entityname=element.attributes.get("entityname"),
        valueof=element.attributes.get("valueof"),
        path=element.path,
    )


def _values(element: Element) -> tuple[str, ...]:
    single = element.attributes.get("value")
    children = tuple(child.text for child in element.children)
    if children and single:
        raise element.refuse("a condition has either a value attribute or value elements")
    if "valueof" in element.attributes and (children or single is not None):
        raise element.refuse("a condition has either valueof or a value")
    if children:
        return children
    return () if single is None else (single,)


def _links(parent: Element) -> tuple[Link, ...]:
    return tuple(_link(child, in_filter=parent.tag == "filter") for child in _named(parent, "link-entity"))


def _link(element: Element, *, in_filter: bool) -> Link:
    kind = element.attributes.get("link-type", "inner")
    if kind not in (QUANTIFIERS if in_filter else JOIN_TYPES):
        place = "inside a filter" if in_filter else "outside a filter"
        raise element.refuse(f"link-type '{kind}' is not allowed {place}", "0x80041117")
    from_, to = element.attributes.get("from", ""), element.attributes.get("to", "")
    if from_ and not to:
        raise element.refuse("a link-entity with from needs to as well", "0x80041111")
    return Link(
        name=_required(element, "name"),
        from_=from_,
        to=to,
        alias=element.attributes.get("alias") or None,
        link_type=kind,
        filter=_filters(element),
        links=_links(element),
        attributes=tuple(_attribute(child) for child in _named(element, "attribute")),
        all_attributes=bool(_named(element, "all-attributes")),
        orders=tuple(_order(child) for child in _named(element, "order")),
        path=element.path,
    )


def _attribute(element: Element) -> Attribute:
    return Attribute(
        name=_required(element, "name"),
        alias=element.attributes.get("alias"),
        aggregate=element.attributes.get("aggregate"),
        groupby=_flag(element, "groupby", "0x8004112E"),
        dategrouping=element.attributes.get("dategrouping"),
        distinct=_flag(element, "distinct", "0x80041115"),
        usertimezone=_flag(element, "usertimezone", default=True),
        rowaggregate=element.attributes.get("rowaggregate"),
        path=element.path,
    )


def _order(element: Element) -> Order:
    attribute, alias = element.attributes.get("attribute"), element.attributes.get("alias")
    if (attribute is None) == (alias is None):
        raise element.refuse("an order has either an attribute or an alias")
    return Order(
        attribute=attribute,
        alias=alias,
        descending=_flag(element, "descending", "0x80041119"),
        entityname=element.attributes.get("entityname"),
        path=element.path,
    )


def _named(element: Element, tag: str) -> list[Element]:
    return [child for child in element.children if child.tag == tag]


def _required(element: Element, name: str) -> str:
    value = element.attributes.get(name)
    if not value:
        raise element.refuse(f"'{element.tag}' needs the attribute '{name}'")
    return value


def _flag(element: Element, name: str, code: str = "", *, default: bool = False) -> bool:
    text = element.attributes.get(name)
    if text is None:
        return default
    if text not in ("true", "false", "1", "0"):
        raise element.refuse(f"{name} is '{text}', not one of true, false, 1 and 0", code)
    return text in ("true", "1")


def _number(element: Element, name: str) -> int | None:
    text = element.attributes.get(name)
    if text is None:
        return None
    digits = text.lstrip("0")
    if not (text.isascii() and text.isdigit() and digits):
        raise element.refuse(f"{name} is '{shorten(text, 31)}', not a whole number of at least 1")
    if len(digits) > len(str(_MOST)):
        raise element.refuse(f"{name} is '{shorten(text, 31)}', more than {_MOST}")
    return int(digits)
