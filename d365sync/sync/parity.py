"""Parity: every number the platform rolled up itself beside ours as of that rollup, and what explains a difference.

The mirror keeps no history: records are as they are now. Relative dates in rollup queries are taken as of the rollup,
and records that changed since are told apart by ``modifiedon``.

IO: SQL, through the mirror and the journal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from d365sync.core.fetchxml.ast import Fetch, Filter
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.goals.goal import Goal, Number
from d365sync.core.goals.needs import MODIFIED_ON
from d365sync.core.goals.parity import ChildFact, Comparison, Finding, Kind, Limits, RecordFact, classify
from d365sync.core.goals.participation import PARENT_ALIAS
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.why import Criterion, CriterionKind
from d365sync.core.goals.writes import SkipReason, WritePlan
from d365sync.core.period import DaySpan
from d365sync.core.schema import ColumnType, DateBehavior
from d365sync.core.values import Row, Value
from d365sync.errors import FetchXmlError
from d365sync.mirror.lookup import MOST_VALUES, among, changed_after
from d365sync.mirror.sums import group_predicate
from d365sync.sync.evidence import Part
from d365sync.sync.explain import base_amount, exact_sum, parts_of
from d365sync.sync.offline import computed
from d365sync.sync.snapshot import Line, Snapshot
from d365sync.sync.visibility import readable_ids

LIVELY = (CriterionKind.STATE, CriterionKind.STATUS, CriterionKind.DATE)
DAY = dt.timedelta(days=1)
LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Compared:
    """One column of one goal: the platform's number, ours as of its rollup, and what the difference comes from."""

    goal_id: str
    title: str
    column: str
    rolled_up_at: dt.datetime
    native: Number | None
    ours: Number
    finding: Finding


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A goal whose number is not the platform's own, or cannot be computed, with the reason."""

    goal_id: str
    title: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unasked:
    """A goal manager who could not be asked, with the reason: that manager's goals are classed without asking."""

    manager_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parity:
    """The outcome for all goals, in title order; ``unasked`` in the order of names."""

    compared: Sequence[Compared]
    skipped: Sequence[NotCompared]
    unasked: Sequence[Unasked] = ()

    @property
    def unknown(self) -> Sequence[Compared]:
        """The differences that nothing explains."""
        return [one for one in self.compared if not one.finding.is_explained]

    def count(self, kind: Kind) -> int:
        """Return the number of columns of a class."""
        return sum(one.finding.kind is kind for one in self.compared)


def compare(line: Line, snapshot: Snapshot, *, limits: Limits = LIMITS, ask_managers: bool = False) -> Parity:
    """Compare every goal that the platform itself rolled up, from what is mirrored.

    ``ask_managers``: where numbers differ, ask Dataverse which records the goal's manager may read.

    Raises:
        RemoteError: no manager can be asked.
    """
    rollup, plan = computed(line, snapshot)
    work = _Work(line, snapshot, rollup, limits, ask_managers)
    reasons = _reasons(snapshot, rollup, plan)
    compared: list[Compared] = []
    skipped: list[NotCompared] = []
    for goal_id in snapshot.forest.bottom_up:
        goal = snapshot.book.goals[goal_id]
        if goal_id in reasons:
            skipped.append(NotCompared(goal_id, goal.title, reasons[goal_id]))
        else:
            compared.extend(work.goal(goal))
    return Parity(
        sorted(compared, key=lambda one: (one.title, one.goal_id)),
        sorted(skipped, key=lambda one: (one.title, one.goal_id)),
        sorted(work.unasked.values(), key=lambda one: (one.name, one.manager_id)),
    )


def _reasons(snapshot: Snapshot, rollup: Rollup, plan: WritePlan) -> Mapping[str, str]:
    """Return why goals are not compared, by goal id."""
    theirs = {skip.goal_id for skip in plan.skips if skip.reason is SkipReason.OVERRIDDEN}
    problems = {one.goal_id: one.message for one in rollup.problems if one.goal_id not in rollup.totals}
    reasons: dict[str, str] = {}
    for goal in snapshot.book.goals.values():
        if not goal.is_open:
            reasons[goal.id] = "closed: the platform keeps its numbers, d365sync does not compute them"
        elif goal.id in theirs:
            reasons[goal.id] = "overridden by a person"
        elif goal.is_overridden:
            reasons[goal.id] = (
                "taken over by d365sync: the platform rolls it up no more, and when it rolled up what it held before "
                "(`goals list`: native) is not known"
            )
        elif goal.id not in rollup.totals:
            reasons[goal.id] = problems.get(goal.id, "it could not be computed")
        elif goal.rolled_up_at is None:
            reasons[goal.id] = "never rolled up by the platform"
    return reasons


