"""The tree of a FetchXML document, as values.

Values of conditions stay the text of the document: what they mean depends on the column's type, so typing
happens against a schema, later. ``path`` names the element for messages and takes no part in equality.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

FilterType: TypeAlias = Literal["and", "or"]

JOIN_TYPES = ("inner", "natural", "outer", "exists", "in", "matchfirstrowusingcrossapply")
"""Link types outside filters. Source: Join tables using FetchXML; error 0x80041117 lists them."""

QUANTIFIERS = ("any", "not any", "all", "not all")
"""Link types inside filters. Source: Filter rows using FetchXML, filter on values in related records."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A value bound later, such as a goal's owner or a bound of its period; documents never hold one."""

    name: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one column; ``valueof`` compares with another column instead of ``values``."""

    attribute: str
    operator: str
    values: tuple[str | Placeholder, ...] = ()
    entityname: str | None = None
    valueof: str | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions, filters and quantified links, joined by ``type``; an empty filter says nothing."""

    type: FilterType = "and"
    conditions: tuple[Condition, ...] = ()
    filters: tuple[Filter, ...] = ()
    links: tuple[Link, ...] = ()
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One selected column of the result."""

    name: str
    alias: str | None = None
    aggregate: str | None = None
    groupby: bool = False
    dategrouping: str | None = None
    distinct: bool = False
    usertimezone: bool = True
    rowaggregate: str | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Order:
    """One sort key: a column, or in aggregate queries an alias."""

    attribute: str | None = None
    alias: str | None = None
    descending: bool = False
    entityname: str | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Link:
    """A joined table: ``from_`` is its column, ``to`` the column of the element it stands in.

    Empty names were left out of the document; :func:`~d365sync.core.fetchxml.settle.settled` fills them in.
    """

    name: str
    from_: str
    to: str
    alias: str | None = None
    link_type: str = "inner"
    filter: Filter | None = None
    links: tuple[Link, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    all_attributes: bool = False
    orders: tuple[Order, ...] = ()
    path: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """The name conditions use for this link: its alias, or else its table."""
        return self.alias or self.name


@dataclass(frozen=True, slots=True)
class Fetch:
    """A whole query; ``filter`` and ``links`` decide which rows take part, the rest how they are shown.

    ``count`` is rows per page, ``page`` 1-based, ``aggregate_limit`` the most rows an aggregate may read; None
    leaves the platform's default.
    """

    entity: str
    filter: Filter | None = None
    links: tuple[Link, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    all_attributes: bool = False
    no_attributes: bool = False
    orders: tuple[Order, ...] = ()
    distinct: bool = False
    aggregate: bool = False
    top: int | None = None
    count: int | None = None
    page: int | None = None
    paging_cookie: str | None = None
    return_total: bool = False
    raw_order: bool = False
    aggregate_limit: int | None = None
    path: str = field(default="/fetch", compare=False)


def conditions_of(node: Filter | None) -> Iterator[Condition]:
    """Yield a filter's conditions and those of its nested filters, but not those of its links."""
    if node is None:
        return
    yield from node.conditions
    for inner in node.filters:
        yield from conditions_of(inner)


def quantified_of(node: Filter | None) -> Iterator[Link]:
    """Yield the quantified links (any, not any, all, not all) of a filter and of its nested filters."""
    if node is None:
        return
    yield from node.links
    for inner in node.filters:
        yield from quantified_of(inner)


def joined_of(links: tuple[Link, ...]) -> Iterator[Link]:
    """Yield links and the links nested in them, in document order."""
    for link in links:
        yield link
        yield from joined_of(link.links)
