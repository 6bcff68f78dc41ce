"""Worked FetchXML cases, answered by the evaluator and by the compiled SQL: both must give what the case says.

Further case files are read from D365SYNC_FETCHXML_CASES (paths joined by ':').
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from d365sync.core.fetchxml.ast import Fetch
from d365sync.core.fetchxml.compile import compile_predicate
from d365sync.core.fetchxml.evaluate import evaluate, evaluate_result
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.fetchxml.result import Result
from d365sync.core.values import Value
from d365sync.errors import FetchXmlError
from tests.fetchcases import (
    CASES,
    FOLDER,
    READINGS,
    VARIABLE,
    Case,
    asserted,
    case_files,
    code_of,
    context_of,
    load,
    parametrized,
    read_cases,
    reading_of,
    refused,
    same_ids,
    same_rows,
    schema_of,
    sqlite_in_memory,
    tables_of,
)


def _evaluated(case: Case, **settings: Any) -> set[Value]:
    schema = schema_of(case)
    context = context_of(case, **settings)
    rows = evaluate(parse_fetch(case["fetchxml"]), tables_of(case, schema), schema, context)
    return {row[schema.table(case["entity"]).primary_id] for row in rows}


def _compiled(case: Case, **settings: Any) -> set[Value]:
    schema = schema_of(case)
    context = context_of(case, **settings)
    predicate = compile_predicate(parse_fetch(case["fetchxml"]), schema, context, alias="r", dialect="sqlite")
    database = sqlite_in_memory()
    try:
        load(database.execute, schema, tables_of(case, schema), "sqlite")
        return {row[0] for row in database.execute(_statement(case, predicate.sql), dict(predicate.parameters))}
    finally:
        database.close()


def _statement(case: Case, predicate: str) -> str:
    return (
        f'SELECT r."{schema_of(case).table(case["entity"]).primary_id}" FROM "{case["entity"]}" AS r WHERE {predicate}'
    )


def _result(case: Case) -> Result:
    schema = schema_of(case)
    context = context_of(case, **reading_of(case))
    return evaluate_result(parse_fetch(case["fetchxml"]), tables_of(case, schema), schema, context)


def _all_returned(case: Case) -> bool:
    """Whether the expected ids are all rows that take part, and not one page or some groups of them."""
    if refused(case) or "expected_ids" not in case:
        return False
    fetch: Fetch = parse_fetch(case["fetchxml"])
    return fetch.top is None and fetch.count is None and fetch.page is None and not fetch.aggregate


_READINGS = pytest.mark.parametrize("answer", [_evaluated, _compiled], ids=["evaluated", "compiled"])


@pytest.mark.parametrize("file", case_files(), ids=[file.name for file in case_files()])
def test_every_case_file_can_be_read(file: Path) -> None:
    assert read_cases([file])[1] == []


@parametrized(lambda case: not refused(case))
@_READINGS
def test_the_rows_that_take_part(case: Case, answer: Any) -> None:
    found = answer(case, **reading_of(case))
    if not _all_returned(case):
        assert found == _evaluated(case, **reading_of(case))
        return
    expected = set(case["expected_ids"])
    asserted(case, found == expected, f"expected {sorted(expected)}, got {sorted(found)}")


@pytest.fixture(scope="module")
def postgresql(postgresql_server: str) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(postgresql_server, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.mark.postgresql
@parametrized(lambda case: not refused(case))
def test_the_rows_that_take_part_on_postgresql(case: Case, postgresql: sqlalchemy.Connection) -> None:
    schema = schema_of(case)
    context = context_of(case, **reading_of(case))
    predicate = compile_predicate(parse_fetch(case["fetchxml"]), schema, context, alias="r", dialect="postgresql")
    try:
        postgresql.exec_driver_sql("CREATE SCHEMA fetchxml_cases")  # rolled back with everything else
        postgresql.exec_driver_sql("SET LOCAL search_path TO fetchxml_cases")
        load(
            lambda sql, row: postgresql.exec_driver_sql(sql, tuple(row)), schema, tables_of(case, schema), "postgresql"
        )
        rows = postgresql.execute(sqlalchemy.text(_statement(case, predicate.sql)), dict(predicate.parameters))
        assert {row[0] for row in rows} == _evaluated(case, **reading_of(case))
    finally:
        postgresql.rollback()


@parametrized(refused)
def test_the_queries_that_are_refused(case: Case) -> None:
    answer = _outcome(_result, case)
    asserted(case, isinstance(answer, FetchXmlError) and answer.path.startswith("/"), f"answered with {answer}")


@parametrized(lambda case: bool(code_of(case)))
def test_a_refusal_has_the_code_of_the_platform(case: Case) -> None:
    answer = _outcome(_result, case)
    assert isinstance(answer, FetchXmlError)
    assert answer.code.lower() == code_of(case)


def test_only_refused_cases_have_a_code_and_most_of_them_do() -> None:
    coded = [case for case in CASES if code_of(case)]
    assert all(map(refused, coded))
    assert len(coded) > 35


@parametrized(refused)
def test_both_readings_refuse_alike(case: Case) -> None:
    one, other = (_outcome(answer, case, **reading_of(case)) for answer in (_evaluated, _compiled))
    assert str(one) == str(other) if isinstance(one, FetchXmlError) else one == other


def _outcome(answer: Callable[..., object], case: Case, **settings: Any) -> object:
    try:
        return answer(case, **settings)
    except FetchXmlError as error:
        return error


@parametrized(lambda case: "expected_ids" in case and not refused(case))
def test_the_ids_of_the_result(case: Case) -> None:
    key = schema_of(case).table(case["entity"]).primary_id
    asserted(case, *same_ids(case, [str(row[key]) for row in _result(case).rows]))


@parametrized(lambda case: "expected_rows" in case and not refused(case))
def test_the_rows_of_the_result(case: Case) -> None:
    asserted(case, *same_rows(case, _result(case).rows))


@parametrized(lambda case: "expected_count" in case and not refused(case))
def test_the_number_of_rows_of_the_result(case: Case) -> None:
    found = len(_result(case).rows)
    asserted(case, found == case["expected_count"], f"expected {case['expected_count']} rows, got {found}")


def test_every_dispute_of_our_own_has_a_reading() -> None:
    own = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))
    assert {case["id"] for case in own if case["status"] != "ok"} == set(READINGS)


def test_every_case_expects_something() -> None:
    silent = [case["id"] for case in CASES if not any(name.startswith("expected_") for name in case)]
    assert not silent


_FURTHER: list[dict[str, Any]] = [
    {"id": "right", "expected_ids": ["00000000-0000-4000-8000-000000000001"]},
    {"id": "wrong", "expected_ids": []},
    {"id": "disputed-wrong", "status": "disputed", "expected_ids": []},
    {"id": "count-wrong", "expected_count": 2},
    {"id": "rows-wrong", "expected_rows": [{"new_name": "b"}]},
    {"id": "refused-wrong", "expected_error": True},
    {"id": "without-rows"},
]


def test_further_files_are_run_case_by_case_and_a_file_that_is_none_fails_alone(tmp_path: Path) -> None:
    shape = {
        "entity": "new_item",
        "fetchxml": '<fetch><entity name="new_item"><attribute name="new_name"/></entity></fetch>',
        "now": "2024-05-15T10:30:45+00:00",
        "rows": [{"new_itemid": "00000000-0000-4000-8000-000000000001", "new_name": "a"}],
        "schema": {
            "new_item": {
                "primary_key": "new_itemid",
                "columns": {"new_itemid": "uniqueidentifier", "new_name": "string"},
            }
        },
    }
    cases = [shape | one for one in _FURTHER]
    del cases[-1]["rows"]
    (tmp_path / "more.json").write_text(json.dumps(cases))
    (tmp_path / "broken.json").write_text("{")
    files = ":".join(str(tmp_path / name) for name in ("more.json", "broken.json", "missing.json"))
    names = "right or wrong or case_file"
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", __file__, "-k", f"({names}) and not postgresql"]
    run = subprocess.run(asked, env={**os.environ, VARIABLE: files}, capture_output=True, text=True, check=False)
    lines = {line.partition(" - ")[0].strip() for line in run.stdout.splitlines()}
    for failed in (
        "case_file_can_be_read[broken.json]",
        "case_file_can_be_read[missing.json]",
        "case_file_can_be_read[more.json]",
        "rows_that_take_part[evaluated-wrong]",
        "rows_that_take_part[compiled-wrong]",
        "ids_of_the_result[wrong]",
        "number_of_rows_of_the_result[count-wrong]",
        "rows_of_the_result[rows-wrong]",
        "queries_that_are_refused[refused-wrong]",
    ):
        assert any(line.startswith("FAILED") and line.endswith(failed) for line in lines), (failed, run.stdout)
    assert any(line.startswith("XFAIL") and line.endswith("ids_of_the_result[disputed-wrong]") for line in lines)
    assert not any(line.endswith(("[right]", "-right]")) for line in lines)
