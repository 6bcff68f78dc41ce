"""Worked FetchXML cases: reading case files, and what a case is as schema, rows and context.

A case file is a JSON list in the format of ``fixtures/fetchxml/cases.json``. Further files are named by
D365SYNC_FETCHXML_CASES (paths joined by ':'). A refused case may say the platform's error code, as ``expected_code``
or in its note.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.context import Context
from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.core.schema import LOOKUP_TYPES, Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.storage import ACCENT_FUNCTION, without_accents
from d365sync.core.values import Row, Value, parse_instant
from d365sync.emulator.schema.loader import shipped_specs
from d365sync.mirror.tables import Dialect, MirrorTable

Case = Mapping[str, Any]

FOLDER = Path(__file__).parents[1] / "fixtures" / "fetchxml"
VARIABLE = "D365SYNC_FETCHXML_CASES"
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
TEMPLATES = {
    "annually": FiscalTemplate.ANNUAL,
    "semiannually": FiscalTemplate.SEMIANNUAL,
    "quarterly": FiscalTemplate.QUARTERLY,
    "monthly": FiscalTemplate.MONTHLY,
    "fourweekly": FiscalTemplate.FOUR_WEEK,
}
_NOTED = re.compile(r"Platform error (0x[0-9A-Fa-f]{8})")
_BEHAVIORS = {behavior.value.lower(): behavior for behavior in DateBehavior}
_TARGETS = {ColumnType.CUSTOMER: ("account", "contact"), ColumnType.OWNER: ("systemuser", "team")}

READINGS: Mapping[str, Mapping[str, Any]] = {
    "f4d-not-under-B": {"not_under_keeps_anchor": False},
    "gr-next-week-monday": {},
    "gr-next-x-hours": {"next_x_hours_whole": False},
    "s4c-not-under": {"not_under_keeps_anchor": False},
    "s4c-range-next-x-hours": {},
    "tg-all-doe": {"all_means_every": True},
    "tg-all-john": {"all_means_every": True},
    "tg-between-end-of-day": {"between_to_end_of_day": True},
    "tg-notall-doe": {"all_means_every": True},
    "tg-notall-john": {"all_means_every": True},
    "xm-link-ne-null": {"ne_keeps_null": False},
    "xm-ne-null": {"ne_keeps_null": False},
    "xm-not-begin-with-null": {"not_begin_keeps_null": False},
    "xm-not-in-null": {},
}
"""The settings under which a case that sources dispute holds; empty are those that the defaults follow."""


@dataclass(frozen=True)
class Fault:
    """A case file that cannot be read."""

    file: str
    reason: str


def case_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the files of the project, then those that the environment names."""
    further = [Path(name) for name in environ.get(VARIABLE, "").split(":") if name]
    return [
        FOLDER / "cases.json",
        FOLDER / "own-cases.json",
        FOLDER / "review-cases.json",
        FOLDER / "worked-cases.json",
        *further,
    ]


def read_cases(files: Iterable[Path]) -> tuple[list[Case], list[Fault]]:
    """Return the cases of all files, and the files or entries that are none."""
    cases: list[Case] = []
    faults: list[Fault] = []
    for file in files:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            faults.append(Fault(file.name, str(error)))
            continue
        for at, case in enumerate(found if isinstance(found, list) else [found]):
            missing = _missing(case)
            if missing:
                faults.append(Fault(file.name, f"entry {at} has no {', '.join(missing)}"))
            else:
                cases.append(case)
    return cases, faults


def _missing(case: Any) -> list[str]:
    needed = ("id", "entity", "fetchxml", "now", "rows", "schema")
    return [name for name in needed if not isinstance(case, dict) or name not in case]


CASES, _ = read_cases(case_files())


def parametrized(keep: Callable[[Case], bool] = lambda _case: True) -> pytest.MarkDecorator:
    """Make a test run once for each case kept, under the case's id."""
    kept = [case for case in CASES if keep(case)]
    return pytest.mark.parametrize("case", kept, ids=[str(case["id"]) for case in kept])


def refused(case: Case) -> bool:
    """Say whether the case expects a refusal."""
    return bool(case.get("expected_error"))


def code_of(case: Case) -> str:
    """Return the error code that a refused case expects, empty where no document gives one for its fault."""
    noted = _NOTED.search(case.get("note") or "")
    return str(case.get("expected_code") or (noted[1] if noted else "")).lower()


def column_of(name: str, spelled: str, key: str) -> Column:
    """Make a column from its spelling in a case: ``datetime:dateonly``, ``lookup:account``."""
    kind, _, detail = spelled.partition(":")
    column_type = ColumnType(kind)
    return Column(
        name,
        column_type,
        date_behavior=_BEHAVIORS[detail or "userlocal"] if column_type is ColumnType.DATETIME else None,
        precision={ColumnType.MONEY: 4, ColumnType.DECIMAL: 5}.get(column_type),
        targets=tuple(detail.split(",")) if column_type in LOOKUP_TYPES and detail else _TARGETS.get(column_type, ()),
        is_primary_id=name == key,
    )


def schema_of(case: Case) -> Schema:
    """Return the tables of a case."""
    return Schema.of(_table(name, table) for name, table in case["schema"].items())


def _known_type(spelled: str) -> bool:
    """Whether columns of a type can be queried at all; files, images and party lists cannot."""
    return spelled.partition(":")[0] in set(ColumnType)


