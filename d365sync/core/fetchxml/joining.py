"""Joins, filters and hierarchies over Python rows: the evaluator's walk through a query.

For every row of the entity it lists the combinations of linked rows that the links allow, then asks the
entity's filter about each combination.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Link, joined_of
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.names import find_column, hierarchy_of, name_columns, named_owner, split_reference
from d365sync.core.fetchxml.refusal import Located, refusal
from d365sync.core.fetchxml.truth import Facts, Test, compare_columns, compared_key, test_of
from d365sync.core.schema import Column, Schema, Table
from d365sync.core.values import Row, Value

MAX_DEPTH = 100
"""Levels a hierarchy operator follows. Source: Query hierarchical data (default recursion limit of 100).

Assumed: deeper rows are passed over without a word, so not-under returns them.
"""

_LABELLED = ("inner", "natural", "outer", "matchfirstrowusingcrossapply")


@dataclass(frozen=True, slots=True)
class Combination:
    """One row of the entity with the linked rows joined to it, by the identity of their links.

    A linked row is None where an outer link found none.
    """

    row: Row
    linked: Mapping[int, Row | None]

    def side(self, link: Link | None) -> Row | None:
        """Return the row of a link, or the entity's own for None."""
        return self.row if link is None else self.linked[id(link)]


@dataclass(slots=True)
class Joiner:
    """Walks one query over one set of tables, remembering indexes and typed conditions as it goes."""

    tables: Mapping[str, Sequence[Row]]
    schema: Schema
    context: Context
    placeholders: Mapping[str, Value] = field(default_factory=dict)
    _indexes: dict[tuple[str, str], dict[Value, list[Row]]] = field(default_factory=dict)
    _tests: dict[int, Test] = field(default_factory=dict)

    def combinations(self, fetch: Fetch) -> Iterator[Combination]:
        """Yield every combination that takes part, in the order of the entity's rows, then of the linked rows."""
        root = self.schema.table(fetch.entity)
        joined = dict(self._labels(fetch.links))
        for row in self.tables.get(fetch.entity, ()):
            for linked in self.joined(row, fetch.links):
                scope = Scope(root, row, None, joined, linked)
                if self._passes(fetch.filter, scope):
                    yield Combination(row, linked)

    def scope(self, fetch: Fetch, row: Row, linked: Mapping[int, Row | None]) -> Scope:
        """Return what the entity's filter may speak of: a row and, by identity of their links, the rows joined."""
        return Scope(self.schema.table(fetch.entity), row, None, dict(self._labels(fetch.links)), linked)

    def below(self, key: str, table: Table, column: Column) -> frozenset[str]:
        """Return the keys of the rows below a row, itself left out."""
        target = self._hierarchy(table, column)
        children: defaultdict[Value, set[str]] = defaultdict(set)
        for row in self.tables.get(target.logical_name, ()):
            children[row.get(target.hierarchy_parent or "")].add(str(row[target.primary_id]))
        return _reach(key, children)

    def above(self, key: str, table: Table, column: Column) -> frozenset[str]:
        """Return the keys of the rows above a row, itself left out."""
        target = self._hierarchy(table, column)
        parents: dict[Value, set[str]] = {}
        for row in self.tables.get(target.logical_name, ()):
            parent = row.get(target.hierarchy_parent or "")
            parents[row[target.primary_id]] = set() if parent is None else {str(parent)}
        return _reach(key, parents)

    def children(self, table: Table, key: str) -> int:
        """Return how many rows have a row as their parent in the table's hierarchy."""
        return len(self._index(table.logical_name, table.hierarchy_parent or "").get(self._key(key), []))

    def value(self, row: Row | None, table: Table, name: str, node: Located) -> Value:
        """Return a column's value, also that of the virtual name of a lookup or a choice; None without a row.

        Raises:
            FetchXmlError: the labels of a choice whose name is asked for are not known.
        """
        owner = named_owner(table, name)
        if row is None or owner is None:
            return None if row is None else row.get(name)
        if owner.is_lookup:
            return self.target_name(row, owner)
        labels = self.context.labels_of(table, owner)
        if not labels:
            raise refusal(f"the labels of '{owner.logical_name}' are not known", node)
        chosen = row.get(owner.logical_name)
        return labels.get(int(chosen)) if isinstance(chosen, int) else None

    def target_name(self, row: Row, lookup: Column) -> Value:
        """Return the primary name of the row that a lookup points to, None if there is none."""
        said = row.get(lookup.type_name)
        for table, name in name_columns(lookup, self.schema):
            if said is None or said == table.logical_name:
                target = self.lookup(table, row.get(lookup.logical_name))
                if target is not None and target.get(name.logical_name) is not None:
                    return target[name.logical_name]
        return None

    def lookup(self, table: Table, key: Value) -> Row | None:
        """Return the row of a table with that key, None if there is none."""
        found = self._index(table.logical_name, table.primary_id).get(self._key(key), [])
        return found[0] if found else None

    def _hierarchy(self, table: Table, column: Column) -> Table:
        target = hierarchy_of(table, column, self.schema)
        if target is None:
            raise ValueError(f"'{column.logical_name}' has no hierarchy")
        return target

    def _labels(self, links: Iterable[Link]) -> Iterator[tuple[str, tuple[Table, int]]]:
        for link in links:
            if link.link_type in _LABELLED:
                yield link.label, (self.schema.table(link.name), id(link))
                yield from self._labels(link.links)

    def joined(self, row: Row | None, links: Sequence[Link]) -> list[dict[int, Row | None]]:
        """Return every combination of linked rows that the links allow for a row; none when a link finds no row."""
        found: list[dict[int, Row | None]] = [{}]
        for link in links:
            more = self.expand(row, link)
            found = [one | other for one in found for other in more]
        return found

    def expand(self, row: Row | None, link: Link) -> list[dict[int, Row | None]]:
        """Return the combinations that one link allows for a row, with the links nested in it."""
        matched = self._matches(row, link)
        if link.link_type in ("exists", "in"):
            return [{}] if any(self.joined(linked, link.links) for linked in matched) else []
        if link.link_type == "matchfirstrowusingcrossapply":
            fitting = [linked for linked in matched if self.joined(linked, link.links)]
            key = self.schema.table(link.name).primary_id
            if not fitting and self.context.matchfirst_keeps_unmatched:
                return [{id(link): None}]
            return [{id(link): min(fitting, key=lambda linked: str(linked[key]))}] if fitting else []
        rows: Sequence[Row | None] = matched
        if link.link_type == "outer" and not matched:
            rows = [None]
        found = [{id(link): linked} | nested for linked in rows for nested in self.joined(linked, link.links)]
        if link.link_type == "outer" and not found and self.context.inner_under_outer == "nested":
            return [{id(one): None for one in joined_of((link,))}]
        return found

    def _matches(self, row: Row | None, link: Link) -> list[Row]:
        return [linked for linked in self.related(row, link) if self._passes(link.filter, self.own_scope(linked, link))]

    def related(self, row: Row | None, link: Link) -> list[Row]:
        """Return the rows that a link's key leads to, whatever its filter says of them."""
        value = None if row is None else row.get(link.to)
        return [] if value is None else self._index(link.name, link.from_).get(self._key(value), [])

    def _index(self, table: str, column: str) -> dict[Value, list[Row]]:
        if (table, column) not in self._indexes:
            index: defaultdict[Value, list[Row]] = defaultdict(list)
            for row in self.tables.get(table, ()):
                if row.get(column) is not None:
                    index[self._key(row[column])].append(row)
            self._indexes[table, column] = dict(index)
        return self._indexes[table, column]

    def _key(self, value: Value) -> Value:
        return compared_key(value, self.context)

    def own_scope(self, linked: Row, link: Link) -> Scope:
        """Return what a link's own filter may speak of."""
        return Scope(self.schema.table(link.name), linked, link.label, {}, {})

    def _passes(self, node: Filter | None, scope: Scope) -> bool:
        return self._verdict(node, scope) is not False

    def _verdict(self, node: Filter | None, scope: Scope) -> bool | None:
        """Whether a filter holds; None if it is empty and has no say."""
        if node is None:
            return None
        verdicts: list[bool | None] = [self.holds(condition, scope) for condition in node.conditions]
        verdicts += [self._verdict(inner, scope) for inner in node.filters]
        verdicts += [self.quantified(scope.row, link) for link in node.links]
        said = [verdict for verdict in verdicts if verdict is not None]
        if not said:
            return None
        return all(said) if node.type == "and" else any(said)

    def quantified(self, row: Row | None, link: Link) -> bool:
        """Say whether a link inside a filter holds.

        Source: Filter rows using FetchXML, filter on values in related records (``not all`` is the same as
        ``any``; ``all`` needs related rows, none of which passes). Assumed: links nested in a quantified link
        narrow the related rows.
        """
        related = [linked for linked in self.related(row, link) if self.joined(linked, link.links)]
        passing = [self._passes(link.filter, self.own_scope(linked, link)) for linked in related]
        if link.link_type == "not any":
            return not any(passing)
        if self.context.all_means_every and link.link_type.endswith("all"):
            return all(passing) is (link.link_type == "all")
        return bool(related) and not any(passing) if link.link_type == "all" else any(passing)

    def holds(self, condition: Condition, scope: Scope) -> bool:
        """Say whether a condition holds for the rows it speaks of."""
        table, row = scope.side(condition.entityname)
        value = self.value(row, table, condition.attribute, condition)
        if condition.valueof is not None:
            label, name = split_reference(condition.valueof)
            other_table, other_row = scope.side(label)
            other = self.value(other_row, other_table, name, condition)
            return compare_columns(condition.operator, value, other, self.context)
        return self._test(condition, table)(value)

    def _test(self, condition: Condition, table: Table) -> Test:
        if id(condition) not in self._tests:
            column = find_column(table, condition.attribute)
            if column is None:
                raise refusal(f"table '{table.logical_name}' has no column '{condition.attribute}'", condition)
            facts = Facts(self.schema, self.context, self.placeholders, self)
            self._tests[id(condition)] = test_of(condition, table, column, facts)
        return self._tests[id(condition)]


