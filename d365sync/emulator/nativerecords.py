"""The records of the goals of one native rollup: for each rollup field every record of its table, and every test.

``Assumed:``

- a query that asks for the calling user cannot be used where there is none
- a goal whose manager lacks the privilege to read a table counts none of its records; a goal without manager cannot be
  rolled up; both only in an organization with security roles
- of what a rollup query joins, only the records counted must be readable by the manager

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cached_property, reduce

from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.values import Row, Value
from d365sync.emulator.askers import as_user, asker, asks_for_user
from d365sync.emulator.callers import fiscal_calendar
from d365sync.emulator.fiscalperiods import fiscal_years
from d365sync.emulator.goalrules import QUERIES
from d365sync.emulator.nativefields import Field, Period, UnusableError, read_field
from d365sync.emulator.percentages import KINDS, kind_of
from d365sync.emulator.privileges import Test, access_of_principal
from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.store import Store
from d365sync.emulator.wire import EXACT

_QUERY_OF = {attribute: lookup for lookup, attribute in QUERIES.items()}


class Records:
    """What the store holds for the goals of one rollup at ``now``, an instant in UTC; queries are answered once."""

    def __init__(self, store: Store, settings: EmulatorSettings, now: dt.datetime) -> None:
        self._store = store
        self._settings = settings
        self.now = now.astimezone(dt.UTC).replace(microsecond=0)
        self._zone = settings.rollup_time_zone
        self._found: dict[tuple[str, str | None], Sequence[Row]] = {}
        self._sight: dict[tuple[str, str], Test | None] = {}

    def fields(self, goal: Row) -> list[Field]:
        """Return the rollup fields of the goal's metric.

        Raises:
            UnusableError: there is no metric, or a field has no meaning for it.
            SchemaError: a field names an unknown table or column.
        """
        metric = self._store.get("metric", goal.get("metricid"))
        kind = self.kind(goal)
        if metric is None or kind is None:
            raise UnusableError("the goal has no metric, or the metric no data type")
        rows = self._store.referring("rollupfield", "metricid", str(metric["metricid"]))
        counts = metric.get("isamount") is False
        return [read_field(row, kind, self._store.catalogue.schema, counts=counts) for row in rows]

    def kind(self, goal: Row) -> str | None:
        """Return which of a category's columns the goal's metric fills; None without a data type."""
        metric = self._store.get("metric", goal.get("metricid")) or {}
        return KINDS[2] if metric.get("isamount") is False else kind_of(metric)

    def own(self, goal: Row, field: Field) -> Decimal | None:
        """Return the sum over the goal's own records; None when none takes part.

        Raises:
            UnusableError: the goal has no period, no manager where one is needed, or a query that cannot be used.
            FetchXmlError: the query cannot be read or answered.
            SchemaError: the table has no owner to ask for.
        """
        if goal.get("rolluponlyfromchildgoals") is True:
            return None
        period = self.period(goal)
        if period is None:
            raise UnusableError("the goal has no period")
        rows = self._seen(goal, field, self._owned(goal, field, self._asked_for(goal, field)))
        return exact_sum(field.value(row) for row in rows if field.takes(row, period, self._store))

    def counted(self, goal: Row) -> dict[str, frozenset[str]]:
        """Return the ids of the goal's own records by column."""
        period = self.period(goal)
        if goal.get("rolluponlyfromchildgoals") is True or period is None:
            return {}
        return {
            field.attribute: frozenset(
                str(row[field.table.primary_id])
                for row in self._owned(goal, field, self._asked_for(goal, field))
                if field.takes(row, period, self._store)
            )
            for field in self.fields(goal)
        }

    def period(self, goal: Row) -> Period | None:
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
            return None if first is None or last is None else Period.of(first, last, self._zone)
        except (ValueError, OverflowError):
            return None

    def _on(self, bound: Value) -> dt.date | None:
        return bound.astimezone(self._zone).date() if isinstance(bound, dt.datetime) else None

    def _owned(self, goal: Row, field: Field, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows the goal's owner owns, or all. Source: Add complex goal criteria.

        Raises:
            SchemaError: the table has no owner to ask for.
        """
        if goal.get("consideronlygoalownersrecords") is False:
            return rows
        field.table.column("ownerid")
        owner = goal.get("goalownerid")
        return [row for row in rows if row.get("ownerid") == owner] if owner is not None else []

    def _seen(self, goal: Row, field: Field, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that the goal's manager may read. Source: Roll up goal totals (security)."""
        name = field.table.logical_name
        if not self._store.rows("role"):
            return rows
        if goal.get("ownerid") is None:
            raise UnusableError("the goal has no manager")
        key = (str(goal["ownerid"]), name)
        if key not in self._sight:
            self._sight[key] = access_of_principal(self._store, key[0]).test("Read", self._store.catalogue.tables[name])
        test = self._sight[key]
        return rows if test is None else [row for row in rows if test(row)]

    def _asked_for(self, goal: Row, field: Field) -> Sequence[Row]:
        """Return the rows of the goal's rollup query for that column; without a query, every row."""
        name = field.table.logical_name
        query_id = goal.get(_QUERY_OF[field.attribute])
        if query_id is None:
            return list(self._store.rows(name).values())
        query = self._store.get("goalrollupquery", query_id)
        if query is None:
            raise UnusableError("the rollup query does not exist")
        text = str(query.get("fetchxml") or "")
        fetch = parse_fetch(text)
        if fetch.entity != name:
            raise UnusableError(f"the rollup query is over '{fetch.entity}', not over '{name}'")
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
                self.now, self._zone, week_start=week_start, fiscal=calendar, **self._settings.fetch_readings
            )
        except ValueError as error:
            raise UnusableError(str(error)) from error


def exact_sum(parts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the exact sum of what is there; None when nothing is."""
    known = [part for part in parts if part is not None]
    return reduce(EXACT.add, known, Decimal(0)) if known else None
