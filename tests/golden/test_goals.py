"""Every case of fixtures/goals, computed by d365sync and by the emulator's own native rollup."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from d365sync.core.values import Value
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.native import recalculate
from tests.emulated import NOW, application, goal_values
from tests.golden.casebook import Case, made_id, read_cases, write_org

CASES = read_cases(Path(__file__).parents[2] / "fixtures" / "goals")


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def emulator(case: Case, tmp_path: Path) -> Emulator:
    write_org(case, tmp_path / "org")
    return Emulator.load(tmp_path / "org", now=NOW, settings=EmulatorSettings(rollup_time_zone=case.zone))


def check(case: Case, held: dict[str, dict[str, Value]]) -> None:
    for title, columns in case.expected.items():
        found = {column: held[title][column] for column in columns}
        assert {c: None if v is None else Decimal(str(v)) for c, v in found.items()} == columns, title


def test_there_are_cases() -> None:
    assert len(CASES) >= 11


def test_sync_writes_the_expected_numbers(case: Case, emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path, rollup={"time_zone": case.zone.key}) as app:
        assert app.sync(write=True).outcome == 0
    check(case, goal_values(emulator))


def test_the_native_rollup_gives_the_same(case: Case, emulator: Emulator) -> None:
    for row in case.tables["Goals"]:
        if not row.get("parent"):
            recalculate(emulator.store, made_id("goal", row["goal"]), emulator.store.settings, NOW)
    check(case, goal_values(emulator))
