"""Races and lost answers while pushing: a person's edit is never overwritten, and our own write always recognised."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.wrappers import Request, Response

from d365sync.cli.sync import plan_document
from d365sync.core.goals.savedplan import read_saved_plan
from d365sync.core.goals.writes import SkipReason
from d365sync.dataverse.wire import decode_json
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.native import recalculate
from d365sync.emulator.refuse import Refusal
from d365sync.errors import RetryableError
from d365sync.sync.commanded import apply_saved
from d365sync.sync.cycle import Outcome
from d365sync.sync.documents import json_text
from tests.bench.writing import GOALS, many_goals
from tests.emulated import NOW, application, goal_values
from tests.golden.casebook import made_id
from tests.integration.test_line import ANN, COMPANY, actual, change, load, meanwhile, skips
from tests.parts import GoalBatches, Parts, batching, concerns_goals

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

RIGHT = {"Ann": Decimal("100.25"), "Bob": Decimal("200.5"), "Company": Decimal("305.0001")}


def right(emulator: Emulator) -> bool:
    return all(actual(emulator, title) == value for title, value in RIGHT.items())


def deal(emulator: Emulator, amount: int) -> None:
    money = Decimal(amount)
    emulator.store.change("opportunity", made_id("deal", "1"), {"actualvalue": money, "actualvalue_base": money})


@pytest.mark.parametrize("typed", [{}, {"actualmoney": Decimal(100)}])
def test_what_a_person_types_meanwhile_is_theirs_even_if_it_is_our_number_or_ours_rounded(
    tmp_path: Path, typed: dict[str, Decimal]
) -> None:
    emulator = load(tmp_path)
    ours = {"actualmoney": RIGHT["Ann"], "inprogressmoney": Decimal(0), **typed}
    with meanwhile(emulator, tmp_path, lambda: change(emulator, ANN, isoverridden=True, **ours)) as app:
        assert skips(app.sync(write=True)) == {"Ann": SkipReason.CONFLICT}
    deal(emulator, 500)
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert [skip.title for skip in result.plan.skips] == ["Ann"]
    assert actual(emulator, "Ann") == ours["actualmoney"]


def test_a_native_rollup_between_plan_and_write_costs_one_more_look(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    roll_up: Callable[[], None] = lambda: recalculate(emulator.store, COMPANY, emulator.store.settings, NOW)  # noqa: E731
    with meanwhile(emulator, tmp_path, roll_up) as app:
        result = app.sync(write=True)
        assert result.outcome is Outcome.OK
        assert app.sync(write=True).plan.is_empty
    assert right(emulator)


@pytest.mark.parametrize("fault", [{"close": "before"}, {"close": "after"}, {"status": 503}])
def test_a_saved_plan_survives_a_lost_connection(tmp_path: Path, fault: dict[str, object]) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        plan = read_saved_plan(decode_json(json_text(plan_document(app.sync(command="plan", write=False))).encode()))
    # the first batch reads the goals, the second writes them
    faulty = FaultyApp(emulator.app, [Fault("POST $batch", nth=(2,), **fault)])  # type: ignore[arg-type]
    with batching(GoalBatches(faulty, emulator.app), emulator, tmp_path) as app:
        assert apply_saved(app.line, plan, write=True).outcome is Outcome.OK
        assert app.sync(write=True).plan.is_empty
    assert right(emulator)


class Late:
    """Loses the first ``lost`` batches of writes; the first of them arrives just before the next one, or by hand."""

    def __init__(self, app: WSGIApplication, lost: int = 1) -> None:
        self._app = app
        self._left = lost
        self._kept: list[WSGIEnvironment] = []
        self.at_the_next = lost == 1

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if concerns_goals(environ) and b"PATCH" in body_of(environ):
            if self._left:
                self._left -= 1
                self._kept.append({**environ, "wsgi.input": io.BytesIO(body_of(environ))})
                raise ConnectionResetError("lost")
            if self.at_the_next:
                self.arrive()
        return self._app(environ, start_response)

    def arrive(self) -> None:
        for environ in self._kept[:1]:
            Response.from_app(self._app, environ, buffered=True)
        self._kept.clear()


def body_of(environ: WSGIEnvironment) -> bytes:
    return bytes(environ["wsgi.input"].getvalue())


def test_a_write_that_arrives_late_is_recognised(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with batching(Late(emulator.app), emulator, tmp_path) as app:
        assert app.sync(write=True).outcome is Outcome.OK
        deal(emulator, 500)
        assert app.sync(write=True).plan.skips == (), "all overrides are known as ours"
    assert actual(emulator, "Ann") == 500


def test_a_write_that_arrives_after_the_run_gave_up_is_still_ours(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    late = Late(emulator.app, lost=2)
    with batching(late, emulator, tmp_path) as app:
        result = app.sync(write=True)
        assert result.outcome is Outcome.PARTIAL
        assert result.pushed is not None
        assert {skip.title for skip in result.pushed.failures} >= {"Ann", "Bob"}
        late.arrive()
        assert right(emulator)
        deal(emulator, 500)
        assert app.sync(write=True).plan.skips == ()
    assert actual(emulator, "Ann") == 500


class Answers:
    """Lets batches of writes through; what ``spoil`` makes of the answer comes back."""

    def __init__(self, app: WSGIApplication, spoil: Callable[[Response], Response | None]) -> None:
        self._app = app
        self._spoil = spoil
        self._left = 1

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not concerns_goals(environ) or b"PATCH" not in body_of(environ) or not self._left:
            return self._app(environ, start_response)
        self._left -= 1
        response = Response.from_app(self._app, environ, buffered=True)
        return (self._spoil(response) or response)(environ, start_response)


@pytest.mark.parametrize("status", [503, 501, 520, 524])
def test_a_batch_carried_out_before_a_failure_is_recognised_and_not_sent_again(tmp_path: Path, status: int) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app)
    answers = Answers(parts, lambda _response: Response("down", status))
    with batching(answers, emulator, tmp_path, dataverse={"retry_budget": "5s"}) as app:
        result = app.sync(write=True)
        assert (result.outcome, result.counts["written_goals"]) == (Outcome.OK, 5)
        assert [set(batch) for batch in parts.batches] == [{"PATCH"}, {"GET"}]
        deal(emulator, 500)
        assert app.sync(write=True).plan.skips == ()


def test_an_edit_that_is_quicker_than_the_answer_is_not_taken_for_ours(tmp_path: Path) -> None:
    emulator = load(tmp_path)

    def typed(response: Response) -> None:
        change(emulator, ANN, actualmoney=Decimal(7))
        response.set_data(re.sub(rb'"actualmoney":100\.25\d*', b'"actualmoney":7', response.get_data()))

    with batching(Answers(emulator.app, typed), emulator, tmp_path) as app:
        app.sync(write=True)
        deal(emulator, 500)
        assert [skip.reason for skip in app.sync(write=True).plan.skips] == [SkipReason.OVERRIDDEN]
    assert actual(emulator, "Ann") == 7


def test_a_kill_between_answer_and_journal_leaves_overrides_that_the_next_run_knows(tmp_path: Path) -> None:
    emulator = load(tmp_path)

    def kill(_response: Response) -> None:
        raise KeyboardInterrupt

    with batching(Answers(emulator.app, kill), emulator, tmp_path) as app, pytest.raises(KeyboardInterrupt):
        app.sync(write=True)
    assert right(emulator)
    deal(emulator, 500)
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert (result.plan.skips, actual(emulator, "Ann")) == ((), 500)


def test_a_goal_that_fails_twice_is_reported_and_the_others_are_written(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    failing = Parts(
        emulator.app,
        lambda request: Refusal(500, "0x80040224", "a plug-in") if patches(request, ANN) else None,
    )
    with batching(failing, emulator, tmp_path) as app:
        result = app.sync(write=True)
        assert ANN not in app.line.journal.written_values(emulator.store.rows("goal")), (
            "it was answered: nothing is on its way any more"
        )
    assert result.pushed is not None
    (failure,) = result.pushed.failures
    assert "a plug-in" in failure.message
    assert (len(result.pushed.written), result.outcome) == (4, Outcome.PARTIAL)


def patches(request: Request, goal_id: str) -> bool:
    return request.method == "PATCH" and goal_id in request.path


def test_a_server_that_loses_everything_ends_the_run_as_temporary(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    faulty = FaultyApp(emulator.app, [Fault("POST $batch", close="before")])
    with batching(GoalBatches(faulty, emulator.app), emulator, tmp_path) as app, pytest.raises(RetryableError):
        app.sync(write=True)


@pytest.mark.parametrize("etag", [None, "*", 'W/"é"', 'W/"1"\r\nIf-Match: *'])
def test_a_goal_without_an_etag_that_can_be_sent_back_is_not_written(tmp_path: Path, etag: str | None) -> None:
    """Row 20. What is no etag would be refused by the server, or, like `*`, would hold for whatever is there."""
    told = b"" if etag is None else f'"@odata.etag":{json.dumps(etag)},'.encode()
    emulator = load(tmp_path)

    def bare(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = Response.from_app(emulator.app, environ, buffered=True)
        if environ["REQUEST_METHOD"] == "GET" and str(environ["PATH_INFO"]).endswith("/goals"):
            response.set_data(re.sub(rb'"@odata.etag":"[^,]*",', lambda _: told, response.get_data()))
        return response(environ, start_response)

    with batching(bare, emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert (result.plan.writes, result.outcome) == ((), Outcome.PARTIAL)
    assert all("etag" in skip.message for skip in result.plan.skips)
    assert {values["actualmoney"] for values in goal_values(emulator).values()} == {None}


def test_after_a_large_batch_was_lost_smaller_ones_are_sent(tmp_path: Path) -> None:
    emulator = many_goals(tmp_path)
    parts = Parts(emulator.app)
    faulty = FaultyApp(parts, [Fault("POST $batch", nth=(1,), close="before")])
    with batching(GoalBatches(faulty, parts), emulator, tmp_path, rollup={"double_counting": "off"}) as app:
        assert app.sync(write=True).counts["written_goals"] == GOALS
    assert [len(batch) for batch in parts.batches if batch] == [GOALS, 250, 250, 250, 250]
    assert actual(emulator, "Bob") == RIGHT["Bob"]


def test_a_lost_write_of_a_percentage_alone_is_sent_again(tmp_path: Path) -> None:
    emulator = load(tmp_path, keep_percentage=False)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    change(emulator, ANN, targetmoney=Decimal(1000))
    before = goal_values(emulator)["Ann"]["percentage"]
    parts = Parts(emulator.app)
    lost = FaultyApp(parts, [Fault("POST $batch", nth=(1,), close="before")])
    with batching(GoalBatches(lost, parts), emulator, tmp_path) as app:
        assert [change.column for write in app.sync(write=True).plan.writes for change in write.changes] == [
            "percentage"
        ]
    assert goal_values(emulator)["Ann"]["percentage"] != before


def percentage_lost(emulator: Emulator, *, for_good: bool) -> WSGIApplication:
    """Return the emulator behind a gateway that loses the first batch of writes, while somebody renames the goal."""
    lost: list[str] = []

    def gateway(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not concerns_goals(environ) or (lost and not for_good):
            return emulator.app(environ, start_response)
        if b"PATCH" in body_of(environ):
            lost.append("PATCH")
            change(emulator, ANN, title="Ann B")
            return Response("down", 503)(environ, start_response)
        return (Response("down", 503) if lost else emulator.app)(environ, start_response)

    return gateway


def percentage_to_write(tmp_path: Path) -> Emulator:
    emulator = load(tmp_path, keep_percentage=False)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    change(emulator, ANN, targetmoney=Decimal(1000))
    return emulator


def test_a_lost_write_of_a_percentage_alone_is_not_taken_as_arrived_after_a_rename(tmp_path: Path) -> None:
    emulator = percentage_to_write(tmp_path)
    before = goal_values(emulator)["Ann"]["percentage"]
    with batching(percentage_lost(emulator, for_good=False), emulator, tmp_path) as app:
        assert app.sync(write=True).counts["written_goals"] == 1
    assert goal_values(emulator)["Ann B"]["percentage"] != before


def test_the_journal_knows_the_percentage_of_a_write_whose_outcome_is_unknown(tmp_path: Path) -> None:
    emulator = percentage_to_write(tmp_path)
    with batching(percentage_lost(emulator, for_good=True), emulator, tmp_path) as app:
        with pytest.raises(RetryableError):
            app.sync(write=True)
        (failed,) = [run.id for run in app.line.journal.runs(2) if run.outcome == "failed"]
        (written,) = app.line.journal.written_by(failed)
    assert not written.sure
    assert written.after["percentage"] != written.before["percentage"]


def test_a_refused_version_is_noted_before_the_goal_is_read_again(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    parts = Parts(emulator.app, lambda one: Refusal(412, "0x80060882", "moved") if ANN in one.path else None)
    broken = FaultyApp(parts, [Fault("POST $batch", nth=(2,), status=503)])
    with batching(GoalBatches(broken, parts), emulator, tmp_path) as app:
        with pytest.raises(RetryableError):
            app.sync(write=True)
        written = app.line.journal.written_values(emulator.store.rows("goal"))
    assert ANN not in written
    assert len(written) == 4


def test_goals_that_may_not_be_written_do_not_keep_the_others_from_it(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    south = made_id("goal", "South")
    parts = Parts(
        emulator.app,
        lambda one: Refusal(403, "0x80040220", "no") if one.method == "PATCH" and south not in one.path else None,
    )
    with batching(parts, emulator, tmp_path, writeback={"mode": "override", "batch_size": 1}) as app:
        assert app.sync(write=True).outcome is Outcome.PARTIAL
    assert actual(emulator, "South") is not None
