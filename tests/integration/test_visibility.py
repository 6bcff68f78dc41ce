"""Counting what each goal's manager may read, end to end: two regions, their managers, and what changes under them."""

from __future__ import annotations

import copy
import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.app import App, opened
from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.goals.parity import Kind
from d365sync.core.problems import Severity
from d365sync.core.values import Value
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import InProcessAdapter
from d365sync.emulator.native import recalculate
from d365sync.sync.cycle import CycleResult, Outcome
from d365sync.sync.explain import explain, find_goal
from d365sync.sync.offline import computed, mirrored
from d365sync.sync.parity import compare
from tests.emulated import NOW, configuration
from tests.golden.casebook import made_id, write_org
from tests.integration.test_line import CASES
from tests.integration.test_on_behalf import Recording
from tests.security import APPLICATION_USER, DEEP, GLOBAL, LOCAL, Security, amend, id_of, object_id

UNITS = {"Company": None, "North": "Company", "South": "Company"}
UNIT_OF = {"Dora": "Company", "Nina": "North", "Ann": "North", "Bob": "North", "Sam": "South"}
MANAGERS = {"Company": "Dora", "North": "Nina", "Ann": "Nina", "Bob": "Nina", "South": "Sam"}
USERS = {made_id("user", name): name for name in UNIT_OF}


def unit(name: str) -> str:
    return id_of("unit", name)


def user(name: str) -> str:
    return made_id("user", name)


def bought(name: str) -> dict[str, Value]:
    """Return the columns by which a deal belongs to a user."""
    return {"ownerid": user(name), "owneridtype": "systemuser", "owningbusinessunit": unit(UNIT_OF[name])}


def write(folder: Path, security: Security) -> None:
    """Write the org of the case `tree`, with regions that count every record their manager may read."""
    case = copy.deepcopy(CASES["tree"])
    for row in case.tables["Goals"]:
        if row["goal"] in ("North", "South"):
            row["options"] = "all"
    write_org(case, folder)
    units = [
        {
            "businessunitid": unit(name),
            "name": name,
            "_parentbusinessunitid_value": unit(parent) if parent is not None else None,
        }
        for name, parent in UNITS.items()
    ]
    (folder / "businessunits.json").write_text(json.dumps(units), encoding="utf-8")
    amend(
        folder,
        "systemusers",
        lambda row: {
            "azureactivedirectoryobjectid": object_id(row["systemuserid"]),
            "_businessunitid_value": unit(UNIT_OF[row["fullname"]]),
        },
    )
    amend(folder, "goals", lambda row: {"_ownerid_value": user(MANAGERS[row["title"]])})
    security.role("lead", prvReadOpportunity=LOCAL)
    security.role("director", prvReadOpportunity=DEEP)
    for name, role in {"Nina": "lead", "Sam": "lead", "Dora": "director"}.items():
        security.give(role, user=user(name))
    security.write(folder)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Emulator]:
    def made(security: Security | None = None, **settings: Any) -> Emulator:
        write(tmp_path / "org", security or Security())
        return Emulator.load(tmp_path / "org", now=NOW, settings=EmulatorSettings(**settings))

    return made


@contextmanager
def watching(
    emulator: Emulator, folder: Path, *, now: dt.datetime = NOW, visibility: str = "manager", mirror: str = "mirror.db"
) -> Iterator[tuple[App, Recording]]:
    """Build the application and its session, which notes on whose behalf each request is made."""
    session = Recording(emulator)
    config = configuration(
        emulator,
        folder,
        rollup={"visibility": visibility},
        storage={"mirror": mirror if "://" in mirror else f"sqlite:///{mirror}"},
        writeback={"mode": "plan"},
    )
    with opened(config, clock=lambda: now, environ={}, session=session) as app:
        yield app, session


def asked(session: Recording) -> list[str]:
    """Return whom the requests since the last question were made for, in order."""
    names = {object_id(one): name for one, name in USERS.items()}
    found = [names[caller] for _, caller in session.seen if caller is not None]
    session.seen.clear()
    return found


def ours(result: CycleResult) -> dict[str, Any]:
    goals = result.snapshot.book.goals
    return {goals[goal].title: totals.totals["actualmoney"] for goal, totals in result.rollup.totals.items()}


