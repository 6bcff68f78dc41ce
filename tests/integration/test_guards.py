"""Guards over the whole line: rows vanish, rates are wrong, fields are retargeted; no write until it is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.app import App, opened
from d365sync.cli.sync import plan_document
from d365sync.core.goals.guards import GuardName
from d365sync.core.goals.savedplan import SavedPlan, read_saved_plan
from d365sync.core.values import Value
from d365sync.dataverse.wire import decode_json
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.inprocess import mounted_session
from d365sync.errors import GuardError
from d365sync.journal.store import Run
from d365sync.sync.commanded import apply_saved, undo
from d365sync.sync.cycle import Outcome
from d365sync.sync.documents import json_text
from d365sync.sync.guarding import Accepted
from tests.emulated import NOW, configuration, goal_values
from tests.golden.casebook import Case, Cells, made_id, write_org
from tests.integration.test_doctor import enough
from tests.security import APPLICATION_USER, BASIC, GLOBAL, Security, id_of
from tests.service import Service

SELLERS = 60
DEALS = 3 * SELLERS
DEAL = "opportunity"
Change = Callable[[Emulator], object]


class Writes(BaseAdapter):
    """Passes requests on, and notes those that would change a row."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self._inner = mounted_session(emulator.app).get_adapter("https://x")
        self.seen: list[str] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        if request.method in ("PATCH", "DELETE") or b"\nPATCH " in bytes(body):
            self.seen.append(str(request.url))
        return self._inner.send(request, *args, **kwargs)

    def close(self) -> None:
        self._inner.close()


def org(folder: Path, security: Security | None = None, **settings: Any) -> Emulator:
    """Sixty sellers with a goal each; two deals won, one of them in dollars, and one that is open."""
    goals: list[Cells] = []
    deals: list[Cells] = []
    for number in range(SELLERS):
        who = f"Seller {number:02}"
        period = {"metric": "Revenue", "from": "2026-10-01", "to": "2026-12-31", "target": "1000"}
        goals.append({"goal": who, "owner": who, **period})
        won = {"owner": who, "state": "won", "closed": "2026-11-02"}
        deals.append({"deal": f"{who} euro", "amount": "100", **won})
        deals.append({"deal": f"{who} dollar", "amount": "150", "currency": "USD", "rate": "1.5", **won})
        still = {"owner": who, "state": "open", "expected": "70", "expected close": "2026-12-02"}
        deals.append({"deal": f"{who} open", **still})
    write_org(Case("guards", ZoneInfo("UTC"), {"Goals": goals, "Deals": deals}), folder / "org")
    if security is not None:
        security.write(folder / "org")
    return Emulator.load(folder / "org", now=NOW, settings=EmulatorSettings(**settings))


@contextmanager
def guarded(emulator: Emulator, folder: Path, **sections: Mapping[str, object]) -> Iterator[tuple[App, list[str]]]:
    """Build the application, and what it has sent that would change a row."""
    session, writes = requests.Session(), Writes(emulator)
    session.mount("https://", writes)
    config = configuration(emulator, folder, **sections)
    with opened(config, clock=emulator.clock.now, environ={}, session=session) as app:
        yield app, writes.seen


def deals(emulator: Emulator, **changed: Callable[[Mapping[str, Value]], Value]) -> None:
    for key, row in list(emulator.store.rows(DEAL).items()):
        emulator.store.change(DEAL, key, {name: change(row) for name, change in changed.items()})


def service(**depths: int) -> Security:
    security = Security(administrator=False)
    security.role("service", **enough(prvWriteGoal=GLOBAL, **depths))
    security.give("service", user=APPLICATION_USER)
    return security


def reach_is_lost(emulator: Emulator) -> None:
    right = id_of("service", "prvReadOpportunity")
    emulator.store.change("roleprivileges", right, {"privilegedepthmask": BASIC})


def deleted_in_bulk(emulator: Emulator) -> None:
    for number in range(SELLERS):
        for what in ("euro", "open"):
            emulator.store.remove(DEAL, made_id("deal", f"Seller {number:02} {what}"))


def rates_are_a_thousand_times_wrong(emulator: Emulator) -> None:
    def more(row: Mapping[str, Value]) -> Value:
        base = row.get("actualvalue_base")
        return base * 1000 if isinstance(base, Decimal) else None

    deals(emulator, actualvalue_base=more)


def retargeted(emulator: Emulator) -> None:
    field = next(
        key for key, row in emulator.store.rows("rollupfield").items() if row["goalattribute"] == "actualmoney"
    )
    emulator.store.change("rollupfield", field, {"sourcestate": 2})


def lost_and_marked_so(emulator: Emulator) -> None:
    deals(emulator, statecode=lambda _row: 2, statuscode=lambda _row: 4)


