"""The platform's own jobs beside d365sync: the native rollup on its schedule, bulk deletions, expired delta links."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from d365sync.core.goals.writes import SkipReason
from d365sync.emulator import Emulator
from d365sync.emulator.inprocess import mounted_session
from d365sync.sync.pull import Way
from tests.emulated import URL, application
from tests.integration.test_line import load
from tests.integration.test_pull import DEAL, assert_mirrored, grown, pulled, pulling
from tests.parts import concerns_goals
from tests.properties.pushes import GOALS, RIGHT

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DAY = dt.timedelta(days=1)
PERSONS = Decimal("77.7000")


@dataclass
class DayPasses:
    """Lets the job come due just before our first write arrives, and a person type over a goal before that."""

    emulator: Emulator
    person: str = ""
    writes: list[bytes] = field(default_factory=list)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].getvalue()
        if concerns_goals(environ) and b"PATCH" in body:
            if not self.writes:
                self.emulator.clock.advance(DAY)
                if self.person:
                    typed = {"isoverridden": True, "actualmoney": PERSONS}
                    self.emulator.store.change("goal", self.person, typed)
            self.writes.append(body)
        app: WSGIApplication = self.emulator.app
        return app(environ, start_response)


def actuals(emulator: Emulator) -> dict[str, Any]:
    return {str(row["title"]): row.get("actualmoney") for row in emulator.store.rows("goal").values()}


def signed_in(emulator: Emulator) -> requests.Session:
    session, known = emulator.session(), emulator.credentials
    form = {"grant_type": "client_credentials", "client_id": known.client_id, "client_secret": known.client_secret}
    token = session.post(f"{emulator.authority(URL)}/oauth2/v2.0/token", data={**form, "scope": f"{URL}/.default"})
    session.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
    return session


def runs(emulator: Emulator) -> int:
    jobs = emulator.store.rows("asyncoperation").values()
    return sum((job["operationtype"], job["statuscode"]) == (40, 30) for job in jobs)


def test_the_native_rollup_between_reading_and_writing_costs_a_second_look_and_nothing_else(tmp_path: Path) -> None:
    emulator = load(tmp_path, native_rollup=True)
    between = DayPasses(emulator, person=GOALS[2])
    with application(emulator, tmp_path, session=mounted_session(between)) as app:
        result = app.sync(write=True)
        assert runs(emulator) == 1
        assert len(between.writes) > 1, "what the job had touched was refused, looked at, and sent again"
        assert result.pushed is not None
        assert [(skip.goal_id, skip.reason) for skip in result.pushed.skips] == [(GOALS[2], SkipReason.CONFLICT)]
        assert actuals(emulator)["Ann"] == PERSONS
        again = app.sync(write=True)
        assert [one.goal_id for one in again.plan.skips if one.reason is SkipReason.OVERRIDDEN] == [GOALS[2]]
        settled = actuals(emulator)
        assert settled["Ann"] == PERSONS
        assert settled["Bob"] == Decimal(RIGHT["Bob"])
        assert settled["North"] == Decimal(RIGHT["North"]) - Decimal(RIGHT["Ann"]) + PERSONS
        assert app.sync(write=True).plan.is_empty


def test_what_was_written_outlives_the_job_and_what_was_handed_back_is_the_platforms_until_we_write(
    tmp_path: Path,
) -> None:
    emulator = load(tmp_path, native_rollup=True)
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        right = actuals(emulator)
        emulator.clock.advance(3 * DAY)
        assert app.sync(write=True).plan.is_empty
        assert runs(emulator) == 3
        assert actuals(emulator) == right
        emulator.store.change("goal", GOALS[3], {"isoverridden": False, "actualmoney": Decimal(1)})
        emulator.clock.advance(DAY)
        emulator.run_jobs()
        assert actuals(emulator) == right, "the job rolled it up"
        app.sync(write=True)
        assert actuals(emulator) == right


def test_a_delta_link_that_expired_by_time_gives_a_full_load_with_deletions(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True}, expire_change_tracking_days=2)
    with pulling(emulator, tmp_path, page_size=5000) as (app, _):
        app.sync(write=False)
        emulator.clock.advance(2 * DAY)
        assert pulled(app.sync(write=False)).way is Way.DELTA
        emulator.store.remove(DEAL, sorted(emulator.store.rows(DEAL))[5])
        emulator.clock.advance(2 * DAY + dt.timedelta(seconds=1))
        result = app.sync(write=False)
        assert (pulled(result).way, pulled(result).deleted) == (Way.FULL, 1)
        assert_mirrored(app, emulator, result)
        emulator.clock.advance(DAY)
        assert pulled(app.sync(write=False)).way is Way.DELTA


def test_rows_that_a_bulk_deletion_removes_leave_the_mirror_and_the_goals(tmp_path: Path) -> None:
    emulator = load(tmp_path, change_tracking={DEAL: True})
    with application(emulator, tmp_path) as app:
        app.sync(write=True)
        before = actuals(emulator)
        job = {
            "@odata.type": "Microsoft.Dynamics.CRM.QueryExpression",
            "EntityName": DEAL,
            "Criteria": {
                "Conditions": [{"AttributeName": "actualvalue", "Operator": "GreaterThan", "Values": ["200"]}]
            },
        }
        body = {"JobName": "x", "StartDateTime": (emulator.clock.now() + DAY).isoformat(), "QuerySet": [job]}
        answer = signed_in(emulator).post(f"{URL}/api/data/v9.2/BulkDelete", json=body)
        assert answer.status_code == 200, answer.text
        assert app.sync(write=True).plan.is_empty, "the job is not due"
        emulator.clock.advance(DAY)
        app.sync(write=True)
        after = actuals(emulator)
        assert (before["Bob"], after["Bob"]) == (Decimal("200.5"), 0)
        assert after["Company"] == before["Company"] - before["Bob"]
