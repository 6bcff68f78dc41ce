"""Mode columns: our numbers go into the organization's own columns; the native ones and both flags stay as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from d365sync.app import App, opened
from d365sync.cli.sync import plan_document
from d365sync.core.goals.savedplan import SavedPlan, read_saved_plan
from d365sync.core.goals.writes import SkipReason, WritePlan
from d365sync.core.values import Value
from d365sync.dataverse.wire import decode_json
from d365sync.doctor.check import Verdict
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.native import recalculate
from d365sync.errors import ConfigError, GuardError
from d365sync.sync.commanded import apply_saved, undo
from d365sync.sync.cycle import Outcome
from d365sync.sync.documents import json_text
from d365sync.sync.offline import computed, mirrored
from tests.emulated import NOW, configuration, goal_values
from tests.examined import examined
from tests.golden.casebook import made_id
from tests.integration.test_line import ANN, BOB, COMPANY, change, load, skips
from tests.parts import GoalBatches, Parts, batching

COLUMNS = {
    "new_actual": "money",
    "new_exact": "decimal:4",
    "new_percent": "integer",
    "new_computed": "datetime:userlocal",
    "new_coarse": "decimal:2",
    "new_float": "double",
    "new_day": "datetime:dateonly",
    "new_fixed": {"type": "money", "access": "r"},
}
OWN = {"actualmoney": "new_actual", "percentage": "new_percent", "lastrolledupdate": "new_computed"}
RIGHT = {"Ann": Decimal("100.25"), "Bob": Decimal("200.5"), "Company": Decimal("305.0001")}


def own_org(folder: Path, columns: Mapping[str, object] = COLUMNS) -> Emulator:
    (folder / "org").mkdir(exist_ok=True)
    (folder / "org" / "schema.json").write_text(json.dumps({"goal": {"columns": columns}}))
    return load(folder)


def mode(columns: Mapping[str, str] = OWN) -> dict[str, Any]:
    return {"mode": "columns", "columns": dict(columns)}


@contextmanager
def line(
    emulator: Emulator, folder: Path, columns: Mapping[str, str] = OWN, on_plan: Any = None, **writeback: Any
) -> Iterator[App]:
    config = configuration(emulator, folder, writeback=mode(columns) | writeback)
    options = {"line_options": {"on_plan": on_plan}} if on_plan else {}
    with opened(config, clock=lambda: NOW, environ={}, session=emulator.session(), **options) as app:
        yield app


def held(emulator: Emulator, name: str = "new_actual") -> dict[str, Value]:
    return {str(row["title"]): row.get(name) for row in emulator.store.rows("goal").values()}


def deal(emulator: Emulator, amount: int) -> None:
    money = Decimal(amount)
    emulator.store.change("opportunity", made_id("deal", "1"), {"actualvalue": money, "actualvalue_base": money})


def test_our_columns_are_written_and_nothing_else(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    native = goal_values(emulator)
    parts = Parts(emulator.app)
    with batching(parts, emulator, tmp_path, writeback=mode()) as app:
        app.sync(write=False)
        idle = app.sync(write=False).counts["requests"]
        result = app.sync(write=True)
        assert (result.outcome, result.counts["requests"]) == (Outcome.OK, idle + 1)
        assert app.sync(write=True).counts["requests"] == idle, "what is there is not sent again"
        assert computed(app.line, mirrored(app.line, NOW))[1].is_empty
    assert {title: held(emulator)[title] for title in RIGHT} == RIGHT
    assert held(emulator, "new_percent")["Ann"] == 33
    assert set(held(emulator, "new_computed").values()) == {NOW}
    assert goal_values(emulator) == native
    assert not any(row.get("isoverridden") or row.get("isoverride") for row in emulator.store.rows("goal").values())


def test_only_the_column_that_differs_is_sent(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    with line(emulator, tmp_path) as app:
        app.sync(write=True)
        deal(emulator, 101)
        (write, *_) = app.sync(write=True).plan.writes
        assert [one.column for one in write.changes] == ["new_actual", "new_percent"]
        deal(emulator, 102)
        writes = {one.title: one for one in app.sync(write=True).plan.writes}
    assert [one.column for one in writes["Ann"].changes] == ["new_actual"], "34 per cent of 300 either way"


def test_the_native_rollup_goes_on_and_does_not_disturb(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)

    def roll_up(_plan: WritePlan) -> None:
        recalculate(emulator.store, COMPANY, emulator.store.settings, NOW)

    with line(emulator, tmp_path, on_plan=roll_up) as app:
        assert app.sync(write=True).outcome is Outcome.OK
        assert app.sync(write=True).plan.is_empty
    assert {title: held(emulator)[title] for title in RIGHT} == RIGHT
    assert goal_values(emulator)["Ann"]["actualmoney"] == RIGHT["Ann"]


def test_a_value_typed_into_a_column_meanwhile_stays_until_the_next_cycle_has_read_it(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    typed = [lambda: change(emulator, ANN, new_actual=Decimal(7))]
    with line(emulator, tmp_path, on_plan=lambda _plan: typed.pop()() if typed else None) as app:
        assert skips(app.sync(write=True)) == {"Ann": SkipReason.CONFLICT}
        assert held(emulator)["Ann"] == 7
        result = app.sync(write=True)
        assert next((c.native, c.ours) for c in result.plan.writes[0].changes) == (7, RIGHT["Ann"])
    assert held(emulator)["Ann"] == RIGHT["Ann"], "the column is ours by configuration"


def test_a_goal_that_a_person_overrode_is_left_alone(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    change(emulator, ANN, isoverridden=True, actualmoney=Decimal(1))
    bob = [lambda: change(emulator, BOB, isoverridden=True, actualmoney=Decimal(2))]
    with line(emulator, tmp_path, on_plan=lambda _plan: bob.pop()() if bob else None) as app:
        result = app.sync(write=True)
    assert [skip.title for skip in result.plan.skips] == ["Ann"]
    assert skips(result) == {"Bob": SkipReason.CONFLICT}
    assert (held(emulator)["Ann"], held(emulator)["Bob"]) == (None, None)


@pytest.mark.parametrize("fault", [{"close": "after"}, {"close": "before"}, {"status": 503}])
def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(tmp_path: Path, fault: dict[str, Any]) -> None:
    emulator = own_org(tmp_path)
    faulty = FaultyApp(emulator.app, [Fault("POST $batch", nth=(1,), **fault)])
    with batching(GoalBatches(faulty, emulator.app), emulator, tmp_path, writeback=mode()) as app:
        result = app.sync(write=True)
        assert (result.outcome, result.counts["written_goals"]) == (Outcome.OK, 5)
        assert app.sync(write=True).plan.is_empty
    assert {title: held(emulator)[title] for title in RIGHT} == RIGHT


def test_every_column_that_does_not_fit_is_named_before_anything_is_written(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    wrong = {
        "actualmoney": "new_coarse",
        "inprogressmoney": "new_float",
        "customrollupfieldmoney": "new_missing",
        "actualinteger": "new_fixed",
        "lastrolledupdate": "new_day",
    }
    with line(emulator, tmp_path, wrong) as app:
        with pytest.raises(ConfigError) as caught:
            app.sync(write=True)
        checks = examined(app.config, app.line.client)
    faults = [one for one in checks if one.name == "columns to write"]
    assert len(caught.value.problems) == len(faults) == len(wrong)
    assert {one.verdict for one in faults} == {Verdict.FAIL}
    for words in (
        "has 2 decimal places; 4",
        "is double",
        "is not there",
        "cannot be written",
        "is datetime (DateOnly)",
    ):
        assert any(words in problem for problem in caught.value.problems), words
    assert not any(held(emulator, name) == RIGHT for name in wrong.values())


def test_a_decimal_column_with_enough_places_takes_money(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    with line(emulator, tmp_path, {"actualmoney": "new_exact"}) as app:
        assert app.sync(write=True).outcome is Outcome.OK
        assert all(one.verdict is not Verdict.FAIL for one in examined(app.config, app.line.client))
    assert held(emulator, "new_exact")["Company"] == RIGHT["Company"]


def test_a_column_made_since_the_definitions_were_read_is_found(tmp_path: Path) -> None:
    emulator = own_org(tmp_path, {})
    with line(emulator, tmp_path) as app, pytest.raises(ConfigError):
        app.sync(write=True)
    with line(own_org(tmp_path), tmp_path) as app:
        assert app.sync(write=True).outcome is Outcome.OK


def test_undo_puts_the_columns_back_where_nobody_changed_them_since(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    change(emulator, BOB, new_actual=Decimal(5))
    with line(emulator, tmp_path) as app:
        run_id = app.sync(write=True).run_id
        change(emulator, ANN, new_actual=Decimal(7))
        result = undo(app.line, run_id, write=True)
        assert {skip.title: skip.reason for skip in result.plan.skips} == {"Ann": SkipReason.CONFLICT}
        assert (held(emulator)["Ann"], held(emulator)["Bob"], held(emulator)["Company"]) == (7, 5, None)
        assert result.run_id is not None
        undo(app.line, result.run_id, write=True)
        assert held(emulator)["Bob"] == RIGHT["Bob"]


def test_a_run_in_mode_override_and_one_in_mode_columns_are_undone_each_by_itself(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    native = goal_values(emulator)
    with line(emulator, tmp_path, mode="override") as app:
        overriding = app.sync(write=True).run_id
    with line(emulator, tmp_path) as app:
        assert app.sync(write=True).plan.skips == (), "an override of ours is no person's"
        undo(app.line, overriding, write=True)
    assert goal_values(emulator) == native
    assert held(emulator)["Ann"] == RIGHT["Ann"]


def saved(app: App) -> SavedPlan:
    return read_saved_plan(decode_json(json_text(plan_document(app.sync(command="plan", write=False))).encode()))


def test_a_saved_plan_is_applied_to_the_columns_that_are_still_named(tmp_path: Path) -> None:
    emulator = own_org(tmp_path)
    with line(emulator, tmp_path) as app:
        plan = saved(app)
    with line(emulator, tmp_path, {"actualmoney": "new_exact"}) as app, pytest.raises(GuardError, match="new_actual"):
        apply_saved(app.line, plan, write=True)
    with line(emulator, tmp_path, mode="plan") as app:
        assert apply_saved(app.line, plan, write=True).outcome is Outcome.OK
    assert {title: held(emulator)[title] for title in RIGHT} == RIGHT
    with line(emulator, tmp_path) as app:
        assert app.sync(write=True).plan.is_empty