def _table(name: str, table: Mapping[str, Any]) -> Table:
    key, primary_name = table["primary_key"], table.get("primary_name")
    columns = {name: column_of(name, kind, key) for name, kind in table["columns"].items() if _known_type(kind)}
    kinds = {column.type_name for column in columns.values() if column.is_polymorphic}
    shipped = shipped_specs().get(name)
    return Table(
        logical_name=name,
        entity_set_name=f"{name}s",
        primary_id=key,
        primary_name=primary_name if primary_name in columns else None,
        columns={name: column for name, column in columns.items() if name not in kinds},
        hierarchy_parent=table.get("hierarchy_parent"),
        object_type_code=table.get("object_type_code", shipped.object_type_code if shipped else None),
    )


def tables_of(case: Case, schema: Schema) -> dict[str, list[Row]]:
    """Return the rows of a case by table, typed; columns that the schema does not have are passed over."""
    raw = {case["entity"]: case["rows"], **(case.get("related") or {})}
    return {
        name: [_row(schema.tables[name], row) for row in rows] for name, rows in raw.items() if name in schema.tables
    }


def _row(table: Table, raw: Mapping[str, Any]) -> Row:
    kinds = {column.type_name for column in table.columns.values() if column.is_polymorphic}
    row = {name: _value(table.columns[name], value) for name, value in raw.items() if name in table.columns}
    return row | {name: value for name, value in raw.items() if name in kinds and name not in table.columns}


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
    value: Value = bool(raw) if column.type is ColumnType.BOOLEAN else raw
    return value


def context_of(case: Case, **settings: Any) -> Context:
    """Return who asks and when."""
    given = case.get("settings") or {}
    month, day = given.get("fiscal_year_start", "01-01").split("-")
    template = TEMPLATES[given.get("fiscal_period", "quarterly")]
    labels = given.get("option_labels") or {}
    return Context(
        now=dt.datetime.fromisoformat(case["now"]),
        time_zone=ZoneInfo(given.get("timezone", "UTC")),
        week_start=DAYS.index(given.get("week_start", "sunday")),
        fiscal=FiscalCalendar(int(month), int(day), template, named_by=given.get("fiscal_year_named_by", "start")),
        user_id=given.get("user_id"),
        business_unit_id=given.get("business_unit_id"),
        user_team_ids=tuple(given.get("user_team_ids") or ()),
        user_language=given.get("user_language"),
        user_hierarchy={k: tuple(v) for k, v in (given.get("user_hierarchy") or {}).items()},
        team_members={k: tuple(v) for k, v in (given.get("team_members") or {}).items()},
        option_labels={column: {int(k): v for k, v in named.items()} for column, named in labels.items()},
        **settings,
    )


def reading_of(case: Case) -> Mapping[str, Any]:
    """Return the settings a case is read under: its own ``reading``, or the one its id has above."""
    return {**READINGS.get(case["id"], {}), **(case.get("reading") or {})}


def asserted(case: Case, holds: bool, told: object) -> None:
    """Fail when a case does not hold; a dispute that no setting is known to cover is reported as expected."""
    unsettled = case.get("status", "ok") != "ok" and case["id"] not in READINGS and "reading" not in case
    if not holds and unsettled:
        pytest.xfail(f"the sources disagree and no setting is known to cover the case: {told}")
    assert holds, told


def sqlite_in_memory() -> sqlite3.Connection:
    """Return an empty database that knows what the mirror's databases know."""
    database = sqlite3.connect(":memory:")
    database.create_function(ACCENT_FUNCTION, 1, lambda text: text and without_accents(text), deterministic=True)
    return database


def load(
    execute: Callable[[str, Any], object], schema: Schema, tables: Mapping[str, Sequence[Row]], dialect: Dialect
) -> None:
    """Make the mirror's own tables and fill them; ``execute`` takes statements of the driver."""
    for table in schema.tables.values():
        mirrored = MirrorTable(table, frozenset(table.columns))
        for statement in mirrored.create(dialect)[:1]:
            execute(statement, ())
        for row in tables.get(table.logical_name, ()):
            execute(mirrored.append(dialect, 0), mirrored.rows.stored(row))


def shown(value: Any) -> Any:
    """Return a value in the spelling that expected rows have; numbers compare exactly."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return Decimal(str(value))
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    return sorted(value) if isinstance(value, frozenset) else value


def same_rows(case: Case, found: Iterable[Mapping[str, Any]]) -> tuple[bool, object]:
    """Say whether rows are the expected ones, looking only at the columns those name; nulls may be absent."""
    names = {name for row in case["expected_rows"] for name in row}
    expected, got = (
        [{k: shown(v) for k, v in row.items() if v is not None and k in names} for row in rows]
        for rows in (case["expected_rows"], found)
    )
    if not case.get("ordered"):
        expected, got = (sorted(rows, key=lambda row: repr(sorted(row.items()))) for rows in (expected, got))
    return expected == got, f"expected {expected}, got {got}"


def same_ids(case: Case, found: Sequence[str]) -> tuple[bool, object]:
    """Say whether ids are the expected ones, in order where order matters."""
    expected = list(case["expected_ids"])
    same = found == expected if case.get("ordered") else sorted(found) == sorted(expected)
    return same, f"expected {expected}, got {found}"
