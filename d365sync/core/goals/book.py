"""Reading typed rows of the goal tables into a :class:`~d365sync.core.goals.goal.GoalBook`.

Also says which columns of those tables are read at all.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo

from d365sync.core.fiscal import PERIOD_TYPE_CODES, FiscalCalendar, FiscalTemplate
from d365sync.core.goals.goal import (
    AMOUNT_DATA_TYPES,
    SLOTS,
    VALUE_COLUMNS,
    DataType,
    Goal,
    GoalBook,
    Metric,
    Number,
    Organization,
    RollupField,
    RollupQuery,
)
from d365sync.core.goals.rules import AS_ASSUMED, FiscalRules, ReadingRules
from d365sync.core.period import day_of, is_midnight
from d365sync.core.values import Row

BOOK_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "goal": (
        "title",
        "statecode",
        "statuscode",
        "metricid",
        "goalownerid",
        "ownerid",
        "parentgoalid",
        "isfiscalperiodgoal",
        "fiscalyear",
        "fiscalperiod",
        "goalstartdate",
        "goalenddate",
        "rolluponlyfromchildgoals",
        "consideronlygoalownersrecords",
        "isoverridden",
        "lastrolledupdate",
        "percentage",
        *(f"target{data_type}" for data_type in DataType),
        *(f"stretchtarget{data_type}" for data_type in DataType),
        *VALUE_COLUMNS,
        *(slot.query_lookup for slot in SLOTS),
    ),
    "metric": ("name", "isamount", "amountdatatype", "statecode"),
    "rollupfield": (
        "metricid",
        "goalattribute",
        "sourceentity",
        "sourceattribute",
        "sourcestate",
        "sourcestatus",
        "entityfordateattribute",
        "dateattribute",
        "isstateparententityattribute",
    ),
    "goalrollupquery": ("name", "queryentitytype", "fetchxml", "statecode"),
    "organization": (
        "name",
        "basecurrencyid",
        "basecurrencyprecision",
        "weekstartdaycode",
        "fiscalcalendarstart",
        "fiscalperiodtype",
        "fiscalyeardisplaycode",
    ),
    "transactioncurrency": ("isocurrencycode", "currencyname"),
    "systemuser": ("fullname",),
    "team": ("name",),
}
"""The columns read of each table that defines goals (the key and ``versionnumber`` come on top)."""

NAMED_BY_CODES: Mapping[int, Literal["start", "end"]] = {1: "start", 2: "end"}
"""``organization.fiscalyeardisplaycode``. Assumed: the codes are in the order of the settings page's choices."""

NAME_COLUMNS = {"systemuser": "fullname", "team": "name"}


def build_book(
    rows: Mapping[str, Iterable[Row]], zone: ZoneInfo, rules: ReadingRules = AS_ASSUMED, own: Sequence[str] = ()
) -> GoalBook:
    """Read the rows of the tables of :data:`BOOK_COLUMNS`, keyed by logical name; missing tables are empty.

    ``zone`` is where goal days begin: the organization's fiscal start is an instant that is turned into a date there.
    ``own``: as of :func:`goal_of`.
    """
    fields: dict[str, list[RollupField]] = defaultdict(list)
    for row in rows.get("rollupfield", ()):
        rollup_field = _rollup_field(row)
        fields[rollup_field.metric_id].append(rollup_field)
    currencies = {
        _text(row, "transactioncurrencyid"): _currency_code(row) for row in rows.get("transactioncurrency", ())
    }
    return GoalBook(
        organization=_organization(next(iter(rows.get("organization", ())), {}), currencies, zone, rules),
        goals={goal.id: goal for goal in (goal_of(row, own) for row in rows.get("goal", ()))},
        metrics={
            metric.id: metric
            for metric in (_metric(row, tuple(fields[_text(row, "metricid")])) for row in rows.get("metric", ()))
        },
        queries={query.id: query for query in map(_query, rows.get("goalrollupquery", ()))},
        names={
            _text(row, f"{table}id"): _text(row, column)
            for table, column in NAME_COLUMNS.items()
            for row in rows.get(table, ())
        },
        currencies=currencies,
        rules=rules,
    )


def goal_of(row: Row, own: Sequence[str] = ()) -> Goal:
    """Read one goal row, with these columns of the organization's own; its etag may be under ``@odata.etag``."""
    return Goal(
        id=_text(row, "goalid"),
        title=_text(row, "title") or "(no title)",
        etag=_text(row, "@odata.etag"),
        is_open=row.get("statecode") == 0,
        status=_whole(row, "statuscode"),
        metric_id=_id(row, "metricid"),
        owner_id=_id(row, "goalownerid"),
        owner_type=_id(row, "goalowneridtype"),
        manager_id=_id(row, "ownerid"),
        manager_type=_id(row, "owneridtype"),
        parent_id=_id(row, "parentgoalid"),
        is_fiscal=row.get("isfiscalperiodgoal") is not False,
        fiscal_year=_whole(row, "fiscalyear"),
        fiscal_period=_whole(row, "fiscalperiod"),
        starts_at=_day_or_instant(row, "goalstartdate"),
        ends_at=_day_or_instant(row, "goalenddate"),
        only_from_children=row.get("rolluponlyfromchildgoals") is True,
        only_owners_records=row.get("consideronlygoalownersrecords") is not False,
        is_overridden=row.get("isoverridden") is True,
        rolled_up_at=_instant(row, "lastrolledupdate"),
        percentage=_decimal(row, "percentage"),
        targets={data_type: _number(row, f"target{data_type}") for data_type in DataType},
        stretch_targets={data_type: _number(row, f"stretchtarget{data_type}") for data_type in DataType},
        native={column: _number(row, column) for column in VALUE_COLUMNS},
        queries={slot: query for slot in SLOTS if (query := _id(row, slot.query_lookup))},
        own={name: _number(row, name) for name in own},
    )


