"""The native rollup of goals: what ``Recalculate`` does to the tree of a goal, the slow and obvious way.

It is the judge of d365sync's own fast rollup, so it shares no rollup code with it: goals one by one from the
leaves upward, for each rollup field every record of its table, for each record every test.

``Assumed:`` beside the points of :class:`~d365sync.emulator.settings.EmulatorSettings`:

- what cannot be rolled up (a query that cannot be read, an unknown column, a metric or period that is missing, a
  total its column cannot hold) puts error 0x8004F687 on the goal and on the goals above it that add its total;
  their other columns stay
- an overridden goal keeps its percentage as well; today's target and the time of the rollup move on
- a query that asks for the calling user cannot be used where there is none
- a goal whose manager lacks the privilege to read a table counts none of its records; a goal without manager cannot be
  rolled up; both only in an organization with security roles
- of what a rollup query joins, only the records counted must be readable by the manager

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, reduce
from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.values import MONEY_SCALE, Row, Value
from d365sync.emulator.askers import as_user, asker, asks_for_user
from d365sync.emulator.callers import fiscal_calendar
from d365sync.emulator.fiscalperiods import fiscal_years
from d365sync.emulator.goalrules import QUERIES
from d365sync.emulator.goaltree import tree
from d365sync.emulator.percentages import KINDS, ROLLUP_COLUMNS, as_decimal, kind_of, percentage_of
from d365sync.emulator.privileges import Test, access_of_principal
from d365sync.emulator.refuse import invalid, missing_row
from d365sync.emulator.settings import ClosedGoals, EmulatorSettings
from d365sync.emulator.store import Store
from d365sync.emulator.wire import EXACT, at_scale
from d365sync.errors import FetchXmlError, SchemaError

ERROR_CODE = -2147158393
"""``rolluperrorcode`` of a goal that could not be rolled up: 0x8004F687. Assumed: no document lists the values."""

Totals = Mapping[str, Decimal | None]
"""Totals by rollup column; None where nothing took part, in the goal or below it."""

_QUERY_OF = {attribute: lookup for lookup, attribute in QUERIES.items()}
_PARENTS = {"opportunityproduct": "opportunity"}
"""Source: Define goal metric and rollup fields (the state of the parent opportunity)."""
_SUMMED = {
    "money": (ColumnType.MONEY,),
    "decimal": (ColumnType.DECIMAL, ColumnType.DOUBLE),
    "integer": (ColumnType.INTEGER,),
}
"""Column types a metric can sum. Source: Define goal metric and rollup fields (the types must match)."""
_DAY = dt.timedelta(days=1)


def recalculate(store: Store, goal_id: str, settings: EmulatorSettings, now: dt.datetime) -> None:
    """Roll up the whole tree that contains a goal, at the aware instant ``now``, and change its goal rows.

    A goal that cannot be rolled up says so in its own columns; the others of the tree are rolled up all the same.
    Source: Roll up goal totals (Recalculate on any goal recomputes its tree).

    Raises:
        Refusal: there is no such goal, or the goals above it form a circle.
    """
    rollup = _Rollup(store, settings, now)
    for goal in reversed(tree(store, _root_id(store, goal_id))):
        rollup.roll_up(goal)


def counted_records(
    store: Store, goal_id: str, settings: EmulatorSettings, now: dt.datetime
) -> dict[str, frozenset[str]]:
    """Return the ids of the records that count for a goal itself, by rollup column; none for what cannot be used."""
    rollup = _Rollup(store, settings, now)
    try:
        return rollup.counted(store.rows("goal")[goal_id])
    except _FAILURES:
        return {}


def _root_id(store: Store, goal_id: str) -> str:
    goal = store.get("goal", goal_id)
    if goal is None:
        raise missing_row("goal", goal_id)
    seen = {goal_id}
    while (parent := store.get("goal", goal.get("parentgoalid"))) is not None:
        goal = parent
        if str(goal["goalid"]) in seen:
            raise invalid(f"The goal with id {goal_id} is in a circle of parent goals.")
        seen.add(str(goal["goalid"]))
    return str(goal["goalid"])


class _UnusableError(Exception):
    """Something a goal's rollup needs cannot be used; the text says what."""


