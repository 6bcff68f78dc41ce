"""FetchXML to SQL: the fast reading, a predicate over the mirror's tables.

The predicate is true for exactly the rows of the entity that take part. Without links it is a flat test of the
entity's own columns; a link becomes a semi-join. Only where the entity's own filter speaks of a linked table
are the links written as joins, inside one EXISTS. Every value is a parameter, every name is quoted.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from d365sync.core.fetchxml.ast import (
    Condition,
    Fetch,
    Filter,
    Link,
    Placeholder,
    conditions_of,
    joined_of,
    quantified_of,
)
from d365sync.core.fetchxml.check import check_fetch
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.names import find_column, named_owner, split_reference
from d365sync.core.fetchxml.refusal import Located, refusal
from d365sync.core.fetchxml.sql_conditions import Subject, blank_sql, columns_sql, condition_sql, folded_sql
from d365sync.core.fetchxml.sql_values import (
    ALWAYS,
    NEVER,
    Dialect,
    Parameters,
    Stored,
    Target,
    combine,
    quoted,
    shadow_suffix,
)
from d365sync.core.schema import Column, Schema, Table

MAX_PARAMETERS = 30_000
"""Source: Limits in SQLite (32,766 parameters); PostgreSQL's protocol allows 65,535."""

LinksAs: TypeAlias = Literal["lookups", "sets"]
_NONE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Predicate:
    """A boolean SQL expression with named parameters (``:p1``); false and null both mean no."""

    sql: str
    parameters: Mapping[str, int | float | str | None]


def compile_predicate(
    fetch: Fetch,
    schema: Schema,
    context: Context,
    *,
    alias: str,
    dialect: Dialect,
    placeholders: Mapping[str, str] = _NONE,
    prefix: str = "p",
    links: LinksAs = "lookups",
) -> Predicate:
    """Return the predicate on the entity's rows, which stand under ``alias`` in the caller's statement.

    ``alias`` is taken as it is. ``placeholders`` maps names to SQL expressions that are already in stored
    spelling (text: folded). ``prefix`` begins the names of parameters and of inner aliases, so that several
    predicates fit one statement. ``links`` says how linked rows are asked for: looked up for each row, or as a set
    formed once, which pays where many rows are tested. Order, paging, aggregates and selected columns play no part.

    Raises:
        FetchXmlError: the query does not fit the schema, needs a user that the context does not know, or has
            more values than a statement can take.
    """
    fetch = check_fetch(fetch, schema, context)
    target = Target(schema, context, dialect, placeholders, Parameters(prefix))
    sql = _Compiler(target, prefix, links).fetch(fetch, alias)
    if len(target.parameters.values) > MAX_PARAMETERS:
        raise refusal(f"the query has more than {MAX_PARAMETERS} values", fetch)
    values: dict[str, Stored | None] = {**target.parameters.values}
    return Predicate(sql, values)


@dataclass(frozen=True, slots=True)
class _Scope:
    """The tables a filter's conditions may speak of, and their SQL aliases."""

    table: Table
    alias: str
    label: str | None = None
    joined: Mapping[str, tuple[Table, str]] = field(default_factory=dict)

    def side(self, label: str | None) -> tuple[Table, str]:
        return (self.table, self.alias) if label is None or label == self.label else self.joined[label]


