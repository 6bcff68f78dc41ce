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
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from d365sync.core.fetchxml.compile import LinksAs, Predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.used import columns_sought, columns_used, tables_joined
from d365sync.core.goals.bounds import bounds_in
from d365sync.core.goals.callers import Callers
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.participation import Group, Grouping
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.goals.slices import (
    GoalBounds,
    Lane,
    Layout,
    SliceSums,
    goals_over,
    lay_out,
)
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem
from d365sync.core.rowshape import DAMAGED
from d365sync.core.schema import Schema
from d365sync.errors import FetchXmlError
from d365sync.mirror.indexes import indexable
from d365sync.mirror.slices import Adder, GroupSums, KeptGroup, KeptSlices, kept_groups, kept_slices, kept_sums
from d365sync.mirror.store import Mirror, TableChanges
from d365sync.mirror.sums import Index, group_predicate, indexes_of, predicate_through_parent
from d365sync.mirror.tables import MirrorTable
from d365sync.mirror.unfit import Unfit
from d365sync.sync.cuts import (
    Cut,
    Refreshed,
    by_slice,
    columns_read,
    concerned_goals,
    goal_spans,
    hidden_column,
    is_answered,
    lane_of,
    layout_key,
    not_readable,
    own_parts,
    plus,
    reads_many,
    strung,
    unusable_value,
    updated,
    without_goals,
)
from d365sync.sync.visibility import Visibility

MOST_FOLLOWED = 5000
"""Changed rows of a table beyond which everything is summed again: about where following them costs more."""


