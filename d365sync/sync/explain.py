"""Why a goal has its number: the records behind each column, and the children it adds.

IO: SQL, through the mirror.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from d365sync.core.fetchxml.write import write_fetch
from d365sync.core.goals.goal import Goal, Number
from d365sync.core.goals.participation import Group, bind, owner_span, stored_bounds
from d365sync.core.goals.rollup import Rollup
from d365sync.core.period import DaySpan
from d365sync.core.schema import ColumnType
from d365sync.core.values import Row, Value
from d365sync.errors import FetchXmlError, UsageError
from d365sync.mirror.sums import group_predicate
from d365sync.sync.cycle import Line, Snapshot
from d365sync.sync.recompute import whole_slice

UNIQUE_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Record:
    """One record that counts: what it adds, and enough to recognise it.

    ``counts_for`` is its part of the sum (1 when records are counted; base currency for money); ``amount`` the
    column's own value, in ``currency``. ``date`` is the column the period was compared with, None when the parent
    record's date decides.
    """

    id: str
    name: str
    date: Value
    owner: str
    amount: Number | None
    currency: str
    counts_for: Number


@dataclass(frozen=True, slots=True)
class ChildPart:
    """What one child adds, and whether we computed it or Dataverse holds it (closed, or overridden by a person)."""

    goal_id: str
    title: str
    amount: Number
    source: str


@dataclass(frozen=True, slots=True)
class ColumnExplanation:
    """One column: native value, ours, and the parts that add up to ours."""

    column: str
    native: Number | None
    ours: Number | None
    own: Number
    records: Sequence[Record]
    children: Sequence[ChildPart]
    table: str
    fetchxml: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything behind one goal's numbers."""

    goal: Goal
    metric: str
    owner: str
    span: DaySpan | None
    columns: Sequence[ColumnExplanation]
    problems: Sequence[str]


def find_goal(snapshot: Snapshot, text: str) -> Goal:
    """Return the goal with this id, the only one with this title, or with an id that begins so.

    Raises:
        UsageError: no goal, or several.
    """
    wanted = text.strip().casefold()
    goals = snapshot.book.goals
    if wanted in goals:
        return goals[wanted]
    named = [goal for goal in goals.values() if goal.title.casefold() == wanted]
    prefixed = [goal for goal in goals.values() if len(wanted) >= UNIQUE_PREFIX and goal.id.startswith(wanted)]
    found = named or prefixed
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"there is no goal '{text}'", hint="`d365sync goals list` shows titles and ids")
    ids = ", ".join(goal.id for goal in found[:5])
    raise UsageError(f"{len(found)} goals are called '{text}'", hint=f"give the id: {ids}")


def explain(line: Line, snapshot: Snapshot, rollup: Rollup, goal: Goal) -> Explanation:
    """Return the records and children behind a goal's columns."""
    metric = snapshot.book.metric_of(goal)
    try:
        span = owner_span(goal, snapshot.book, snapshot.zone)
    except ValueError:
        span = None
    by_column = {group.slot.column: group for group in snapshot.grouping.groups if goal.id in group.goal_ids}
    totals = rollup.totals.get(goal.id)
    columns = sorted(totals.own) if totals else sorted(by_column)
    return Explanation(
        goal=goal,
        metric=metric.name if metric else "",
        owner=snapshot.book.names.get(goal.owner_id or "", ""),
        span=span,
        columns=[_column(line, snapshot, rollup, goal, name, by_column.get(name), span) for name in columns],
        problems=[problem.message for problem in rollup.problems if problem.goal_id == goal.id],
    )


def _column(
    line: Line, snapshot: Snapshot, rollup: Rollup, goal: Goal, name: str, group: Group | None, span: DaySpan | None
) -> ColumnExplanation:
    totals = rollup.totals.get(goal.id)
    records: Sequence[Record] = ()
    fetchxml = ""
    if group is not None and span is not None:
        records = _records(line, snapshot, goal, group, span)
        values = {**stored_bounds(span, snapshot.zone), "owner": goal.owner_id or ""}
        fetchxml = write_fetch(bind(group.fetch, values))
    return ColumnExplanation(
        column=name,
        native=goal.native.get(name),
        ours=totals.totals.get(name) if totals else None,
        own=sum((record.counts_for for record in records), start=0),
        records=records,
        children=_children(snapshot, rollup, goal, name),
        table=group.table if group else "",
        fetchxml=fetchxml,
    )


def _records(line: Line, snapshot: Snapshot, goal: Goal, group: Group, span: DaySpan) -> list[Record]:
    sighted = line.config.rollup.visibility == "manager"
    try:
        predicate = group_predicate(
            group, snapshot.schema, snapshot.context_of(group), line.mirror.dialect, sighted=sighted
        )
    except FetchXmlError:
        return []  # the goal's problem says so
    part = whole_slice(goal, group, span, snapshot.zone, sighted=sighted)
    rows = line.mirror.participants(snapshot.tables[group.table], group, predicate, part)
    return [_record(snapshot, group, row) for row in rows]


def _record(snapshot: Snapshot, group: Group, row: Row) -> Record:
    table = snapshot.schema.table(group.table)
    amount = _number(row.get(group.value.logical_name)) if group.value else None
    base = _number(row.get(group.base.logical_name)) if group.base else amount
    book = snapshot.book
    money = group.value is not None and group.value.type is ColumnType.MONEY
    return Record(
        id=str(row[table.primary_id]),
        name=str(row.get(table.primary_name or "") or ""),
        date=row.get(group.field.date_attribute or ""),
        owner=book.names.get(str(row.get("ownerid") or ""), str(row.get("ownerid") or "")),
        amount=amount,
        currency=book.currencies.get(str(row.get("transactioncurrencyid") or ""), "") if money else "",
        counts_for=1 if group.value is None else (base or 0),
    )


def _children(snapshot: Snapshot, rollup: Rollup, goal: Goal, column: str) -> list[ChildPart]:
    """Return what each child adds, as the rollup took it."""
    parts = rollup.contributions.get(goal.id, {})
    return [
        ChildPart(child, snapshot.book.goals[child].title, part.amounts[column], part.source)
        for child, part in parts.items()
        if column in part.amounts
    ]


def _number(value: Value) -> Number | None:
    return value if isinstance(value, Number) and not isinstance(value, bool) else None