@dataclass(slots=True)
class _Work:
    line: Line
    snapshot: Snapshot
    rollup: Rollup
    limits: Limits
    ask_managers: bool = False
    totals: dict[tuple[str, str], Number] = field(default_factory=dict)
    readable: dict[tuple[str, str], frozenset[str] | None] = field(default_factory=dict)
    unasked: dict[str, Unasked] = field(default_factory=dict)

    def goal(self, goal: Goal) -> Iterator[Compared]:
        """Compare the columns that the goal's metric feeds."""
        at = goal.rolled_up_at or self.snapshot.context.now
        parts = parts_of(self.line, self.snapshot, goal, replace(self.snapshot.context, now=at))
        for column in self.rollup.totals[goal.id].own:
            case, rows = self._bare(goal, column, parts.get(column), at)
            self.totals[goal.id, column] = case.ours
            if case.difference:
                case = self._with_evidence(case, parts.get(column), rows)
            yield Compared(goal.id, goal.title, column, at, case.native, case.ours, classify(case))

    def _bare(self, goal: Goal, column: str, part: Part | None, at: dt.datetime) -> tuple[Comparison, list[Row]]:
        """Return the comparison without what is only needed where there is a difference, and the records."""
        rows = _records(part) if part and not goal.only_from_children else []
        span = part.span if part else DaySpan(at.date(), at.date())
        own = exact_sum(base_amount(part.group, row) or 0 for row in rows) if part else 0
        children = [self._child(goal, child, column) for child in self.snapshot.forest.children[goal.id]]
        return (
            Comparison(
                goal.native.get(column), own, at, span, self.snapshot.zone, children=children, limits=self.limits
            ),
            rows,
        )

    def _child(self, goal: Goal, child_id: str, column: str) -> ChildFact:
        child = self.snapshot.book.goals[child_id]
        given = self.rollup.contributions[goal.id][child_id]
        ours = self.totals.get((child_id, column), given.amounts[column])
        totals = self.rollup.totals.get(child_id)
        return ChildFact(
            title=child.title,
            native=child.native.get(column) or 0,
            added=ours if given.source == "computed" else given.amounts[column],
            computed=totals.totals.get(column) if totals else None,
            closed=not child.is_open,
            overridden=child.is_overridden,
            rolled_up_at=child.rolled_up_at,
        )

    def _with_evidence(self, case: Comparison, part: Part | None, rows: Sequence[Row]) -> Comparison:
        """Add what the records say: those that count, those near the ends of the period, those changed since."""
        if part is None:
            return case
        return replace(
            case,
            instants=_has_times(part),
            records=self._as_read(part, _facts(part, rows, case.rolled_up_at)),
            query_rows=_query_rows(part),
        )

    def _as_read(self, part: Part, facts: Sequence[RecordFact]) -> Sequence[RecordFact]:
        """Say of each record whether the goal's manager may read it, if managers are to be asked."""
        manager = part.goal.manager_id
        if not self.ask_managers or manager is None:
            return facts
        pair = part.group.table, manager
        if pair not in self.readable:
            self.readable[pair] = self._ask(part.group.table, part.goal)
        known = self.readable[pair]
        return facts if known is None else [replace(one, readable=one.id in known) for one in facts]

    def _ask(self, table: str, goal: Goal) -> frozenset[str] | None:
        """Return what a goal's manager may read of a table; None when the manager cannot be asked."""
        manager_id = goal.manager_id or ""
        if manager_id in self.unasked:
            return None
        schema = self.snapshot.schema
        found = readable_ids(self.line.client, schema.table(table), schema.table("systemuser"), goal)
        if isinstance(found, frozenset):
            return found
        self.unasked[manager_id] = Unasked(manager_id, self.snapshot.book.names.get(manager_id, ""), found.reason)
        return None


def _records(part: Part) -> list[Row]:
    try:
        return part.records()
    except FetchXmlError:
        return []  # a goal with a problem is not compared