@dataclass(slots=True)
class Recomputed:
    """Own parts by goal id and column, the goals whose sums were touched now, and the problems met."""

    own: dict[tuple[str, str], OwnPart] = field(default_factory=dict)
    goals: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recomputer:
    """What recomputing needs; ``tables`` are the mirrored tables by logical name.

    With ``visibility``, records that a goal's manager may not read do not count.
    """

    mirror: Mirror
    book: GoalBook
    schema: Schema
    tables: Mapping[str, MirrorTable]
    context: Context
    zone: ZoneInfo
    callers: Callers = field(default_factory=Callers)
    visibility: Visibility | None = None

    def context_of(self, group: Group) -> Context:
        """Return the context a group's query is read in: that of the user it asks for, if it asks for one."""
        return self.callers.context_for(self.context, group.caller_id)

    def recompute(self, grouping: Grouping, *, settle: bool = True) -> Recomputed:
        """Return every goal's own parts, summing what may have changed.

        With ``settle`` the sums are kept and the mirror's changes are done with; only a cycle that pulled may do so.
        """
        result = Recomputed(problems=[*grouping.problems, *(self.visibility.problems if self.visibility else ())])
        pulse = self.mirror.pulse()
        if settle:
            self.index(grouping.groups)
        refreshed = self.refresh(grouping.groups, result.problems)
        keeping = self.parts(refreshed, result)
        if settle:
            self.mirror.settle(keeping, pulse=pulse)
        return result

    def index(self, groups: Sequence[Group]) -> None:
        """Make the indexes from which the groups' statements are answered."""
        used: dict[str, set[str]] = defaultdict(set)
        sought: set[tuple[str, str]] = set()
        for group in groups:
            if group.query is not None or len(columns_used(group.fetch, self.schema)) > 1:
                sought |= columns_sought(group.fetch, self.schema)
                for table, columns in columns_used(group.fetch, self.schema).items():
                    used[table] |= columns
        dialect = self.mirror.dialect
        stored = {name: indexable(self.schema.table(name), columns, dialect) for name, columns in used.items()}
        self.mirror.index(indexes_of(groups, stored) | self._indexes_for_links(sought, stored))

    def _indexes_for_links(self, sought: Set[tuple[str, str]], stored: Mapping[str, Sequence[str]]) -> frozenset[Index]:
        """Return the indexes by which linked rows are found, with all that is asked of them."""
        found: set[Index] = set()
        for table, column in sought:
            first = indexable(self.schema.table(table), {column}, self.mirror.dialect)
            if first and column != self.schema.table(table).primary_id:
                found.add(Index(table, (*first, *(name for name in stored.get(table, ()) if name not in first))))
        return frozenset(found)

    def refresh(self, groups: Sequence[Group], problems: list[Problem]) -> list[Refreshed]:
        """Bring the kept sums up to date with the changed records, as far as those can be followed.

        The time this takes depends on the changes and the number of groups, not on records or goals.
        """
        found = {name: self.mirror.changes(table, up_to=MOST_FOLLOWED) for name, table in self.tables.items()}
        changes = {name: one for name, one in found.items() if one.everything or one.columns}
        groups = self._usable(groups, problems)
        with self.mirror.connection() as connection:
            kept = kept_groups(connection)
            refreshed = [self._refreshed(connection, group, kept, changes, problems) for group in groups]
        return [one for one in refreshed if one is not None]

    def parts(self, refreshed: Sequence[Refreshed], result: Recomputed) -> list[GroupSums]:
        """Give every goal its own parts; return what is to be kept of the groups."""
        cuts = self.cuts(refreshed, result.problems)
        return [self._finished(cut, sums, result) for cut, sums in zip(cuts, self.summed(cuts), strict=True)]

    def cuts(self, refreshed: Sequence[Refreshed], problems: list[Problem]) -> list[Cut]:
        """Cut the goals of the groups, and see what must be summed."""
        spans = goal_spans(self.book, [one.group for one in refreshed], self.zone, problems)
        layouts: dict[tuple[object, ...], Layout] = {}
        for group in (one.group for one in refreshed):
            key = layout_key(group)
            if key not in layouts:
                layouts[key] = lay_out(self.bounds(group, spans))
        with self.mirror.connection() as connection:
            return [self._cut(connection, one, layouts[layout_key(one.group)]) for one in refreshed]

    def _usable(self, groups: Sequence[Group], problems: list[Problem]) -> list[Group]:
        """Leave out groups that read what may not be read, and the goals for which a damaged record may count."""
        unfit, unreadable = self.mirror.unfit(self.tables.values()), self.mirror.unreadable()
        hidden = self._hidden(groups)
        if not unfit and not unreadable and not hidden:
            return list(groups)
        usable: list[Group] = []
        for group in groups:
            read = columns_read(group, self.schema)
            closed = sorted(unreadable.keys() & read.keys())
            veiled = [one for one in hidden if one[1] in read.get(one[0], ())]
            if closed:
                problems.extend(not_readable(self.book, group, closed[0], *unreadable[closed[0]]))
            elif veiled:
                problems.extend(hidden_column(self.book, group, *veiled[0]))
            else:
                concerned = self._concerned(group, read, unfit)
                problems.extend(concerned.values())
                usable += without_goals(group, concerned)
        return usable

    def _concerned(
        self, group: Group, read: Mapping[str, Set[str]], unfit: Mapping[tuple[str, str], Sequence[Unfit]]
    ) -> dict[str, Problem]:
        """Return, by goal of a group, the first problem with a value it needs and that was left out of the mirror."""
        found: dict[str, Problem] = {}
        for column in sorted(unfit):
            if column[1].removeprefix(DAMAGED) in read.get(column[0], ()):
                goals = concerned_goals(self.book, group, self.schema, column[0], unfit[column])
                found = {str(one.goal_id): one for one in unusable_value(self.book, column, goals)} | found
        return found

    def _hidden(self, groups: Sequence[Group]) -> list[tuple[str, str]]:
        """Return the tables and columns that are secured and show no value, among those the groups read.

        Nothing would tell a sum of what may not be seen from a sum of nothing. Assumed: what may not be read is null.
        """
        secured = {
            (name, one.logical_name) for name, table in self.tables.items() for one in table.columns if one.is_secured
        }
        if not secured:
            return []
        reads = [columns_read(group, self.schema) for group in groups]
        asked = {(table, name) for read in reads for table, names in read.items() for name in names} & secured
        return [one for one in sorted(asked) if not self.mirror.has_values(self.tables[one[0]], one[1])]

    def _refreshed(
        self,
        connection: Connection,
        group: Group,
        kept: Mapping[str, KeptGroup],
        changes: Mapping[str, TableChanges],
        problems: list[Problem],
    ) -> Refreshed | None:
        try:
            predicate = self.predicate(group)
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
            one.updates = {slice_id: plus(known[slice_id], change) for slice_id, change in delta.items()}

    def _relevant(self, group: Group, changes: Mapping[str, TableChanges]) -> set[str]:
        """Return the tables in which something changed that the group reads: its own, or one that it joins."""
        if not changes:
            return set()
        read = columns_read(group, self.schema)
        return {name for name, columns in read.items() if name in changes and _concerns(changes[name], columns)}

    def predicate(self, group: Group, links: LinksAs = "lookups") -> Predicate:
        """Return the condition under which a record counts in a slice of the group.

        Raises:
            FetchXmlError: the query cannot be compiled.
        """
        dialect, sighted = self.mirror.dialect, self.visibility is not None
        return group_predicate(group, self.schema, self.context_of(group), dialect, sighted=sighted, links=links)

    def bounds(self, group: Group, spans: Mapping[str, DaySpan]) -> list[GoalBounds]:
        """Return where the goals of a group that have a usable period lie within it."""
        goals = [self.book.goals[goal_id] for goal_id in group.goal_ids if goal_id in spans]
        distinct = {spans[goal.id] for goal in goals}
        spelled = {span: bounds_in(group.dates, span, self.zone) for span in distinct}
        if self.visibility is not None:
            lanes = {goal.id: lane_of(goal, group, self.visibility.versions) for goal in goals}
            return [GoalBounds(goal.id, lanes[goal.id], *spelled[spans[goal.id]]) for goal in goals]
        by_owner = {owner: Lane((owner or "") if group.owned else "") for owner in {goal.owner_id for goal in goals}}
        return [GoalBounds(goal.id, by_owner[goal.owner_id], *spelled[spans[goal.id]]) for goal in goals]

    def _cut(self, connection: Connection, one: Refreshed, layout: Layout) -> Cut:
        """See which slices of a group must be summed."""
        kept = kept_slices(connection, self.mirror.dialect, one.kept.number) if one.kept else KeptSlices()
        if one.kept is not None and layout.slices == kept.slices:
            return Cut(one, layout, kept, again=kept.ids if one.again else ())
        known = {} if one.kept is None or one.again else by_slice(kept, one.updates)
        return Cut(one, layout, kept, known, [part for part in layout.slices if part not in known])

    def summed(self, cuts: Sequence[Cut]) -> list[SliceSums]:
        """Sum what must be summed of each group, several at a time.

        A group that counts the records that another one sums is not asked for: their number comes with the sum.
        """
        summing = {cut.question: at for at, cut in enumerate(cuts) if cut.one.group.value is not None}
        twin = {at: summing[cut.question] for at, cut in enumerate(cuts) if is_answered(cut, cuts, summing)}
        pieces = [(at, piece) for at, cut in enumerate(cuts) if at not in twin for piece in cut.pieces(self.schema)]
        found: dict[int, list[SliceSums]] = defaultdict(list)
        for (at, _), part in zip(pieces, self._side_by_side([(cuts[at], piece) for at, piece in pieces]), strict=True):
            found[at].append(part)
        sums = {at: strung(found[at]) for at in range(len(cuts)) if at not in twin}
        counted = {at: SliceSums(sums[other].records, sums[other].records) for at, other in twin.items()}
        return [(sums | counted)[at] for at in range(len(cuts))]

    def _side_by_side(self, pieces: Sequence[tuple[Cut, slice]]) -> list[SliceSums]:
        if len(pieces) < 2 or self.mirror.workers < 2:
            return [self._piece(*piece) for piece in pieces]
        with ThreadPoolExecutor(self.mirror.workers) as pool:
            return list(pool.map(self._piece, *zip(*pieces, strict=True)))

    def _piece(self, cut: Cut, piece: slice) -> SliceSums:
        with self.mirror.connection() as connection:
            adder = self._adder(connection, cut)
            as_kept = cut.again and adder.through is None
            return adder.kept(cut.again[piece]) if as_kept else adder.wanted(cut.wanted[piece])

    def _adder(self, connection: Connection, cut: Cut) -> Adder:
        """Return what sums a group's slices: linked rows as sets when many records are read."""
        group, predicate = cut.one.group, cut.one.predicate
        if tables_joined(group.fetch, self.schema) and reads_many(cut):
            predicate = self.predicate(group, "sets")
        through = predicate_through_parent(
            group, self.schema, self.context_of(group), self.mirror.dialect, sighted=self.visibility is not None
        )
        return self.mirror.adder(connection, group, predicate, through)

    def _finished(self, cut: Cut, sums: SliceSums, result: Recomputed) -> GroupSums:
        """Give the goals of a group their own parts; return what to keep of the group."""
        one, layout, kept = cut.one, cut.layout, cut.kept
        same = one.kept is not None and layout.slices == kept.slices
        updates = one.updates
        touched: Set[str] = layout.spans.keys()
        every = sums
        if cut.again:
            updates = {slice_id: sums.at(position) for position, slice_id in enumerate(cut.again)}
        elif same or cut.known:
            every, touched = self._taken_up(cut, sums, same=same)
        result.goals |= touched
        result.own |= own_parts(one.group, layout, every)
        as_kept = same and one.kept is not None and one.kept.fingerprint == one.fingerprint
        return GroupSums(one.key, one.fingerprint, updates, None if as_kept else layout.slices, every)

    def _taken_up(self, cut: Cut, sums: SliceSums, *, same: bool) -> tuple[SliceSums, Set[str]]:
        """Return the sums of a group of which some are kept, and the goals that those summed now concern."""
        layout, kept, updates = cut.layout, cut.kept, cut.one.updates
        if same:
            touched = [position for position, slice_id in enumerate(kept.ids) if slice_id in updates]
            return updated(kept, updates), goals_over(layout, touched) if touched else set()
        fresh = {part: sums.at(position) for position, part in enumerate(cut.missing)}
        changed = {part for slice_id, part in zip(kept.ids, kept.slices, strict=True) if slice_id in updates}
        touched = [at for at, part in enumerate(layout.slices) if part in fresh or part in changed]
        return SliceSums.of([fresh.get(part) or cut.known[part] for part in layout.slices]), goals_over(layout, touched)


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
