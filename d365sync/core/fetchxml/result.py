"""The rows a query returns, beyond which rows take part: columns, distinct, order and pages.

Source: Select columns, Order rows and Page results using FetchXML.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from d365sync.core.fetchxml.aggregate import aggregated
from d365sync.core.fetchxml.ast import Attribute, Fetch, Link, Order, joined_of
from d365sync.core.fetchxml.check_result import MAX_PAGE
from d365sync.core.fetchxml.joining import Combination, Joiner
from d365sync.core.fetchxml.names import find_column
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.fetchxml.truth import key_of
from d365sync.core.schema import CHOICE_TYPES, Column, Table
from d365sync.core.storage import fold
from d365sync.core.values import Row, Value

SIMPLE_PAGING_ROWS = 50_000
"""Rows that pages reach without a cookie. Source: Page results using FetchXML; error 0x8004430A."""

SortKey: TypeAlias = tuple[bool, Value | tuple[int, ...] | tuple[bool, str | int]]


@dataclass(frozen=True, slots=True)
class Result:
    """One page of a query's answer.

    Rows are keyed by alias; without one, a column of the entity by its logical name and a linked column by
    ``label.column``. A null is absent. The table a polymorphic lookup points to stands under its key plus
    ``type``. ``columns`` says what each key is; an aggregate's count has no column. ``origins`` says for each key
    which link its values come from, None being the entity, and ``combinations`` from which rows the rows of the
    page were made (none for aggregates). ``total`` counts the rows of all pages, ``page`` is 1-based.
    """

    rows: Sequence[Row]
    columns: Mapping[str, Column | None]
    origins: Mapping[str, Link | None]
    page: int
    more: bool
    total: int
    combinations: Sequence[Combination] = ()


_Made: TypeAlias = tuple[Row, Combination | None]


@dataclass(frozen=True, slots=True)
class _Selected:
    """One column of the result: where it comes from and what it is called."""

    key: str
    attribute: Attribute
    table: Table
    column: Column
    link: Link | None


def shaped(fetch: Fetch, joiner: Joiner) -> Result:
    """Return the page of the answer that the query asks for.

    Raises:
        FetchXmlError: an aggregate over too many rows, or a page beyond the reach of simple paging.
    """
    combinations = list(joiner.combinations(fetch))
    if fetch.aggregate:
        rows, columns = aggregated(fetch, combinations, joiner)
        for order in reversed([*fetch.orders, *(order for link in joined_of(fetch.links) for order in link.orders)]):
            rows.sort(key=lambda row, order=order: _sortable(row.get(order.alias or "")), reverse=order.descending)  # type: ignore[misc]
        origins = dict(_alias_origins(fetch))
        return _paged(fetch, [(row, None) for row in rows], columns, origins)
    for order, link, table in reversed(list(_orders(fetch, joiner))):
        by = _Sorting(order, table, _known(table, order.attribute or ""), fetch, joiner)
        combinations.sort(key=lambda one, link=link, by=by: by.key(one.side(link)), reverse=order.descending)  # type: ignore[misc]
    selected = list(_selected(fetch, joiner))
    found: list[_Made] = [(_row(combination, selected, joiner), combination) for combination in combinations]
    if fetch.distinct:
        found = _distinct(found)
    return _paged(fetch, found, {one.key: one.column for one in selected}, {one.key: one.link for one in selected})


def _alias_origins(fetch: Fetch) -> Iterator[tuple[str, Link | None]]:
    yield from ((one.alias or "", None) for one in fetch.attributes)
    yield from ((one.alias or "", link) for link in joined_of(fetch.links) for one in link.attributes)


def _distinct(rows: Iterable[_Made]) -> list[_Made]:
    """Keep the first of rows whose selected columns compare equal, text without regard to case."""
    first: dict[frozenset[tuple[str, Value]], _Made] = {}
    for made in rows:
        first.setdefault(frozenset((name, key_of(value)) for name, value in made[0].items()), made)
    return list(first.values())


def _paged(
    fetch: Fetch, made: list[_Made], columns: Mapping[str, Column | None], origins: Mapping[str, Link | None]
) -> Result:
    begin, end, page = _page_bounds(fetch)
    shown = made[begin:end]
    return Result(
        rows=[row for row, _ in shown],
        columns=columns,
        origins=origins,
        page=page,
        more=fetch.top is None and len(made) > end,
        total=len(made),
        combinations=[combination for _, combination in shown if combination is not None],
    )


def _page_bounds(fetch: Fetch) -> tuple[int, int, int]:
    if fetch.top is not None:
        return 0, fetch.top, 1
    size, page = min(fetch.count or MAX_PAGE, MAX_PAGE), fetch.page or 1
    end = page * size
    if fetch.paging_cookie is None and end > SIMPLE_PAGING_ROWS:
        raise refusal(f"pages beyond {SIMPLE_PAGING_ROWS} rows need a paging cookie", fetch, code="0x8004430A")
    return end - size, end, page


def _known(table: Table, name: str) -> Column:
    return find_column(table, name) or table.column(name)


def _orders(fetch: Fetch, joiner: Joiner) -> Iterator[tuple[Order, Link | None, Table]]:
    """Orders in force: the entity's first, among them those that lift a link's column, then the links' own."""
    by_label = {link.label: link for link in joined_of(fetch.links)}
    for order in fetch.orders:
        link = None if order.entityname is None else by_label[order.entityname]
        yield order, link, joiner.schema.table(fetch.entity if link is None else link.name)
    for link in _returning(fetch.links):
        for order in link.orders:
            yield order, link, joiner.schema.table(link.name)


