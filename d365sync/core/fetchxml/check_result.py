"""Refuses a result shape that has no meaning: unknown columns, misplaced aggregates, orders by the wrong name.

Source: Aggregate data using FetchXML; Order rows using FetchXML; Web service error codes.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from d365sync.core.fetchxml.ast import Attribute, Fetch, Link, Order, joined_of
from d365sync.core.fetchxml.names import find_column
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.schema import CHOICE_TYPES, Column, ColumnType, Schema, Table

AGGREGATES = ("count", "countcolumn", "sum", "avg", "min", "max")
MAX_PAGE = 5000
"""Most rows of one answer. Source: Page results using FetchXML. Assumed: a top above it, or beside page or
count, is refused and not cut."""

DATE_GROUPINGS = ("day", "week", "month", "quarter", "year", "fiscal-period", "fiscal-year")

_NUMERIC = frozenset({ColumnType.INTEGER, ColumnType.BIGINT, ColumnType.DECIMAL, ColumnType.DOUBLE, ColumnType.MONEY})


def check_result(fetch: Fetch, schema: Schema) -> None:
    """Refuse unknown or contradictory attributes and orders, of the entity and of its joined links.

    Raises:
        FetchXmlError: naming the first element at fault.
    """
    if fetch.top is not None and fetch.top > MAX_PAGE:
        raise refusal(f"top is {fetch.top}, more than {MAX_PAGE}", fetch)
    if fetch.distinct and fetch.no_attributes:
        raise refusal("distinct needs attributes", fetch, code="0x8004112C")
    for attribute, table in _attributes(fetch, schema):
        _check_attribute(attribute, table, fetch)
    for order, table in _orders(fetch, schema):
        _check_order(order, table, fetch)
    _check_aliases(fetch, schema)
    if fetch.aggregate and (fetch.all_attributes or any(link.all_attributes for link in joined_of(fetch.links))):
        raise refusal("an aggregate query cannot select all attributes", fetch)
    for link in joined_of(fetch.links):
        if link.link_type in ("exists", "in") and (link.attributes or link.all_attributes):
            raise refusal(f"a link of type '{link.link_type}' returns no columns", link)


def _attributes(fetch: Fetch, schema: Schema) -> Iterator[tuple[Attribute, Table]]:
    for attribute in fetch.attributes:
        yield attribute, schema.table(fetch.entity)
    for link in joined_of(fetch.links):
        for attribute in link.attributes:
            yield attribute, schema.table(link.name)


def _orders(fetch: Fetch, schema: Schema) -> Iterator[tuple[Order, Table]]:
    labels: dict[str, Link] = {link.label: link for link in joined_of(fetch.links)}
    for order in fetch.orders:
        if order.entityname is not None and order.entityname not in labels:
            raise refusal(f"there is no link-entity '{order.entityname}'", order, code="0x8004110A")
        yield order, schema.table(fetch.entity if order.entityname is None else labels[order.entityname].name)
    for link in joined_of(fetch.links):
        for order in link.orders:
            yield order, schema.table(link.name)


def _check_aliases(fetch: Fetch, schema: Schema) -> None:
    seen: set[str] = set()
    for attribute, _ in _attributes(fetch, schema):
        if attribute.alias is not None and attribute.alias in seen:
            raise refusal(f"the alias '{attribute.alias}' is used twice", attribute, code="0x80041130")
        seen.add(attribute.alias or "")


def _check_attribute(attribute: Attribute, table: Table, fetch: Fetch) -> None:
    column = find_column(table, attribute.name)
    if column is None:
        raise refusal(f"table '{table.logical_name}' has no column '{attribute.name}'", attribute, code="0x80041103")
    if attribute.rowaggregate is not None:
        _check_row_aggregate(attribute, table)
    if fetch.aggregate:
        _check_aggregate(attribute, column)
    elif attribute.aggregate is not None or attribute.groupby or attribute.dategrouping is not None:
        raise refusal("aggregate, groupby and dategrouping need aggregate='true' on the fetch element", attribute)


def _check_row_aggregate(attribute: Attribute, table: Table) -> None:
    if attribute.rowaggregate != "CountChildren":
        raise refusal(f"rowaggregate '{attribute.rowaggregate}' is not supported", attribute)
    if table.hierarchy_parent is None or attribute.name != table.primary_id or attribute.alias is None:
        raise refusal("CountChildren needs the key of a hierarchical table and an alias", attribute, code="0x80047020")


def _check_aggregate(attribute: Attribute, column: Column) -> None:
    if attribute.alias is None:
        raise refusal(f"'{attribute.name}' needs an alias in an aggregate query", attribute)
    if (attribute.aggregate is not None) == attribute.groupby:
        raise refusal(f"'{attribute.name}' needs either aggregate or groupby", attribute, code="0x80041137")
    if attribute.groupby:
        _check_grouping(attribute, column)
    elif attribute.aggregate not in AGGREGATES:
        raise refusal(f"there is no aggregate '{attribute.aggregate}'", attribute)
    elif not _aggregable(attribute.aggregate, column):
        raise refusal(
            f"{attribute.aggregate} is not allowed on a column of type {column.type}", attribute, code="0x8004112F"
        )


def _check_grouping(attribute: Attribute, column: Column) -> None:
    is_date = column.type is ColumnType.DATETIME
    if is_date and attribute.dategrouping is None:
        raise refusal(
            f"'{attribute.name}' is a date and needs a dategrouping to be grouped by", attribute, code="0x80041135"
        )
    if is_date and attribute.dategrouping not in DATE_GROUPINGS:
        raise refusal(f"'{attribute.dategrouping}' is no date grouping", attribute, code="0x80041135")
    if not is_date and attribute.dategrouping is not None:
        raise refusal(f"dategrouping needs a date column, '{attribute.name}' is none", attribute, code="0x80041135")


def _aggregable(function: str, column: Column) -> bool:
    if function in ("count", "countcolumn"):
        return True
    if function in ("sum", "avg"):
        return column.type in _NUMERIC
    return column.type in _NUMERIC | {ColumnType.DATETIME} and column.type not in CHOICE_TYPES


def _check_order(order: Order, table: Table, fetch: Fetch) -> None:
    if not fetch.aggregate:
        if order.attribute is None:
            raise refusal("a plain query orders by attribute, not by alias", order, code="0x80041132")
        if find_column(table, order.attribute) is None:
            raise refusal(f"table '{table.logical_name}' has no column '{order.attribute}'", order, code="0x80041103")
        return
    if order.alias is None:
        raise refusal("an aggregate query orders by alias, not by attribute", order, code="0x80041133")
    if order.alias not in {attribute.alias for attribute in _all_attributes(fetch)}:
        raise refusal(f"there is no alias '{order.alias}'", order, code="0x8004110A")


def _all_attributes(fetch: Fetch) -> Iterator[Attribute]:
    yield from fetch.attributes
    for link in joined_of(fetch.links):
        yield from link.attributes
