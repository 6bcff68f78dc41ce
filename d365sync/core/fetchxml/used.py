"""Which columns a query needs, so that the mirror pulls those and no others.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Link, conditions_of, joined_of, quantified_of
from d365sync.core.fetchxml.names import (
    companion_owner,
    find_column,
    hierarchy_of,
    name_columns,
    named_owner,
    split_reference,
)
from d365sync.core.fetchxml.operators import HIERARCHY_OPERATORS
from d365sync.core.fetchxml.settle import settled
from d365sync.core.schema import Column, Schema, Table


def columns_used(fetch: Fetch, schema: Schema) -> Mapping[str, frozenset[str]]:
    """Return, by table, the columns that decide which rows take part: keys, conditions, joins, hierarchies.

    A condition on a ``<lookup>type`` companion counts as the lookup itself, one on a lookup's virtual name as the
    lookup and the primary names of its tables. The query is taken to have passed
    :func:`~d365sync.core.fetchxml.check.check_fetch`; selected and sorted columns are not among them.

    Raises:
        SchemaError: the query names a table that the schema does not have.
    """
    return {table: frozenset(columns) for table, columns in _collected(fetch, schema).found.items()}


def tables_joined(fetch: Fetch, schema: Schema) -> frozenset[str]:
    """Return the tables of which other rows than the tested one decide: those of links, names and hierarchies.

    Raises:
        SchemaError: the query names a table that the schema does not have.
    """
    return frozenset(_collected(fetch, schema).joined)


def columns_sought(fetch: Fetch, schema: Schema) -> frozenset[tuple[str, str]]:
    """Return the tables and columns by which rows of other tables are looked up: joins, and parents of hierarchies.

    Raises:
        SchemaError: the query names a table that the schema does not have.
    """
    return frozenset(_collected(fetch, schema).sought)


def _collected(fetch: Fetch, schema: Schema) -> _Collector:
    fetch = settled(fetch, schema)
    collector = _Collector(schema)
    labels = {link.label: link.name for link in joined_of(fetch.links)}
    collector.add(fetch.entity, schema.table(fetch.entity).primary_id)
    collector.filter(fetch.filter, fetch.entity, labels)
    collector.links(fetch.links, fetch.entity)
    return collector


class _Collector:
    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self.found: defaultdict[str, set[str]] = defaultdict(set)
        self.joined: set[str] = set()
        self.sought: set[tuple[str, str]] = set()

    def add(self, table: str, column: str) -> None:
        holder = self._schema.table(table)
        named = named_owner(holder, column)
        owner = companion_owner(holder, column) or named
        self.found[table].add(column if column in holder.columns or owner is None else owner.logical_name)
        if named is not None and named.is_lookup:
            for target, name in name_columns(named, self._schema):
                self.joined.add(target.logical_name)
                self.found[target.logical_name] |= {target.primary_id, name.logical_name}

    def links(self, links: Iterable[Link], parent: str) -> None:
        for link in links:
            self.joined.add(link.name)
            self.sought.add((link.name, link.from_))
            self.add(parent, link.to)
            self.add(link.name, link.from_)
            self.add(link.name, self._schema.table(link.name).primary_id)
            self.filter(link.filter, link.name, {link.label: link.name})
            self.links(link.links, link.name)

    def filter(self, node: Filter | None, table: str, labels: Mapping[str, str]) -> None:
        for condition in conditions_of(node):
            self._condition(condition, table, labels)
        self.links(quantified_of(node), table)

    def _condition(self, condition: Condition, own: str, labels: Mapping[str, str]) -> None:
        table = own if condition.entityname is None else labels[condition.entityname]
        self.add(table, condition.attribute)
        if condition.valueof is not None:
            label, name = split_reference(condition.valueof)
            self.add(own if label is None else labels[label], name)
        if condition.operator in HIERARCHY_OPERATORS:
            self._hierarchy(table, condition.attribute)

    def _hierarchy(self, table: str, attribute: str) -> None:
        holder = self._schema.table(table)
        column = find_column(holder, attribute)
        target = None if column is None else hierarchy_of(holder, column, self._schema)
        if target is not None and target.hierarchy_parent is not None:
            self.joined.add(target.logical_name)
            self.sought.add((target.logical_name, target.hierarchy_parent))
            self.add(target.logical_name, target.primary_id)
            self.add(target.logical_name, target.hierarchy_parent)


def rows_followed(fetch: Fetch, schema: Schema) -> frozenset[str]:
    """Return the tables a query depends on beyond those it joins: hierarchies, names of lookups, type codes.

    Lookups count with every table they may point to, also those that the schema does not have.
    """
    found: set[str] = set()
    for table, name, condition in _columns_named(fetch):
        holder = schema.tables.get(table)
        if holder is None:
            continue
        followed = named_owner(holder, name) or _coded(holder, name, condition)
        if followed is None and condition.operator in HIERARCHY_OPERATORS:
            followed = find_column(holder, name)
        if followed is not None:
            found.update(followed.targets if followed.is_lookup else {table} if followed.is_primary_id else ())
    return frozenset(found)


def _coded(holder: Table, name: str, condition: Condition) -> Column | None:
    """The lookup whose type column is compared with a type code: only its tables know their codes."""
    coded = any(isinstance(value, str) and value.strip().isdigit() for value in condition.values)
    return companion_owner(holder, name) if coded else None


def _columns_named(fetch: Fetch) -> Iterator[tuple[str, str, Condition]]:
    """Every column that a condition names, with its table, the column compared with included."""
    labels = {link.label: link.name for link in joined_of(fetch.links)}
    yield from _named_in(fetch.filter, fetch.entity, labels)
    for link in joined_of(fetch.links):
        yield from _named_in(link.filter, link.name, {link.label: link.name})


def _named_in(node: Filter | None, own: str, labels: Mapping[str, str]) -> Iterator[tuple[str, str, Condition]]:
    for condition in conditions_of(node):
        yield labels.get(condition.entityname or "", own), condition.attribute, condition
        if condition.valueof is not None:
            label, name = split_reference(condition.valueof)
            yield labels.get(label or "", own), name, condition
    for quantified in quantified_of(node):
        for link in joined_of((quantified,)):
            yield from _named_in(link.filter, link.name, {link.label: link.name})


def labels_needed(fetch: Fetch, schema: Schema) -> frozenset[tuple[str, str]]:
    """Return the choices, by table and column, whose labels a query tests through their virtual names."""
    owners = (
        (table, named_owner(schema.tables[table], name))
        for table, name, _ in _columns_named(fetch)
        if table in schema.tables
    )
    return frozenset(
        (table, owner.logical_name) for table, owner in owners if owner is not None and not owner.is_lookup
    )
