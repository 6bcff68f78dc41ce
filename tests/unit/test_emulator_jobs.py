"""System jobs on the emulator's clock: bulk deletion, the native rollup on its schedule, what may be done to them."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.state import load_state, save_state
from tests.effort import examples
from tests.unit.emulating import ANNS, BOB, CLOSED, COMPANY, NOW, SMALL, Org, code, deal, made_id
from tests.unit.test_emulator_tracking import load, names

CRM = "Microsoft.Dynamics.CRM."
TOP = "<fetch top='1'><entity name='goal'/></fetch>"
RAN, WAITS, CANCELED = (3, 30), (1, 10), (3, 32)
Document = dict[str, Any]


def condition(column: str, operator: str, *values: Any) -> Document:
    return {"AttributeName": column, "Operator": operator, "Values": [{"Value": v, "Type": "System.X"} for v in values]}


def query(*conditions: Document, table: str = "opportunity", **more: Any) -> Document:
    criteria = {"FilterOperator": "And", "Conditions": list(conditions)}
    return {"@odata.type": f"{CRM}QueryExpression", "EntityName": table, "Criteria": criteria, **more}


def body(*queries: Any, start: str = "2026-05-01T12:00:00Z", **more: Any) -> Document:
    quiet: Document = {"SendEmailNotification": False, "ToRecipients": [], "CCRecipients": [], "RecurrencePattern": ""}
    return {"JobName": "Clean up", **quiet, "StartDateTime": start, "QuerySet": list(queries), **more}


def asked(org: Org, *queries: Any, **more: Any) -> str:
    response = org.post("BulkDelete", body(*queries, **more))
    assert response.status_code == 200, response.text
    assert response.json()["@odata.context"].endswith(f"$metadata#{CRM}BulkDeleteResponse")
    return f"asyncoperations({response.json()['JobId']})"


def state(org: Org, job: str) -> tuple[int, int]:
    row = org.get(job)
    return row["statecode"], row["statuscode"]


def later(org: Org, **by: float) -> None:
    org.emulator.clock.advance(dt.timedelta(**by))


def rollups(org: Org) -> list[Document]:
    select = "$select=statecode,statuscode,postponeuntil,completedon,message"
    found: list[Document] = org.get(f"asyncoperations?{select}&$filter=operationtype eq 40&$orderby=postponeuntil")[
        "value"
    ]
    return found


def test_a_bulk_deletion_waits_for_its_time_and_shows_in_the_delta() -> None:
    org = Org()
    _, link = load(org)
    ids = [made_id("e", 1), made_id("e", 3)]
    job = asked(org, query(condition("opportunityid", "In", *ids)), start="2026-05-01T13:00:00Z")
    assert state(org, job) == WAITS
    assert org.call("GET", deal(1)).status_code == 200
    later(org, minutes=59, seconds=59)
    assert state(org, job) == WAITS
    later(org, seconds=1)
    row = org.get(job)
    assert (row["statecode"], row["statuscode"]) == RAN
    assert (row["operationtype"], row["name"], row["message"]) == (13, "Clean up", "2 rows were deleted, 0 were not.")
    assert row["startedon"] == row["completedon"] == "2026-05-01T13:00:00Z"
    assert org.call("GET", deal(1)).status_code == 404
    page = org.get(link)
    assert [entry["id"] for entry in page["value"]] == ids
    assert names(page["value"]) == ["-", "-"]


def test_it_finds_its_rows_when_it_runs() -> None:
    org = Org()
    job = asked(org, query(condition("name", "Like", "be%")), start="2026-05-02T00:00:00Z")
    org.patch(deal(1), {"name": "better"})
    org.patch(deal(2), {"name": "no more"})
    later(org, days=1)
    assert state(org, job) == RAN
    assert org.call("GET", deal(1)).status_code == 404
    assert org.call("GET", deal(2)).status_code == 200


def test_filters_nest_and_fetchxml_serves_too() -> None:
    org = Org()
    inner = {"FilterOperator": "Or", "Conditions": [condition("name", "Equal", "Alpha"), condition("name", "Null")]}
    nested = query()
    nested["Criteria"] = {"Filters": [inner], "Conditions": [condition("statecode", "Equal", 0)]}
    condition_text = '<condition attribute="name" operator="eq" value="beta"/>'
    fetch = f'<fetch><entity name="opportunity"><filter>{condition_text}</filter></entity></fetch>'
    org.emulator.store.change("opportunity", made_id("e", 1), {"statecode": 0, "statuscode": 1})
    asked(org, nested, {"@odata.type": f"{CRM}FetchExpression", "Query": fetch})
    assert org.names("opportunities?$select=name") == ["Gamma", "alpha two", "50% off"]


def test_what_may_not_be_deleted_is_left_and_said() -> None:
    org = Org()
    job = asked(org, query(table="metric"))
    message = org.get(job)["message"]
    assert message.endswith(" were not.")
    assert message != "0 rows were deleted, 0 were not."
    assert org.get("goals?$select=title")["value"]


@pytest.mark.parametrize(
    ("wrong", "status", "says"),
    [
        ({"QuerySet": []}, 400, "QuerySet"),
        ({"QuerySet": "all"}, 400, "QuerySet"),
        ({"QuerySet": [{}]}, 400, "QueryExpression or FetchExpression"),
        ({"QuerySet": [query(table="nothing")]}, 400, "nothing"),
        ({"QuerySet": [query(condition("nowhere", "Equal", 1))]}, 400, "nowhere"),
        ({"QuerySet": [query(condition("name", "Sounds", "x"))]}, 501, "'Sounds'"),
        ({"QuerySet": [query(LinkEntities=[{}])]}, 501, "LinkEntities"),
        ({"QuerySet": [query(TopCount=1)]}, 501, "TopCount"),
        ({"QuerySet": [query(Surprise=1)]}, 400, "'Surprise'"),
        ({"QuerySet": [{"@odata.type": f"{CRM}FetchExpression", "Query": "<fetch"}]}, 400, ""),
        (
            {"QuerySet": [{"@odata.type": f"{CRM}FetchExpression", "Query": TOP}]},
            501,
            "top",
        ),
        ({"RecurrencePattern": "FREQ=DAILY"}, 501, "RecurrencePattern"),
        ({"SendEmailNotification": True}, 501, "SendEmailNotification"),
        ({"JobName": ""}, 400, "JobName"),
        ({"StartDateTime": "soon"}, 400, "StartDateTime"),
        ({"Other": 1}, 400, "'Other'"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_unknown_is_refused_by_name(wrong: Document, status: int, says: str) -> None:
    org = Org()
    response = org.post("BulkDelete", {**body(query()), **wrong})
    assert response.status_code == status
    assert says in response.text
    assert org.get("asyncoperations")["value"] == []


def test_privileges_are_needed_and_a_refused_change_set_leaves_no_job() -> None:
    org = Org(missing_privileges=frozenset({"prvDeleteOpportunity"}))
    assert code(org.post("BulkDelete", body(query()))) == (403, "0x80040220")
    org = Org(missing_privileges=frozenset({"prvBulkDelete"}))
    assert "prvBulkDelete" in org.post("BulkDelete", body(query())).text


def test_a_waiting_job_can_be_canceled_or_put_off_and_nothing_else() -> None:
    org = Org()
    job = asked(org, query(), start="2026-05-02T00:00:00Z")
    assert org.patch(job, {"statecode": 3}).status_code == 400
    assert org.patch(job, {"statecode": 3, "statuscode": 31}).status_code == 400
    assert org.patch(job, {"name": "other"}).status_code == 400
    assert org.patch(job, {"postponeuntil": "2026-05-03T00:00:00Z"}).status_code == 204
    later(org, days=1)
    assert state(org, job) == WAITS
    assert org.patch(job, {"statecode": 3, "statuscode": 32}).status_code == 204
    later(org, days=9)
    assert state(org, job) == CANCELED
    assert org.patch(job, {"statecode": 3, "statuscode": 32}).status_code == 400
    assert len(org.names("opportunities?$select=name")) == 5
    assert org.post("asyncoperations", {}).status_code == 400


def test_a_job_may_be_made_to_wait() -> None:
    org = Org(job_delay_s=60)
    job = asked(org, query())
    assert state(org, job) == (0, 0)
    later(org, seconds=60)
    assert state(org, job) == RAN


def test_a_start_that_has_come_for_the_client_has_come_if_so_chosen() -> None:
    for chosen, expected in ((True, RAN), (False, WAITS)):
        org = Org(jobs_start_by_real_time=chosen)
        org.emulator.clock.freeze(NOW.replace(year=2001))
        job = asked(org, query(), start="2002-01-01T00:00:00Z")
        assert state(org, job) == expected
        assert state(org, asked(org, query(), start="9000-01-01T00:00:00Z")) == WAITS
        assert org.get(job)["createdon"] == "2001-05-01T12:00:00Z"


def test_a_waiting_job_is_kept_with_the_state(tmp_path: Path) -> None:
    org, again = Org(), Org()
    job = asked(org, query(), start="2026-05-02T00:00:00Z")
    save_state(org.emulator.store, tmp_path / "state.json")
    load_state(again.emulator.store, tmp_path / "state.json")
    assert state(again, job) == WAITS
    later(again, days=1)
    assert state(again, job) == RAN
    assert again.names("opportunities?$select=name") == []


def test_goals_are_rolled_up_on_schedule_each_time_as_of_its_own_instant() -> None:
    org = Org(native_rollup=True)
    org.patch(f"organizations({org.get('organizations')['value'][0]['organizationid']})", {"goalrollupfrequency": 6})
    org.get("WhoAmI")
    assert [(row["statecode"], row["statuscode"]) for row in rollups(org)] == [WAITS]
    org.emulator.store.change("goal", made_id("d", 2), {"actualmoney": Decimal(7), "lastrolledupdate": None})
    later(org, hours=50)
    jobs = rollups(org)
    times = [row["completedon"] for row in jobs[:-1]]
    assert times == [
        f"2026-05-0{day}" for day in ("2T12:00:00Z", "2T18:00:00Z", "3T00:00:00Z", "3T06:00:00Z", "3T12:00:00Z")
    ]
    assert all((row["statecode"], row["statuscode"]) == RAN for row in jobs[:-1])
    assert (jobs[-1]["statecode"], jobs[-1]["statuscode"]) == WAITS
    goal = org.get(ANNS)
    assert goal["lastrolledupdate"] == times[-1]
    assert goal["actualmoney"] != 7
    assert "were rolled up" in jobs[0]["message"]


def test_the_job_leaves_overridden_closed_and_expired_goals_alone() -> None:
    org = Org(native_rollup=True)
    store = org.emulator.store
    org.get("WhoAmI")
    store.change("goal", made_id("d", 2), {"isoverridden": True, "actualmoney": Decimal(7)})
    closed = org.get(CLOSED)
    later(org, days=1)
    assert org.get(ANNS)["actualmoney"] == 7
    assert org.get(ANNS)["lastrolledupdate"] == "2026-05-02T12:00:00Z"
    assert org.get(CLOSED) == closed
    company = org.get(COMPANY)
    end = dt.datetime.fromisoformat(company["goalenddate"])
    days = store.only("organization")["goalrollupexpirytime"]
    assert isinstance(days, int)
    org.emulator.clock.freeze(end.replace(hour=12) + dt.timedelta(days=days))
    org.get("WhoAmI")
    last = org.get(COMPANY)["lastrolledupdate"]
    assert last > company["lastrolledupdate"], "up to the day it expires it is rolled up"
    later(org, days=3)
    assert org.get(COMPANY)["lastrolledupdate"][:10] <= f"{(end + dt.timedelta(days=days)).date()}"


def test_a_frozen_clock_runs_no_rollup_unless_asked_and_a_real_one_does() -> None:
    org = Org()
    later(org, days=3)
    assert rollups(org) == []
    emulator = Emulator.load(SMALL)
    emulator.run_jobs()
    assert [row["operationtype"] for row in emulator.store.rows("asyncoperation").values()] == [40]
    emulator = Emulator.load(SMALL, settings=EmulatorSettings(native_rollup=False))
    assert emulator.run_jobs() == 0
    assert not emulator.store.rows("asyncoperation")


def test_a_clock_that_jumps_far_makes_up_the_last_runs_only() -> None:
    org = Org(native_rollup=True)
    org.get("WhoAmI")
    later(org, days=100_000)
    assert org.emulator.run_jobs() <= 60
    assert rollups(org)[-1]["statecode"] == 1


ORG = Org(native_rollup=True)
_leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(
    ["opportunity", "name", "statecode", "Equal", "In", "Like", "LastXDays", "Between", "And", "Or",
     "2026-05-01T12:00:00Z", f"{CRM}QueryExpression", f"{CRM}FetchExpression", "<fetch><entity name='goal'/></fetch>"]
)  # fmt: skip
_keys = st.sampled_from(
    ["@odata.type", "EntityName", "Criteria", "Conditions", "Filters", "FilterOperator", "AttributeName", "Operator",
     "Values", "Value", "Type", "Query", "LinkEntities", "TopCount"]
)  # fmt: skip
_documents = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4)
)
_conditions = st.fixed_dictionaries(
    {
        "AttributeName": st.sampled_from(["name", "statecode", "estimatedvalue", "createdon", "ownerid", "x"]),
        "Operator": st.sampled_from(
            ["Equal", "In", "Like", "LastXDays", "Between", "Under", "EqualUserId", "On", "Null"]
        ),
        "Values": st.lists(_leaves | st.just(BOB), max_size=3),
    }
)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(_documents | st.lists(_conditions, max_size=2).map(lambda found: query(*found)), max_size=2),
    st.dictionaries(
        st.sampled_from(["JobName", "StartDateTime", "RunNow", "ToRecipients", "Zzz"]), _leaves, max_size=2
    ),
    st.dictionaries(st.sampled_from(["statecode", "statuscode", "postponeuntil", "name", "data"]), _leaves, max_size=2),
    st.integers(0, 10**6),
)
def test_whatever_is_asked_is_answered_or_refused(queries: list[Any], more: Document, change: Document, s: int) -> None:
    org, future = ORG, "9999-01-01T00:00:00Z"
    response = org.post("BulkDelete", body(*queries, **{"start": future, **more}))
    assert response.status_code in (200, 400, 501), response.text
    assert response.status_code == 200 or response.json()["error"]["message"]
    if response.status_code == 200:
        job = f"asyncoperations({response.json()['JobId']})"
        answered = org.patch(job, change)
        assert answered.status_code in (204, 400), answered.text
        org.emulator.clock.freeze(NOW + dt.timedelta(seconds=s))
        assert org.call("GET", f"{job}?$select=statecode").status_code == 200
