"""The native rollup of goals: what ``Recalculate`` does to the tree of a goal, the slow and obvious way.

It is the judge of d365sync's own fast rollup, so it shares no rollup code with it: goals one by one from the
leaves upward, for each rollup field every record of its table, for each record every test. What counts for a goal
itself is read in :mod:`d365sync.emulator.nativerecords`; here goals are added up and written.

``Assumed:`` beside the points of :class:`~d365sync.emulator.settings.EmulatorSettings`:

- what cannot be rolled up (a query that cannot be read, an unknown column, a metric or period that is missing, a
  total its column cannot hold) puts error 0x8004F687 on the goal and on the goals above it that add its total;
  their other columns stay
- an overridden goal keeps its percentage as well; today's target and the time of the rollup move on

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal

from d365sync.core.schema import ColumnType
from d365sync.core.values import MONEY_SCALE, Row, Value
from d365sync.emulator.goaltree import tree
from d365sync.emulator.nativefields import UnusableError
from d365sync.emulator.nativerecords import Records, exact_sum
from d365sync.emulator.percentages import KINDS, ROLLUP_COLUMNS, as_decimal, percentage_of
from d365sync.emulator.refuse import invalid, missing_row
from d365sync.emulator.settings import ClosedGoals, EmulatorSettings
from d365sync.emulator.store import Store
from d365sync.emulator.wire import EXACT, at_scale
from d365sync.errors import FetchXmlError, SchemaError

ERROR_CODE = -2147158393
"""``rolluperrorcode`` of a goal that could not be rolled up: 0x8004F687. Assumed: no document lists the values."""

_FAILURES = (UnusableError, SchemaError, FetchXmlError)

Totals = Mapping[str, Decimal | None]
"""Totals by rollup column; None where nothing took part, in the goal or below it."""


def recalculate(
    store: Store,
    goal_id: str,
    settings: EmulatorSettings,
    now: dt.datetime,
    leaves: Callable[[Row], bool] = lambda _goal: False,
) -> None:
    """Roll up the whole tree that contains a goal, at the aware instant ``now``, and change its goal rows.

    A goal that ``leaves`` is true of is left as it is, and its stored values flow into its parent.
    A goal that cannot be rolled up says so in its own columns; the others of the tree are rolled up all the same.
    Source: Roll up goal totals (Recalculate on any goal recomputes its tree).

    Raises:
        Refusal: there is no such goal, or the goals above it form a circle.
    """
    rollup = _Rollup(store, settings, now, leaves)
    for goal in reversed(tree(store, _root_id(store, goal_id))):
        rollup.roll_up(goal)


def counted_records(
    store: Store, goal_id: str, settings: EmulatorSettings, now: dt.datetime
) -> dict[str, frozenset[str]]:
    """Return the ids of the records that count for a goal itself, by rollup column; none for what cannot be used."""
    try:
        return Records(store, settings, now).counted(store.rows("goal")[goal_id])
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


class _Rollup:
    """One rollup of one tree; goals are given to :meth:`roll_up` children first."""

    def __init__(
        self, store: Store, settings: EmulatorSettings, now: dt.datetime, leaves: Callable[[Row], bool]
    ) -> None:
        self._leaves = leaves
        self._store = store
        self._settings = settings
        self._records = Records(store, settings, now)
        self._below: defaultdict[Value, list[Totals]] = defaultdict(list)
        self._at_fault: dict[Value, Value] = {}

    def roll_up(self, goal: Row) -> None:
        """Change one goal and hand its totals to its parent."""
        if self._leaves(goal):
            self._below[goal.get("parentgoalid")].append(_stored(goal))
            return
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
        done: dict[str, Value] = {
            "lastrolledupdate": self._records.now,
            "rolluperrorcode": None,
            "goalwitherrorid": None,
        }
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
            raise UnusableError("a goal below could not be rolled up")
        below = self._below[goal["goalid"]]
        totals: dict[str, Decimal | None] = {}
        for field in self._records.fields(goal):
            if field.attribute in totals:
                raise UnusableError(f"'{field.attribute}' has two rollup fields")
            own = self._records.own(goal, field)
            totals[field.attribute] = exact_sum([own, *(one.get(field.attribute) for one in below)])
        return totals

    def _rolled_up(self, goal: Row, totals: Totals) -> dict[str, Value]:
        """Return the nine columns and the percentage; without a rollup field a column is null.

        Source: Roll up goal totals.
        """
        nothing = Decimal(0) if self._settings.empty_is_zero else None
        changes: dict[str, Value] = dict.fromkeys(ROLLUP_COLUMNS)
        for name, total in totals.items():
            changes[name] = self._fitted(name, nothing if total is None else total)
        kind = self._records.kind(goal)
        typed: Row = {**goal, **changes, "amountdatatype": KINDS.index(kind) if kind else None}
        changes["percentage"] = percentage_of(typed, self._settings.rounding)
        return self._with_base(changes)

    def _target_today(self, goal: Row) -> dict[str, Value]:
        """Return today's target and its percentage, by whole days. Source: as for ``Period.elapsed``."""
        names = {kind: f"computedtargetasoftoday{kind}" for kind in KINDS}
        share = "computedtargetasoftodaypercentageachieved"
        changes: dict[str, Value] = dict.fromkeys([*names.values(), share])
        period, kind = self._records.period(goal), self._records.kind(goal)
        if period is not None:
            part, whole = period.elapsed(self._records.now.astimezone(self._settings.rollup_time_zone).date())
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
            raise UnusableError(f"'{name}' cannot hold {scaled}")
        return int(scaled) if whole else scaled

    def _with_base(self, changes: Mapping[str, Value]) -> dict[str, Value]:
        """Add the companions of money. Source: Goal table reference (goals are in base currency)."""
        money = self._store.catalogue.tables["goal"].money
        return {**changes, **{f"{name}_base": value for name, value in changes.items() if name in money}}


def _stored(goal: Row) -> Totals:
    return {name: as_decimal(goal[name]) for name in ROLLUP_COLUMNS if goal.get(name) is not None}
