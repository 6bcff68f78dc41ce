"""Mode recalculate: the platform rolls up what is stale by our numbers, seldom and slowly, and we say what agrees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from d365sync.app import App, opened
from d365sync.cli.sync import plan_document
from d365sync.core.goals.savedplan import read_saved_plan
from d365sync.core.goals.writes import SkipReason
from d365sync.dataverse.wire import decode_json
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from d365sync.emulator.settings import ClosedGoals
from d365sync.errors import AuthError, UsageError
from d365sync.sync.commanded import undo
from d365sync.sync.cycle import CycleResult, Outcome
from d365sync.sync.documents import json_text
from d365sync.sync.offline import computed, mirrored
from tests.emulated import NOW, configuration, goal_values
from tests.golden.casebook import Cells, made_id
from tests.integration.test_line import ANN, COMPANY, actual, change, load, skips
from tests.scripted import VirtualTimer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

RIGHT = {"Ann": Decimal("100.25"), "Bob": Decimal("200.5"), "Company": Decimal("305.0001")}
ALONE = [made_id("goal", f"Alone {number}") for number in range(3)]


@dataclass
class Actions:
    """Notes the goals for which an action is called, and every other request that is no reading."""

    app: WSGIApplication
    asked: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ["PATH_INFO"])
        if path.endswith("Recalculate"):
            self.asked.append(path.partition("(")[2].partition(")")[0])
        elif b"PATCH" in environ["wsgi.input"].getvalue():
            self.writes.append(path)
        return self.app(environ, start_response)


@contextmanager
def line(
    app: WSGIApplication, emulator: Emulator, folder: Path, timer: VirtualTimer | None = None, **writeback: Any
) -> Iterator[App]:
    config = configuration(
        emulator, folder, writeback={"mode": "recalculate", **writeback}, dataverse={"retry_budget": "0s"}
    )
    session = mounted_session(app)
    with opened(config, clock=lambda: NOW, environ={}, session=session, timer=timer or VirtualTimer()) as one:
        yield one


def deal(emulator: Emulator, amount: int) -> None:
    money = Decimal(amount)
    emulator.store.change("opportunity", made_id("deal", "1"), {"actualvalue": money, "actualvalue_base": money})


def alone(tables: dict[str, list[Cells]]) -> None:
    ann = next(row for row in tables["Goals"] if row["goal"] == "Ann")
    tables["Goals"] += [{**ann, "goal": f"Alone {number}", "parent": ""} for number in range(3)]


def test_only_stale_trees_are_rolled_up_by_their_roots_and_then_agree(tmp_path: Path) -> None:
    emulator = load(tmp_path, edit=alone)
    actions = Actions(emulator.app)
    with line(actions, emulator, tmp_path) as app:
        app.sync(write=False)
        assert actions.asked == []
        result = app.sync(write=True)
        assert sorted(actions.asked) == sorted([COMPANY, *ALONE])
        assert (result.outcome, result.counts["written_goals"]) == (Outcome.OK, 8)
        assert app.sync(write=True).counts["recalculated_trees"] == 0
        actions.asked.clear()
        emulator.store.change(
            "opportunity", made_id("deal", "4"), {"actualvalue": Decimal(5), "actualvalue_base": Decimal(5)}
        )
        assert app.sync(write=True).counts["written_goals"] == 2
        assert actions.asked == [COMPANY]
        assert computed(app.line, mirrored(app.line, NOW))[1].is_empty
    assert actions.writes == []
    assert actual(emulator, "South") == 5
    assert not any(row.get("isoverridden") or row.get("isoverride") for row in emulator.store.rows("goal").values())


def test_so_many_trees_a_cycle_with_a_pause_between_those_first_that_wait_longest(tmp_path: Path) -> None:
    emulator, timer = load(tmp_path, edit=alone), VirtualTimer()
    actions = Actions(emulator.app)
    with line(actions, emulator, tmp_path, timer, recalculate_at_most=2, recalculate_pause="7s") as app:
        result = app.sync(write=True)
        assert timer.waits == [7]
        assert len(actions.asked) == 2
        assert list(skips(result).values()) == [SkipReason.LATER] * 2
        assert result.outcome is Outcome.OK
        deal(emulator, 500)
        app.sync(write=True)
        assert len(set(actions.asked)) == 4, "the trees that were asked for wait behind the others"


def test_trees_that_always_fail_do_not_take_the_turns_of_the_others(tmp_path: Path) -> None:
    emulator = load(tmp_path, edit=alone)
    actions = Actions(emulator.app)
    refused = [Fault(f"POST */goals({one})/*Recalculate", status=400, code="0x80040216") for one in ALONE[:2]]
    with line(FaultyApp(actions, refused), emulator, tmp_path, recalculate_at_most=2) as app:
        assert app.sync(write=True).counts["recalculated_trees"] == 0
        assert app.sync(write=True).counts["recalculated_trees"] == 2
    assert set(actions.asked) == {COMPANY, ALONE[2]}


def differing(result: CycleResult) -> set[str]:
    return {title for title, reason in skips(result).items() if reason is SkipReason.DIFFERS}


def test_a_goal_that_the_platform_rolls_up_otherwise_is_told_once_and_not_asked_for_again(tmp_path: Path) -> None:
    emulator = load(tmp_path, closed_goals=ClosedGoals.SKIP)
    change(emulator, ANN, statecode=1, statuscode=1, actualmoney=Decimal(10))
    actions = Actions(emulator.app)
    with line(actions, emulator, tmp_path) as app:
        result = app.sync(write=True)
        assert differing(result) == {"North", "Company"}
        assert any("actualmoney 200.75 (ours 210.75)" in skip.message for skip in result.pushed.skips)  # type: ignore[union-attr]
        assert app.sync(write=True).plan.is_empty
        assert actions.asked == [COMPANY]
        emulator.store.change(
            "opportunity", made_id("deal", "2"), {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)}
        )
        assert differing(app.sync(write=True)) == {"North", "Company"}
        assert actions.asked == [COMPANY] * 2


def test_overrides_are_left_alone_a_persons_and_our_own(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    change(emulator, ANN, isoverridden=True, actualmoney=Decimal(1))
    with line(emulator.app, emulator, tmp_path, mode="override") as app:
        app.sync(write=True)
    actions = Actions(emulator.app)
    with line(actions, emulator, tmp_path) as app:
        assert app.sync(write=True).plan.is_empty
        emulator.store.change(
            "opportunity", made_id("deal", "2"), {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)}
        )
        result = app.sync(write=True)
    reasons = {skip.title: skip.reason for skip in result.plan.skips}
    ours = dict.fromkeys(["Bob", "North", "Company"], SkipReason.OURS)
    assert reasons == {"Ann": SkipReason.OVERRIDDEN, **ours}
    assert actions.asked == []
    assert actual(emulator, "Ann") == 1


@pytest.mark.parametrize(("fault", "agree"), [({"close": "after"}, 5), ({"close": "before"}, 0), ({"status": 500}, 0)])
def test_after_a_lost_answer_the_goals_tell_what_happened(tmp_path: Path, fault: dict[str, Any], agree: int) -> None:
    emulator = load(tmp_path)
    faulty = FaultyApp(emulator.app, [Fault("POST */*Recalculate", nth=(1,), **fault)])
    with line(faulty, emulator, tmp_path) as app:
        result = app.sync(write=True)
        assert result.counts["written_goals"] == agree
        assert result.outcome is (Outcome.OK if agree else Outcome.PARTIAL)
        assert app.sync(write=True).outcome is Outcome.OK
    assert {title: actual(emulator, title) for title in RIGHT} == RIGHT


def test_when_no_tree_may_be_rolled_up_it_is_the_right_that_is_missing(tmp_path: Path) -> None:
    emulator = load(tmp_path, edit=alone)
    faulty = FaultyApp(emulator.app, [Fault("POST */*Recalculate", status=403, code="0x80040220")])
    with line(faulty, emulator, tmp_path) as app, pytest.raises(AuthError):
        app.sync(write=True)


def test_a_tree_that_is_refused_does_not_stop_the_others(tmp_path: Path) -> None:
    emulator = load(tmp_path, edit=alone)
    faulty = FaultyApp(emulator.app, [Fault("POST */*Recalculate", nth=(1,), status=400, code="0x80040216")])
    with line(faulty, emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert (result.counts["recalculated_trees"], result.outcome) == (3, Outcome.PARTIAL)


def test_a_tree_under_a_closed_root_is_asked_for_by_a_stale_goal(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    change(emulator, COMPANY, statecode=1, statuscode=1)
    actions = Actions(emulator.app)
    with line(actions, emulator, tmp_path) as app:
        assert app.sync(write=True).outcome is Outcome.OK
    assert len(actions.asked) == 1
    assert COMPANY not in actions.asked


def test_it_can_neither_be_undone_nor_applied(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with line(emulator.app, emulator, tmp_path) as app:
        plan = app.sync(command="plan", write=False)
        with pytest.raises(UsageError, match="mode recalculate"):
            read_saved_plan(decode_json(json_text(plan_document(plan)).encode()))
        run_id = app.sync(write=True).run_id
        after = goal_values(emulator)
        with pytest.raises(UsageError, match="cannot be undone"):
            undo(app.line, run_id, write=True)
    assert goal_values(emulator) == after