class _Compiler:
    def __init__(self, target: Target, prefix: str, links: LinksAs) -> None:
        self._target = target
        self._prefix = prefix
        self._links = links
        self._aliases = 0

    def fetch(self, fetch: Fetch, alias: str) -> str:
        root = self._target.schema.table(fetch.entity)
        spoken_of = frozenset(_labels_in(fetch.filter))
        joins = [link for link in fetch.links if _speaks_of(link, spoken_of)]
        terms = self._semi_joins((link for link in fetch.links if link not in joins), alias)
        own, other = _split(fetch.filter) if joins else (fetch.filter, None)
        terms[:0] = self._filter(own, _Scope(root, alias))
        if joins:
            terms.append(self._joined(other, joins, spoken_of, _Scope(root, alias)))
        return combine(terms, "AND") if terms else ALWAYS

    def _joined(self, node: Filter | None, links: list[Link], spoken_of: frozenset[str], root: _Scope) -> str:
        """What of the entity's filter speaks of links, after the joins it speaks of.

        Source: Filter rows using FetchXML, filters on link-entity (entityname is applied after the join).
        """
        joined: dict[str, tuple[Table, str]] = {}
        where: list[str] = []
        joins = [self._join(link, root.alias, spoken_of, joined, where) for link in links]
        where += self._filter(node, _Scope(root.table, root.alias, None, joined))
        body = " ".join([f"(SELECT 1 AS one) AS {self._alias()}", *joins])
        if where:
            body += f" WHERE {combine(where, 'AND')}"
        return f"EXISTS (SELECT 1 FROM {body})"  # noqa: S608 (values are parameters, names are quoted)

    def _join(
        self,
        link: Link,
        parent: str,
        spoken_of: frozenset[str],
        joined: dict[str, tuple[Table, str]],
        where: list[str],
    ) -> str:
        """The join of a link and of those below it that are spoken of; what drops rows afterwards goes to ``where``."""
        alias, table = self._alias(), self._target.schema.table(link.name)
        joined[link.label] = table, alias
        source = f"{quoted(link.name)} AS {alias}"
        if link.link_type == "matchfirstrowusingcrossapply":
            word = "LEFT JOIN" if self._target.context.matchfirst_keeps_unmatched else "JOIN"
            return f"{word} {source} ON {self._is_first(link, table, alias, parent)}"
        spoken = [nested for nested in link.links if _speaks_of(nested, spoken_of)]
        rest = self._semi_joins((nested for nested in link.links if nested not in spoken), alias)
        tests = self._link_tests(link, alias, parent)
        flat = link.link_type == "outer" and self._target.context.inner_under_outer == "flat"
        (where if flat else tests).extend(rest)
        below = " ".join(self._join(nested, alias, spoken_of, joined, where) for nested in spoken)
        if link.link_type != "outer":
            return f"JOIN {source} ON {combine(tests, 'AND')} {below}".rstrip()
        if flat or not below:
            return f"LEFT JOIN {source} ON {combine(tests, 'AND')} {below}".rstrip()
        return f"LEFT JOIN ({source} {below}) ON {combine(tests, 'AND')}"

    def _is_first(self, link: Link, table: Table, alias: str, parent: str) -> str:
        """The first matching row; the platform does not say which that is. Assumed: the one with the least key."""
        key, inner = quoted(table.primary_id), self._alias()
        tests = [*self._link_tests(link, inner, parent), *self._semi_joins(link.links, inner)]
        source = f"{quoted(link.name)} AS {inner} WHERE {combine(tests, 'AND')}"
        return f"{alias}.{key} = (SELECT MIN({inner}.{key}) FROM {source})"  # noqa: S608

    def _semi_joins(self, links: Iterable[Link], parent: str) -> list[str]:
        """Links whose columns nobody asks for, as far as they drop rows."""
        return [self._member(link, parent) for link in links if self._drops(link)]

    def _member(self, link: Link, parent: str) -> str:
        """The parent's column is among those of the linked rows.

        With a placeholder in it the set would be another one for each row: then the linked row is looked up.
        """
        if self._links == "lookups" or _is_bound_later(link):
            return self._exists(link, parent)
        alias, table = self._alias(), self._target.schema.table(link.name)
        own, other = self._joined_on(link, table, alias, parent)
        tests = self._filter(link.filter, _Scope(table, alias, link.label)) + self._semi_joins(link.links, alias)
        where = f" WHERE {combine(tests, 'AND')}" if tests else ""
        return f"({other} IN (SELECT {own} FROM {quoted(link.name)} AS {alias}{where}))"  # noqa: S608

    def _drops(self, link: Link) -> bool:
        """Whether a link drops rows: an outer one only if one below it does and the chain of joins is flat."""
        context = self._target.context
        if link.link_type == "outer":
            return context.inner_under_outer == "flat" and any(map(self._drops, link.links))
        return link.link_type != "matchfirstrowusingcrossapply" or not context.matchfirst_keeps_unmatched

    def _exists(self, link: Link, parent: str, *, filtered: bool | None = True) -> str:
        """A linked row exists that passes the link's filter; with None one that fails it, with False any."""
        alias = self._alias()
        tests = self._link_tests(link, alias, parent, filtered=filtered is True)
        tests += self._semi_joins(link.links, alias)
        if filtered is None:
            scope = _Scope(self._target.schema.table(link.name), alias, link.label)
            tests += [f"({test} IS NOT TRUE)" for test in self._filter(link.filter, scope)] or [NEVER]
        return f"EXISTS (SELECT 1 FROM {quoted(link.name)} AS {alias} WHERE {combine(tests, 'AND')})"  # noqa: S608

    def _link_tests(self, link: Link, alias: str, parent: str, *, filtered: bool = True) -> list[str]:
        table = self._target.schema.table(link.name)
        tests = [" = ".join(self._joined_on(link, table, alias, parent))]
        return tests + self._filter(link.filter if filtered else None, _Scope(table, alias, link.label))

    def _joined_on(self, link: Link, table: Table, alias: str, parent: str) -> tuple[str, str]:
        """The two sides of a join: the linked table's, and the parent's."""
        own = self._subject(table, alias, link.from_, link)
        # Both sides are of one family, so the other side has a folded shadow exactly if this one has.
        other = f"{parent}.{quoted(link.to + shadow_suffix(own.column))}"
        return own.compared, blank_sql(folded_sql(other, own.column, self._target), own.column, self._target)

    def _filter(self, node: Filter | None, scope: _Scope) -> list[str]:
        """The filter as one unit, or nothing if it is empty."""
        if node is None:
            return []
        tests = [self._condition(condition, scope) for condition in node.conditions]
        tests += [test for inner in node.filters for test in self._filter(inner, scope)]
        tests += [self._quantified(link, scope.alias) for link in node.links]
        return [combine(tests, "OR" if node.type == "or" else "AND")] if tests else []

    def _quantified(self, link: Link, parent: str) -> str:
        """A link inside a filter.

        Source: Filter rows using FetchXML, filter on values in related records (``not all`` is the same as
        ``any``; ``all`` needs related rows, none of which passes).
        """
        if self._target.context.all_means_every and link.link_type.endswith("all"):
            failing = self._exists(link, parent, filtered=None)
            return f"(NOT {failing})" if link.link_type == "all" else failing
        passing = self._exists(link, parent)
        if link.link_type == "not any":
            return f"(NOT {passing})"
        if link.link_type == "all":
            return f"({self._exists(link, parent, filtered=False)} AND NOT {passing})"
        return passing

    def _condition(self, condition: Condition, scope: _Scope) -> str:
        table, alias = scope.side(condition.entityname)
        subject = self._subject(table, alias, condition.attribute, condition)
        if condition.valueof is None:
            return condition_sql(condition, subject, self._target)
        label, name = split_reference(condition.valueof)
        other_table, other_alias = scope.side(label)
        other = self._subject(other_table, other_alias, name, condition)
        return columns_sql(condition.operator, subject, other, self._target)

    def _subject(self, table: Table, alias: str, name: str, node: Located) -> Subject:
        column = find_column(table, name)
        if column is None:
            raise refusal(f"table '{table.logical_name}' has no column '{name}'", node, code="0x80041103")
        owner = named_owner(table, name)
        if owner is not None and not owner.is_lookup:
            self._need_labels(table, owner, node)
        return Subject.of(table, column, alias, self._target)

    def _need_labels(self, table: Table, owner: Column, node: Located) -> None:
        if not self._target.context.labels_of(table, owner):
            raise refusal(f"the labels of '{owner.logical_name}' are not known", node)

    def _alias(self) -> str:
        self._aliases += 1
        return f"{self._prefix}_{self._aliases}"


