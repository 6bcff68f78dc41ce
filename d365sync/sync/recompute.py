"""Recompute: bring the kept sums up to date with what changed, and give every goal its own part from them.

A group's sums are kept with a fingerprint of the very query that gave them. They are taken up again as they are, with
what changed records give more or less (the rows as they are now, and as they were before). A group is summed from
nothing when its fingerprint differs, or when a change cannot be followed to records: in a table it links to, or in too
many rows. Goals that were redefined are cut into other slices; only slices that were not there are summed.

IO: SQL, through the mirror.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.used import columns_used, tables_joined
from d365sync.core.goals.goal import DataType, GoalBook, Number
from d365sync.core.goals.participation import Group, Grouping, bounds_in, owner_span
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.goals.slices import (
    NOTHING,
    GoalBounds,
    Lane,
    Layout,
    Slice,
    SliceSum,
    goal_sums,
    goals_over,
    lay_out,
)
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem
from d365sync.core.schema import Schema
from d365sync.core.storage import EXACT, scale_of
from d365sync.errors import FetchXmlError
from d365sync.mirror.indexes import indexable
from d365sync.mirror.slices import GroupSums, KeptGroup, KeptSlices, kept_groups, kept_slices, kept_sums
from d365sync.mirror.store import Mirror, TableChanges
from d365sync.mirror.sums import group_predicate, indexes_of
from d365sync.mirror.tables import MirrorTable

MOST_FOLLOWED = 5000
"""Changed rows of a table beyond which everything is summed again: about where following them costs more."""


@dataclass(slots=True)
class Recomputed:
    """Own parts by goal id and column, the goals whose sums were touched now, and the problems met."""

    own: dict[tuple[str, str], OwnPart] = field(default_factory=dict)
    goals: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Refreshed:
    """One group with what its kept sums have become.

    ``kept`` None: nothing usable is kept, or it must be summed from nothing (``again``: its slices still stand).
    ``updates`` are new sums of kept slices, by id.
    """

    group: Group
    predicate: Predicate
    key: str
    fingerprint: str
    kept: KeptGroup | None
    again: bool = False
    updates: Mapping[int, SliceSum] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recomputer:
    """What recomputing needs; ``tables`` are the mirrored tables by logical name."""

    mirror: Mirror
    book: GoalBook
    schema: Schema
    tables: Mapping[str, MirrorTable]
    context: Context
    zone: ZoneInfo

    def recompute(self, grouping: Grouping, *, settle: bool = True) -> Recomputed:
        """Return every goal's own parts, summing what may have changed.

        With ``settle`` the sums are kept and the mirror's changes are done with; only a cycle that pulled may do so.
        """
        result = Recomputed(problems=list(grouping.problems))
        if settle:
            self.index(grouping.groups)
        refreshed = self.refresh(grouping.groups, result.problems)
        keeping = self.parts(refreshed, result)
        if settle:
            self.mirror.settle(keeping)
        return result

    def index(self, groups: Sequence[Group]) -> None:
        """Make the indexes from which the groups' statements are answered."""
        used: dict[str, set[str]] = defaultdict(set)
        for group in groups:
            if group.query is not None:
                used[group.table] |= columns_used(group.fetch, self.schema).get(group.table, set())
        dialect = self.mirror.dialect
        stored = {name: indexable(self.schema.table(name), columns, dialect) for name, columns in used.items()}
        self.mirror.index(indexes_of(groups, stored))

    def refresh(self, groups: Sequence[Group], problems: list[Problem]) -> list[Refreshed]:
        """Bring the kept sums up to date with the changed records, as far as those can be followed.

        The time this takes depends on the changes and the number of groups, not on records or goals.
        """
        changes = {name: self.mirror.changes(table, up_to=MOST_FOLLOWED) for name, table in self.tables.items()}
        with self.mirror.reading() as connection:
            kept = kept_groups(connection)
            found = [self._refreshed(connection, group, kept, changes, problems) for group in groups]
        return [one for one in found if one is not None]

    def parts(self, refreshed: Iterable[Refreshed], result: Recomputed) -> list[GroupSums]:
        """Give every goal its own parts; return what is to be kept of the groups."""
        found = list(refreshed)
        spans = goal_spans(self.book, [one.group for one in found], self.zone, result.problems)
        with self.mirror.reading() as connection:
            return [self._parts(connection, one, spans, result) for one in found]

    def _refreshed(
        self,
        connection: Connection,
        group: Group,
        kept: Mapping[str, KeptGroup],
        changes: Mapping[str, TableChanges],
        problems: list[Problem],
    ) -> Refreshed | None:
        try:
            predicate = group_predicate(group, self.schema, self.context, self.mirror.dialect)
        except FetchXmlError as error:
            problems.extend(_unusable(self.book, group, error))
            return None
        key, fingerprint = json.dumps(group.key), _fingerprint(group, predicate)
        one = Refreshed(group, predicate, key, fingerprint, kept.get(key))
        if one.kept is not None:
            self._follow(connection, one, one.kept, changes)
        return one

    def _follow(
        self, connection: Connection, one: Refreshed, kept: KeptGroup, changes: Mapping[str, TableChanges]
    ) -> None:
        """Add what the changed records of a group change, or mark it to be summed again."""
        group = one.group
        relevant = self._relevant(group, changes)
        one.again = (
            kept.fingerprint != one.fingerprint
            or bool(relevant & tables_joined(group.fetch, self.schema))
            or (group.table in relevant and changes[group.table].everything)
        )
        if relevant and not one.again:
            delta = self.mirror.adder(connection, group, one.predicate).changed(kept.number)
            known = kept_sums(connection, self.mirror.dialect, sorted(delta))
            one.updates = {slice_id: _plus(known[slice_id], change) for slice_id, change in delta.items()}

    def _relevant(self, group: Group, changes: Mapping[str, TableChanges]) -> set[str]:
        """Return the tables in which something changed that the group reads: its own, or one that it joins."""
        used = {name: set(columns) for name, columns in columns_used(group.fetch, self.schema).items()}
        used.setdefault(group.table, set()).update(one.logical_name for one in (group.value, group.base) if one)
        return {name for name, columns in used.items() if _concerns(changes[name], columns)}

    def _parts(
        self, connection: Connection, one: Refreshed, spans: Mapping[str, DaySpan], result: Recomputed
    ) -> GroupSums:
        group = one.group
        layout = lay_out(self.bounds(group, spans))
        keeping, sums, touched = self._summed(connection, one, layout)
        result.goals |= goals_over(layout, touched)
        column = group.slot.column
        for goal_id, its in goal_sums(layout, sums).items():
            result.own[goal_id, column] = OwnPart(_amount(group, its.total), its.unpriced)
        return keeping

    def bounds(self, group: Group, spans: Mapping[str, DaySpan]) -> list[GoalBounds]:
        """Return where the goals of a group that have a usable period lie within it."""
        return [
            bounds_of(self.book, group, goal_id, spans[goal_id], self.zone)
            for goal_id in group.goal_ids
            if goal_id in spans
        ]

    def _summed(
        self, connection: Connection, one: Refreshed, layout: Layout
    ) -> tuple[GroupSums, Sequence[SliceSum], Iterable[int]]:
        """Return what to keep of a group, the sums of its slices, and the positions of those summed now."""
        kept = kept_slices(connection, self.mirror.dialect, one.kept.number) if one.kept else KeptSlices((), (), ())
        if one.kept is not None and one.again and layout.slices == kept.slices:
            fresh = self.mirror.adder(connection, one.group, one.predicate).kept(one.kept.number)
            one.updates = {slice_id: fresh.get(slice_id, NOTHING) for slice_id in kept.ids}
            one.again = False
        known = {} if one.again else _by_slice(kept, one.updates)
        missing = [part for part in layout.slices if part not in known]
        if missing:
            known |= zip(missing, self.mirror.adder(connection, one.group, one.predicate).wanted(missing), strict=True)
        changed = {
            *missing,
            *(part for slice_id, part in zip(kept.ids, kept.slices, strict=True) if slice_id in one.updates),
        }
        touched = [position for position, part in enumerate(layout.slices) if part in changed]
        sums = [known[part] for part in layout.slices]
        same = one.kept is not None and one.kept.fingerprint == one.fingerprint and layout.slices == kept.slices
        anew = None if same else layout.slices
        return GroupSums(one.key, one.fingerprint, one.updates, anew, sums), sums, touched


