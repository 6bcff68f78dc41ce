"""Refuses a query that the schema cannot answer, naming the element: nothing is guessed or left out.

Both readings of a query begin here, so both refuse the same documents.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from d365sync.core.fetchxml.ast import (
    QUANTIFIERS,
    Condition,
    Fetch,
    Filter,
    Link,
    Placeholder,
    joined_of,
    quantified_of,
)
from d365sync.core.fetchxml.check_result import check_result
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.literals import check_literal
from d365sync.core.fetchxml.names import (
    comparable,
    find_column,
    hierarchy_of,
    name_columns,
    named_owner,
    split_reference,
)
from d365sync.core.fetchxml.operators import (
    DATE_OPERATORS,
    HIERARCHY_OPERATORS,
    OPERATORS,
    WHOLE_NUMBER,
    Arity,
    Operator,
    ValueKind,
)
from d365sync.core.fetchxml.refusal import Located, refusal
from d365sync.core.fetchxml.settle import settled
from d365sync.core.fetchxml.used import columns_used as columns_used
from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.values import parse_guid

PATTERN_LENGTH = 4000
"""Longest pattern of like. Source: LIKE (Transact-SQL), a pattern has at most 8,000 bytes."""

_FITS: Mapping[Arity, Callable[[int], bool]] = {
    Arity.NONE: lambda count: count == 0,
    Arity.ONE: lambda count: count == 1,
    Arity.TWO: lambda count: count == 2,
    Arity.LIST: lambda count: count >= 1,
}
_MULTIPLYING = ("inner", "natural", "outer")


def check_fetch(fetch: Fetch, schema: Schema, context: Context | None = None) -> Fetch:
    """Refuse a query with an unknown table, column, alias, operator or value, or a combination that has no meaning.

    Placeholders pass where a value of the column's type stands. With a context, what its settings refuse is refused
    as well. Returns the query with the join columns that it left out.

    Raises:
        FetchXmlError: naming the first element at fault, with the platform's error code where there is one.
    """
    fetch = settled(fetch, schema)
    root = _table(fetch.entity, fetch, schema)
    scope = _Scope(schema, root, None, _exposed(fetch, schema))
    _check_filter(fetch.filter, scope)
    _check_links(fetch.links, root, schema)
    check_result(fetch, schema)
    if context is not None and context.inner_under_outer == "refused":
        _refuse_inner_under_outer((*fetch.links, *quantified_of(fetch.filter)), outer=False)
    return fetch


def _refuse_inner_under_outer(links: Iterable[Link], *, outer: bool) -> None:
    for link in links:
        if outer and link.link_type != "outer":
            raise refusal(
                f"a link of type '{link.link_type}' inside an outer link is not supported (setting inner_under_outer)",
                link,
            )
        _refuse_inner_under_outer(link.links, outer=link.link_type == "outer")
        _refuse_inner_under_outer(quantified_of(link.filter), outer=False)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What the conditions of one filter may name: the element's own table, and the joined tables by label."""

    schema: Schema
    table: Table
    label: str | None
    joined: Mapping[str, Table]

    def table_of(self, label: str | None, node: Located) -> Table:
        if label is None or label == self.label:
            return self.table
        if label not in self.joined:
            raise refusal(f"there is no link-entity '{label}' whose columns can be used here", node, code="0x8004110A")
        return self.joined[label]


def _exposed(fetch: Fetch, schema: Schema) -> dict[str, Table]:
    """The joined tables whose columns the entity's own filter may use, by label.

    Source: Join tables using FetchXML (exists and in return no columns of the linked table).
    """
    _refuse_same_aliases(fetch)
    exposed: dict[str, Table] = {}
    pending = list(fetch.links)
    labels = [link.label for link in joined_of(fetch.links)]
    while pending:
        link = pending.pop(0)
        if link.link_type not in ("exists", "in") and labels.count(link.label) == 1:
            exposed[link.label] = _table(link.name, link, schema)
        if link.link_type in _MULTIPLYING:
            pending.extend(link.links)
    return exposed


def _refuse_same_aliases(fetch: Fetch) -> None:
    """Refuse a link whose label an earlier one has, unless both are but called after their table."""
    firsts: dict[str, Link] = {}
    for link in joined_of(fetch.links):
        first = firsts.setdefault(link.label, link)
        if first is not link and (first.alias is not None or link.alias is not None):
            raise refusal(f"the alias '{link.label}' is used twice", link, code="0x80041130")


def _table(name: str, node: Located, schema: Schema) -> Table:
    if name not in schema.tables:
        raise refusal(f"there is no table '{name}'", node, code="0x80041102")
    return schema.tables[name]


def _column(name: str, table: Table, node: Located) -> Column:
    column = find_column(table, name)
    if column is None:
        raise refusal(f"table '{table.logical_name}' has no column '{name}'", node, code="0x80041103")
    return column


def _check_links(links: Iterable[Link], parent: Table, schema: Schema) -> None:
    for link in links:
        table = _table(link.name, link, schema)
        for side, name in ((table, link.from_), (parent, link.to)):
            if named_owner(side, name) is not None:
                raise refusal(f"'{name}' is only the name of another column and cannot be joined", link)
        _check_join(_column(link.from_, table, link), _column(link.to, parent, link), link)
        _check_filter(link.filter, _Scope(schema, table, link.label, {}))
        _check_links(link.links, table, schema)