_FAILURES = (_UnusableError, SchemaError, FetchXmlError)


@dataclass(frozen=True, slots=True)
class _Period:
    """A goal's days, both ends included, and the instants those days begin and end: ``begins <= t < ends``."""

    first: dt.date
    last: dt.date
    begins: dt.datetime
    ends: dt.datetime

    @classmethod
    def of(cls, first: dt.date, last: dt.date, zone: ZoneInfo) -> _Period:
        return cls(first, last, _midnight(first, zone), _midnight(last + _DAY, zone))

    def holds(self, column: Column, value: Value) -> bool:
        """Say whether a date counts. Source: Roll up goal totals (start and end dates are in); null never counts."""
        if not isinstance(value, dt.date):
            return False
        if not isinstance(value, dt.datetime):
            return self.first <= value <= self.last
        if column.date_behavior is DateBehavior.USER_LOCAL:
            return self.begins <= value < self.ends
        return self.first <= value.date() <= self.last

    def elapsed(self, today: dt.date) -> tuple[int, int]:
        """Return how much has passed as a fraction from 0 to 1: numerator and denominator, in days.

        Source: Create goal hierarchy, goals, and targets ((today - start) / (end - start)). Assumed: it stays
        within 0 and 1, and a period of one day is over on that day.
        """
        days = (self.last - self.first).days
        if days <= 0:
            return int(today >= self.first), 1
        return min(max((today - self.first).days, 0), days), days


