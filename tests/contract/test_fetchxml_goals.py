"""Worked FetchXML cases as rollup queries: a Count goal counts the rows a case expects, by sync and natively.

Taken are the cases whose rows all take part or not (no page, no aggregate) and whose query neither asks who runs it nor
needs a setting: what runs a rollup has no user, and the line reads open points by their defaults. Of the shipped cases
as few are run as have every operator, and those whose fiscal years are named by their end; all of them with
D365SYNC_TEST_EFFORT of 2 or more; of further files every one.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from d365sync.core.fetchxml.ast import Fetch
from d365sync.core.fetchxml.operators import USER_OPERATORS
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.values import Value
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from d365sync.errors import FetchXmlError
from tests.effort import EFFORT
from tests.emulated import application
from tests.fetchcases import CASES, FOLDER, Case, context_of, parametrized, read_cases, reading_of, refused
from tests.fetchorgs import emulator_of, zone_of

_GOAL, _METRIC, _FIELD, _QUERY = (f"77777777-0000-4000-8000-{number:012}" for number in range(1, 5))
_BOOK = (
    *("goal", "metric", "rollupfield", "goalrollupquery"),
    *("systemuser", "team", "organization", "businessunit", "transactioncurrency"),
)
_DATE = "new_countedon"


def suitable(case: Case) -> bool:
    """Say whether a case means the same as a rollup query: which rows take part, whoever asks."""
    if refused(case) or "expected_ids" not in case or reading_of(case) or case.get("status", "ok") != "ok":
        return False
    try:
        fetch: Fetch = parse_fetch(case["fetchxml"])
    except FetchXmlError:
        return False
    shaped = fetch.top is not None or fetch.count is not None or fetch.page is not None or fetch.aggregate
    asks = any(f'"{name}"' in case["fetchxml"] for name in (*USER_OPERATORS, "eq-userlanguage"))
    return not (shaped or asks or case["entity"] in _BOOK)


def _goal_tables(case: Case) -> dict[str, list[dict[str, Any]]]:
    owner = (case.get("settings") or {}).get("user_id")
    names = {"_metricid_value": _METRIC, "_ownerid_value": owner, "_rollupqueryactualintegerid_value": _QUERY}
    return {
        "goals": [
            {
                "goalid": _GOAL,
                "title": "Counted",
                "isfiscalperiodgoal": False,
                "goalstartdate": "2000-01-01T00:00:00Z",
                "goalenddate": "2000-12-31T00:00:00Z",
                "consideronlygoalownersrecords": False,
                **names,
            }
        ],
        "metrics": [{"metricid": _METRIC, "name": "Rows", "isamount": False, "amountdatatype": 2}],
        "rollupfields": [
            {
                "rollupfieldid": _FIELD,
                "_metricid_value": _METRIC,
                "goalattribute": "actualinteger",
                "sourceentity": case["entity"],
                "entityfordateattribute": case["entity"],
                "dateattribute": _DATE,
            }
        ],
        "goalrollupqueries": [
            {
                "goalrollupqueryid": _QUERY,
                "name": "Case",
                "queryentitytype": case["entity"],
                "fetchxml": case["fetchxml"],
                "_ownerid_value": owner,
            }
        ],
    }


_SHIPPED = {case["id"] for case in read_cases([FOLDER / "cases.json", FOLDER / "worked-cases.json"])[0]}


def _named_by_end(case: Case) -> bool:
    return context_of(case).fiscal.named_by == "end"


def _wanted() -> set[str]:
    """The cases run whatever they ask, and as few others as have every operator, by id."""
    cases = [case for case in CASES if suitable(case)]
    operators = {case["id"]: set(case.get("operators", ())) for case in cases}
    wanted = {case["id"] for case in cases if case["id"] not in _SHIPPED or _named_by_end(case)}
    lacking = set().union(*operators.values()) - set().union(*(operators[one] for one in wanted))
    while lacking:
        most = max(operators, key=lambda one: len(operators[one] & lacking))
        wanted.add(most)
        lacking -= operators[most]
    return wanted


_WANTED = _wanted()


def _run(case: Case) -> bool:
    return suitable(case) and (EFFORT >= 2 or case["id"] in _WANTED)


def _org(case: Case, folder: Path) -> Emulator:
    folder.mkdir()
    emulator = emulator_of(case, folder, {_DATE: "datetime:dateonly"}, **_goal_tables(case))
    for row_id in list(emulator.store.rows(case["entity"])):
        emulator.store.change(case["entity"], row_id, {_DATE: dt.date(2000, 6, 1)})
    return emulator


def _synced(emulator: Emulator, case: Case, folder: Path) -> Value:
    now = dt.datetime.fromisoformat(case["now"])
    sections = {"rollup": {"time_zone": str(zone_of(case))}, "fiscal": {"year_named_by": "organization"}}
    with application(emulator, folder, now=now, **sections) as app:
        result = app.sync(write=True)
    assert [problem.message for problem in result.rollup.problems] == []
    return emulator.store.rows("goal")[_GOAL]["actualinteger"]


@parametrized(_run)
def test_a_goal_counts_the_rows_of_the_case(case: Case, tmp_path: Path) -> None:
    emulator = _org(case, tmp_path / "org")
    expected = len(set(case["expected_ids"]))
    assert _synced(emulator, case, tmp_path) == expected
    emulator.store.change("goal", _GOAL, {"isoverridden": False, "actualinteger": -1})
    recalculate(emulator.store, _GOAL, emulator.store.settings, dt.datetime.fromisoformat(case["now"]))
    assert emulator.store.rows("goal")[_GOAL]["actualinteger"] == expected


def _key(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


@pytest.mark.parametrize(
    ("condition", "changes"),
    [
        (f'attribute="new_itemid" operator="under" value="{_key(1)}"', {"new_parentid": None}),
        ('attribute="new_parentidname" operator="eq" value="middle"', {"new_name": "moved"}),
    ],
)
def test_a_change_of_a_row_that_does_not_count_moves_those_that_it_stands_above(
    condition: str, changes: dict[str, Value], tmp_path: Path
) -> None:
    names = {1: ("top", None), 2: ("middle", _key(1)), 3: ("leaf", _key(2))}
    leaf = '<condition attribute="new_name" operator="eq" value="leaf"/>'
    case: Case = {
        "id": "moved",
        "entity": "new_item",
        "fetchxml": f'<fetch><entity name="new_item"><filter>{leaf}<condition {condition}/></filter></entity></fetch>',
        "now": "2024-05-15T10:30:45+00:00",
        "settings": {"user_id": "00000000-0000-4000-8000-0000000000a1"},
        "rows": [{"new_itemid": _key(n), "new_name": name, "new_parentid": up} for n, (name, up) in names.items()],
        "schema": {
            "new_item": {
                "primary_key": "new_itemid",
                "primary_name": "new_name",
                "hierarchy_parent": "new_parentid",
                "columns": {"new_itemid": "uniqueidentifier", "new_name": "string", "new_parentid": "lookup:new_item"},
            }
        },
    }
    emulator = _org(case, tmp_path / "org")
    assert _synced(emulator, case, tmp_path) == 1
    emulator.store.change("new_item", _key(2), changes)
    assert _synced(emulator, case, tmp_path) == 0


def test_many_cases_are_suitable() -> None:
    assert sum(map(suitable, CASES)) > 150


def test_some_suitable_cases_name_fiscal_years_by_their_end() -> None:
    assert sum(_named_by_end(case) for case in CASES if suitable(case)) >= 4


@pytest.mark.parametrize("wanted", ["under", "between", "last-x-days", "any", "outer", "contain-values", "like"])
def test_suitable_cases_have_every_family(wanted: str) -> None:
    assert any(wanted in case.get("operators", ()) for case in CASES if suitable(case))
