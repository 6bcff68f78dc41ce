"""Worked FetchXML cases, answered by the evaluator and by the compiled SQL: both must give what the case says.

Further case files are read from D365SYNC_FETCHXML_CASES (paths joined by ':').
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.compile import compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate, evaluate_result
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.core.schema import LOOKUP_TYPES, Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.storage import FOLD_SUFFIX, encode, fold, has_fold, stored_as
from d365sync.core.values import Row, Value, parse_instant
from d365sync.errors import FetchXmlError

Case = Mapping[str, Any]

_OWN = Path(__file__).parents[2] / "fixtures" / "fetchxml" / "cases.json"
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_TEMPLATES = {
    "annually": FiscalTemplate.ANNUAL,
    "semiannually": FiscalTemplate.SEMIANNUAL,
    "quarterly": FiscalTemplate.QUARTERLY,
    "monthly": FiscalTemplate.MONTHLY,
    "fourweekly": FiscalTemplate.FOUR_WEEK,
}
_BEHAVIORS = {behavior.value.lower(): behavior for behavior in DateBehavior}

# What sources dispute: the settings under which a case's own reading holds, or why it is not followed.
_READINGS: dict[str, dict[str, Any]] = {
    "gr-next-week-monday": {},
    "gr-next-x-hours": {"next_x_hours_whole": False},
    "s4c-range-next-x-hours": {},
    "xm-not-begin-with-null": {"not_begin_keeps_null": False},
    "xm-not-in-null": {},
}
# What is not followed under any setting: the reason, and the rows (by the last digit of the key) that take part here.
_NOT_FOLLOWED = {
    "f4d-not-under-B": ("a live organization keeps the row itself in not-under", "1236"),
    "s4c-not-under": ("a live organization keeps the row itself in not-under", "1236"),
    "tg-all-doe": ("Microsoft's document: linked rows, none of which passes", "24"),
    "tg-all-john": ("Microsoft's document: linked rows, none of which passes", ""),
    "tg-notall-doe": ("Microsoft's document: the same as any", "1"),
    "tg-notall-john": ("Microsoft's document: the same as any", "124"),
    "tg-between-end-of-day": ("between compares instants; a date without time is its midnight", "1"),
    "xm-link-ne-null": ("ne keeps rows whose column is empty", "12"),
    "xm-ne-null": ("ne keeps rows whose column is empty", "1234"),
}


def _cases() -> list[Case]:
    further = os.environ.get("D365SYNC_FETCHXML_CASES", "")
    files = [_OWN, *(Path(name) for name in further.split(":") if name)]
    return [case for file in files for case in json.loads(file.read_text(encoding="utf-8"))]


_CASES = _cases()


def _parametrize(cases: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


def _column(name: str, spelled: str, key: str) -> Column:
    kind, _, detail = spelled.partition(":")
    column_type = ColumnType(kind)
    return Column(
        name,
        column_type,
        date_behavior=_BEHAVIORS[detail or "userlocal"] if column_type is ColumnType.DATETIME else None,
        precision=4 if column_type in (ColumnType.MONEY, ColumnType.DECIMAL) else None,
        targets=tuple(detail.split(",")) if column_type in LOOKUP_TYPES and detail else (),
        is_primary_id=name == key,
    )


def _schema(case: Case) -> Schema:
    return Schema.of(
        Table(
            logical_name=name,
            entity_set_name=f"{name}s",
            primary_id=table["primary_key"],
            primary_name=table.get("primary_name"),
            columns={column: _column(column, kind, table["primary_key"]) for column, kind in table["columns"].items()},
            hierarchy_parent=table.get("hierarchy_parent"),
            object_type_code=table.get("object_type_code"),
        )
        for name, table in case["schema"].items()
    )


def _value(column: Column, raw: Any) -> Value:
    if raw is None:
        return None
    if column.type in (ColumnType.MONEY, ColumnType.DECIMAL):
        return Decimal(str(raw))
    if column.type is ColumnType.DOUBLE:
        return float(raw)
    if column.type is ColumnType.MULTISELECT:
        return frozenset(raw)
    if column.type is ColumnType.DATETIME:
        return dt.date.fromisoformat(raw) if column.date_behavior is DateBehavior.DATE_ONLY else parse_instant(raw)
    value: Value = raw
    return value


def _tables(case: Case, schema: Schema) -> dict[str, list[Row]]:
    raw = {case["entity"]: case["rows"], **(case.get("related") or {})}
    tables: dict[str, list[Row]] = {}
    for name, rows in raw.items():
        columns = schema.table(name).columns
        tables[name] = [{k: _value(columns[k], v) for k, v in row.items() if k in columns} for row in rows]
    return tables


def _context(case: Case, **settings: Any) -> Context:
    given = case["settings"]
    month, day = given["fiscal_year_start"].split("-")
    labels = given.get("option_labels", {})
    return Context(
        now=dt.datetime.fromisoformat(case["now"]),
        time_zone=ZoneInfo(given["timezone"]),
        week_start=_DAYS.index(given["week_start"]),
        fiscal=FiscalCalendar(
            int(month), int(day), _TEMPLATES[given["fiscal_period"]], named_by=given["fiscal_year_named_by"]
        ),
        user_id=given["user_id"],
        business_unit_id=given["business_unit_id"],
        user_team_ids=tuple(given["user_team_ids"]),
        user_language=given["user_language"],
        user_hierarchy={k: tuple(v) for k, v in given.get("user_hierarchy", {}).items()},
        team_members={k: tuple(v) for k, v in given.get("team_members", {}).items()},
        option_labels={column: {int(k): v for k, v in named.items()} for column, named in labels.items()},
        **settings,
    )


def _mirror(schema: Schema, tables: Mapping[str, Sequence[Row]]) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    for table in schema.tables.values():
        columns = list(table.columns.values())
        shadows = [column for column in columns if has_fold(column)]
        names = [c.logical_name for c in columns] + [c.logical_name + FOLD_SUFFIX for c in shadows]
        types = [stored_as(c).value for c in columns] + ["TEXT"] * len(shadows)
        spelled = ", ".join(f'"{name}" {kind}' for name, kind in zip(names, types, strict=True))
        database.execute(f'CREATE TABLE "{table.logical_name}" ({spelled})')
        for row in tables.get(table.logical_name, ()):
            stored = [encode(c, row.get(c.logical_name)) for c in columns]
            stored += [None if (text := row.get(c.logical_name)) is None else fold(str(text)) for c in shadows]
            marks = ", ".join("?" * len(stored))
            database.execute(f'INSERT INTO "{table.logical_name}" VALUES ({marks})', stored)
    return database


def _evaluated(case: Case, context: Context) -> set[Value]:
    schema = _schema(case)
    key = schema.table(case["entity"]).primary_id
    return {row[key] for row in evaluate(parse_fetch(case["fetchxml"]), _tables(case, schema), schema, context)}


def _compiled(case: Case, context: Context) -> set[Value]:
    schema = _schema(case)
    predicate = compile_predicate(parse_fetch(case["fetchxml"]), schema, context, alias="r", dialect="sqlite")
    key = schema.table(case["entity"]).primary_id
    statement = f'SELECT r."{key}" FROM "{case["entity"]}" AS r WHERE {predicate.sql}'
    database = _mirror(schema, _tables(case, schema))
    try:
        return {row[0] for row in database.execute(statement, dict(predicate.parameters))}
    finally:
        database.close()


def _settings(case: Case) -> dict[str, Any]:
    """The settings a disputed case is read under; a dispute nobody has weighed is not asserted."""
    if case["status"] != "ok" and case["id"] not in _READINGS | _NOT_FOLLOWED:
        pytest.skip("the sources disagree and no setting covers the case")
    return _READINGS.get(case["id"], {})


def _expected_ids(case: Case) -> list[str]:
    if case["id"] in _NOT_FOLLOWED:
        return [f"00000000-0000-4000-8000-{int(digit):012}" for digit in _NOT_FOLLOWED[case["id"]][1]]
    ids: list[str] = case["expected_ids"]
    return ids


def _pages(case: Case) -> bool:
    """Whether the expected ids are a page of the rows that take part, and not all of them."""
    fetch = parse_fetch(case["fetchxml"])
    return fetch.top is not None or fetch.count is not None or fetch.aggregate


@_parametrize([case for case in _CASES if "expected_ids" in case and not _pages(case)])
@pytest.mark.parametrize("answer", [_evaluated, _compiled], ids=["evaluated", "compiled"])
def test_the_rows_that_take_part(case: Case, answer: Any) -> None:
    assert answer(case, _context(case, **_settings(case))) == set(_expected_ids(case))


@_parametrize([case for case in _CASES if case.get("expected_error")])
@pytest.mark.parametrize("answer", [_evaluated, _compiled], ids=["evaluated", "compiled"])
def test_the_queries_that_are_refused(case: Case, answer: Any) -> None:
    with pytest.raises(FetchXmlError):
        answer(case, _context(case))


@_parametrize([case for case in _CASES if "expected_ids" in case])
def test_the_ids_of_the_result(case: Case) -> None:
    schema = _schema(case)
    key = schema.table(case["entity"]).primary_id
    context = _context(case, **_settings(case))
    result = evaluate_result(parse_fetch(case["fetchxml"]), _tables(case, schema), schema, context)
    found = [str(row[key]) for row in result.rows]
    expected = _expected_ids(case)
    assert found == expected if case.get("ordered") else sorted(found) == sorted(expected)


@_parametrize([case for case in _CASES if "expected_rows" in case])
def test_the_rows_of_the_result(case: Case) -> None:
    schema = _schema(case)
    result = evaluate_result(parse_fetch(case["fetchxml"]), _tables(case, schema), schema, _context(case))
    expected = [{k: v for k, v in row.items() if v is not None} for row in case["expected_rows"]]
    selected = {name for row in case["expected_rows"] for name in row}
    found = [{k: v for k, v in row.items() if k in selected} for row in result.rows]
    if not case.get("ordered"):
        expected, found = ([dict(sorted(row.items())) for row in rows] for rows in (expected, found))
        expected, found = sorted(expected, key=repr), sorted(found, key=repr)
    assert found == expected


@_parametrize([case for case in _CASES if "expected_count" in case])
def test_the_number_of_rows_of_the_result(case: Case) -> None:
    schema = _schema(case)
    result = evaluate_result(parse_fetch(case["fetchxml"]), _tables(case, schema), schema, _context(case))
    assert len(result.rows) == case["expected_count"]


def test_every_dispute_has_a_position() -> None:
    own = json.loads(_OWN.read_text(encoding="utf-8"))
    disputed = {case["id"] for case in own if case["status"] != "ok"}
    assert disputed == set(_READINGS) | set(_NOT_FOLLOWED)