@pytest.mark.parametrize(
    ("change", "guards"),
    [
        (rates_are_a_thousand_times_wrong, {GuardName.CHANGES, GuardName.JUMPS, GuardName.TOTALS}),
        (retargeted, {GuardName.CHANGES, GuardName.ZEROED, GuardName.TOTALS}),
        (lost_and_marked_so, {GuardName.CHANGES, GuardName.ZEROED, GuardName.TOTALS}),
    ],
)
def test_an_implausible_plan_is_not_written_until_its_number_is_accepted(
    tmp_path: Path, change: Change, guards: set[GuardName]
) -> None:
    emulator = org(tmp_path)
    with guarded(emulator, tmp_path) as (app, writes):
        app.sync(write=True)
        before = goal_values(emulator)
        change(emulator)
        writes.clear()
        with pytest.raises(GuardError) as refused:
            app.sync(command="run", write=True)
        assert refused.value.exit_code == 4
        assert writes == []
        assert goal_values(emulator) == before
        assert {one["guard"] for one in saved_document(tmp_path)["guards"]} == guards
        run = ended(app, "refused")
        assert (run.outcome, run.command, run.counts["planned_goals"]) == ("refused", "run", SELLERS)
        assert f"d365sync sync --accept {SELLERS}" in refused.value.hint
        with pytest.raises(GuardError, match=f"--accept {SELLERS - 1} is less than {SELLERS}"):
            app.sync(write=True, accepted=Accepted(goals=SELLERS - 1))
        assert writes == []
        done = app.sync(write=True, accepted=Accepted(goals=SELLERS))
        assert (done.outcome, done.counts["written_goals"]) == (Outcome.OK, SELLERS)
        assert any(run.message.startswith("accepted: 60 of 60 goals") for run in app.line.journal.runs(9))
        assert app.sync(command="run", write=True).plan.is_empty, "the daemon goes on"


def ended(app: App, outcome: str) -> Run:
    return next(run for run in app.line.journal.runs(9) if run.outcome == outcome)


