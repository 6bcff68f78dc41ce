"""The nine columns of every goal by brute force: plain loops over all rows of the emulator, no line of the engine.

Of the product only the FetchXML evaluator is used, which other tests judge by worked cases.
"""

from __future__ import annotations

import calendar
import datetime as dt
from collections.abc import Iterable, Mapping
from decimal import Context as DecimalContext
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.fiscal import PERIOD_TYPE_CODES, FiscalCalendar
from d365sync.core.schema import Column, DateBehavior
from d365sync.core.values import Row
from d365sync.emulator import Emulator
from d365sync.errors import FetchXmlError, SchemaError

Columns = dict[str, Decimal | None]

EXACT = DecimalContext(prec=80)
DAY = dt.timedelta(days=1)
KINDS = {0: "money", 1: "decimal", 2: "integer"}
LIMITS = {"money": 922337203685477, "decimal": 10**11, "integer": 2**31 - 1}
NINE = [f"{category}{kind}" for category in ("actual", "inprogress", "customrollupfield") for kind in KINDS.values()]
QUERY_OF = {name: f"rollupquery{name.replace('customrollupfield', 'custom')}id" for name in NINE}
PARENTS = {"opportunityproduct": "opportunity"}


class UnusableError(Exception):
    """The number of a goal cannot be told."""


