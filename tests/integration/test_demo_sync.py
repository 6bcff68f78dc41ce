"""The demo organization, synced: every goal as the emulator's native rollup gives it, record by record."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.goals.writes import SkipReason
from d365sync.core.values import Value
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from tests.emulated import NOW, application

DEMO = Path(__file__).parents[2] / "fixtures" / "orgs" / "demo"


def nine(row: Mapping[str, Value]) -> dict[str, Decimal | None]:
    return {name: None if row.get(name) is None else Decimal(str(row[name])) for name in (*VALUE_COLUMNS, "percentage")}


@pytest.fixture(scope="module")
def native() -> Emulator:
    emulator = Emulator.load(DEMO, now=NOW)
    for goal in list(emulator.store.rows("goal").values()):
        if goal.get("parentgoalid") is None:
            recalculate(emulator.store, str(goal["goalid"]), emulator.store.settings, NOW)
    return emulator


def test_the_first_sync_makes_every_goal_what_the_slow_way_gives(tmp_path: Path, native: Emulator) -> None:
    emulator = Emulator.load(DEMO, now=NOW)
    before = {goal_id: nine(row) for goal_id, row in emulator.store.rows("goal").items()}
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert result.outcome == 0
    assert result.rollup.problems == ()
    after = {goal_id: nine(row) for goal_id, row in emulator.store.rows("goal").items()}
    assert after == {goal_id: nine(row) for goal_id, row in native.store.rows("goal").items()}
    assert sum(after[goal_id] != before[goal_id] for goal_id in after) == len(result.plan.writes) == 61
    assert [skip.title for skip in result.plan.skips if skip.reason is SkipReason.OVERRIDDEN] == [
        "Revenue with committed pipeline Q4 2026 - Demo Company"
    ]


def test_closed_goals_hold_what_their_records_give(tmp_path: Path) -> None:
    emulator = Emulator.load(DEMO, now=NOW)
    closed = [goal_id for goal_id, row in emulator.store.rows("goal").items() if row.get("statecode") == 1]
    held = {goal_id: nine(emulator.store.rows("goal")[goal_id]) for goal_id in closed}
    for goal_id in closed:
        emulator.store.change("goal", goal_id, {"statecode": 0, "statuscode": 0})
    with application(emulator, tmp_path) as app:
        totals = app.sync(write=False).rollup.totals
    discarded = {goal_id for goal_id in closed if not any(held[goal_id].values())}
    assert {g: {c: totals[g].totals[c] for c in VALUE_COLUMNS} for g in closed if g not in discarded} == {
        g: {c: held[g][c] for c in VALUE_COLUMNS} for g in closed if g not in discarded
    }


def test_without_changes_a_cycle_is_one_request_a_tracked_table_and_one_for_the_others(tmp_path: Path) -> None:
    emulator = Emulator.load(DEMO, now=NOW)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        counts = app.sync(write=True).counts
    assert (counts["requests"], counts["changed_rows"], counts["recomputed_goals"], counts["planned_goals"]) == (
        8,
        0,
        0,
        0,
    )