def saved_document(folder: Path) -> Any:
    return json.loads((folder / "journal.refused.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("poll", [True, False])
def test_deleted_rows_are_kept_until_their_number_is_accepted(tmp_path: Path, *, tracked: bool, poll: bool) -> None:
    emulator = org(tmp_path, change_tracking={DEAL: tracked})
    pull = {"reread_up_to": 10 if poll else 1000, "sweep_every": "0s"}
    with guarded(emulator, tmp_path, pull=pull) as (app, writes):
        app.sync(write=True)
        before = goal_values(emulator)
        deleted_in_bulk(emulator)
        writes.clear()
        for _ in range(2):
            with pytest.raises(GuardError, match=f"opportunity lost {2 * SELLERS} of {DEALS} rows") as refused:
                app.sync(command="run", write=True)
            assert app.line.mirror.count(DEAL) == DEALS
        assert f"--accept-deletions {2 * SELLERS}" in refused.value.hint
        assert len(saved_document(tmp_path)["rows"][DEAL]) == 2 * SELLERS
        with pytest.raises(GuardError, match="is less than"):
            app.sync(write=True, accepted=Accepted(goals=1000, deletions=2 * SELLERS - 1))
        assert (writes, goal_values(emulator)) == ([], before)
        with pytest.raises(GuardError, match="60 goals would change"):
            app.sync(write=True, accepted=Accepted(deletions=2 * SELLERS))
        assert app.line.mirror.count(DEAL) == SELLERS
        assert app.sync(write=True, accepted=Accepted(goals=SELLERS)).outcome is Outcome.OK
        assert goal_values(emulator)["Seller 07"]["actualmoney"] == 100
        assert app.sync(command="run", write=True).plan.is_empty


def test_rows_that_come_back_were_never_gone(tmp_path: Path) -> None:
    emulator = org(tmp_path, service(), change_tracking={DEAL: False})
    with guarded(emulator, tmp_path) as (app, writes):
        app.sync(write=True)
        before = goal_values(emulator)
        writes.clear()
        reach_is_lost(emulator)
        with pytest.raises(GuardError, match=f"opportunity came back empty, {DEALS} rows were known") as refused:
            app.sync(command="run", write=True)
        assert "lost a privilege" in refused.value.hint
        emulator.store.change("roleprivileges", id_of("service", "prvReadOpportunity"), {"privilegedepthmask": GLOBAL})
        assert app.sync(command="run", write=True).plan.is_empty
        assert (writes, goal_values(emulator)) == ([], before)


def test_the_changes_beside_deletions_that_are_withheld_are_not_lost(tmp_path: Path) -> None:
    emulator = org(tmp_path, change_tracking={DEAL: True})
    with guarded(emulator, tmp_path) as (app, _):
        app.sync(write=True)
        deleted_in_bulk(emulator)
        changed = made_id("deal", "Seller 00 dollar")
        emulator.store.change(DEAL, changed, {"actualvalue": Decimal(300), "actualvalue_base": Decimal(200)})
        with pytest.raises(GuardError):
            app.sync(write=True)
        app.sync(write=True, accepted=Accepted(SELLERS, 2 * SELLERS))
    assert goal_values(emulator)["Seller 00"]["actualmoney"] == 200
    assert goal_values(emulator)["Seller 01"]["actualmoney"] == 100


def test_taking_over_an_organization_writes_everything_once_without_asking(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with guarded(emulator, tmp_path) as (app, _):
        assert app.sync(write=True).counts["written_goals"] == SELLERS


def test_taking_over_asks_when_native_numbers_contradict_ours_massively(tmp_path: Path) -> None:
    emulator = org(tmp_path, service(prvReadOpportunity=BASIC), change_tracking={DEAL: False})
    for key in emulator.store.rows("goal"):
        emulator.store.change("goal", key, {"actualmoney": Decimal(200), "inprogressmoney": Decimal(70)})
    with guarded(emulator, tmp_path) as (app, writes):
        with pytest.raises(GuardError, match="actualmoney would fall to nothing in 60 of 60 goals"):
            app.sync(write=True)
        assert writes == []


def test_what_writes_nothing_is_not_stopped_but_says_so(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with guarded(emulator, tmp_path) as (app, _):
        app.sync(write=True)
        retargeted(emulator)
        result = app.sync(command="plan", write=False)
        assert result.outcome is Outcome.OK
        assert {one.guard for one in result.findings} == {GuardName.CHANGES, GuardName.ZEROED, GuardName.TOTALS}


def test_guards_are_switched_off_by_name(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    off = {"off": "changes, zeroed, totals"}
    with guarded(emulator, tmp_path, guards=off) as (app, _):
        app.sync(write=True)
        retargeted(emulator)
        assert app.sync(write=True).counts["written_goals"] == SELLERS


def test_a_saved_plan_is_guarded_and_accepted_like_any_other(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with guarded(emulator, tmp_path) as (app, writes):
        first = app.sync(write=True).run_id
        retargeted(emulator)
        document = json_text(plan_document(app.sync(command="plan", write=False)))
        saved: SavedPlan = read_saved_plan(decode_json(document.encode()))
        writes.clear()
        with pytest.raises(GuardError, match="60 of 60 goals would change"):
            apply_saved(app.line, saved, write=True)
        assert writes == []
        assert ended(app, "refused").command == "apply"
        refused = read_saved_plan(decode_json((tmp_path / "journal.refused.json").read_bytes()))
        assert refused.goals == saved.goals, "the plan of a refused run is one that can be applied"
        done = apply_saved(app.line, refused, write=True, accepted=Accepted(SELLERS))
        assert done.outcome is Outcome.OK
        assert done.run_id is not None
        assert undo(app.line, done.run_id, write=True).outcome is Outcome.OK, "putting back is not guarded"
        assert goal_values(emulator)["Seller 00"]["actualmoney"] == 200
        assert first != done.run_id


def test_a_refusal_stands_where_its_plan_cannot_be_saved(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with guarded(emulator, tmp_path, guards={"plans": "nowhere"}) as (app, writes):
        app.sync(write=True)
        writes.clear()
        retargeted(emulator)
        with pytest.raises(GuardError, match=r"could not be saved to .*nowhere/journal\.refused\.json: No such file"):
            app.sync(write=True)
        assert writes == []


def test_the_service_stops_lets_a_person_accept_and_goes_on(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with Service(tmp_path, {"east": emulator}) as service:
        service.step()
        assert service.of().last_outcome == "ok"
        retargeted(emulator)
        service.step(300)
        assert (service.of().last_outcome, service.of().guard_stops) == ("refused", 1)
        assert "60 of 60 goals would change" in service.of().last_error
        config = service.configs()["east"]
        clocks = {"clock": service.time.wall, "real_clock": service.time.wall}
        options: dict[str, Any] = {**clocks, "environ": {}, "session": emulator.session()}
        with opened(config, **options) as app, app.lease():
            assert app.sync(write=True, accepted=Accepted(SELLERS)).counts["written_goals"] == SELLERS
        service.step(900)
        assert service.of().last_outcome == "ok"
        assert goal_values(emulator)["Seller 00"]["actualmoney"] == 0


def test_columns_of_the_organizations_own_are_guarded_too(tmp_path: Path) -> None:
    (tmp_path / "org").mkdir()
    schema = {"goal": {"columns": {"new_actual": "decimal:4"}}}
    (tmp_path / "org" / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    emulator = org(tmp_path)
    own = {"mode": "columns", "columns": {"actualmoney": "new_actual"}}
    with guarded(emulator, tmp_path, writeback=own) as (app, writes):
        assert app.sync(write=True).counts["written_goals"] == SELLERS
        retargeted(emulator)
        writes.clear()
        with pytest.raises(
            GuardError, match=r"60 of 60 goals would change .* new_actual would fall to nothing in 60 of 60"
        ):
            app.sync(write=True)
        assert writes == []
        refused = read_saved_plan(decode_json((tmp_path / "journal.refused.json").read_bytes()))
        with pytest.raises(GuardError, match="new_actual would fall to nothing in 60 of 60"):
            apply_saved(app.line, refused, write=True)
        assert apply_saved(app.line, refused, write=True, accepted=Accepted(SELLERS)).outcome is Outcome.OK
    assert {row["new_actual"] for row in emulator.store.rows("goal").values()} == {Decimal(0)}
