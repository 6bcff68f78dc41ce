"""Records that count twice in one total, through the whole line, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from d365sync.app import App
from d365sync.emulator import Emulator
from d365sync.mirror.doubles import begin_look, kept_pairs
from d365sync.sync.cycle import Outcome
from d365sync.sync.doubles import double_counted
from d365sync.sync.explain import find_goal
from d365sync.sync.lint import lint
from d365sync.sync.offline import computed, mirrored
from tests.emulated import NOW, application
from tests.golden.casebook import made_id, read_cases, write_org

CASE = next(
    one for one in read_cases(Path(__file__).parents[2] / "fixtures" / "goals") if one.name == "double-counting"
)
NORTH, ANN, DEAL = made_id("goal", "North"), made_id("goal", "Ann"), made_id("deal", "1")
SENTENCE = "1 record worth 100 EUR counts in 'North' and again through its child 'Ann'"


def load(folder: Path) -> Emulator:
    write_org(CASE, folder / "org")
    return Emulator.load(folder / "org", now=NOW)


@contextmanager
def counting(emulator: Emulator, folder: Path, **rollup: object) -> Iterator[App]:
    with application(emulator, folder, rollup=rollup) as app:
        yield app


def sentences(app: App) -> list[str]:
    problems = app.sync(write=False).rollup.problems
    return [problem.message for problem in problems if problem.code == "double-count"]


def test_a_double_is_reported_on_the_parent_and_left_in_its_total(tmp_path: Path, database_url: str) -> None:
    emulator = load(tmp_path)
    with application(
        emulator, tmp_path, storage={"mirror": database_url, "journal": f"sqlite:///{tmp_path}/j.db"}
    ) as app:
        result = app.sync(write=True)
        (double,) = result.doubles.found
        assert (double.at, double.first, double.second, double.column) == (NORTH, NORTH, ANN, "actualmoney")
        assert (double.shared.records, double.shared.amount) == (1, 100)
        assert double.shared.sample == ((DEAL, "1"),)
        assert [p.message for p in result.rollup.problems if p.goal_id == NORTH] == [SENTENCE]
        assert result.rollup.totals[NORTH].totals["actualmoney"] == 200
        assert result.outcome is Outcome.OK


def test_a_change_of_a_record_is_seen_and_an_idle_cycle_compares_nothing(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with counting(emulator, tmp_path) as app:
        assert sentences(app) == [SENTENCE]
        with app.line.mirror.connection() as connection:
            connection.exec_driver_sql("UPDATE _double SET definition = 'left alone' WHERE records > 0")
        assert sentences(app) == [SENTENCE]
        assert {one.definition for one in kept_pairs(app.line.mirror, shared_only=True).values()} == {"left alone"}
        emulator.store.change("opportunity", DEAL, {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)})
        assert sentences(app) == [SENTENCE.replace("100", "7")]
        emulator.store.change("opportunity", DEAL, {"statecode": 2, "statuscode": 4})
        assert sentences(app) == []


def test_a_record_that_leaves_one_goal_and_comes_back_is_seen_though_the_sum_of_the_other_stays(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    owner = emulator.store.rows("opportunity")[DEAL]["ownerid"]
    with counting(emulator, tmp_path) as app:
        assert sentences(app) == [SENTENCE]
        emulator.store.change("opportunity", DEAL, {"ownerid": made_id("user", "Nobody")})
        assert sentences(app) == []
        emulator.store.change("opportunity", DEAL, {"ownerid": owner})
        assert sentences(app) == [SENTENCE]


def test_a_change_that_only_one_query_follows_is_seen(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    link = '<link-entity name="account" from="accountid" to="parentaccountid"><filter><condition attribute="name" '
    fetch = (
        f'<fetch><entity name="opportunity">{link}operator="eq" value="Acme"/></filter></link-entity></entity></fetch>'
    )
    account, query = made_id("account", "Acme"), made_id("query", "acme")
    emulator.store.put("account", {"accountid": account, "name": "Other"})
    emulator.store.put(
        "goalrollupquery",
        {
            "goalrollupqueryid": query,
            "name": "acme",
            "queryentitytype": "opportunity",
            "fetchxml": fetch,
            "statecode": 0,
        },
    )
    emulator.store.change("opportunity", DEAL, {"parentaccountid": account})
    emulator.store.change("goal", NORTH, {"rollupqueryactualmoneyid": query})
    with counting(emulator, tmp_path) as app:
        assert sentences(app) == []
        emulator.store.change("account", account, {"name": "Acme"})
        assert sentences(app) == [SENTENCE]


def test_another_shape_of_the_tree_is_seen_without_any_record_changing(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with counting(emulator, tmp_path) as app:
        assert sentences(app) == [SENTENCE]
        emulator.store.change("goal", ANN, {"parentgoalid": None})
        assert sentences(app) == []
        emulator.store.change("goal", ANN, {"parentgoalid": NORTH})
        assert sentences(app) == [SENTENCE]


def test_after_a_look_that_did_not_end_everything_is_compared(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with counting(emulator, tmp_path) as app:
        app.sync(write=False)
        with app.line.mirror.connection() as connection:
            connection.exec_driver_sql("UPDATE _double SET records = 9")
        assert begin_look(app.line.mirror)
        assert sentences(app) == [SENTENCE]


def test_switched_off_nothing_is_said_or_kept_and_on_again_all_is(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with counting(emulator, tmp_path) as app:
        assert sentences(app) == [SENTENCE]
    with counting(emulator, tmp_path, double_counting="off") as app:
        assert sentences(app) == []
        assert kept_pairs(app.line.mirror) == {}
    with counting(emulator, tmp_path) as app:
        assert sentences(app) == [SENTENCE]


def test_a_goal_overridden_by_a_person_adds_no_records(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    emulator.store.change("goal", ANN, {"isoverridden": True, "actualmoney": Decimal(5)})
    with counting(emulator, tmp_path) as app:
        assert sentences(app) == []
    with counting(emulator, tmp_path, overridden_child="recomputed") as app:
        assert sentences(app) == [SENTENCE]


def test_lists_and_explanations_say_what_the_last_cycle_found(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with counting(emulator, tmp_path) as app:
        app.sync(write=False)
        snapshot = mirrored(app.line, NOW)
        assert SENTENCE in [problem.message for problem in computed(app.line, snapshot)[0].problems]
        (double,) = double_counted(app.line, snapshot, find_goal(snapshot, "North"))
        assert double.shared.sample == ((DEAL, "1"),)
        assert double_counted(app.line, snapshot, find_goal(snapshot, "Ann")) == ()


def test_lint_says_everything_with_what_stops_goals_first(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    emulator.store.change("goal", ANN, {"targetmoney": None})
    row = emulator.store.rows("goal")[ANN]
    emulator.store.put(
        "goal", {**row, "goalid": made_id("goal", "Zoe"), "title": "Zoe", "parentgoalid": None, "metricid": None}
    )
    with counting(emulator, tmp_path) as app:
        app.sync(write=False)
        codes = [problem.code for problem in lint(app.line, mirrored(app.line, NOW))]
    assert codes == ["goal-metric-missing", "goal-target-missing", "double-count"]


@pytest.mark.parametrize("amounts", [("922337203685477.5807", "922337203685477.5807"), ("-0.0001", "0.0003")])
def test_sums_of_shared_records_are_exact(tmp_path: Path, amounts: tuple[str, str]) -> None:
    emulator = load(tmp_path)
    row = emulator.store.rows("opportunity")[DEAL]
    for number, amount in enumerate(amounts):
        value = Decimal(amount)
        key = made_id("deal", f"more {number}")
        emulator.store.put(
            "opportunity", {**row, "opportunityid": key, "actualvalue": value, "actualvalue_base": value}
        )
    with counting(emulator, tmp_path) as app:
        (double,) = app.sync(write=False).doubles.found
    assert double.shared.amount == 100 + sum(map(Decimal, amounts))