def natively(emulator: Emulator) -> dict[str, Any]:
    """Roll up natively and return what the goals hold."""
    store = emulator.store
    recalculate(store, made_id("goal", "Company"), store.settings, NOW)
    rows = store.rows("goal").values()
    assert {column for row in rows for column in VALUE_COLUMNS if row.get(column)} <= {"actualmoney"}
    return {str(row["title"]): row.get("actualmoney") for row in rows}


def test_service_counts_all_and_manager_what_dataverse_counts(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    with watching(emulator, tmp_path, visibility="service") as (app, session):
        everything = ours(app.sync(write=False))
        assert asked(session) == []
    with watching(emulator, tmp_path) as (app, session):
        result = app.sync(write=False)
        assert sorted(asked(session)) == ["Nina", "Sam"]
    assert result.outcome is Outcome.OK
    total = Decimal("10304.0001")
    assert (everything["North"], everything["South"]) == (total + Decimal("300.75"), total)
    assert (ours(result)["North"], ours(result)["South"]) == (Decimal("601.75"), Decimal("4.0001"))
    assert ours(result) == natively(emulator)


def test_nothing_is_asked_while_it_is_fresh(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    with watching(emulator, tmp_path) as (app, session):
        app.sync(write=False)
        assert sorted(asked(session)) == ["Nina", "Sam"]
        result = app.sync(write=False)
        assert asked(session) == []
        assert result.recomputed == frozenset()
        app.sync(write=False, full=True)
        assert sorted(asked(session)) == ["Nina", "Sam"]
    with watching(emulator, tmp_path, now=NOW + dt.timedelta(minutes=59)) as (app, session):
        app.sync(write=False)
        assert asked(session) == []
    with watching(emulator, tmp_path, now=NOW + dt.timedelta(minutes=60)) as (app, session):
        result = app.sync(write=False)
        assert sorted(asked(session)) == ["Nina", "Sam"]
        assert result.recomputed == frozenset()


def test_a_deal_that_moves_or_comes_counts_in_the_next_cycle(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    store = emulator.store
    with watching(emulator, tmp_path) as (app, session):
        app.sync(write=False)
        asked(session)
        store.change("opportunity", made_id("deal", "3"), bought("Sam"))
        new = {**store.rows("opportunity")[made_id("deal", "1")], "opportunityid": id_of("new")}
        store.put("opportunity", {**new, "actualvalue": Decimal(7), "actualvalue_base": Decimal(7)})
        result = app.sync(write=False)
        assert sorted(asked(session)) == ["Nina", "Sam"]
        assert ours(result)["South"] == Decimal("4.2501")
        assert ours(result) == natively(emulator)
        store.remove("opportunity", id_of("new"))
        assert ours(app.sync(write=False)) == natively(emulator)
        assert asked(session) == []


def test_when_a_question_by_id_is_refused_all_is_asked(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    with watching(emulator, tmp_path) as (app, session):
        app.sync(write=False)
        asked(session)
        refusing = FaultyApp(emulator.app, [Fault("GET opportunities?*Dynamics.CRM.In*", status=400)])
        session.recorder.answer_from(InProcessAdapter(refusing))
        emulator.store.change("opportunity", made_id("deal", "3"), bought("Sam"))
        assert ours(app.sync(write=False)) == natively(emulator)
        assert sorted(asked(session)) == ["Nina", "Nina", "Sam", "Sam"]


def test_when_a_table_is_pulled_anew_all_is_asked(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    condition = '<condition attribute="salesstage" operator="null"/>'
    query: dict[str, Value] = {
        "goalrollupqueryid": id_of("query"),
        "name": "another column",
        "queryentitytype": "opportunity",
        "fetchxml": f'<fetch><entity name="opportunity"><filter>{condition}</filter></entity></fetch>',
    }
    with watching(emulator, tmp_path) as (app, session):
        app.sync(write=False)
        asked(session)
        emulator.store.put("goalrollupquery", query)
        emulator.store.change("goal", made_id("goal", "Ann"), {"rollupqueryactualmoneyid": id_of("query")})
        emulator.store.change("opportunity", made_id("deal", "3"), bought("Sam"))
        assert ours(app.sync(write=False)) == natively(emulator)
        assert sorted(asked(session)) == ["Nina", "Sam"]


def test_a_role_is_noticed_when_it_is_time_to_ask(make: Callable[..., Emulator], tmp_path: Path) -> None:
    security = Security()
    security.role("everything", prvReadOpportunity=GLOBAL)
    emulator = make(security)
    with watching(emulator, tmp_path) as (app, _):
        app.sync(write=False)
    emulator.store.put(
        "systemuserroles",
        {"systemuserroleid": "x", "systemuserid": user("Nina"), "roleid": id_of("role", "everything")},
    )
    with watching(emulator, tmp_path, now=NOW + dt.timedelta(minutes=30)) as (app, _):
        assert ours(app.sync(write=False))["North"] == Decimal("601.75")
    with watching(emulator, tmp_path, now=NOW + dt.timedelta(hours=1)) as (app, _):
        result = app.sync(write=False)
        titles = {result.snapshot.book.goals[goal].title for goal in result.recomputed}
        assert titles == {"North", "Ann", "Bob"}
        assert ours(result)["North"] == Decimal("10604.7501")
        assert ours(result) == natively(emulator)


def test_a_goal_given_to_another_manager_is_counted_with_the_others_eyes(
    make: Callable[..., Emulator], tmp_path: Path
) -> None:
    emulator = make()
    with watching(emulator, tmp_path) as (app, session):
        app.sync(write=False)
        asked(session)
        emulator.store.change("goal", made_id("goal", "South"), {"ownerid": user("Dora")})
        result = app.sync(write=False)
        assert asked(session) == ["Dora"]
        assert ours(result)["South"] == Decimal("10304.0001")
        assert ours(result) == natively(emulator)


def test_a_manager_whose_goals_come_back_is_asked_afresh(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    with watching(emulator, tmp_path) as (app, session):
        app.sync(write=False)
        emulator.store.change("goal", made_id("goal", "South"), {"ownerid": user("Dora")})
        emulator.store.change("opportunity", made_id("deal", "3"), bought("Sam"))
        app.sync(write=False)
        asked(session)
        emulator.store.change("goal", made_id("goal", "South"), {"ownerid": user("Sam")})
        result = app.sync(write=False)
        assert asked(session) == ["Sam"]
        assert ours(result)["South"] == Decimal("4.2501")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"isdisabled": True}, "manager-disabled"),
        ({"azureactivedirectoryobjectid": None}, "manager-without-object-id"),
    ],
)
def test_a_manager_who_cannot_be_asked_blocks_only_the_managers_goals(
    make: Callable[..., Emulator], tmp_path: Path, changes: dict[str, Value], code: str
) -> None:
    emulator = make()
    emulator.store.change("systemuser", user("Sam"), changes)
    with watching(emulator, tmp_path) as (app, _):
        result = app.sync(write=False)
    assert result.outcome is Outcome.PARTIAL
    problems = [one for one in result.rollup.problems if one.code != "double-count"]
    found = {problem.code: problem.goal_id for problem in problems}
    assert found == {code: made_id("goal", "South"), "child-blocked": made_id("goal", "Company")}
    assert ours(result).keys() == {"North", "Ann", "Bob"}


def test_a_user_dataverse_does_not_know_is_refused_with_its_words(
    make: Callable[..., Emulator], tmp_path: Path
) -> None:
    emulator = make()
    with watching(emulator, tmp_path) as (app, _):
        app.sync(write=False)
    unseen = {"azureactivedirectoryobjectid": id_of("another")}
    rows = [row | unseen if row["fullname"] == "Sam" else row for row in map(dict, users(emulator))]
    emulator.store.restore("systemuser", rows, ())
    with watching(emulator, tmp_path, now=NOW + dt.timedelta(hours=2)) as (app, _):
        result = app.sync(write=False)
        (problem,) = [one for one in result.rollup.problems if one.code == "manager-refused"]
        assert "is not a member of the organization" in problem.message
        assert ours(result) == ours_offline(app)
        assert ours(result).keys() == {"North", "Ann", "Bob"}


def users(emulator: Emulator) -> list[Mapping[str, Value]]:
    return list(emulator.store.rows("systemuser").values())


def test_a_team_as_manager_is_a_problem_with_a_mend(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    emulator.store.put("team", {"teamid": id_of("team"), "name": "Desk"})
    emulator.store.change("goal", made_id("goal", "South"), {"ownerid": id_of("team"), "owneridtype": "team"})
    with watching(emulator, tmp_path) as (app, _):
        (problem,) = [one for one in app.sync(write=False).rollup.problems if one.code == "manager-team"]
    assert problem.message == "the manager of 'South', Desk, is a team, which cannot be impersonated"
    assert problem.hint == 'make a user its manager, or set rollup.visibility = "service"'


def test_without_the_right_to_impersonate_one_question_is_enough(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make(missing_privileges=frozenset({"prvActOnBehalfOfAnotherUser"}))
    with watching(emulator, tmp_path) as (app, session):
        result = app.sync(write=False)
        assert len(asked(session)) == 1
    assert result.outcome is Outcome.PARTIAL
    assert ours(result) == {}
    codes = {one.code for one in result.rollup.problems if one.severity is Severity.BLOCKING}
    assert codes == {"manager-refused", "child-blocked"}
    assert all("Delegate" in one.hint for one in result.rollup.problems if one.code == "manager-refused")


class Meeting(BaseAdapter):
    """Lets requests for managers through two at a time, once one of them was answered."""

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self._inner = inner
        self._first = threading.Lock()
        self._pair = threading.Barrier(2)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:  # type: ignore[override]
        if "CallerObjectId" in request.headers and not self._first.acquire(blocking=False):
            self._pair.wait(timeout=10)
        return self._inner.send(request, *args, **options)

    def close(self) -> None:
        self._inner.close()


def test_managers_are_asked_side_by_side_after_the_first(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    emulator.store.change("goal", made_id("goal", "Ann"), {"ownerid": user("Dora")})
    with watching(emulator, tmp_path) as (app, session):
        session.recorder.answer_from(Meeting(InProcessAdapter(emulator.app)))
        result = app.sync(write=False)
        assert sorted(asked(session)) == ["Dora", "Nina", "Sam"]
    assert ours(result) == natively(emulator)


def test_a_refusal_is_tried_again_in_the_next_cycle(make: Callable[..., Emulator], tmp_path: Path) -> None:
    narrow = Security(administrator=False)
    narrow.role("sync", **dict.fromkeys(READS, GLOBAL))
    narrow.give("sync", user=APPLICATION_USER)
    narrow.role("delegate", prvActOnBehalfOfAnotherUser=GLOBAL)
    emulator = make(narrow)
    with watching(emulator, tmp_path) as (app, _):
        assert app.sync(write=False).outcome is Outcome.PARTIAL
        assert ours_offline(app) == {}
        role = {"systemuserid": APPLICATION_USER, "roleid": id_of("role", "delegate")}
        emulator.store.put("systemuserroles", {"systemuserroleid": "x", **role})
        result = app.sync(write=False)
        assert result.outcome is Outcome.OK
        assert ours(result) == natively(emulator)


READS = [
    "prvReadGoal", "prvReadMetric", "prvReadGoalRollupQuery", "prvReadOrganization", "prvReadTransactionCurrency",
    "prvReadUser", "prvReadTeam", "prvReadOpportunity", "prvReadEntity", "prvReadAttribute", "prvReadAccount",
]  # fmt: skip


def ours_offline(app: App) -> dict[str, Any]:
    snapshot = mirrored(app.line, NOW)
    rollup, _ = computed(app.line, snapshot)
    return {snapshot.book.goals[goal].title: one.totals["actualmoney"] for goal, one in rollup.totals.items()}


def test_a_manager_who_reads_nothing_counts_nothing_and_is_named(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    for row in list(emulator.store.rows("systemuserroles").values()):
        if row["systemuserid"] == user("Sam"):
            emulator.store.remove("systemuserroles", str(row["systemuserroleid"]))
    with watching(emulator, tmp_path) as (app, session):
        result = app.sync(write=False)
        asked(session)
        assert result.outcome is Outcome.OK
        (problem,) = (one for one in result.rollup.problems if one.code != "double-count")
        assert (problem.code, problem.severity) == ("manager-reads-nothing", Severity.WARNING)
        assert "prvReadOpportunity" in problem.message
        assert ours(result)["South"] == 0
        assert ours(result) == natively(emulator)
        emulator.store.change("opportunity", made_id("deal", "4"), {"actualvalue": Decimal(1)})
        app.sync(write=False)
        assert asked(session) == ["Nina"]


def test_lists_and_explanations_show_what_counted(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    with watching(emulator, tmp_path) as (app, session):
        result = app.sync(write=False)
        asked(session)
        assert ours_offline(app) == ours(result)
        snapshot = mirrored(app.line, NOW)
        found = explain(app.line, snapshot, computed(app.line, snapshot)[0], find_goal(snapshot, "South"))
        assert asked(session) == []
    assert [record.name for record in found.columns[0].records] == ["4"]


def test_lists_before_the_first_question_are_blocked_not_wrong(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    with watching(emulator, tmp_path, visibility="service") as (app, _):
        app.sync(write=False)
    with watching(emulator, tmp_path) as (app, _):
        assert ours_offline(app) == {}
        app.sync(write=False)
        assert len(ours_offline(app)) == 5


def test_turning_it_off_forgets_what_was_asked(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    with watching(emulator, tmp_path) as (app, _):
        app.sync(write=False)
    with watching(emulator, tmp_path, visibility="service") as (app, _):
        app.sync(write=False)
        emulator.store.change("opportunity", made_id("deal", "3"), bought("Sam"))
        assert ours(app.sync(write=False))["South"] == Decimal("10304.0001")
    with watching(emulator, tmp_path) as (app, session):
        assert ours(app.sync(write=False)) == natively(emulator)
        assert sorted(asked(session)) == ["Nina", "Sam"]


@pytest.mark.postgresql
def test_a_mirror_in_postgresql_counts_the_same(
    make: Callable[..., Emulator], tmp_path: Path, postgresql_url: str
) -> None:
    emulator = make()
    with watching(emulator, tmp_path, mirror=postgresql_url) as (app, _):
        app.sync(write=False)
        emulator.store.change("opportunity", made_id("deal", "3"), bought("Sam"))
        assert ours(app.sync(write=False)) == natively(emulator)


def test_parity_names_the_records_that_a_manager_may_not_read(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    natively(emulator)
    with watching(emulator, tmp_path, visibility="service") as (app, session):
        app.sync(write=False)
        asked(session)
        snapshot = mirrored(app.line, NOW)
        compared = compare(app.line, snapshot, ask_managers=True).compared
        found = {one.title: one.finding for one in compared if one.column == "actualmoney"}
        assert set(asked(session)) <= set(MANAGERS.values())
    assert found["North"].kind is Kind.VISIBILITY
    assert found["North"].certain
    assert {one.owner for one in found["North"].records} <= {"Sam", "Dora"}
    assert found["Ann"].kind is Kind.EQUAL


def test_parity_goes_on_when_a_manager_cannot_be_asked(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    natively(emulator)
    emulator.store.change("systemuser", user("Nina"), {"azureactivedirectoryobjectid": None})
    emulator.store.change("goal", made_id("goal", "South"), {"actualmoney": Decimal(1)})
    with watching(emulator, tmp_path, visibility="service") as (app, session):
        app.sync(write=False)
        asked(session)
        found = compare(app.line, mirrored(app.line, NOW), ask_managers=True)
        assert asked(session) == ["Sam"]
    assert [(one.manager_id, one.name, one.reason) for one in found.unasked] == [
        (user("Nina"), "Nina", "has no Entra object id")
    ]
    kinds = {one.title: one.finding.kind for one in found.compared if one.column == "actualmoney"}
    assert kinds["North"] is Kind.VISIBILITY  # by its owners, as without asking
    assert kinds["South"] is not Kind.EQUAL


def test_parity_asks_no_team(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    natively(emulator)
    team = {"ownerid": id_of("team", "Desk"), "owneridtype": "team", "actualmoney": Decimal(1)}
    emulator.store.change("goal", made_id("goal", "North"), team)
    with watching(emulator, tmp_path, visibility="service") as (app, _):
        app.sync(write=False)
        found = compare(app.line, mirrored(app.line, NOW), ask_managers=True)
    assert [one.reason for one in found.unasked] == ["is a team, which cannot be impersonated"]


def test_parity_knows_a_manager_who_may_read_nothing(make: Callable[..., Emulator], tmp_path: Path) -> None:
    emulator = make()
    emulator.store.change("goal", made_id("goal", "North"), {"ownerid": user("Bob"), "owneridtype": "systemuser"})
    natively(emulator)
    with watching(emulator, tmp_path, visibility="service") as (app, _):
        app.sync(write=False)
        found = compare(app.line, mirrored(app.line, NOW), ask_managers=True)
    assert not found.unasked
    (north,) = [one.finding for one in found.compared if (one.title, one.column) == ("North", "actualmoney")]
    assert (north.kind, north.certain) == (Kind.VISIBILITY, True)