class Brute:
    """One organization at one moment; ``zone`` is where goal days begin, ``closed`` says whether closed goals add."""

    def __init__(self, emulator: Emulator, zone: ZoneInfo, *, closed: bool = True) -> None:
        self.store, self.zone, self.closed = emulator.store, zone, closed
        self.schema = emulator.store.catalogue.schema
        self.tables = {name: list(self.store.rows(name).values()) for name in emulator.store.catalogue.tables}
        self.now = emulator.clock.now().replace(microsecond=0)
        self.goals = {str(row["goalid"]): row for row in self.tables["goal"]}
        self.answers: dict[str, Columns | None] = {}

    def all(self) -> dict[str, Columns]:
        """Return the columns of every open goal whose numbers can be told."""
        for goal_id in self.goals:
            self.answer(goal_id, ())
        return {one: found for one, found in self.answers.items() if found is not None and self.is_open(one)}

    def is_open(self, goal_id: str) -> bool:
        return self.goals[goal_id].get("statecode") == 0

    def answer(self, goal_id: str, above: tuple[str, ...]) -> Columns | None:
        """Return a goal's columns, None when they cannot be told."""
        if goal_id in above or self.in_a_circle(goal_id):
            self.answers[goal_id] = None
        if goal_id not in self.answers:
            try:
                self.answers[goal_id] = self.total(goal_id, (*above, goal_id))
            except (UnusableError, FetchXmlError, SchemaError):
                self.answers[goal_id] = None
        return self.answers[goal_id]

    def in_a_circle(self, goal_id: str) -> bool:
        at, seen = self.goals[goal_id].get("parentgoalid"), set()
        while at is not None and at in self.goals and at not in seen:
            if at == goal_id:
                return True
            seen.add(at)
            at = self.goals[str(at)].get("parentgoalid")
        return False

    def total(self, goal_id: str, path: tuple[str, ...]) -> Columns:
        goal = self.goals[goal_id]
        metric = self.one("metric", "metricid", goal.get("metricid"))
        kind = kind_of(metric)
        fields = [row for row in self.tables["rollupfield"] if row.get("metricid") == metric["metricid"]]
        names = [str(row.get("goalattribute")) for row in fields]
        if len(set(names)) < len(names) or any(name not in NINE or not name.endswith(kind) for name in names):
            raise UnusableError("fields")
        found: Columns = dict.fromkeys(NINE)
        for field, name in zip(fields, names, strict=True):
            found[name] = self.own(goal, field, metric, kind, name)
        for child_id, child in self.goals.items():
            if child.get("parentgoalid") == goal_id:
                self.add(found, names, child_id, metric["metricid"], path)
        if any(abs(value) > LIMITS[kind] for value in found.values() if value is not None):
            raise UnusableError("too large")
        return found

    def add(self, found: Columns, names: list[str], child_id: str, metric_id: object, path: tuple[str, ...]) -> None:
        child = self.goals[child_id]
        if not self.is_open(child_id) and not self.closed:
            return
        if child.get("metricid") != metric_id:
            raise UnusableError("another metric")
        stored = not self.is_open(child_id) or child.get("isoverridden") is True
        numbers: Mapping[str, Any] | None = child if stored else self.answer(child_id, path)
        if numbers is None:
            raise UnusableError("child")
        for name in names:
            found[name] = EXACT.add(found[name] or Decimal(0), Decimal(numbers.get(name) or 0))

    def own(self, goal: Row, field: Row, metric: Row, kind: str, name: str) -> Decimal:
        if goal.get("rolluponlyfromchildgoals") is True:
            return Decimal(0)
        table = self.schema.table(str(field["sourceentity"]))
        dated = str(field.get("entityfordateattribute") or table.logical_name)
        column = self.schema.table(dated).column(str(field["dateattribute"]))
        only_owned = goal.get("consideronlygoalownersrecords") is not False
        if only_owned and goal.get("goalownerid") is None:
            raise UnusableError("owner")
        first, last = self.period(goal)
        summed = None
        if metric.get("isamount") is not False:
            if table.column(str(field.get("sourceattribute"))).type != kind:
                raise UnusableError("type")
            summed = str(field["sourceattribute"]) + ("_base" if kind == "money" else "")
        total = Decimal(0)
        for row in self.asked_for(goal, QUERY_OF[name], table.logical_name):
            parent = self.parent_of(row, table.logical_name, dated, field)
            states = parent if field.get("isstateparententityattribute") is True else row
            dates = parent if dated != table.logical_name else row
            if only_owned and row.get("ownerid") != goal.get("goalownerid"):
                continue
            if any(
                field.get(f"source{one}") is not None and (states or {}).get(f"{one}code") != field[f"source{one}"]
                for one in ("state", "status")
            ):
                continue
            if not self.falls(column, (dates or {}).get(column.logical_name), first, last):
                continue
            if summed is not None and kind == "money" and row.get(summed) is None and row.get(summed[:-5]) is not None:
                raise UnusableError("no base amount")
            total = EXACT.add(total, Decimal(1) if summed is None else Decimal(row.get(summed) or 0))  # type: ignore[arg-type]
        return total

    def asked_for(self, goal: Row, lookup: str, table: str) -> Iterable[Row]:
        if goal.get(lookup) is None:
            return self.tables[table]
        query = self.one("goalrollupquery", "goalrollupqueryid", goal[lookup])
        fetch = parse_fetch(str(query.get("fetchxml") or ""))
        if fetch.entity != table:
            raise UnusableError("entity")
        return evaluate(fetch, self.tables, self.schema, self.context(goal.get("ownerid")))

    def context(self, user: object) -> Context:
        users = {str(row["systemuserid"]): row for row in self.tables["systemuser"]}
        members = self.tables["teammembership"]
        plain = Context(self.now, self.zone, fiscal=self.fiscal(), week_start=self.week_start())
        if str(user) not in users:
            return plain
        teams = {str(one["teamid"]) for one in members}
        managers = {str(one["parentsystemuserid"]) for one in users.values() if one.get("parentsystemuserid")}
        return Context(
            self.now,
            self.zone,
            week_start=self.week_start(),
            fiscal=self.fiscal(),
            user_id=str(user),
            business_unit_id=str(users[str(user)]["businessunitid"]),
            user_team_ids=tuple(str(one["teamid"]) for one in members if one["systemuserid"] == user),
            user_hierarchy={
                one: tuple(key for key, row in users.items() if row.get("parentsystemuserid") == one)
                for one in managers
            },
            team_members={
                team: tuple(str(one["systemuserid"]) for one in members if one["teamid"] == team) for team in teams
            },
        )

    def fiscal(self) -> FiscalCalendar:
        start = self.fiscal_start()
        code = self.tables["organization"][0].get("fiscalperiodtype")
        template = PERIOD_TYPE_CODES[2002 if code is None else int(str(code))]
        return FiscalCalendar(start.month, start.day, template)

    def week_start(self) -> int:
        return int(str(self.tables["organization"][0].get("weekstartdaycode") or 0))

    def fiscal_start(self) -> dt.date:
        start = self.tables["organization"][0]["fiscalcalendarstart"]
        assert isinstance(start, dt.datetime)
        local = start.astimezone(self.zone)
        return local.date() if self.midnight(local.date()) == start else start.date()

    def period(self, goal: Row) -> tuple[dt.date, dt.date]:
        """Return the first and last day; stored bounds, else those of the fiscal year and period."""
        first, last = (self.day(goal.get(name)) for name in ("goalstartdate", "goalenddate"))
        if (first is None or last is None) and goal.get("isfiscalperiodgoal") is not False:
            year, code = goal.get("fiscalyear"), goal.get("fiscalperiod")
            if year is None or code is None:
                raise UnusableError("period")
            computed = self.fiscal_days(int(str(year)), int(str(code)))
            first, last = first or computed[0], last or computed[1]
        if first is None or last is None or last < first:
            raise UnusableError("period")
        return first, last

    def fiscal_days(self, year: int, code: int) -> tuple[dt.date, dt.date]:
        start = self.fiscal_start()
        if code >= 401:
            begins = dt.date(year, start.month, start.day) + (code - 401) * 28 * DAY
            return begins, begins + 27 * DAY
        months, number = {0: (3, code), 1: (1, code - 100), 2: (6, code - 200), 3: (12, 1)}[code // 100]
        if code // 100 == 1:
            number = (number - start.month) % 12 + 1
        begins = later(dt.date(year, start.month, start.day), months * (number - 1))
        return begins, later(dt.date(year, start.month, start.day), months * number) - DAY

    def day(self, bound: object) -> dt.date | None:
        return bound.astimezone(self.zone).date() if isinstance(bound, dt.datetime) else None

    def midnight(self, day: dt.date) -> dt.datetime:
        """Return the first instant of a day: the first at which the zone's calendar shows it, or a later day."""
        low = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC) - 2 * DAY
        high = low + 4 * DAY
        while high - low > dt.timedelta(seconds=1):
            middle = low + dt.timedelta(seconds=int((high - low).total_seconds()) // 2)
            low, high = (low, middle) if middle.astimezone(self.zone).date() >= day else (middle, high)
        return high

    def falls(self, column: Column, value: object, first: dt.date, last: dt.date) -> bool:
        if isinstance(value, dt.datetime):
            local = column.date_behavior is DateBehavior.USER_LOCAL
            return first <= (value.astimezone(self.zone) if local else value).date() <= last
        return isinstance(value, dt.date) and first <= value <= last

    def parent_of(self, row: Row, table: str, dated: str, field: Row) -> Row | None:
        if dated == table and field.get("isstateparententityattribute") is not True:
            return None
        parent = dated if dated != table else PARENTS[table]
        lookups = [one.logical_name for one in self.schema.table(table).columns.values() if parent in one.targets]
        lookup = lookups[0] if len(lookups) == 1 else f"{parent}id"
        return next((one for one in self.tables[parent] if one[f"{parent}id"] == row.get(lookup)), None)

    def one(self, table: str, key: str, value: object) -> Row:
        for row in self.tables[table]:
            if value is not None and row[key] == value:
                return row
        raise UnusableError(table)


def kind_of(metric: Row) -> str:
    """Return the data type of a metric."""
    if metric.get("isamount") is False:
        return "integer"
    kind = KINDS.get(int(str(metric.get("amountdatatype"))) if metric.get("amountdatatype") is not None else -1)
    if kind is None:
        raise UnusableError("kind")
    return kind


def later(day: dt.date, months: int) -> dt.date:
    """Move a day by months, to the last day where the month is too short."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return dt.date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))
