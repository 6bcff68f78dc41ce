"""The rows a verdict needs: the records in question and, batch by batch, the rows that a query links them to.

IO: SQL, through the mirror.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from d365sync.core.fetchxml.ast import Fetch, Filter, Link, conditions_of, joined_of, quantified_of
from d365sync.core.fetchxml.check import columns_used
from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.joining import Joiner
from d365sync.core.fetchxml.operators import HIERARCHY_OPERATORS
from d365sync.core.fetchxml.used import tables_joined
from d365sync.core.fetchxml.verdict import verdict_of
from d365sync.core.goals.goal import Goal, RollupField
from d365sync.core.goals.participation import Group
from d365sync.core.goals.why import Asking, Criterion, criteria_of, typed_bounds
from d365sync.core.period import DaySpan
from d365sync.core.schema import GUID_TYPES
from d365sync.core.values import Row, Value
from d365sync.mirror.lookup import MOST_VALUES, among
from d365sync.mirror.sums import group_predicate
from d365sync.sync.cuts import whole_slice
from d365sync.sync.snapshot import Line, Snapshot


@dataclass(frozen=True, slots=True)
class Part:
    """One goal's own part of one column: what is asked of its records. ``context`` says what "today" is."""

    line: Line
    snapshot: Snapshot
    goal: Goal
    group: Group
    span: DaySpan
    context: Context

    def records(self) -> list[Row]:
        """Return the records that count, as the goal's number was computed, by date.

        Raises:
            FetchXmlError: the query cannot be answered.
        """
        predicate = group_predicate(
            self.group, self.snapshot.schema, self.context, self.line.mirror.dialect, sighted=self.sighted
        )
        return self.matching(self.group, predicate)

    def rows_where(self, name: str, predicate: Predicate) -> list[Row]:
        """Return the rows of any mirrored table that meet a condition of :mod:`d365sync.mirror.lookup`, by key."""
        key = self.snapshot.schema.table(name).primary_id
        other = replace(self.group, field=_over(self.group, name), fetch=Fetch(name), primary_id=key)
        return self.matching(other, predicate)

    def matching(self, group: Group, predicate: Predicate) -> list[Row]:
        """Return the rows of a group's table that meet a condition, given the goal's bounds."""
        period = whole_slice(self.goal, self.group, self.span, self.snapshot.zone, sighted=self.sighted)
        return self.line.mirror.participants(self.snapshot.tables[group.table], group, predicate, period)

    @property
    def sighted(self) -> bool:
        """Whether only what the goal's manager may read counts."""
        return self.line.config.rollup.visibility == "manager"

    def criteria(self, rows: Sequence[Row]) -> list[tuple[Criterion, ...]]:
        """Return, for each of these records, the tests it is put to; all hold exactly for the records that count.

        Raises:
            FetchXmlError: the query cannot be answered.
        """
        if not rows:
            return []
        asking = self.asking
        tables = Linked(self).tables(rows)
        joiner = Joiner(tables, self.snapshot.schema, self.context, typed_bounds(asking))
        return [criteria_of(verdict_of(self.group.fetch, row, joiner), asking) for row in rows]

    @property
    def asking(self) -> Asking:
        """The goal's values of the group's query."""
        owner = self.goal.owner_id if self.group.owned else None
        snapshot = self.snapshot
        return Asking(self.group, snapshot.schema, self.span, owner, snapshot.book.names, snapshot.zone)


@dataclass(slots=True)
class Linked:
    """Gathers the rows that a group's query leads to from given records."""

    part: Part
    _found: defaultdict[str, dict[str, Row]] = field(default_factory=lambda: defaultdict(dict))

    def tables(self, rows: Sequence[Row]) -> Mapping[str, list[Row]]:
        """Return the records and every linked row that may matter for them, by table."""
        fetch = self.part.group.fetch
        self._keep(fetch.entity, rows)
        if _asks_for_hierarchy(fetch):
            for name in columns_used(fetch, self.part.snapshot.schema):
                self._keep(name, self._whole(name))
        else:
            self._follow(rows, [*fetch.links, *quantified_of(fetch.filter)])
            for name in tables_joined(fetch, self.part.snapshot.schema) - self._found.keys():
                self._keep(name, self._whole(name))
        return {name: list(found.values()) for name, found in self._found.items()}

    def _follow(self, rows: Sequence[Row], links: Iterable[Link]) -> None:
        for link in links:
            linked = self._linked(link, {row.get(link.to) for row in rows} - {None})
            self._keep(link.name, linked)
            if linked:
                self._follow(linked, [*link.links, *quantified_of(link.filter)])

    def _linked(self, link: Link, values: set[Value]) -> list[Row]:
        column = self.part.snapshot.schema.table(link.name).columns.get(link.from_)
        if column is None or column.type not in GUID_TYPES:
            return self._whole(link.name)
        wanted = sorted(str(value) for value in values)
        batches = (wanted[start : start + MOST_VALUES] for start in range(0, len(wanted), MOST_VALUES))
        return [row for batch in batches for row in self.part.rows_where(link.name, among(link.from_, batch))]

    def _whole(self, name: str) -> list[Row]:
        return list(self.part.line.mirror.rows(self.part.snapshot.tables[name]))

    def _keep(self, name: str, rows: Iterable[Row]) -> None:
        key = self.part.snapshot.schema.table(name).primary_id
        self._found[name].update({str(row[key]): row for row in rows})


def _over(group: Group, name: str) -> RollupField:
    return replace(group.field, source_entity=name)


def _asks_for_hierarchy(fetch: Fetch) -> bool:
    filters = list(_filters(fetch.filter, fetch.links))
    return any(one.operator in HIERARCHY_OPERATORS for tree in filters for one in conditions_of(tree))


def _filters(tree: Filter | None, links: Iterable[Link]) -> Iterator[Filter]:
    if tree is not None:
        yield tree
    for link in [*joined_of(tuple(links)), *quantified_of(tree)]:
        yield from _filters(link.filter, link.links if link in quantified_of(tree) else ())