@dataclass(frozen=True, slots=True)
class _Sorting:
    """One order in force: lookups go by the name of their target and choices by their label, unless by raw value.

    A choice without a label goes by its value, after those with one. Source: Order rows using FetchXML.
    """

    order: Order
    table: Table
    column: Column
    fetch: Fetch
    joiner: Joiner

    def key(self, row: Row | None) -> SortKey:
        value = self.joiner.value(row, self.table, self.column.logical_name, self.order)
        if row is None or value is None or self.fetch.raw_order:
            return _sortable(value)
        if self.column.is_lookup:
            return _sortable(self.joiner.target_name(row, self.column))
        if self.column.type in CHOICE_TYPES and isinstance(value, int):
            labels = self.joiner.context.labels_of(self.table, self.column)
            return True, (value not in labels, fold(labels[value]) if value in labels else value)
        return _sortable(value)


def _sortable(value: Value) -> SortKey:
    if isinstance(value, frozenset):
        return True, tuple(sorted(value))
    return value is not None, key_of(value)


def _returning(links: Iterable[Link]) -> Iterator[Link]:
    """The links whose columns can be returned, in document order."""
    for link in links:
        if link.link_type not in ("exists", "in"):
            yield link
        if link.link_type in ("inner", "natural", "outer"):
            yield from _returning(link.links)


def _selected(fetch: Fetch, joiner: Joiner) -> Iterator[_Selected]:
    """The columns returned: no attribute at all means every column of the entity, the key always comes along.

    Source: Select columns using FetchXML (all-attributes is the same as not adding any attribute).
    """
    root = joiner.schema.table(fetch.entity)
    everything = fetch.all_attributes or not (fetch.attributes or fetch.no_attributes)
    attributes = list(fetch.attributes)
    if not fetch.distinct and not any(one.name == root.primary_id and one.alias is None for one in attributes):
        attributes.append(Attribute(root.primary_id))
    yield from _columns(attributes, everything, root, None, "")
    for number, link in enumerate(_returning(fetch.links), start=1):
        table = joiner.schema.table(link.name)
        label = f"{link.alias or f'{link.name}{number}'}."
        plain = link.link_type == "matchfirstrowusingcrossapply"
        yield from _columns(link.attributes, link.all_attributes, table, link, "" if plain else label)


def _columns(
    attributes: Iterable[Attribute], everything: bool, table: Table, link: Link | None, prefix: str
) -> Iterator[_Selected]:
    wanted = [*attributes, *(Attribute(name) for name in table.columns if everything)]
    for attribute in wanted:
        key = attribute.alias or prefix + attribute.name
        yield _Selected(key, attribute, table, _known(table, attribute.name), link)


def _row(combination: Combination, selected: Iterable[_Selected], joiner: Joiner) -> Row:
    found: dict[str, Value] = {}
    for one in selected:
        row = combination.side(one.link)
        if row is None:
            continue
        if one.attribute.rowaggregate is not None:
            found[one.key] = joiner.children(one.table, str(row[one.table.primary_id]))
            continue
        found[one.key] = joiner.value(row, one.table, one.attribute.name, one.attribute)
        if one.column.is_polymorphic:
            found[f"{one.key}type"] = row.get(one.column.type_name)
    return {key: value for key, value in found.items() if value is not None}
