"""Probe: two goals of our own on a trial organization, rolled up by the platform, to see which assumptions hold.

Everything made is noted under an id of our choice before it is asked for, and removed at the end in reverse order,
whatever happened; existing rows are read and never changed.

IO: HTTP, through the client.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import structlog

from d365sync.core.goals.book import BOOK_COLUMNS, build_book
from d365sync.core.goals.goal import Category, DataType, GoalBook, Metric, RollupField, Slot
from d365sync.core.goals.participation import slots_of
from d365sync.core.goals.probe import (
    ACTUAL,
    EDGES,
    EIGHT,
    PARENT_TARGET,
    STORED,
    TARGET,
    Observed,
    Pair,
    Reading,
    current_period,
    readings,
)
from d365sync.core.period import DaySpan, day_of, start_of_day
from d365sync.core.schema import DateBehavior, Schema, Table
from d365sync.core.values import Row
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.metadata import read_schema
from d365sync.errors import AuthError, RejectedError, RemoteError, SchemaError

log = structlog.get_logger(__name__)

TITLE = "d365sync probe"
TABLES = ("goal", "metric", "rollupfield", "organization", "transactioncurrency", "opportunity")
GOAL_COLUMNS = (
    *("title", "goalstartdate", "goalenddate", "depth", "treeid", "isoverride", "isoverridden", "lastrolledupdate"),
    *("percentage", "computedtargetasoftodaymoney", TARGET, *(f"{category}money" for category in Category)),
)
OVERRIDE = {"isoverride": True, "isoverridden": True}
CLEAN_UP_ATTEMPTS = 2
DAY = dt.timedelta(days=1)
PLAN = (
    f"two goals whose titles begin with '{TITLE}', a parent and its child, in the current fiscal period",
    "only if there is no goal metric of money: one metric with two rollup fields, named alike",
)
RECORDS_PLAN = f"{len(EDGES)} open opportunities named alike, around the ends of the period"


@dataclass(frozen=True, slots=True)
class Made:
    """One row that the probe made, or asked for."""

    table: Table
    id: str
    name: str


@dataclass(slots=True)
class Probe:
    """One run of the probe. ``today`` and ``title`` follow from ``now``; ``notes`` say which steps were refused."""

    client: DataverseClient
    zone: ZoneInfo
    now: dt.datetime
    create_records: bool = False
    on_step: Callable[[str], None] = field(default=lambda _words: None)
    made: list[Made] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _schema: Schema = field(default_factory=lambda: Schema({}))
    _steps: dict[str, Pair] = field(default_factory=dict)
    _days: DaySpan | None = None
    _edge_column: str | None = None
    _percentage_alone: bool | None = None

    def run(self) -> tuple[Reading, ...]:
        """Make the goals, have them rolled up step by step, and read what that says; clean up afterwards.

        Raises:
            RemoteError: the remote as a whole, or a goal cannot be made. :meth:`clean_up` is to be called all the same.
            SchemaError: a table that goals need is not there.
        """
        self._schema = read_schema(self.client, TABLES)
        book = self._book()
        metric = self._metric(book)
        parent, child = self._goals(book, metric)
        self._empty(parent, child)
        self._overridden(parent, child)
        if self.create_records:
            self._edges(parent, child, metric)
        self._closed(parent, child)
        today = self.now.astimezone(self.zone).date()
        return readings(Observed(self._steps, self.zone, today, self._days, self._edge_column, self._percentage_alone))

    def clean_up(self) -> list[Made]:
        """Remove what was made, the last first; return, and keep in ``made``, what could not be removed."""
        for one in reversed(list(self.made)):
            if self._removed(one):
                self.made.remove(one)
        return list(self.made)

    # -- what is made ----------------------------------------------------------------------------------------------

    def _book(self) -> GoalBook:
        rows = {}
        for name in ("metric", "rollupfield", "organization", "transactioncurrency"):
            table = self._table(name)
            known = [column for column in BOOK_COLUMNS[name] if column in table.columns]
            rows[name] = [row for page in self.client.rows(table, known) for row in page.rows]
        rows["metric"] = [row for row in rows["metric"] if row.get("statecode") == 0]
        return build_book(rows, self.zone)

    def _metric(self, book: GoalBook) -> Metric:
        """Return a money metric with an actual column: one whose open deals have a plain date, if there is one."""
        usable = [one for one in book.metrics.values() if one.data_type is DataType.MONEY and _feeds_actual(one)]
        usable.sort(key=lambda one: (self._edge_field(one) is None, one.name, one.id))
        return usable[0] if usable else self._make_metric()

    def _make_metric(self) -> Metric:
        body = {"name": self._name("metric"), "isamount": True, "amountdatatype": 0}
        metric_id = self._make("metric", body, "metric")
        fields = []
        for column, source, state, date in (
            ("actualmoney", "actualvalue", 1, "actualclosedate"),
            ("inprogressmoney", "estimatedvalue", 0, "estimatedclosedate"),
        ):
            made = {
                "metricid@odata.bind": f"/{self._table('metric').entity_set_name}({metric_id})",
                "goalattribute": column,
                "sourceentity": "opportunity",
                "sourceattribute": source,
                "sourcestate": state,
                "entityfordateattribute": "opportunity",
                "dateattribute": date,
            }
            key = self._make("rollupfield", made, f"rollup field {column}")
            fields.append(RollupField(key, metric_id, column, "opportunity", source, state, None, "opportunity", date))
        return Metric(metric_id, str(body["name"]), True, DataType.MONEY, tuple(fields))

    def _goals(self, book: GoalBook, metric: Metric) -> tuple[str, str]:
        """Make the parent and its child."""
        who, _ = self.client.who_am_i()
        shared: dict[str, object] = {
            "metricid@odata.bind": f"/{self._table('metric').entity_set_name}({metric.id})",
            "goalownerid_systemuser@odata.bind": f"/systemusers({who.get('UserId')})",
            "consideronlygoalownersrecords": True,
        }
        parent, shared = self._parent(shared, book)
        above = {"parentgoalid@odata.bind": f"/{self._table('goal').entity_set_name}({parent})"}
        child = self._make("goal", shared | above | {"title": self._name("child")}, "child goal")
        self._read("created", parent, child)
        return parent, child

    def _parent(self, shared: Mapping[str, object], book: GoalBook) -> tuple[str, dict[str, object]]:
        """Make the parent, in the current fiscal period, or in a custom one if that is refused.

        Return its id, and the columns its child shares with it.
        """
        today = self.now.astimezone(self.zone).date()
        own = {"title": self._name("parent"), TARGET: PARENT_TARGET, "rolluponlyfromchildgoals": True}
        period = current_period(book.organization.fiscal, today)
        if period is not None:
            columns = {**shared, **_fiscal(period)}
            try:
                parent = self._make("goal", columns | own, "parent goal")
            except RejectedError as error:
                self.notes.append(f"a goal with a fiscal period was refused: {error}")
            else:
                self._days = period[2]
                return parent, columns
        columns = {**shared, **_custom(today, self.zone)}
        return self._make("goal", columns | own, "parent goal"), columns

    # -- the steps -------------------------------------------------------------------------------------------------

    def _empty(self, parent: str, child: str) -> None:
        self._step("empty", parent, child, {}, "rolled up with nothing in them")
        self._step("target_zero", parent, child, {TARGET: 0}, "with a target of 0")

    def _overridden(self, parent: str, child: str) -> None:
        half = {**OVERRIDE, TARGET: EIGHT, ACTUAL: 1}
        self._step("half", parent, child, half, "overridden with 1 of 8", recalculate=False)
        self._step("half_even", parent, child, {**OVERRIDE, ACTUAL: STORED}, "with 3 of 8", recalculate=False)
        self._write_percentage_alone(child)
        self._step("overridden", parent, child, {}, "rolled up with the child overridden")
        self._step("handed_back", parent, child, {"isoverridden": False}, "rolled up with the override taken back")

    def _write_percentage_alone(self, child: str) -> None:
        try:
            self._update(child, {"percentage": 50})
        except RejectedError:
            self._percentage_alone = False
        else:
            self._percentage_alone = True

    def _edges(self, parent: str, child: str, metric: Metric) -> None:
        """Make a record on each side of each end of the period, each worth another power of two."""
        found = self._edge_field(metric)
        days = self._days_of(self._steps["created"].parent)
        if found is None or days is None:
            self.notes.append(f"goal metric '{metric.name}' counts no open opportunities by a plain date")
            return
        ends = {
            "before": days.first_on - DAY,
            "first": days.first_on,
            "last": days.last_on,
            "after": days.last_on + DAY,
        }
        table = self._table("opportunity")
        for name, day in ends.items():
            body: dict[str, Any] = {
                "name": self._name(f"record, {name}"),
                str(found.source_attribute): EDGES[name],
                str(found.date_attribute): day,
            }
            if "isrevenuesystemcalculated" in table.columns:
                body["isrevenuesystemcalculated"] = False
            self._make("opportunity", body, f"record on {day}")
        if self._step("edges", parent, child, {}, "rolled up with records around the period's ends"):
            self._edge_column = found.goal_attribute

    def _closed(self, parent: str, child: str) -> None:
        held = {"isoverride": True, "isoverridden": False, ACTUAL: STORED}
        if self._try("child holds 3, no override kept", lambda: self._update(child, held)):
            self._step("closed", parent, child, {"statecode": 1, "statuscode": 1}, "rolled up with the child closed")

    def _step(
        self,
        name: str,
        parent: str,
        child: str,
        changes: Mapping[str, object],
        words: str,
        *,
        recalculate: bool = True,
    ) -> bool:
        """Change the child, have the parent rolled up, read both; say whether the platform allowed it."""

        def act() -> None:
            if changes:
                self._update(child, changes)
            if recalculate:
                self.client.act(self._table("goal"), parent, "Recalculate")
            self._read(name, parent, child)

        return self._try(words, act)

    def _try(self, words: str, act: Callable[[], object]) -> bool:
        self.on_step(words)
        try:
            act()
        except RejectedError as error:
            self.notes.append(f"{words}: {error}")
            return False
        return True

    # -- rows ------------------------------------------------------------------------------------------------------

    def _make(self, name: str, body: Mapping[str, object], words: str) -> str:
        """Make a row; it is noted for removal before it is asked for."""
        table, row_id = self._table(name), str(uuid4())
        self.on_step(f"making {words}")
        self.made.append(Made(table, row_id, words))
        try:
            self.client.create(table, row_id, body)
        except (RejectedError, AuthError):
            self.made.pop()  # refused: there is nothing to remove
            raise
        return row_id

    def _update(self, goal_id: str, changes: Mapping[str, object]) -> None:
        self.client.update(self._table("goal"), goal_id, changes, if_match="*", columns=("title",))

    def _read(self, step: str, parent: str, child: str) -> None:
        table = self._table("goal")
        columns = [name for name in GOAL_COLUMNS if name in table.columns]
        self._steps[step] = Pair(*(self.client.row(table, goal_id, columns) for goal_id in (parent, child)))

    def _removed(self, one: Made) -> bool:
        for _ in range(CLEAN_UP_ATTEMPTS):
            try:
                self.client.delete(one.table, one.id)
            except RemoteError as error:
                log.warning("probe.left", table=one.table.logical_name, id=one.id, reason=str(error))
            else:
                return True
        return False

    def _table(self, name: str) -> Table:
        if name not in self._schema.tables:
            raise SchemaError(f"this organization has no table '{name}'", table=name)
        return self._schema.table(name)

    def _name(self, what: str) -> str:
        return f"{TITLE} {self.now:%Y-%m-%d %H:%M}Z {what}"

    def _days_of(self, parent: Row) -> DaySpan | None:
        bounds = [parent.get(name) for name in ("goalstartdate", "goalenddate")]
        days = [day_of(bound, self.zone) for bound in bounds if isinstance(bound, dt.datetime)]
        return DaySpan(days[0], days[1]) if len(days) == len(bounds) else self._days

    def _edge_field(self, metric: Metric) -> RollupField | None:
        """Return the rollup field that sums open opportunities by a date without time, if the metric has one."""
        return next(self._edge_fields(metric), None)

    def _edge_fields(self, metric: Metric) -> Iterator[RollupField]:
        table = self._schema.tables.get("opportunity")
        for one in metric.fields:
            date = table.columns.get(one.date_attribute or "") if table else None
            plain = date is not None and date.date_behavior is DateBehavior.DATE_ONLY and date.valid_for_create
            is_open = one.source_state == 0 and one.source_status in (None, 1)
            if one.source_entity == one.date_entity == "opportunity" and plain and is_open and one.source_attribute:
                yield one


def _feeds_actual(metric: Metric) -> bool:
    try:
        return Slot(Category.ACTUAL, DataType.MONEY) in slots_of(metric)
    except ValueError:
        return False


def _fiscal(period: tuple[int, int, DaySpan]) -> dict[str, object]:
    return {"isfiscalperiodgoal": True, "fiscalyear": period[0], "fiscalperiod": period[1]}


def _custom(today: dt.date, zone: ZoneInfo) -> dict[str, object]:
    """Return a custom period of sixty days around today, its bounds midnights in a zone."""
    month = dt.timedelta(days=30)
    bounds = {"goalstartdate": start_of_day(today - month, zone), "goalenddate": start_of_day(today + month, zone)}
    return {"isfiscalperiodgoal": False, **bounds}
