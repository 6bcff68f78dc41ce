"""Faults that were found once, each with the case that showed it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from d365sync.core.values import Value
from d365sync.emulator import Emulator
from d365sync.errors import MirrorError, RetryableError
from d365sync.sync.cycle import Outcome
from d365sync.sync.explain import explain, find_goal
from d365sync.sync.offline import computed, mirrored
from d365sync.sync.pulling import pull_all
from tests.emulated import NOW, application, goal_values
from tests.golden.casebook import made_id
from tests.integration.test_line import ANN, NORTH, Meddling, actual, load, through, writes


def asking(condition: str) -> str:
    """Return a rollup query over deals with one condition."""
    return f'<fetch><entity name="opportunity"><filter>{condition}</filter></entity></fetch>'


class AnsweringInstead(Meddling):
    """Carries out the first batch of writes, then answers with a failing status instead."""

    def __init__(self, emulator: Emulator, status: int) -> None:
        super().__init__(emulator)
        self._status = status

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        response = self._inner.send(request, *args, **kwargs)
        if writes(request):
            self._count += 1
            if self._count == 1:
                response.status_code = self._status
        return response


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_write_that_arrived_behind_a_failing_gateway_stays_ours(tmp_path: Path, status: int) -> None:
    emulator = load(tmp_path)
    with through(emulator, tmp_path, AnsweringInstead(emulator, status)) as app:
        result = app.sync(write=True)
        assert result.outcome is Outcome.OK
        assert result.counts["written_goals"] == 5
        emulator.store.change(
            "opportunity", made_id("deal", "1"), {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)}
        )
        assert app.sync(write=True).plan.skips == ()
    assert actual(emulator, "Ann") == 7


def test_lists_while_a_sync_is_under_way_lose_no_change(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        row = dict(app.line.mirror.rows(mirrored(app.line, NOW).tables["opportunity"])[0])
        emulator.store.change(
            "opportunity", str(row["opportunityid"]), {"actualvalue": Decimal(9), "actualvalue_base": Decimal(9)}
        )
        snapshot = mirrored(app.line, NOW)
        changed = {**row, "actualvalue": Decimal(9), "actualvalue_base": Decimal(9), "versionnumber": 99_999_999}
        app.line.mirror.apply(snapshot.tables["opportunity"], [changed])
        rollup, _ = computed(app.line, snapshot)
        again, _ = computed(app.line, snapshot)
        assert rollup.totals == again.totals
        assert app.sync(write=True).recomputed


@pytest.mark.parametrize("quantity", ["1000000000", "99999999998.99998"])
def test_large_decimals_are_held_to_the_last_digit(tmp_path: Path, quantity: str) -> None:
    emulator = load(tmp_path, "units", edit=lambda tables: tables["Products"][0].update(quantity=quantity))
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        assert app.sync(write=True).plan.is_empty
    assert goal_values(emulator)["Ann"]["actualdecimal"] == Decimal(quantity) + Decimal("1.00001")


def test_a_table_whose_tracking_is_switched_off_is_followed_on(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
    tracked = load(tmp_path, change_tracking={"systemuser": False, "team": False})
    with application(tracked, tmp_path, now=NOW + dt.timedelta(days=2)) as app:
        app.line.mirror.forget_definitions()
        assert app.sync(write=False).outcome is Outcome.OK


def test_a_query_that_joins_a_goal_table_is_pulled_once_and_listed(tmp_path: Path) -> None:
    emulator = load(tmp_path, "query")
    document = (
        '<fetch><entity name="opportunity"><link-entity name="goal" from="goalownerid" to="ownerid">'
        '<filter><condition attribute="depth" operator="ge" value="0"/></filter></link-entity></entity></fetch>'
    )
    emulator.store.change("goalrollupquery", made_id("query", "big and new"), {"fetchxml": document})
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        result = app.sync(write=True)
        assert [pull.name for pull in result.pulls].count("goal") == 1
        assert computed(app.line, mirrored(app.line, NOW))[0].totals == result.rollup.totals


def test_a_column_that_is_new_is_found_though_definitions_are_remembered(tmp_path: Path) -> None:
    emulator = load(tmp_path, "query")
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        found = app.line.mirror.definitions()["opportunity"]
        without = found[0].replace('"salesstage":', '"salesstage_gone":')
        app.line.mirror.save_definitions({"opportunity": without}, found[1])
    document = asking('<condition attribute="salesstage" operator="null"/>')
    emulator.store.change("goalrollupquery", made_id("query", "big and new"), {"fetchxml": document})
    with application(emulator, tmp_path, now=NOW + dt.timedelta(hours=1)) as app:
        assert app.sync(write=True).outcome is Outcome.OK


def test_what_dataverse_stored_decides_whose_override_it_is(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        (values,) = app.line.journal.written_values([ANN])[ANN]
    assert values["actualmoney"] == actual(emulator, "Ann")


@pytest.mark.parametrize("changes", [{"goalenddate": dt.datetime(9999, 12, 31, tzinfo=dt.UTC)}, {"metricid": None}])
def test_a_goal_without_a_usable_definition_is_a_problem_not_a_crash(tmp_path: Path, changes: dict[str, Value]) -> None:
    emulator = load(tmp_path)
    emulator.store.change("goal", made_id("goal", "South"), changes)
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert result.outcome is Outcome.PARTIAL
    assert {problem.code for problem in result.rollup.problems} >= {
        "child-blocked" if "metricid" not in changes else "child-metric-differs"
    }
    assert actual(emulator, "North") == 301


@pytest.mark.parametrize("broken", [{"goalattribute": "actualinteger"}, {"goalattribute": "title"}])
def test_a_misfit_rollup_field_is_a_problem_on_goals_rolled_up_from_children_too(
    tmp_path: Path, broken: dict[str, Value]
) -> None:
    emulator = load(tmp_path)
    for field in list(emulator.store.rows("rollupfield").values()):
        if str(field["goalattribute"]) == "actualmoney":
            emulator.store.change("rollupfield", str(field["rollupfieldid"]), broken)
    for goal in list(emulator.store.rows("goal")):
        emulator.store.change("goal", goal, {"rolluponlyfromchildgoals": True})
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert result.outcome is Outcome.PARTIAL
    assert "metric-rollup-field" in {problem.code for problem in result.rollup.problems}


def test_a_goal_whose_query_asks_for_the_caller_can_be_explained(tmp_path: Path) -> None:
    emulator = load(tmp_path, "query")
    document = asking('<condition attribute="ownerid" operator="eq-userid"/>')
    emulator.store.change("goalrollupquery", made_id("query", "big and new"), {"fetchxml": document})
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        snapshot = mirrored(app.line, NOW)
        found = explain(app.line, snapshot, computed(app.line, snapshot)[0], find_goal(snapshot, "Ann"))
    assert "calling user" in found.problems[0]


def test_fiscal_goals_west_of_utc_keep_their_quarter(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    organization = next(iter(emulator.store.rows("organization")))
    emulator.store.change(
        "organization",
        organization,
        {"fiscalcalendarstart": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "fiscalperiodtype": 2002},
    )
    fiscal = {
        "isfiscalperiodgoal": True,
        "fiscalyear": 2026,
        "fiscalperiod": 4,
        "goalstartdate": None,
        "goalenddate": None,
    }
    emulator.store.change("goal", NORTH, {**fiscal, "rolluponlyfromchildgoals": False})
    with application(emulator, tmp_path, rollup={"time_zone": "America/New_York"}) as app:
        totals = app.sync(write=False).rollup.totals[NORTH]
    assert totals.own["actualmoney"] == Decimal("0.25")


def test_a_server_that_asks_to_wait_beyond_the_budget_is_given_up(tmp_path: Path) -> None:
    emulator = load(tmp_path)

    class Busy(Meddling):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
            response = self._inner.send(request, *args, **kwargs)
            if "/opportunities" in str(request.url):
                response.status_code = 429
                response.headers["Retry-After"] = "3600"
            return response

    with through(emulator, tmp_path, Busy(emulator)) as app, pytest.raises(RetryableError, match="429"):
        app.sync(write=True)


def test_full_reads_rows_again_whose_version_did_not_move(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=False)
        emulator.store.change(
            "opportunity", made_id("deal", "1"), {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)}
        )
        expected = app.sync(write=False).rollup.totals
        with app.line.mirror.connection() as connection:
            connection.exec_driver_sql("UPDATE opportunity SET actualvalue = NULL, actualvalue_base = NULL")
        assert app.sync(write=False, full=True).rollup.totals == expected


def test_a_pull_by_another_sync_before_the_sums_are_kept_is_not_forgotten(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app, application(emulator, tmp_path) as other:
        app.sync(write=False)
        pulse = app.line.mirror.pulse()
        amount = {"actualvalue": Decimal(7), "actualvalue_base": Decimal(7)}
        emulator.store.change("opportunity", made_id("deal", "1"), amount)
        pull_all(other.line, NOW)
        with pytest.raises(MirrorError, match="another sync"):
            app.line.mirror.settle([], pulse=pulse)
        assert other.sync(write=False).rollup.totals == other.sync(write=False, full=True).rollup.totals
