"""Pushing in batches: every part's outcome by itself, and nothing sent again before it is known what arrived."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from werkzeug.wrappers import Request

from d365sync.core.goals.writes import SkipReason
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.refuse import Refusal
from d365sync.errors import AuthError, RejectedError, RetryableError
from d365sync.sync.cycle import Outcome
from tests.emulated import goal_values
from tests.golden.casebook import made_id
from tests.integration.test_line import ANN, BOB, actual, change, load, skips
from tests.parts import GoalBatches, Parts, batching

RIGHT = {"Ann": Decimal("100.25"), "Bob": Decimal("200.5"), "Company": Decimal("305.0001")}


def at_ann(refusal: Refusal, times: int = 1) -> Callable[[Request], Refusal | None]:
    left = [times]

    def meet(request: Request) -> Refusal | None:
        if request.method == "PATCH" and ANN in request.path and left[0]:
            left[0] -= 1
            return refusal
        return None

    return meet


@pytest.mark.parametrize(("size", "batches"), [(1, 5), (2, 3), (5, 1), (1000, 1)])
def test_m_goals_are_ceil_of_m_by_the_batch_requests_and_nothing_else(tmp_path: Path, size: int, batches: int) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app)
    with batching(parts, emulator, tmp_path, writeback={"mode": "override", "batch_size": size}) as app:
        app.sync(write=False)
        read = app.sync(write=False).counts["requests"]
        assert app.sync(write=True).counts["requests"] == read + batches
        assert [len(batch) for batch in parts.batches] == ([size] * 5)[: 5 // size] + [5 % size] * (5 % size > 0)
        assert app.sync(write=True).counts["requests"] == read, "an idle cycle writes nothing"
    assert {title: actual(emulator, title) for title in RIGHT} == RIGHT


def test_conflicts_are_read_again_together(tmp_path: Path) -> None:
    emulator = load(tmp_path)

    def meet(request: Request) -> None:
        if len(parts.batches) == 1 and any(one in request.path for one in (ANN, BOB)):
            change(emulator, ANN if ANN in request.path else BOB, title="Renamed")

    parts = Parts(emulator.app, meet)
    with batching(parts, emulator, tmp_path) as app:
        assert app.sync(write=True).outcome is Outcome.OK
    assert parts.batches == [["PATCH"] * 5, ["GET"] * 2, ["PATCH"] * 2]


def test_a_refused_part_concerns_only_its_goal(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app, at_ann(Refusal(400, "0x80044330", "out of range")))
    with batching(parts, emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert result.pushed is not None
    (failure,) = result.pushed.failures
    assert "out of range" in failure.message
    assert (len(result.pushed.written), result.outcome) == (4, Outcome.PARTIAL)


def test_a_goal_that_may_not_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app, at_ann(Refusal(403, "0x80040220", "no")))
    with batching(parts, emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert result.pushed is not None
    assert [skip.title for skip in result.pushed.failures] == ["Ann"]
    assert (len(result.pushed.written), result.outcome) == (4, Outcome.PARTIAL)


def test_when_no_goal_may_be_written_it_is_the_right_that_is_missing(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app, lambda _request: Refusal(403, "0x80040220", "no"))
    with batching(parts, emulator, tmp_path) as app, pytest.raises(AuthError):
        app.sync(write=True)


def test_a_goal_deleted_meanwhile_is_gone(tmp_path: Path) -> None:
    emulator = load(tmp_path)

    def meet(request: Request) -> None:
        if ANN in request.path:
            emulator.store.remove("goal", ANN)

    with batching(Parts(emulator.app, meet), emulator, tmp_path) as app:
        assert skips(app.sync(write=True)) == {"Ann": SkipReason.GONE}


def test_a_throttled_part_is_sent_again_alone(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app, at_ann(Refusal(429, "0x80072322", "slow down", {"Retry-After": "0"})))
    with batching(parts, emulator, tmp_path, dataverse={"retry_budget": "5s"}) as app:
        assert app.sync(write=True).outcome is Outcome.OK
    assert parts.batches == [["PATCH"] * 5, ["PATCH"]]
    assert actual(emulator, "Ann") == RIGHT["Ann"]


def test_a_part_that_stays_throttled_ends_the_run_as_temporary(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app, at_ann(Refusal(429, "0x80072322", "slow down", {"Retry-After": "0"}), 99))
    with batching(parts, emulator, tmp_path) as app, pytest.raises(RetryableError):
        app.sync(write=True)
    assert actual(emulator, "Bob") == RIGHT["Bob"]
    assert actual(emulator, "Ann") is None


@pytest.mark.parametrize("fault", [{"close": "after"}, {"close": "before"}, {"cut_after_bytes": 900}, {"status": 502}])
def test_after_an_unknown_outcome_the_goals_are_read_back_together_first(
    tmp_path: Path, fault: dict[str, object]
) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app)
    faulty = FaultyApp(parts, [Fault("POST $batch", nth=(1,), **fault)])  # type: ignore[arg-type]
    with batching(GoalBatches(faulty, parts), emulator, tmp_path) as app:
        result = app.sync(write=True)
        assert result.outcome is Outcome.OK
        assert result.counts["written_goals"] == 5
        assert app.sync(write=True).plan.is_empty
    methods = [set(batch) for batch in parts.batches if batch]
    arrived = "cut_after_bytes" in fault or fault.get("close") == "after"
    assert methods == ([{"PATCH"}, {"GET"}] if arrived else [{"GET"}, {"PATCH"}])
    assert {title: actual(emulator, title) for title in RIGHT} == RIGHT


def test_writes_that_cannot_be_read_back_are_recognised_by_the_next_run(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    faults = [Fault("POST $batch", nth=(1,), close="after"), Fault("POST $batch", nth=(2,), status=503)]
    with batching(GoalBatches(FaultyApp(emulator.app, faults), emulator.app), emulator, tmp_path) as app:
        with pytest.raises(RetryableError):
            app.sync(write=True)
        emulator.store.change(
            "opportunity", made_id("deal", "1"), {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)}
        )
        result = app.sync(write=True)
    assert (result.outcome, result.plan.skips) == (Outcome.OK, ())
    assert actual(emulator, "Ann") == 7


def test_a_batch_refused_as_a_whole_ends_the_run_and_nothing_is_ours(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    faulty = FaultyApp(emulator.app, [Fault("POST $batch", status=400, code="0x80048d19")])
    with batching(GoalBatches(faulty, emulator.app), emulator, tmp_path) as app:
        with pytest.raises(RejectedError):
            app.sync(write=True)
        assert app.line.journal.written_values(emulator.store.rows("goal")) == {}
    assert {values["actualmoney"] for values in goal_values(emulator).values()} == {None}


def test_the_intents_of_a_batch_are_noted_before_it_is_sent(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    noted: list[int] = []
    parts = Parts(
        emulator.app, lambda _request: noted.append(len(app.line.journal.written_values(emulator.store.rows("goal"))))
    )
    with batching(parts, emulator, tmp_path) as app:
        app.sync(write=True)
    assert noted == [5] * 5
