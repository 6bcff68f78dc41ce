"""Why a goal has its number: the records behind each column with the tests that admitted them, and the children.

IO: SQL, through the mirror.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.write import write_fetch
from d365sync.core.goals.bounds import owner_span, stored_bounds
from d365sync.core.goals.goal import SLOTS, Goal, Number
from d365sync.core.goals.participation import RATE, Group, bind, slots_of
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.why import Criterion, CriterionKind, asked_words, branch_of
from d365sync.core.goals.writes import SkipReason, WritePlan
from d365sync.core.period import DaySpan
from d365sync.core.schema import ColumnType
from d365sync.core.storage import EXACT
from d365sync.core.values import Row, Value
from d365sync.errors import FetchXmlError, UsageError
from d365sync.sync.evidence import Part
from d365sync.sync.snapshot import Line, Snapshot

UNIQUE_PREFIX = 4
NOT_COMPUTED = "not computed"
"""``source`` of a child that has a problem; beside those of a rollup's contributions."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record that counts: what it adds, why it counts, and enough to recognise it.

    ``counts_for`` is its part of the sum (1 when records are counted; base currency for money); ``amount`` the
    column's own value, in ``currency``; ``exchange_rate`` the record's own, in units of its currency per base unit.
    ``date`` is what the period was compared with, of the parent record where that decides. ``tests`` say which
    conditions admitted it; ``branch`` which alternative of the rollup query, and which linked record, if it has any.
    """

    id: str
    name: str
    date: Value
    owner: str
    amount: Number | None
    currency: str
    counts_for: Number
    base_currency: str = ""
    exchange_rate: Decimal | None = None
    tests: Sequence[Criterion] = ()
    branch: str = ""


@dataclass(frozen=True, slots=True)
class ChildPart:
    """What one child adds (``amount``; None if it cannot be told), and where that comes from.

    ``source`` is ``computed``, ``stored`` (Dataverse holds it: closed, or overridden by a person), ``excluded`` or
    ``not computed``. ``own`` is what the child's own records give, None unless computed; ``children`` are told as
    deep, and ``records`` listed, as was asked for.
    """

    goal_id: str
    title: str
    amount: Number | None
    source: str
    owner: str = ""
    own: Number | None = None
    children: Sequence[ChildPart] = ()
    records: Sequence[Record] = ()
    record_count: int = 0


@dataclass(frozen=True, slots=True)
class ColumnExplanation:
    """One column: native value, ours, and the parts that add up to ours.

    ``records`` may be limited; ``record_count`` and ``own`` are of all of them. ``asked`` are the tests every record
    of the goal is put to, in words. ``fetchxml`` is the query that the records match, with the goal's values.
    """

    column: str
    native: Number | None
    ours: Number | None
    own: Number
    records: Sequence[Record]
    children: Sequence[ChildPart]
    table: str
    fetchxml: str
    record_count: int = 0
    asked: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything behind one goal's numbers; ``notes`` say what is special about the goal."""

    goal: Goal
    metric: str
    owner: str
    span: DaySpan | None
    columns: Sequence[ColumnExplanation]
    problems: Sequence[str]
    notes: Sequence[str] = ()
    base_currency: str = ""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much to tell: records per goal and column (None is all), levels of children, records of children too."""

    limit: int | None = None
    depth: int = 1
    child_records: bool = False


DIRECT = Extent()
"""All records of the goal, and its direct children without theirs."""


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
        raise UsageError(f"there is no goal '{text}'", hint="`d365sync goals list` shows titles, and ids with --json")
    ids = ", ".join(goal.id for goal in found[:5])
    raise UsageError(f"{len(found)} goals are called '{text}'", hint=f"give the id: {ids}")


def parts_of(line: Line, snapshot: Snapshot, goal: Goal, context: Context | None = None) -> dict[str, Part]:
    """Return what is asked of a goal's own records, by column: none for closed goals and those without a period.

    ``context`` is what "today" means in rollup queries; the snapshot's if None.
    """
    try:
        span = owner_span(goal, snapshot.book, snapshot.zone)
    except (ValueError, OverflowError):
        return {}
    groups = [group for group in snapshot.grouping.groups if goal.id in group.goal_ids]
    base = context or snapshot.context
    return {
        group.slot.column: Part(line, snapshot, goal, group, span, snapshot.callers.context_for(base, group.caller_id))
        for group in groups
    }


def explain(
    line: Line,
    snapshot: Snapshot,
    rollup: Rollup,
    goal: Goal,
    *,
    plan: WritePlan | None = None,
    extent: Extent = DIRECT,
) -> Explanation:
    """Return the records and children behind a goal's columns, every sum exactly as it is written."""
    metric = snapshot.book.metric_of(goal)
    try:
        span = owner_span(goal, snapshot.book, snapshot.zone)
    except (ValueError, OverflowError):
        span = None
    teller = _Teller(line, snapshot, rollup, extent)
    return Explanation(
        goal=goal,
        metric=metric.name if metric else "",
        owner=snapshot.book.names.get(goal.owner_id or "", ""),
        span=span,
        columns=[teller.column(goal, name) for name in _columns(snapshot, goal)],
        problems=[problem.message for problem in rollup.problems if problem.goal_id == goal.id],
        notes=tuple(_notes(goal, plan)),
        base_currency=snapshot.book.organization.base_currency_code,
    )


def exact_sum(amounts: Iterable[Number], start: Number = 0) -> Number:
    """Add amounts without rounding."""
    return reduce(_add, amounts, start)


def base_amount(group: Group, row: Row) -> Number | None:
    """Return what a record adds to its group's sum, in base currency for money; None without an amount."""
    if group.value is None:
        return 1
    return number_of(row.get((group.base or group.value).logical_name))


