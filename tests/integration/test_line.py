"""The whole line against the emulator in process: what happens when the world does not stand still."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.app import App, opened
from d365sync.core.goals.writes import SkipReason, WritePlan
from d365sync.core.values import Value
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from d365sync.errors import AuthError, RejectedError, RetryableError, UsageError
from d365sync.sync.cycle import CycleResult, Outcome
from d365sync.sync.offline import computed, mirrored
from tests.emulated import NOW, application, configuration, goal_values
from tests.golden.casebook import Cells, made_id, read_cases, write_org

CASES = {case.name: case for case in read_cases(Path(__file__).parents[2] / "fixtures" / "goals")}
ANN, BOB, NORTH, COMPANY = (made_id("goal", name) for name in ("Ann", "Bob", "North", "Company"))


def load(
    folder: Path, name: str = "tree", *, edit: Callable[[dict[str, list[Cells]]], None] | None = None, **settings: Any
) -> Emulator:
    case = copy.deepcopy(CASES[name])
    if edit is not None:
        edit(case.tables)
    write_org(case, folder / "org")
    return Emulator.load(folder / "org", now=NOW, settings=EmulatorSettings(**settings))


@pytest.fixture
def emulator(tmp_path: Path) -> Emulator:
    return load(tmp_path)


def actual(emulator: Emulator, title: str) -> Value:
    return goal_values(emulator)[title]["actualmoney"]


@contextmanager
def meanwhile(emulator: Emulator, folder: Path, act: Callable[[], object]) -> Iterator[App]:
    """Build the application; ``act`` happens between its plan and its first write."""

    def on_plan(_plan: WritePlan) -> None:
        act()

    config = configuration(emulator, folder)
    options = {"clock": lambda: NOW, "environ": {}, "session": emulator.session(), "line_options": {"on_plan": on_plan}}
    with opened(config, **options) as app:
        yield app


def change(emulator: Emulator, goal_id: str, **columns: Value) -> None:
    emulator.store.change("goal", goal_id, columns)


def skips(result: CycleResult) -> dict[str, SkipReason]:
    assert result.pushed is not None
    return {skip.title: skip.reason for skip in result.pushed.skips}


def test_a_goal_renamed_meanwhile_is_planned_again_and_written(emulator: Emulator, tmp_path: Path) -> None:
    with meanwhile(emulator, tmp_path, lambda: change(emulator, ANN, title="Renamed")) as app:
        result = app.sync(write=True)
    assert result.outcome is Outcome.OK
    assert actual(emulator, "Renamed") == Decimal("100.25")


def test_a_goal_overridden_by_a_person_meanwhile_is_left_alone(emulator: Emulator, tmp_path: Path) -> None:
    with meanwhile(emulator, tmp_path, lambda: change(emulator, ANN, isoverridden=True, actualmoney=Decimal(1))) as app:
        result = app.sync(write=True)
    assert result.outcome is Outcome.PARTIAL
    assert skips(result) == {"Ann": SkipReason.CONFLICT}
    assert actual(emulator, "Ann") == 1
    assert actual(emulator, "Bob") == Decimal("200.5")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"statecode": 1, "statuscode": 1}, SkipReason.CLOSED),
        ({"goalownerid": made_id("user", "Bob")}, SkipReason.CONFLICT),
        ({"targetmoney": Decimal(7)}, SkipReason.CONFLICT),
    ],
)
def test_a_goal_closed_or_redefined_meanwhile_is_left_to_the_next_cycle(
    emulator: Emulator, tmp_path: Path, columns: Mapping[str, Value], reason: SkipReason
) -> None:
    with meanwhile(emulator, tmp_path, lambda: change(emulator, ANN, **columns)) as app:
        assert skips(app.sync(write=True)) == {"Ann": reason}
    assert actual(emulator, "Ann") is None


def test_a_goal_deleted_meanwhile_is_said_so(emulator: Emulator, tmp_path: Path) -> None:
    with meanwhile(emulator, tmp_path, lambda: emulator.store.remove("goal", ANN)) as app:
        assert skips(app.sync(write=True)) == {"Ann": SkipReason.GONE}


def test_a_goal_that_keeps_changing_is_a_conflict(emulator: Emulator, tmp_path: Path) -> None:
    with stubborn(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert set(skips(result).values()) == {SkipReason.CONFLICT}
    assert result.outcome is Outcome.PARTIAL


@contextmanager
def stubborn(emulator: Emulator, folder: Path) -> Iterator[App]:
    """Build the application; somebody touches Ann's goal before every write reaches the server."""
    with through(emulator, folder, Meddling(emulator)) as app:
        yield app