def _metric(row: Row, fields: tuple[RollupField, ...]) -> Metric:
    is_amount = row.get("isamount") is not False
    code = _whole(row, "amountdatatype")
    return Metric(
        id=_text(row, "metricid"),
        name=_text(row, "name"),
        is_amount=is_amount,
        data_type=(AMOUNT_DATA_TYPES.get(code) if code is not None else None) if is_amount else DataType.INTEGER,
        fields=tuple(sorted(fields, key=lambda one: (one.goal_attribute, one.id))),
    )


def _rollup_field(row: Row) -> RollupField:
    source = _text(row, "sourceentity")
    return RollupField(
        id=_text(row, "rollupfieldid"),
        metric_id=_text(row, "metricid"),
        goal_attribute=_text(row, "goalattribute"),
        source_entity=source,
        source_attribute=_id(row, "sourceattribute"),
        source_state=_whole(row, "sourcestate"),
        source_status=_whole(row, "sourcestatus"),
        date_entity=_text(row, "entityfordateattribute") or source,
        date_attribute=_id(row, "dateattribute"),
        state_of_parent=row.get("isstateparententityattribute") is True,
    )


def _query(row: Row) -> RollupQuery:
    return RollupQuery(
        id=_text(row, "goalrollupqueryid"),
        name=_text(row, "name"),
        entity=_text(row, "queryentitytype"),
        fetchxml=_text(row, "fetchxml"),
    )


def _organization(row: Row, currencies: Mapping[str, str], zone: ZoneInfo, rules: ReadingRules) -> Organization:
    base = _id(row, "basecurrencyid")
    precision = _whole(row, "basecurrencyprecision")
    return Organization(
        id=_text(row, "organizationid"),
        name=_text(row, "name"),
        base_currency_id=base,
        base_currency_code=currencies.get(base or "", ""),
        base_currency_precision=2 if precision is None else precision,
        week_start=_whole(row, "weekstartdaycode") or 0,
        fiscal=_fiscal_calendar(row, rules.bounds_zone or zone, rules.fiscal),
    )


def _fiscal_calendar(row: Row, zone: ZoneInfo, rules: FiscalRules) -> FiscalCalendar:
    """Return the organization's calendar: quarters from 1 January when it has no settings.

    Source: organization table reference (``fiscalcalendarstart`` is UserLocal with date-only format).

    Assumed: a stored start that is no midnight in the zone of goals means its date in UTC.
    """
    start = _day_or_instant(row, "fiscalcalendarstart")
    if isinstance(start, dt.datetime):
        start = day_of(start, zone) if is_midnight(start, zone) else start.date()
    month, day = rules.start or ((start.month, start.day) if start else (1, 1))
    code = _whole(row, "fiscalperiodtype")
    template = rules.template or (FiscalTemplate.QUARTERLY if code is None else PERIOD_TYPE_CODES.get(code))
    named_by = _named_by(row, rules)
    if template is None:
        return FiscalCalendar(fault=f"the organization's fiscalperiodtype {code} is not known (set fiscal.template)")
    if named_by is None:
        fault = "the organization's fiscalyeardisplaycode is not known (set fiscal.year_named_by to start or end)"
        return FiscalCalendar(fault=fault)
    return FiscalCalendar(month, day, template, named_by, rules.leftover_days, rules.month_codes)


def _named_by(row: Row, rules: FiscalRules) -> Literal["start", "end"] | None:
    """Return which end of a fiscal year names it, None when the organization's code says nothing known."""
    if rules.year_named_by != "organization":
        return rules.year_named_by
    return NAMED_BY_CODES.get(_whole(row, "fiscalyeardisplaycode") or 0)


def _currency_code(row: Row) -> str:
    return _text(row, "isocurrencycode") or _text(row, "currencyname")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _id(row: Row, name: str) -> str | None:
    return _text(row, name) or None


def _whole(row: Row, name: str) -> int | None:
    value = row.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _decimal(row: Row, name: str) -> Decimal | None:
    value = _number(row, name)
    return None if value is None else Decimal(value)


def _number(row: Row, name: str) -> Number | None:
    value = row.get(name)
    return value if isinstance(value, Decimal | int) and not isinstance(value, bool) else None


def _instant(row: Row, name: str) -> dt.datetime | None:
    value = row.get(name)
    return value if isinstance(value, dt.datetime) else None


def _day_or_instant(row: Row, name: str) -> dt.datetime | dt.date | None:
    value = row.get(name)
    return value if isinstance(value, dt.date) else None
