"""Groups and their sums, counts, averages and extremes.

Source: Aggregate data using FetchXML.

Pure.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from d365sync.core.fetchxml.ast import Attribute, Fetch, Link, joined_of
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.joining import Combination, Joiner
from d365sync.core.fetchxml.names import find_column
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.fetchxml.truth import is_empty, key_of
from d365sync.core.fiscal import FiscalTemplate
from d365sync.core.schema import Column, ColumnType, DateBehavior
from d365sync.core.values import Row, Value

MAX_ROWS = 50_000
"""Most rows one aggregate reads. Source: Aggregate data using FetchXML, limitations; error 0x8004E023."""

_PERIOD_NAMES = {
    FiscalTemplate.ANNUAL: "Year {}",
    FiscalTemplate.SEMIANNUAL: "Semester {}",
    FiscalTemplate.QUARTERLY: "Quarter {}",
    FiscalTemplate.MONTHLY: "Month {}",
    FiscalTemplate.FOUR_WEEK: "P{}",
}
"""Assumed, except for quarters: how a period is called is a display setting of the organization."""


def aggregated(
    fetch: Fetch, combinations: Sequence[Combination], joiner: Joiner
) -> tuple[list[Row], Mapping[str, Column | None]]:
    """Return one row per group, groups in ascending order with null first, and the column behind each alias.

    Without a groupby there is exactly one row. Nulls are absent from rows.

    Raises:
        FetchXmlError: there are more rows than the platform aggregates.
    """
    most = min(MAX_ROWS, fetch.aggregate_limit or MAX_ROWS)
    if len(combinations) > most:
        raise refusal(f"the aggregate reads more than {most} rows", fetch, code="0x8004E023")
    attributes = list(_attributes(fetch))
    grouping = [(one, link) for one, link in attributes if one.groupby]
    groups: dict[tuple[Value, ...], list[Combination]] = {} if grouping else {(): []}
    shown: dict[tuple[Value, ...], list[Value]] = {}
    for combination in combinations:
        values = [
            _group_value(one, _value(one, link, combination, fetch, joiner), _column(one, link, fetch, joiner), joiner)
            for one, link in grouping
        ]
        key = tuple(key_of(value) for value in values)
        shown.setdefault(key, values)
        groups.setdefault(key, []).append(combination)
    rows: list[Row] = []
    for key in sorted(groups, key=lambda parts: [(part is not None, _comparable(part)) for part in parts]):
        row = {one.alias or "": value for (one, _), value in zip(grouping, shown.get(key, []), strict=True)}
        for one, link in attributes:
            if not one.groupby:
                row[one.alias or ""] = _aggregate(one, link, groups[key], fetch, joiner)
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows, {one.alias or "": _shown_column(one, link, fetch, joiner) for one, link in attributes}


def _attributes(fetch: Fetch) -> Iterator[tuple[Attribute, Link | None]]:
    for attribute in fetch.attributes:
        yield attribute, None
    for link in joined_of(fetch.links):
        for attribute in link.attributes:
            yield attribute, link


def _column(attribute: Attribute, link: Link | None, fetch: Fetch, joiner: Joiner) -> Column:
    table = joiner.schema.table(fetch.entity if link is None else link.name)
    return find_column(table, attribute.name) or table.column(attribute.name)


def _value(attribute: Attribute, link: Link | None, combination: Combination, fetch: Fetch, joiner: Joiner) -> Value:
    table = joiner.schema.table(fetch.entity if link is None else link.name)
    return joiner.value(combination.side(link), table, attribute.name, attribute)


def _shown_column(attribute: Attribute, link: Link | None, fetch: Fetch, joiner: Joiner) -> Column | None:
    counts = attribute.aggregate in ("count", "countcolumn") or attribute.dategrouping is not None
    return None if counts else _column(attribute, link, fetch, joiner)


def _comparable(value: Value) -> Any:
    return tuple(sorted(value)) if isinstance(value, frozenset) else value


def _aggregate(
    attribute: Attribute, link: Link | None, group: Sequence[Combination], fetch: Fetch, joiner: Joiner
) -> Value:
    if attribute.aggregate == "count":
        return len(group)
    found = (_value(attribute, link, combination, fetch, joiner) for combination in group)
    values: list[Any] = [value for value in found if not is_empty(value)]
    if attribute.distinct:
        values = list({key_of(value): value for value in values}.values())
    if attribute.aggregate == "countcolumn":
        return len(values)
    if not values:
        return None
    column = _column(attribute, link, fetch, joiner)
    if attribute.aggregate in ("min", "max"):
        extreme: Callable[[Sequence[Any]], Value] = min if attribute.aggregate == "min" else max
        return extreme(values)
    return _mean(values, column, joiner.context) if attribute.aggregate == "avg" else _total(values)


def _total(values: Sequence[Any]) -> Value:
    if any(isinstance(value, float) for value in values):
        return math.fsum(values)
    total = sum(values, start=Decimal(0))
    return total if isinstance(values[0], Decimal) else int(total)


def _mean(values: Sequence[Any], column: Column, context: Context) -> Value:
    if column.type is ColumnType.DOUBLE:
        return math.fsum(values) / len(values)
    if column.type not in (ColumnType.INTEGER, ColumnType.BIGINT):
        exact: Decimal = sum(values, start=Decimal(0)) / len(values)
        return exact
    total, rounds = int(sum(values)), context.integer_avg_rounds
    whole = (abs(total) * 2 + len(values)) // (2 * len(values)) if rounds else abs(total) // len(values)
    return -whole if total < 0 else whole


def _group_value(attribute: Attribute, value: Value, column: Column, joiner: Joiner) -> Value:
    if attribute.dategrouping is None or not isinstance(value, dt.date):
        return None if is_empty(value) else value
    day = _local_day(value, attribute, column, joiner.context)
    return _date_part(attribute.dategrouping, day, joiner.context)


def _local_day(value: dt.date, attribute: Attribute, column: Column, context: Context) -> dt.date:
    if not isinstance(value, dt.datetime):
        return value
    local = column.date_behavior is DateBehavior.USER_LOCAL and attribute.usertimezone
    return (value.astimezone(context.time_zone) if local else value).date()


def _date_part(grouping: str, day: dt.date, context: Context) -> Value:
    """Weeks begin on the week's first day and 1 January lies in week 1. Source: the document's sample output.

    Assumed: fiscal labels say the year's name, also where years are named by their end.
    """
    if grouping == "quarter":
        return (day.month + 2) // 3
    if grouping == "week":
        first = day.replace(month=1, day=1)
        return ((day - first).days + (first.isoweekday() - context.week_start) % 7) // 7 + 1
    if grouping in ("day", "month", "year"):
        return {"day": day.day, "month": day.month, "year": day.year}[grouping]
    year = context.fiscal.year_of(day)
    if grouping == "fiscal-year":
        return f"FY{year}"
    start = context.fiscal.period_from(day)[0]
    numbers = range(1, context.fiscal.periods_per_year + 1)
    number = next((n for n in numbers if (context.fiscal.numbered(year, n) or (None,))[0] == start), len(numbers) + 1)
    return f"{_PERIOD_NAMES[context.fiscal.template].format(number)} FY{year}"