def _midnight(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(dt.UTC)


@dataclass(frozen=True, slots=True)
class _Field:
    """A rollup field as the schema reads it.

    ``parent`` and ``lookup`` say where a record's parent row is, if one is needed; ``states`` are the values
    asked of state and status; ``amount`` is the column summed, None when records are counted.
    """

    attribute: str
    table: Table
    parent: str | None
    lookup: str | None
    date: Column
    date_of_parent: bool
    states: Mapping[str, Value]
    state_of_parent: bool
    amount: str | None

    def takes(self, row: Row, period: _Period, store: Store) -> bool:
        """Say whether a record passes the tests of date, state and status."""
        parent: Row = {}
        if self.parent is not None:
            parent = store.get(self.parent, row.get(self.lookup or "")) or {}
        dated, stated = parent if self.date_of_parent else row, parent if self.state_of_parent else row
        in_state = all(stated.get(name) == wanted for name, wanted in self.states.items())
        return in_state and period.holds(self.date, dated.get(self.date.logical_name))

    def value(self, row: Row) -> Decimal:
        """Return what a record adds; an empty amount adds nothing."""
        amount = 1 if self.amount is None else row.get(self.amount)
        return Decimal(0) if amount is None else as_decimal(amount)


def _read_field(field: Row, kind: str, schema: Schema, *, counts: bool) -> _Field:
    """Resolve a rollup field. Assumed: without entityfordateattribute the date is on the source table.

    Raises:
        SchemaError: a table or column is unknown.
        _UnusableError: the field has no meaning for the metric.
    """
    attribute = _attribute_of(field, kind)
    table = schema.table(str(field.get("sourceentity")))
    dated = schema.table(str(field.get("entityfordateattribute") or table.logical_name))
    date = dated.column(str(field.get("dateattribute")))
    if date.type is not ColumnType.DATETIME:
        raise _UnusableError(f"'{date.logical_name}' is no date")
    date_of_parent = dated.logical_name != table.logical_name
    state_of_parent = field.get("isstateparententityattribute") is True
    parent = dated.logical_name if date_of_parent else _PARENTS.get(table.logical_name) if state_of_parent else None
    if state_of_parent and parent is None:
        raise _UnusableError(f"'{table.logical_name}' has no parent table whose state could be asked")
    stated = schema.table(parent) if state_of_parent and parent else table
    wanted = {"statecode": field.get("sourcestate"), "statuscode": field.get("sourcestatus")}
    return _Field(
        attribute=attribute,
        table=table,
        parent=parent,
        lookup=None if parent is None else _lookup(table, parent),
        date=date,
        date_of_parent=date_of_parent,
        states={stated.column(name).logical_name: value for name, value in wanted.items() if value is not None},
        state_of_parent=state_of_parent,
        amount=None if counts else _summed(table, str(field.get("sourceattribute")), kind),
    )


def _attribute_of(field: Row, kind: str) -> str:
    attribute = str(field.get("goalattribute"))
    if attribute not in ROLLUP_COLUMNS or not attribute.endswith(kind):
        raise _UnusableError(f"'{attribute}' is no column a metric of {kind} fills")
    return attribute


def _lookup(table: Table, parent: str) -> str:
    """Return the lookup that names the parent row. Assumed: ``<parent>id``, else the only one to that table."""
    found = [column.logical_name for column in table.columns.values() if column.is_lookup and parent in column.targets]
    if f"{parent}id" in found:
        return f"{parent}id"
    if len(found) != 1:
        raise _UnusableError(f"'{table.logical_name}' has {len(found)} lookups to '{parent}'")
    return found[0]


def _summed(table: Table, name: str, kind: str) -> str:
    """Return the column summed: for money the base currency's, at the rate stored on the record.

    Source: Goal table reference (goals are in base currency); Transaction Currency table.
    """
    column: Column | None = table.column(name)
    if column is not None and column.type not in _SUMMED[kind]:
        raise _UnusableError(f"'{name}' is not of a type a metric of {kind} sums")
    if kind == "money":
        column = table.base_of(name)
    if column is None:
        raise _UnusableError(f"'{name}' has no amount in base currency")
    return column.logical_name


class _Rollup:
    """One rollup of one tree; goals are given to :meth:`roll_up` children first."""

    def __init__(self, store: Store, settings: EmulatorSettings, now: dt.datetime) -> None:
        self._store = store
        self._settings = settings
        self._now = now.astimezone(dt.UTC).replace(microsecond=0)
        self._zone = settings.rollup_time_zone
        self._below: defaultdict[Value, list[Totals]] = defaultdict(list)
        self._at_fault: dict[Value, Value] = {}
        self._found: dict[tuple[str, str | None], Sequence[Row]] = {}
        self._sight: dict[tuple[str, str], Test | None] = {}

    def roll_up(self, goal: Row) -> None:
        """Change one goal and hand its totals to its parent."""
        if goal.get("statecode") == 1 and self._settings.closed_goals is not ClosedGoals.RECOMPUTE:
            keeps = self._settings.closed_goals is ClosedGoals.STORED
            self._below[goal.get("parentgoalid")].append(_stored(goal) if keeps else {})
            return
        overridden = goal.get("isoverridden") is True
        feeds = overridden and self._settings.overridden_feed_parents
        try:
            totals = _stored(goal) if feeds else self._totals(goal)
            changes = {} if overridden else self._rolled_up(goal, totals)
            changes |= self._target_today(goal)
        except _FAILURES:
            self._fail(goal)
            return
        done: dict[str, Value] = {"lastrolledupdate": self._now, "rolluperrorcode": None, "goalwitherrorid": None}
        self._store.change("goal", str(goal["goalid"]), changes | done)
        self._below[goal.get("parentgoalid")].append(totals)

    def _fail(self, goal: Row) -> None:
        at_fault = self._at_fault.get(goal["goalid"], goal["goalid"])
        changes: dict[str, Value] = {"rolluperrorcode": ERROR_CODE, "goalwitherrorid": at_fault}
        self._store.change("goal", str(goal["goalid"]), changes)
        self._at_fault.setdefault(goal.get("parentgoalid"), at_fault)

    def _totals(self, goal: Row) -> Totals:
        """Return own part plus the children's totals. Source: Create goal hierarchy, goals, and targets."""
        if goal["goalid"] in self._at_fault:
            raise _UnusableError("a goal below could not be rolled up")
        below = self._below[goal["goalid"]]
        totals: dict[str, Decimal | None] = {}
        for field in self._fields(goal):
            if field.attribute in totals:
                raise _UnusableError(f"'{field.attribute}' has two rollup fields")
            own = self._own(goal, field)
            totals[field.attribute] = _sum([own, *(one.get(field.attribute) for one in below)])
        return totals

    def _fields(self, goal: Row) -> list[_Field]:
        metric = self._store.get("metric", goal.get("metricid"))
        kind = self._kind(goal)
        if metric is None or kind is None:
            raise _UnusableError("the goal has no metric, or the metric no data type")
        rows = self._store.referring("rollupfield", "metricid", str(metric["metricid"]))
        counts = metric.get("isamount") is False
        return [_read_field(row, kind, self._store.catalogue.schema, counts=counts) for row in rows]

    def _kind(self, goal: Row) -> str | None:
        metric = self._store.get("metric", goal.get("metricid")) or {}
        return KINDS[2] if metric.get("isamount") is False else kind_of(metric)

    def _own(self, goal: Row, field: _Field) -> Decimal | None:
        """Return the sum over the goal's own records; None when none takes part."""
        if goal.get("rolluponlyfromchildgoals") is True:
            return None
        period = self._period(goal)
        if period is None:
            raise _UnusableError("the goal has no period")
        rows = self._seen(goal, field, self._owned(goal, field, self._asked_for(goal, field)))
        return _sum(field.value(row) for row in rows if field.takes(row, period, self._store))

    def counted(self, goal: Row) -> dict[str, frozenset[str]]:
        """Return the ids of the goal's own records by column."""
        period = self._period(goal)
        if goal.get("rolluponlyfromchildgoals") is True or period is None:
            return {}
        return {
            field.attribute: frozenset(
                str(row[field.table.primary_id])
                for row in self._owned(goal, field, self._asked_for(goal, field))
                if field.takes(row, period, self._store)
            )
            for field in self._fields(goal)
        }

    def _owned(self, goal: Row, field: _Field, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows the goal's owner owns, or all. Source: Add complex goal criteria.

        Raises:
            SchemaError: the table has no owner to ask for.
        """
        if goal.get("consideronlygoalownersrecords") is False:
            return rows
        field.table.column("ownerid")
        owner = goal.get("goalownerid")
        return [row for row in rows if row.get("ownerid") == owner] if owner is not None else []

    def _seen(self, goal: Row, field: _Field, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that the goal's manager may read. Source: Roll up goal totals (security)."""
        name = field.table.logical_name
        if not self._store.rows("role"):
            return rows
        if goal.get("ownerid") is None:
            raise _UnusableError("the goal has no manager")
        key = (str(goal["ownerid"]), name)
        if key not in self._sight:
            self._sight[key] = access_of_principal(self._store, key[0]).test("Read", self._store.catalogue.tables[name])
        test = self._sight[key]
        return rows if test is None else [row for row in rows if test(row)]

    def _asked_for(self, goal: Row, field: _Field) -> Sequence[Row]:
        """Return the rows of the goal's rollup query for that column; without a query, every row."""
        name = field.table.logical_name
        query_id = goal.get(_QUERY_OF[field.attribute])
        if query_id is None:
            return list(self._store.rows(name).values())
        query = self._store.get("goalrollupquery", query_id)
        if query is None:
            raise _UnusableError("the rollup query does not exist")
        text = str(query.get("fetchxml") or "")
        fetch = parse_fetch(text)
        if fetch.entity != name:
            raise _UnusableError(f"the rollup query is over '{fetch.entity}', not over '{name}'")
        user = asker(self._store, goal) if asks_for_user(text) else None
        key = str(query_id), user
        if key not in self._found:
            context = self._context if user is None else as_user(self._store, self._context, user)
            found = evaluate(fetch, self._tables, self._store.catalogue.schema, context)
            self._found[key] = found[: self._settings.rollup_query_limit]
        return self._found[key]

    @cached_property
    def _tables(self) -> dict[str, list[Row]]:
        return {name: list(self._store.rows(name).values()) for name in self._store.catalogue.tables}

    @cached_property
    def _context(self) -> Context:
        """What relative dates in queries mean. Assumed: days are those of the rollup's zone."""
        organization = self._store.only("organization")
        start = organization.get("weekstartdaycode")
        try:
            calendar = fiscal_calendar(organization, self._zone, self._settings)
            week_start = start if isinstance(start, int) else 0
            return Context(
                self._now, self._zone, week_start=week_start, fiscal=calendar, **self._settings.fetch_readings
            )
        except ValueError as error:
            raise _UnusableError(str(error)) from error

    def _period(self, goal: Row) -> _Period | None:
        """Return the goal's period; None when it has none the calendar knows.

        Source: Create goal hierarchy, goals, and targets (a goal keeps its period when fiscal settings change, so
        its own bounds come first).
        """
        start, end = goal.get("goalstartdate"), goal.get("goalenddate")
        try:
            first, last = self._on(start), self._on(end)
            if (first is None or last is None) and goal.get("isfiscalperiodgoal") is True:
                year, code = goal.get("fiscalyear"), goal.get("fiscalperiod")
                if isinstance(year, int) and isinstance(code, int):
                    days = fiscal_years(self._store).days(year, code)
                    first, last = first or days[0], last or days[1]
            return None if first is None or last is None else _Period.of(first, last, self._zone)
        except (ValueError, OverflowError):
            return None

    def _on(self, bound: Value) -> dt.date | None:
        return bound.astimezone(self._zone).date() if isinstance(bound, dt.datetime) else None

    def _rolled_up(self, goal: Row, totals: Totals) -> dict[str, Value]:
        """Return the nine columns and the percentage; without a rollup field a column is null.

        Source: Roll up goal totals.
        """
        nothing = Decimal(0) if self._settings.empty_is_zero else None
        changes: dict[str, Value] = dict.fromkeys(ROLLUP_COLUMNS)
        for name, total in totals.items():
            changes[name] = self._fitted(name, nothing if total is None else total)
        kind = self._kind(goal)
        typed: Row = {**goal, **changes, "amountdatatype": KINDS.index(kind) if kind else None}
        changes["percentage"] = percentage_of(typed, self._settings.rounding)
        return self._with_base(changes)

    def _target_today(self, goal: Row) -> dict[str, Value]:
        """Return today's target and its percentage, by whole days. Source: see :meth:`_Period.elapsed`."""
        names = {kind: f"computedtargetasoftoday{kind}" for kind in KINDS}
        share = "computedtargetasoftodaypercentageachieved"
        changes: dict[str, Value] = dict.fromkeys([*names.values(), share])
        period, kind = self._period(goal), self._kind(goal)
        if period is not None:
            part, whole = period.elapsed(self._now.astimezone(self._zone).date())
            changes[share] = self._fitted(share, EXACT.divide(Decimal(100 * part), Decimal(whole)))
            target = goal.get(f"target{kind}")
            if kind is not None and target is not None:
                due = EXACT.divide(EXACT.multiply(as_decimal(target), Decimal(part)), Decimal(whole))
                changes[names[kind]] = self._fitted(names[kind], due)
        return self._with_base(changes)

    def _fitted(self, name: str, value: Decimal | None) -> Value:
        """Return a number as its goal column holds it."""
        if value is None:
            return None
        facts = self._store.catalogue.tables["goal"].columns[name]
        whole = facts.column.type is ColumnType.INTEGER
        places = MONEY_SCALE if facts.column.type is ColumnType.MONEY else facts.column.precision or 0
        scaled = at_scale(value, places, self._settings.rounding)
        if (facts.minimum is not None and scaled < facts.minimum) or (
            facts.maximum is not None and scaled > facts.maximum
        ):
            raise _UnusableError(f"'{name}' cannot hold {scaled}")
        return int(scaled) if whole else scaled

    def _with_base(self, changes: Mapping[str, Value]) -> dict[str, Value]:
        """Add the companions of money. Source: Goal table reference (goals are in base currency)."""
        money = self._store.catalogue.tables["goal"].money
        return {**changes, **{f"{name}_base": value for name, value in changes.items() if name in money}}


def _stored(goal: Row) -> Totals:
    return {name: as_decimal(goal[name]) for name in ROLLUP_COLUMNS if goal.get(name) is not None}


def _sum(parts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the exact sum of what is there; None when nothing is."""
    known = [part for part in parts if part is not None]
    return reduce(EXACT.add, known, Decimal(0)) if known else None