@contextmanager
def through(emulator: Emulator, folder: Path, adapter: BaseAdapter) -> Iterator[App]:
    session = requests.Session()
    session.mount("https://", adapter)
    config = configuration(emulator, folder, dataverse={"retry_budget": "0s"})
    with opened(config, clock=lambda: NOW, environ={}, session=session) as app:
        yield app


def body_of(request: requests.PreparedRequest) -> bytes:
    return request.body if isinstance(request.body, bytes) else b""


def writes(request: requests.PreparedRequest) -> bool:
    return str(request.url).endswith("$batch") and b"PATCH" in body_of(request)


class Meddling(BaseAdapter):
    """Passes calls on, but touches Ann's goal just before each batch that writes it."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self._emulator = emulator
        self._inner = emulator.session().get_adapter("https://x")
        self._count = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        if writes(request) and ANN.encode() in body_of(request):
            self._count += 1
            change(self._emulator, ANN, title=f"Ann {self._count}" if self._count > 1 else "Ann")
        return self._inner.send(request, *args, **kwargs)

    def close(self) -> None:
        self._inner.close()


class LosingAnswers(Meddling):
    """Passes calls on, but loses the answer to the first batch of writes (or the call itself)."""

    def __init__(self, emulator: Emulator, *, deliver: bool) -> None:
        super().__init__(emulator)
        self._deliver = deliver

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        if writes(request):
            self._count += 1
            if self._count == 1:
                if self._deliver:
                    self._inner.send(request, *args, **kwargs)
                raise requests.ConnectionError("the connection broke")
        return self._inner.send(request, *args, **kwargs)


@pytest.mark.parametrize("deliver", [True, False])
def test_after_a_lost_connection_the_goal_is_read_back_before_anything_is_sent_again(
    emulator: Emulator, tmp_path: Path, *, deliver: bool
) -> None:
    with through(emulator, tmp_path, LosingAnswers(emulator, deliver=deliver)) as app:
        result = app.sync(write=True)
        assert result.outcome is Outcome.OK
        assert app.sync(write=True).plan.is_empty
    assert actual(emulator, "Company") == Decimal("305.0001")


def test_our_own_override_is_written_again_but_not_after_a_person_changed_it(
    emulator: Emulator, tmp_path: Path
) -> None:
    deal = made_id("deal", "1")
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        emulator.store.change("opportunity", deal, {"actualvalue": Decimal(500), "actualvalue_base": Decimal(500)})
        app.sync(write=True)
        assert actual(emulator, "Ann") == 500
        change(emulator, ANN, actualmoney=Decimal(1))
        emulator.store.change("opportunity", deal, {"actualvalue": Decimal(600), "actualvalue_base": Decimal(600)})
        result = app.sync(write=True)
    assert actual(emulator, "Ann") == 1
    assert [skip.reason for skip in result.plan.skips] == [SkipReason.OVERRIDDEN]
    assert actual(emulator, "North") == Decimal("201.75"), "the parent adds what the person typed"


def test_without_its_journal_every_override_counts_as_a_persons(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    for path in tmp_path.glob("journal.db*"):
        path.unlink()
    with application(emulator, tmp_path) as app:
        assert {skip.reason for skip in app.sync(write=True).plan.skips} == {SkipReason.OVERRIDDEN}


def test_only_the_goals_of_a_changed_deal_are_computed_and_written(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        emulator.store.change(
            "opportunity", made_id("deal", "4"), {"actualvalue": Decimal(5), "actualvalue_base": Decimal(5)}
        )
        result = app.sync(write=True)
    assert result.recomputed == {made_id("goal", "South")}
    assert result.pushed is not None
    assert {write.title for write in result.pushed.written} == {"South", "Company"}
    assert result.counts["requests"] == 4 + 1, "one per tracked table, one for the others, one for all goals written"


def test_a_broken_query_stops_only_its_goal(tmp_path: Path) -> None:
    emulator = load(tmp_path, "query")
    query = made_id("query", "big and new")
    document = CASES["query"].tables["Queries"][0]["condition"].replace('"like"', '"near"')
    document = f'<fetch><entity name="opportunity"><filter>{document}</filter></entity></fetch>'
    emulator.store.change("goalrollupquery", query, {"fetchxml": document})
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert result.outcome is Outcome.PARTIAL
    (problem,) = result.rollup.problems
    assert "near" in problem.message
    assert "big and new" in problem.message
    assert actual(emulator, "Ann") is None


def test_an_expired_delta_link_leads_to_a_full_read(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        emulator.store.remove("opportunity", made_id("deal", "1"))
        emulator.clock.advance(dt.timedelta(days=8))
        ways = {pull.name: str(pull.way) for pull in app.sync(write=True).pulls}
    assert ways["opportunity"] == "full"
    assert actual(emulator, "Ann") == 0


@pytest.mark.parametrize("reread_up_to", [0, 1000])
def test_a_table_without_change_tracking_is_followed_too(tmp_path: Path, reread_up_to: int) -> None:
    emulator = load(tmp_path, change_tracking={"opportunity": False})
    rules = {"pull": {"reread_up_to": reread_up_to, "sweep_every": "0s"}}
    with application(emulator, tmp_path, **rules) as app:
        app.sync(write=True)
        emulator.store.remove("opportunity", made_id("deal", "1"))
        emulator.store.change(
            "opportunity", made_id("deal", "2"), {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)}
        )
        ways = {pull.name: str(pull.way) for pull in app.sync(write=True).pulls}
    assert ways["opportunity"] == ("poll" if reread_up_to == 0 else "full")
    assert (actual(emulator, "Ann"), actual(emulator, "Bob")) == (0, 7)


def test_full_reads_everything_again_and_finds_the_same(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        result = app.sync(write=True, full=True)
    assert {str(pull.way) for pull in result.pulls} == {"full"}
    assert result.plan.is_empty


def test_a_token_that_is_refused_is_renewed_once(emulator: Emulator, tmp_path: Path) -> None:
    faulty = FaultyApp(emulator.app, [Fault("GET opportunities", nth=(1,), expire_token=True)])
    with through(emulator, tmp_path, mounted_session(faulty).get_adapter("https://x")) as app:
        assert app.sync(write=True).outcome is Outcome.OK


def test_a_token_that_is_never_accepted_ends_the_run(emulator: Emulator, tmp_path: Path) -> None:
    faulty = FaultyApp(emulator.app, [Fault("GET opportunities", expire_token=True)])
    with (
        through(emulator, tmp_path, mounted_session(faulty).get_adapter("https://x")) as app,
        pytest.raises(AuthError, match="does not accept the access token"),
    ):
        app.sync(write=True)


def test_a_page_that_comes_twice_changes_nothing(emulator: Emulator, tmp_path: Path) -> None:
    faulty = FaultyApp(emulator.app, [Fault("GET opportunities", duplicate_page=True)])
    with through(emulator, tmp_path, mounted_session(faulty).get_adapter("https://x")) as app:
        assert app.sync(write=True).outcome is Outcome.OK
    assert actual(emulator, "Company") == Decimal("305.0001")


@pytest.mark.parametrize("privilege", ["prvReadGoal", "prvWriteGoal"])
def test_a_missing_privilege_ends_the_run_by_name(tmp_path: Path, privilege: str) -> None:
    emulator = load(tmp_path, missing_privileges=frozenset({privilege}))
    with application(emulator, tmp_path) as app:
        with pytest.raises(AuthError, match=privilege):
            app.sync(write=True)
        assert app.line.journal.runs(1)[0].outcome == "failed"
    assert actual(emulator, "Company") is None


def test_without_an_application_user_the_mend_says_so(tmp_path: Path) -> None:
    with application(load(tmp_path, application_user=False), tmp_path) as app, pytest.raises(AuthError) as caught:
        app.sync(write=True)
    assert "application user" in caught.value.hint


def test_lists_after_a_pull_that_did_not_end_say_so(emulator: Emulator, tmp_path: Path) -> None:
    faulty = FaultyApp(emulator.app, [Fault("GET opportunities", status=400)])
    with through(emulator, tmp_path, mounted_session(faulty).get_adapter("https://x")) as app:
        with pytest.raises(RejectedError):
            app.sync(write=True)
        with pytest.raises(UsageError, match="'opportunity' has not been pulled"):
            mirrored(app.line, NOW)


def test_lists_show_what_the_last_cycle_left(emulator: Emulator, tmp_path: Path) -> None:
    with application(emulator, tmp_path) as app:
        result = app.sync(write=False)
        snapshot = mirrored(app.line, NOW)
        rollup, plan = computed(app.line, snapshot)
    assert rollup.totals == result.rollup.totals
    assert plan == result.plan


def test_a_failing_server_is_temporary(emulator: Emulator, tmp_path: Path) -> None:
    class Failing(Meddling):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
            raise requests.ConnectionError("gone")

    with (
        through(emulator, tmp_path, Failing(emulator)) as app,
        pytest.raises(RetryableError, match="cannot be reached"),
    ):
        app.sync(write=True)