def goal_spans(book: GoalBook, groups: Iterable[Group], zone: ZoneInfo, problems: list[Problem]) -> dict[str, DaySpan]:
    """Return the days of every grouped goal; a goal without a usable period gets a problem instead."""
    spans: dict[str, DaySpan] = {}
    for goal_id in sorted({goal_id for group in groups for goal_id in group.goal_ids}):
        goal = book.goals[goal_id]
        try:
            spans[goal_id] = owner_span(goal, book, zone)
        except (ValueError, OverflowError) as error:
            problems.append(Problem("goal-period", f"'{goal.title}' has no usable period: {error}", goal_id))
    return spans


def bounds_of(book: GoalBook, group: Group, goal_id: str, span: DaySpan, zone: ZoneInfo) -> GoalBounds:
    """Return where a goal lies within its group."""
    owner = book.goals[goal_id].owner_id if group.owned else None
    return GoalBounds(goal_id, Lane(owner=owner or ""), *bounds_in(group.dates, span, zone))


def slice_of(bounds: GoalBounds) -> Slice:
    """Return a goal's whole period as one slice."""
    return Slice(*bounds.lane, bounds.starts, bounds.ends)


def _by_slice(kept: KeptSlices, updates: Mapping[int, SliceSum]) -> dict[Slice, SliceSum]:
    return {
        part: updates.get(slice_id, known)
        for slice_id, part, known in zip(kept.ids, kept.slices, kept.sums, strict=True)
    }


def _plus(one: SliceSum, change: SliceSum) -> SliceSum:
    return SliceSum(one.total + change.total, one.unpriced + change.unpriced)


def _amount(group: Group, total: int) -> Number:
    """Return a sum in the unit of the goal column; sums are kept in the scale of the source column."""
    source = group.base or group.value
    if source is None or group.slot.data_type is DataType.INTEGER:
        return total
    return Decimal(total).scaleb(-scale_of(source), EXACT)


def _concerns(changes: TableChanges, columns: set[str]) -> bool:
    return changes.everything or bool(changes.columns & columns)


def _fingerprint(group: Group, predicate: Predicate) -> str:
    summed = [one.logical_name if one else None for one in (group.value, group.base)]
    parts: Sequence[object] = [group.table, summed, predicate.sql, sorted(predicate.parameters.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _unusable(book: GoalBook, group: Group, error: FetchXmlError) -> list[Problem]:
    name = f"rollup query '{group.query.name}'" if group.query else "rollup field"
    return [
        Problem(
            "rollup-query-unusable", f"the {name} of '{book.goals[goal_id].title}' cannot be used: {error}", goal_id
        )
        for goal_id in group.goal_ids
    ]
