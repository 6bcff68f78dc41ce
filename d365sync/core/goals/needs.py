"""Which tables and columns the goals need: the goals say what to pull, never a fixed list.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from d365sync.core.fetchxml.ast import Fetch, Filter, Link
from d365sync.core.fetchxml.caller import caller_operators
from d365sync.core.fetchxml.check import columns_used
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.fetchxml.used import labels_needed, rows_followed
from d365sync.core.goals.callers import caller_columns
from d365sync.core.goals.goal import Goal, GoalBook, RollupField
from d365sync.core.goals.participation import PARENT_ALIAS, RATE, Group, parent_table
from d365sync.core.goals.rules import Hierarchy
from d365sync.core.schema import Schema
from d365sync.errors import FetchXmlError, SchemaError

EXPLAIN_COLUMNS = ("ownerid", "transactioncurrencyid")
"""Shown beside every record behind a number, where the table has them."""
MODIFIED_ON = "modifiedon"
RECORD_COLUMNS = (RATE, MODIFIED_ON)
"""Shown of the records that are counted, where their table has them; ``parity`` asks when a record, or the parent
record that gives its state and date, last changed."""


def goals_to_compute(book: GoalBook) -> tuple[Goal, ...]:
    """Return the goals that have an own part to compute: open, and not rolled up only from children."""
    return tuple(goal for goal in book.goals.values() if goal.is_open and not goal.only_from_children)


def tables_named(book: GoalBook) -> frozenset[str]:
    """Return every table that the rollup fields and rollup queries of the open goals name.

    What cannot be read (a malformed query, an unnamed parent) names nothing here; grouping reports it.
    """
    names: set[str] = set()
    for goal in goals_to_compute(book):
        metric = book.metric_of(goal)
        for field in metric.fields if metric else ():
            names.add(field.source_entity)
            names.add(field.date_entity)
            if field.state_of_parent:
                names.update(_parent(field))
        for query_id in goal.queries.values():
            if query_id in book.queries:
                names.update(_tables_of(book.queries[query_id].fetchxml, book.rules.hierarchy))
    return frozenset(name for name in names if name)


def tables_referred(book: GoalBook, schema: Schema) -> frozenset[str]:
    """Return the tables whose rows the open goals' queries reach through lookups without naming them.

    A hierarchy operator on a lookup needs the hierarchy of its table, a virtual name the name of the row.
    """
    return frozenset(name for fetch in _queries(book) for name in rows_followed(fetch, schema))


def labels_tested(book: GoalBook, schema: Schema) -> frozenset[tuple[str, str]]:
    """Return the choices, by table and column, whose labels the open goals' queries test."""
    return frozenset(one for fetch in _queries(book) for one in labels_needed(fetch, schema))


def _queries(book: GoalBook) -> Iterator[Fetch]:
    """The queries of the open goals that can be read."""
    for query_id in {query_id for goal in goals_to_compute(book) for query_id in goal.queries.values()}:
        try:
            yield parse_fetch(book.queries[query_id].fetchxml)
        except (KeyError, FetchXmlError):
            continue


def columns_needed(
    groups: Iterable[Group], schema: Schema, hierarchy: Hierarchy = Hierarchy.MANAGER
) -> Mapping[str, frozenset[str]]:
    """Return the columns each table must be mirrored with to compute the groups and explain their records.

    The key is not among them. Where a query asks for its caller, what ``hierarchy`` needs to know of users is.
    """
    needed: dict[str, set[str]] = defaultdict(set)
    operators: set[str] = set()
    for group in groups:
        operators |= caller_operators(group.fetch)
        for table, columns in columns_used(group.fetch, schema).items():
            needed[table].update(columns)
        needed[group.table].update(column.logical_name for column in (group.value, group.base) if column)
        needed[group.table].update(set(RECORD_COLUMNS) & set(schema.table(group.table).columns))
        for link in group.fetch.links:
            if link.alias == PARENT_ALIAS and MODIFIED_ON in schema.table(link.name).columns:
                needed[link.name].add(MODIFIED_ON)
    for name, wanted in needed.items():
        shown = schema.table(name)
        wanted.update(column for column in EXPLAIN_COLUMNS if column in shown.columns)
        if shown.primary_name:
            wanted.add(shown.primary_name)
    for name, columns in caller_columns(operators, hierarchy).items():
        needed[name].update(columns)
    return {name: frozenset(columns) for name, columns in needed.items()}


def _parent(field: RollupField) -> set[str]:
    try:
        return {parent_table(field)}
    except SchemaError:
        return set()


def _tables_of(fetchxml: str, hierarchy: Hierarchy) -> set[str]:
    try:
        fetch = parse_fetch(fetchxml)
    except FetchXmlError:
        return set()
    return _named_in(fetch) | set(caller_columns(caller_operators(fetch), hierarchy))


def _named_in(fetch: Fetch) -> set[str]:
    names = {fetch.entity}
    pending: list[Link | Filter] = [*fetch.links, *([fetch.filter] if fetch.filter else [])]
    while pending:
        node = pending.pop()
        if isinstance(node, Link):
            names.add(node.name)
            pending.extend([node.filter] if node.filter else [])
        else:
            pending.extend(node.filters)
        pending.extend(node.links)
    return names