def number_of(value: Value) -> Number | None:
    """Return a value that is a number, None otherwise."""
    return value if isinstance(value, Number) and not isinstance(value, bool) else None


def record_of(part: Part, row: Row, tests: Sequence[Criterion]) -> Record:
    """Return a record as it is shown, with the tests it was put to."""
    group, book = part.group, part.snapshot.book
    table = part.snapshot.schema.table(group.table)
    money = group.value is not None and group.value.type is ColumnType.MONEY
    rate = row.get(RATE)
    dates = [test.value for test in tests if test.kind is CriterionKind.DATE]
    return Record(
        id=str(row[table.primary_id]),
        name=str(row.get(table.primary_name or "") or ""),
        date=dates[0] if dates else row.get(group.field.date_attribute or ""),
        owner=book.names.get(str(row.get("ownerid") or ""), str(row.get("ownerid") or "")),
        amount=number_of(row.get(group.value.logical_name)) if group.value else None,
        currency=book.currencies.get(str(row.get("transactioncurrencyid") or ""), "") if money else "",
        counts_for=base_amount(group, row) or 0,
        base_currency=book.organization.base_currency_code if money else "",
        exchange_rate=rate if money and isinstance(rate, Decimal) else None,
        tests=tests,
        branch=branch_of(tests),
    )


@dataclass(frozen=True, slots=True)
class _Teller:
    line: Line
    snapshot: Snapshot
    rollup: Rollup
    extent: Extent

    def column(self, goal: Goal, name: str) -> ColumnExplanation:
        totals = self.rollup.totals.get(goal.id)
        part = parts_of(self.line, self.snapshot, goal).get(name)
        listed, own, count = self._own(part)
        tests = listed[0].tests if listed else _asked_of_nothing(part)
        return ColumnExplanation(
            column=name,
            native=goal.native.get(name),
            ours=totals.totals.get(name) if totals else None,
            own=own,
            records=listed,
            children=self._children(goal, name, self.extent.depth) if goal.is_open else (),
            table=part.group.table if part else "",
            fetchxml=_fetchxml(part) if part else "",
            record_count=count,
            asked=tuple(map(asked_words, tests)),
        )

    def _own(self, part: Part | None) -> tuple[Sequence[Record], Number, int]:
        """Return the records to list, and sum and number of all."""
        if part is None:
            return (), 0, 0
        try:
            rows = part.records()
            listed = rows[: self.extent.limit]
            tests = part.criteria(listed)
        except FetchXmlError:
            return (), 0, 0  # the goal's problem says so
        own = exact_sum(base_amount(part.group, row) or 0 for row in rows)
        return [record_of(part, *one) for one in zip(listed, tests, strict=True)], own, len(rows)

    def _children(self, goal: Goal, column: str, depth: int) -> list[ChildPart]:
        """Return what each child adds, as the rollup took it, by title."""
        goals = self.snapshot.book.goals
        by_title = sorted(self.snapshot.forest.children[goal.id], key=lambda one: (goals[one].title, one))
        return [self._child(goal, child, column, depth) for child in by_title]

    def _child(self, parent: Goal, child_id: str, column: str, depth: int) -> ChildPart:
        child = self.snapshot.book.goals[child_id]
        totals = self.rollup.totals.get(child_id)
        given = self.rollup.contributions.get(parent.id, {}).get(child_id)
        source = given.source if given else ("computed" if totals else NOT_COMPUTED)
        amount = given.amounts.get(column) if given else (totals.totals.get(column) if totals else None)
        computed = totals is not None and source == "computed"
        part = parts_of(self.line, self.snapshot, child).get(column) if self.extent.child_records and computed else None
        listed, _, count = self._own(part)
        return ChildPart(
            goal_id=child_id,
            title=child.title,
            amount=amount,
            source=source,
            owner=self.snapshot.book.names.get(child.owner_id or "", ""),
            own=totals.own.get(column) if totals and computed else None,
            children=self._children(child, column, depth - 1) if depth > 1 and computed else (),
            records=listed,
            record_count=count,
        )


def _columns(snapshot: Snapshot, goal: Goal) -> list[str]:
    metric = snapshot.book.metric_of(goal)
    try:
        fed = slots_of(metric) if metric else {}
    except ValueError:
        return []
    return [slot.column for slot in SLOTS if slot in fed]


def _notes(goal: Goal, plan: WritePlan | None) -> Iterable[str]:
    skips = {skip.reason for skip in plan.skips if skip.goal_id == goal.id} if plan else set()
    if not goal.is_open:
        yield "closed: Dataverse keeps its numbers as they are stored; d365sync does not compute them again"
    elif goal.is_overridden and SkipReason.OVERRIDDEN in skips:
        yield "overridden by a person: d365sync leaves its numbers alone; below is what they would be"
    elif goal.is_overridden:
        yield "overridden by d365sync: it wrote these numbers"
    if goal.only_from_children:
        yield "rolled up only from its child goals: no record of its own counts"


def _asked_of_nothing(part: Part | None) -> Sequence[Criterion]:
    """Return what would be asked of a record, where there is none to show it with."""
    try:
        return part.criteria([{part.group.primary_id: ""}])[0] if part else ()
    except FetchXmlError:
        return ()


def _fetchxml(part: Part) -> str:
    values = {**stored_bounds(part.span, part.snapshot.zone), "owner": part.goal.owner_id or ""}
    return write_fetch(bind(part.group.fetch, values))


def _add(one: Number, other: Number) -> Number:
    return one + other if isinstance(one, int) and isinstance(other, int) else EXACT.add(Decimal(one), Decimal(other))