def _check_join(from_: Column, to: Column, link: Link) -> None:
    for column in (from_, to):
        if column.type is ColumnType.MULTISELECT:
            raise refusal(f"column '{column.logical_name}' is a multi-select choice and cannot be joined", link)
    if not comparable(from_, to):
        raise refusal(
            f"columns '{from_.logical_name}' ({from_.type}) and '{to.logical_name}' ({to.type}) cannot be joined", link
        )


def _check_filter(node: Filter | None, scope: _Scope) -> None:
    if node is None:
        return
    for condition in node.conditions:
        _check_condition(condition, scope)
    for inner in node.filters:
        _check_filter(inner, scope)
    for link in node.links:
        if link.link_type not in QUANTIFIERS:
            raise refusal(f"link-type '{link.link_type}' is not allowed inside a filter", link, code="0x80041117")
    _check_links(node.links, scope.table, scope.schema)


def _check_condition(condition: Condition, scope: _Scope) -> None:
    operator = OPERATORS.get(condition.operator)
    if operator is None:
        raise refusal(f"there is no operator '{condition.operator}'", condition, code="0x80041120")
    table = scope.table_of(condition.entityname, condition)
    column = _column(condition.attribute, table, condition)
    _check_named(condition.attribute, table, condition, scope.schema)
    if column.type not in operator.types or (operator.hours and column.date_behavior is DateBehavior.DATE_ONLY):
        kind = "a DateOnly column" if column.type in operator.types else f"a column of type {column.type}"
        raise refusal(f"operator '{operator.name}' is not valid for {kind} ('{column.logical_name}')", condition)
    if operator.name in HIERARCHY_OPERATORS and hierarchy_of(table, column, scope.schema) is None:
        raise refusal(
            f"operator '{operator.name}' needs a hierarchical relationship, '{condition.attribute}' has none",
            condition,
            code="0x80047020",
        )
    if condition.valueof is not None:
        _check_valueof(condition, operator, column, scope)
    else:
        _check_values(condition, operator, column, scope.schema)


def _check_named(name: str, table: Table, condition: Condition, schema: Schema) -> None:
    """Refuse the virtual name of a lookup none of whose tables is known."""
    owner = named_owner(table, name)
    if owner is not None and owner.is_lookup and not name_columns(owner, schema):
        targets = ", ".join(owner.targets) or "no table"
        raise refusal(f"'{name}' needs the names of {targets}, which the schema does not have", condition)


def _check_valueof(condition: Condition, operator: Operator, column: Column, scope: _Scope) -> None:
    if not operator.valueof:
        raise refusal(f"operator '{operator.name}' cannot be used with valueof", condition)
    label, name = split_reference(condition.valueof or "")
    other = _column(name, scope.table_of(label, condition), condition)
    _check_named(name, scope.table_of(label, condition), condition, scope.schema)
    if not comparable(column, other):
        raise refusal(
            f"columns '{column.logical_name}' ({column.type}) and '{name}' ({other.type}) cannot be compared", condition
        )


def _check_values(condition: Condition, operator: Operator, column: Column, schema: Schema) -> None:
    count, arity = len(condition.values), operator.arity
    if arity is Arity.ONE and column.type is ColumnType.MULTISELECT:
        arity = Arity.LIST  # eq and ne compare the whole selection
    if not _FITS[arity](count):
        raise refusal(f"operator '{operator.name}' takes {arity.value}, not {count}", condition)
    for index, value in enumerate(condition.values):
        try:
            _check_value(value, operator, operator.kind(index), column, schema)
        except ValueError as error:
            raise refusal(str(error), condition) from error


def _check_value(value: str | Placeholder, operator: Operator, kind: ValueKind, column: Column, schema: Schema) -> None:
    if isinstance(value, Placeholder):
        compares = kind is ValueKind.COLUMN and operator.name not in DATE_OPERATORS
        if not compares or column.type is ColumnType.MULTISELECT:
            raise ValueError(f"a placeholder cannot stand in for a value of '{operator.name}'")
        return
    if kind is ValueKind.COLUMN:
        check_literal(value, column, schema)
    elif kind is ValueKind.PATTERN and len(value) > PATTERN_LENGTH:
        raise ValueError(f"the pattern is longer than {PATTERN_LENGTH} characters")
    elif kind is ValueKind.KEY:
        parse_guid(value)
    elif kind is not ValueKind.PATTERN:
        _check_number(value, kind)


def _check_number(text: str, kind: ValueKind) -> None:
    if WHOLE_NUMBER.fullmatch(text) is None:
        raise ValueError(f"{text[:60]!r} is not {kind.value}")
    if kind is ValueKind.COUNT and int(text) < 1:
        raise ValueError(f"{text[:60]!r} is not {kind.value}")
    if kind is ValueKind.YEAR and not 1000 <= int(text) <= 9998:
        raise ValueError(f"{text[:60]!r} is not {kind.value}")
