"""Undoing runs and applying saved plans: only where nothing changed since, and never another organization's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from d365sync.app import App, opened
from d365sync.cli.sync import plan_document
from d365sync.core.goals.savedplan import SavedPlan, read_saved_plan
from d365sync.core.goals.writes import SkipReason
from d365sync.core.values import Value
from d365sync.dataverse.wire import decode_json
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from d365sync.errors import AuthError, ConfigError, GuardError, UsageError
from d365sync.journal.store import Intent
from d365sync.sync.commanded import apply_saved, undo
from d365sync.sync.cycle import Outcome
from d365sync.sync.documents import json_text
from tests.emulated import NOW, URL, application, configuration, goal_values
from tests.golden.casebook import made_id
from tests.integration.test_line import ANN, actual, change, load


def flags(emulator: Emulator) -> Mapping[str, Value]:
    return {str(row["title"]): row.get("isoverridden") for row in emulator.store.rows("goal").values()}


def percentages(emulator: Emulator) -> Mapping[str, Value]:
    return {str(row["title"]): row.get("percentage") for row in emulator.store.rows("goal").values()}


def deal(emulator: Emulator, amount: int) -> None:
    money = Decimal(amount)
    emulator.store.change("opportunity", made_id("deal", "1"), {"actualvalue": money, "actualvalue_base": money})


def counted(app: App, run_id: str) -> int | None:
    run = app.line.journal.run(run_id)
    return run.counts.get("operations") if run else None


def saved(app: App) -> SavedPlan:
    return read_saved_plan(decode_json(json_text(plan_document(app.sync(command="plan", write=False))).encode()))


def test_undo_puts_numbers_and_flags_back_and_can_be_undone_itself(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    before, flags_before = goal_values(emulator), flags(emulator)
    with application(emulator, tmp_path) as app:
        run_id = app.sync(write=True).run_id
        after = goal_values(emulator)
        undone = undo(app.line, run_id, write=True)
        assert undone.outcome is Outcome.OK
        assert (goal_values(emulator), flags(emulator)) == (before, flags_before)
        assert undo(app.line, run_id, write=True).run_id is None, "there is nothing left to put back"
        assert undone.run_id is not None
        assert undo(app.line, undone.run_id, write=True).outcome is Outcome.OK
        assert goal_values(emulator) == after
        assert set(flags(emulator).values()) == {True}
        assert app.sync(write=True).plan.is_empty, "the numbers are ours again"


def test_undo_of_a_second_run_leaves_the_override_of_the_first(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        first = app.sync(write=True).run_id
        deal(emulator, 500)
        second = app.sync(write=True).run_id
        refused = undo(app.line, first, write=False)
        assert {skip.reason for skip in refused.plan.skips} == {SkipReason.CONFLICT}
        assert all(second in skip.message for skip in refused.plan.skips)
        undo(app.line, second, write=True)
        assert actual(emulator, "Ann") == Decimal("100.25")
        assert flags(emulator)["Ann"] is True
        deal(emulator, 600)
        assert app.sync(write=True).outcome is Outcome.OK
    assert actual(emulator, "Ann") == 600, "the override is still known as ours"


@pytest.mark.parametrize("arrived", [True, False])
def test_a_run_can_be_undone_after_the_later_one_was_or_never_arrived(tmp_path: Path, *, arrived: bool) -> None:
    emulator = load(tmp_path)
    before, flags_before = goal_values(emulator), flags(emulator)
    with application(emulator, tmp_path) as app:
        journal = app.line.journal
        first = app.sync(write=True).run_id
        if arrived:
            deal(emulator, 500)
            second = app.sync(write=True).run_id
            assert undo(app.line, second, write=True).outcome is Outcome.OK
        else:
            second = journal.start_run("sync", "override", NOW + dt.timedelta(hours=1))
            lost = [
                Intent(one.goal_id, one.title, one.etag or "", one.after, {**one.after, "actualmoney": Decimal(500)})
                for one in journal.written_by(first)
            ]
            journal.intend(second, lost, NOW)
            assert undo(app.line, second, write=True).run_id is None
        assert undo(app.line, first, write=True).outcome is Outcome.OK
    assert (goal_values(emulator), flags(emulator)) == (before, flags_before)


def test_undo_of_a_run_that_wrote_only_percentages_puts_them_back(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        change(emulator, ANN, targetmoney=Decimal(400))
        before = percentages(emulator)
        result = app.sync(write=True)
        assert {change.column for write in result.plan.writes for change in write.changes} == {"percentage"}
        assert percentages(emulator) != before
        assert undo(app.line, result.run_id, write=True).outcome is Outcome.OK
        assert percentages(emulator) == before
        assert undo(app.line, result.run_id, write=True).run_id is None, "there is nothing left to put back"


def test_undo_leaves_alone_what_somebody_changed_since_but_not_what_was_renamed(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        run_id = app.sync(write=True).run_id
        change(emulator, ANN, actualmoney=Decimal(1))
        change(emulator, made_id("goal", "Bob"), title="Robert")
        emulator.store.remove("goal", made_id("goal", "South"))
        result = undo(app.line, run_id, write=True)
    assert {skip.title: skip.reason for skip in result.plan.skips} == {
        "Ann": SkipReason.CONFLICT,
        "South": SkipReason.GONE,
    }
    assert result.outcome is Outcome.PARTIAL
    assert (actual(emulator, "Ann"), actual(emulator, "Robert")) == (1, None)


def test_a_dry_run_of_undo_writes_nothing(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        run_id = app.sync(write=True).run_id
        after = goal_values(emulator)
        assert len(undo(app.line, run_id, write=False).plan.writes) == 5
        assert len(app.line.journal.runs(9)) == 1
    assert goal_values(emulator) == after


def test_undo_of_an_unknown_run_is_a_usage_error(tmp_path: Path) -> None:
    with application(load(tmp_path), tmp_path) as app, pytest.raises(UsageError, match="no run nonsense"):
        undo(app.line, "nonsense", write=True)


def test_a_saved_plan_is_applied_and_its_numbers_are_ours(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        plan = saved(app)
        assert apply_saved(app.line, plan, write=True).outcome is Outcome.OK
        assert actual(emulator, "Company") == Decimal("305.0001")
        assert app.sync(write=True).plan.is_empty
        with pytest.raises(GuardError, match="stale"):
            apply_saved(app.line, plan, write=True)


@pytest.mark.parametrize("gone", [True, False])
def test_a_stale_plan_is_refused_whole(tmp_path: Path, *, gone: bool) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        plan = saved(app)
        if gone:
            emulator.store.remove("goal", ANN)
        else:
            change(emulator, ANN, title="Renamed")
        with pytest.raises(GuardError, match=f"'Ann' was {'deleted' if gone else 'changed'} since"):
            apply_saved(app.line, plan, write=True)
    assert actual(emulator, "Bob") is None


def test_the_requests_of_apply_and_undo_count_among_the_days_also_where_they_fail(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        plan, usage = saved(app), app.line.client.usage
        moment = usage.since()
        applied = apply_saved(app.line, plan, write=True).run_id
        assert applied is not None
        assert counted(app, applied) == usage.since(moment).counts["operations"] > 5
        moment = usage.since()
        undone = undo(app.line, applied, write=True).run_id
        assert undone is not None
        assert counted(app, undone) == usage.since(moment).counts["operations"] > 5
    broken = mounted_session(FaultyApp(emulator.app, [Fault("*$batch", nth=tuple(range(2, 9)), status=401)]))
    options = {"clock": lambda: NOW + dt.timedelta(hours=1), "environ": {}, "session": broken}
    with opened(configuration(emulator, tmp_path), **options) as app:
        with pytest.raises(AuthError):
            undo(app.line, undone, write=True)
        (failed,) = app.line.journal.runs(1)
        assert (failed.outcome, counted(app, failed.id)) == (
            "failed",
            app.line.client.usage.since().counts["operations"],
        )


def test_a_plan_of_another_organization_is_refused(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        plan = saved(app)
        other = SavedPlan(made_id("organization", "other"), plan.run_id, plan.goals)
        with pytest.raises(GuardError, match="is of organization"):
            apply_saved(app.line, other, write=True)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"goals": []},
        {"organization": ANN, "run": "r", "goals": [{"goal": ANN, "title": "", "etag": "*", "changes": []}]},
        {
            "organization": ANN,
            "run": "r",
            "goals": [
                {
                    "goal": ANN,
                    "title": "",
                    "etag": 'W/"1"',
                    "changes": [{"column": "ownerid", "native": None, "ours": 1, "why": ""}],
                }
            ],
        },
    ],
)
def test_what_is_not_a_saved_plan_is_refused(document: object) -> None:
    with pytest.raises(UsageError, match="not a saved plan"):
        read_saved_plan(document)


def another(folder: Path) -> Emulator:
    """Return an emulator with the same goals in an organization with another id."""
    emulator = load(folder)
    (one,) = emulator.store.rows("organization")
    row = {**emulator.store.rows("organization")[one], "organizationid": made_id("organization", "other")}
    emulator.store.remove("organization", one)
    emulator.store.put("organization", row)
    return emulator


def test_another_organization_at_the_same_address_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with application(load(tmp_path), tmp_path) as app:
        app.sync(write=False)
    other = another(tmp_path)
    with application(other, tmp_path) as app, pytest.raises(ConfigError, match="mirror belongs to") as caught:
        app.sync(write=True)
    assert caught.value.exit_code == 2
    assert "storage.mirror" in caught.value.hint
    assert set(goal_values(other)["Ann"].values()) == {None}


def test_nothing_of_another_organization_stays_in_the_mirror(tmp_path: Path) -> None:
    emulator = load(tmp_path, change_tracking={"opportunity": True})
    with application(emulator, tmp_path) as app:
        app.sync(write=False)
    other = another(tmp_path)
    deal(other, 999)
    with application(other, tmp_path) as app, pytest.raises(ConfigError, match="belongs to"):
        app.sync(write=True)
    for _ in range(60):
        change(emulator, ANN, title="Ann")
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    assert actual(emulator, "Ann") == Decimal("100.25")


def test_at_another_address_another_organization_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        owner = app.line.journal.owner()
        assert owner is not None
        app.line.journal.belong_to("https://former.test", owner[1])
        assert app.sync(write=True).outcome is Outcome.OK
        assert app.line.journal.owner() == (URL, owner[1]), "only its address changed"
        app.line.journal.belong_to("https://former.test", owner[1])
    with application(another(tmp_path), tmp_path) as app:
        with pytest.raises(ConfigError, match=r"(mirror|journal) belongs to"):
            app.sync(write=True)
        assert app.line.client.usage.requests == 1


def test_the_organization_is_asked_for_once(tmp_path: Path) -> None:
    with application(load(tmp_path), tmp_path) as app:
        first = app.sync(write=False).counts["requests"]
        again = app.sync(write=False, full=True).counts["requests"]
    assert again <= first - 1