def _facts(part: Part, counting: Sequence[Row], at: dt.datetime) -> list[RecordFact]:
    """Return the facts of every record that may explain a difference."""
    key = part.group.primary_id
    wider = replace(part, span=DaySpan(part.span.first_on - DAY, part.span.last_on + DAY))
    near = {str(row[key]): row for row in _records(wider)}
    counted = {str(row[key]): row for row in counting}
    fitting = near | counted
    changes = _changed_since(part, at)
    gone = [change.row for row_id, change in changes.items() if row_id not in counted]
    likely = {str(row[key]): _is_likely(tests) for row, tests in zip(gone, part.criteria(gone), strict=True)}
    moments = _moments(part, list(fitting.values()))
    rows = {row_id: change.row for row_id, change in changes.items()} | fitting
    return [
        replace(
            _fact(part, row),
            counts=row_id in counted,
            fits=row_id in fitting,
            likely=likely.get(row_id, False),
            moment=moments.get(row_id),
            changed_at=changes[row_id].at if row_id in changes else None,
        )
        for row_id, row in rows.items()
    ]


def _is_likely(tests: Sequence[Criterion]) -> bool:
    """Say whether a record fails only by what changes in its life: its state, status or date."""
    return all(test.holds or test.kind in LIVELY for test in tests)


def _fact(part: Part, row: Row) -> RecordFact:
    """Return what is known of any record, as one that neither counts nor fits."""
    table = part.snapshot.schema.table(part.group.table)
    owner = str(row.get("ownerid") or "")
    return RecordFact(
        id=str(row[table.primary_id]),
        name=str(row.get(table.primary_name or "") or ""),
        owner=part.snapshot.book.names.get(owner, owner),
        amount=base_amount(part.group, row) or 0,
        counts=False,
        fits=False,
    )


@dataclass(frozen=True, slots=True)
class _Change:
    """A record that changed after the rollup, by itself or through its parent record, and when."""

    row: Row
    at: dt.datetime


def _changed_since(part: Part, at: dt.datetime) -> dict[str, _Change]:
    """Return the records changed after an instant, by id; a product line changes with its deal."""
    key = part.group.primary_id
    found = {str(row[key]): _Change(row, _instant(row)) for row in _modified(part, part.group.table, at)}
    for link in part.group.fetch.links:
        if link.alias == PARENT_ALIAS:
            parents = {str(row[link.from_]): _instant(row) for row in _modified(part, link.name, at)}
            for row in _children_of(part, link.to, list(parents)):
                own = found.get(str(row[key]))
                changed = parents[str(row[link.to])]
                found[str(row[key])] = _Change(row, max(own.at, changed) if own else changed)
    return found


def _modified(part: Part, name: str, at: dt.datetime) -> list[Row]:
    if MODIFIED_ON not in part.snapshot.tables[name].column_names:
        return []
    return part.rows_where(name, changed_after(at))


def _children_of(part: Part, lookup: str, parents: Sequence[str]) -> Iterator[Row]:
    for start in range(0, len(parents), MOST_VALUES):
        yield from part.rows_where(part.group.table, among(lookup, parents[start : start + MOST_VALUES]))


def _instant(row: Row) -> dt.datetime:
    value = row.get(MODIFIED_ON)
    if not isinstance(value, dt.datetime):
        raise TypeError(f"{MODIFIED_ON} of a changed row is no instant")
    return value


def _moments(part: Part, rows: Sequence[Row]) -> Mapping[str, Value]:
    """Return the dates of records by id: their own, or the parent record's where the rollup field takes that."""
    key, field_ = part.group.primary_id, part.group.field
    if field_.date_entity == field_.source_entity:
        return {str(row[key]): row.get(field_.date_attribute or "") for row in rows}
    found: dict[str, Value] = {}
    for row, tests in zip(rows, part.criteria(rows), strict=True):
        found[str(row[key])] = next((test.value for test in tests if test.kind is CriterionKind.DATE), None)
    return found


def _has_times(part: Part) -> bool:
    column = part.snapshot.schema.table(part.group.field.date_entity).column(part.group.field.date_attribute or "")
    return column.type is ColumnType.DATETIME and column.date_behavior is DateBehavior.USER_LOCAL


def _query_rows(part: Part) -> int | None:
    """Return how many rows the goal's rollup query returns by itself, None without one."""
    if part.group.query is None:
        return None
    stored = parse_fetch(part.group.query.fetchxml)
    alone = Fetch(stored.entity, Filter(filters=(stored.filter,)) if stored.filter else None, stored.links)
    group = replace(part.group, fetch=alone)
    predicate = group_predicate(group, part.snapshot.schema, part.context, part.line.mirror.dialect)
    return len(part.matching(group, predicate))