@dataclass(frozen=True, slots=True)
class Scope:
    """The rows a filter's conditions may speak of: the element's own, and the joined ones by label."""

    table: Table
    row: Row | None
    label: str | None
    joined: Mapping[str, tuple[Table, int]]
    linked: Mapping[int, Row | None]

    def side(self, label: str | None) -> tuple[Table, Row | None]:
        """Return table and row of a label; None is the element itself."""
        if label is None or label == self.label:
            return self.table, self.row
        table, identity = self.joined[label]
        return table, self.linked[identity]

    def is_own(self, label: str | None) -> bool:
        """Say whether a label names the element itself."""
        return label is None or label == self.label

    def reaches(self, label: str | None) -> bool:
        """Say whether the row of a label (or that there is none, for an outer link) is known."""
        return self.is_own(label) or self.joined[label or ""][1] in self.linked

    def value(self, label: str | None, attribute: str) -> Value:
        """Return a column of the row of a label, null where an outer link found no row."""
        row = self.side(label)[1]
        return None if row is None else row.get(attribute)


def _reach(key: str, next_of: Mapping[Value, set[str]]) -> frozenset[str]:
    found: set[str] = set()
    level = {key}
    for _ in range(MAX_DEPTH):
        level = {reached for one in level for reached in next_of.get(one, ())} - found
        found |= level
    return frozenset(found - {key})