def _is_bound_later(link: Link) -> bool:
    """Whether a placeholder stands in a link's filter or below it."""
    inside = [*joined_of((link,))]
    inside += [one for link in inside for quantified in quantified_of(link.filter) for one in joined_of((quantified,))]
    conditions = (condition for one in inside for condition in conditions_of(one.filter))
    return any(isinstance(value, Placeholder) for condition in conditions for value in condition.values)


def _split(node: Filter | None) -> tuple[Filter | None, Filter | None]:
    """Part what a filter demands of the entity alone, which an index can serve, from what speaks of links."""
    if node is None or node.type == "or":
        return None, node
    by_speaking = {
        speaks: (
            tuple(one for one in node.conditions if any(_labels_in(Filter(conditions=(one,)))) is speaks),
            tuple(one for one in node.filters if any(_labels_in(one)) is speaks),
        )
        for speaks in (False, True)
    }
    return Filter("and", *by_speaking[False], links=node.links), Filter("and", *by_speaking[True])


def _labels_in(node: Filter | None) -> Iterator[str]:
    for condition in conditions_of(node):
        if condition.entityname is not None:
            yield condition.entityname
        label = None if condition.valueof is None else split_reference(condition.valueof)[0]
        if label is not None:
            yield label


def _speaks_of(link: Link, labels: frozenset[str]) -> bool:
    return any(one.label in labels for one in joined_of((link,)))
