"""Rollup queries that ask for the calling user, through the whole line."""

from __future__ import annotations

from pathlib import Path

import pytest

from d365sync.core.values import Value
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.native import recalculate
from d365sync.emulator.settings import AskingUser, HierarchyModel
from d365sync.sync.cycle import Outcome
from tests.emulated import NOW, application, goal_values
from tests.golden.casebook import made_id, read_cases, write_org

CASE = next(one for one in read_cases(Path(__file__).parents[2] / "fixtures" / "goals") if one.name == "callers")
MEMBERSHIP = made_id("member", "Team Blue Ann")


def load(folder: Path, **settings: object) -> Emulator:
    write_org(CASE, folder / "org")
    return Emulator.load(folder / "org", now=NOW, settings=EmulatorSettings(**settings))  # type: ignore[arg-type]


def actuals(emulator: Emulator) -> dict[str, Value]:
    return {title: columns["actualmoney"] for title, columns in goal_values(emulator).items()}


def natively(emulator: Emulator) -> dict[str, Value]:
    for goal in list(emulator.store.rows("goal")):
        recalculate(emulator.store, goal, emulator.store.settings, NOW)
    return actuals(emulator)


def test_nothing_of_users_is_mirrored_that_no_query_asks_for(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    for query in list(emulator.store.rows("goalrollupquery")):
        emulator.store.change("goalrollupquery", query, {"fetchxml": '<fetch><entity name="opportunity"/></fetch>'})
    with application(emulator, tmp_path) as app:
        tables = app.sync(write=False).snapshot.tables
    assert "teammembership" not in tables
    assert tables["systemuser"].wanted == {"fullname"}


def test_leaving_a_team_recomputes_the_goals_that_ask_for_teams(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        emulator.store.remove("teammembership", MEMBERSHIP)
        again = app.sync(write=True)
    titles = {again.snapshot.book.goals[goal].title for goal in again.recomputed}
    assert titles == {"Ann teams", "Vera everything"}
    assert actuals(emulator)["Ann teams"] == 0
    assert actuals(emulator) == natively(load(tmp_path / "other")) | {"Ann teams": 0, "Vera everything": 100111}


def test_a_new_manager_of_a_user_recomputes_the_goals_that_ask_for_the_hierarchy(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        emulator.store.change("systemuser", made_id("user", "Bob"), {"parentsystemuserid": made_id("user", "Cid")})
        app.sync(write=True)
    assert actuals(emulator)["Vera people"] == 11
    assert actuals(emulator)["Cid people"] == 1100


def test_the_language_is_that_of_the_managers_settings(tmp_path: Path) -> None:
    def speaking(folder: Path) -> Emulator:
        emulator = load(folder)
        condition = '<condition attribute="closeprobability" operator="eq-userlanguage"/>'
        fetch = f'<fetch><entity name="opportunity"><filter>{condition}</filter></entity></fetch>'
        emulator.store.change("goalrollupquery", made_id("query", "my own"), {"fetchxml": fetch})
        emulator.store.put("usersettings", {"systemuserid": made_id("user", "Ann"), "uilanguageid": 9})
        emulator.store.change("opportunity", made_id("deal", "3"), {"closeprobability": 9})
        return emulator

    emulator = speaking(tmp_path)
    with application(emulator, tmp_path) as app:
        problems = app.sync(write=True).rollup.problems
    assert [(p.code, "language, which is not known" in p.message) for p in problems] == [
        ("rollup-query-unusable", True)
    ]
    assert (actuals(emulator)["Ann own"], actuals(emulator)["Cid own"]) == (100, None)
    assert natively(speaking(tmp_path / "other")) == actuals(emulator)


@pytest.mark.parametrize("model", list(HierarchyModel))
def test_both_hierarchies_agree_with_the_native_rollup(tmp_path: Path, model: HierarchyModel) -> None:
    def placed(folder: Path) -> Emulator:
        emulator = load(folder, hierarchy_model=model)
        for position, parent in (("top", None), ("vacant", "top"), ("low", "vacant")):
            row = {
                "positionid": made_id("position", position),
                "parentpositionid": parent and made_id("position", parent),
            }
            emulator.store.put("position", row)
        for user, position in (("Cid", "top"), ("Ann", "low"), ("Vera", "low")):
            emulator.store.change("systemuser", made_id("user", user), {"positionid": made_id("position", position)})
        return emulator

    emulator = placed(tmp_path)
    with application(emulator, tmp_path, rollup={"hierarchy": model.value}) as app:
        assert app.sync(write=True).outcome is Outcome.OK
    assert actuals(emulator) == natively(placed(tmp_path / "other"))
    assert actuals(emulator)["Cid people"] == (1000 if model is HierarchyModel.MANAGER else 1011)


def test_the_goal_owner_may_be_the_caller(tmp_path: Path) -> None:
    emulator = load(tmp_path, asking_user=AskingUser.OWNER)
    with application(emulator, tmp_path, rollup={"caller": "owner"}) as app:
        app.sync(write=True)
    assert actuals(emulator)["Ann own"] == 100
    assert actuals(emulator) == natively(load(tmp_path / "other", asking_user=AskingUser.OWNER))


def test_refused_queries_stop_only_the_goals_that_ask(tmp_path: Path) -> None:
    emulator = load(tmp_path, asking_user=AskingUser.NOBODY)
    with application(emulator, tmp_path, rollup={"caller": "refuse"}) as app:
        result = app.sync(write=True)
    assert result.outcome is Outcome.PARTIAL
    assert {problem.code for problem in result.rollup.problems} == {"caller-refused"}
    assert set(natively(load(tmp_path / "other", asking_user=AskingUser.NOBODY)).values()) == {None}


def test_a_goal_managed_by_a_team_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    team = {"ownerid": made_id("team", "Team Blue"), "owneridtype": "team"}
    emulator.store.change("goal", made_id("goal", "Ann own"), team)
    with application(emulator, tmp_path) as app:
        result = app.sync(write=True)
    assert [(problem.code, problem.goal_id) for problem in result.rollup.problems] == [
        ("caller-is-team", made_id("goal", "Ann own"))
    ]
    assert (actuals(emulator)["Ann own"], actuals(emulator)["Ann teams"]) == (None, 10000)
