"""The engine's nine columns against brute force: odd zones and periods, every kind of date, deep trees, big numbers."""

from __future__ import annotations

import datetime as dt
import json
import random
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from d365sync.app import opened
from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.emulator import Emulator
from tests.effort import examples
from tests.emulated import configuration
from tests.properties.brute import Brute, Columns
from tests.properties.histories import HistoryMaker
from tests.properties.orgs import RATES, write_org

relaxed = settings(max_examples=examples(6), deadline=None, suppress_health_check=list(HealthCheck))

ZONES = [
    "UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana",
    "Africa/Cairo", "America/Santiago", "Pacific/Apia", "America/St_Johns", "Asia/Tehran",
]  # fmt: skip
NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
DAYS = ["2026-03-29", "2026-04-24", "2026-09-05", "2026-10-01", "2026-10-04", "2026-10-25", "2026-11-01", "2026-12-31"]
FAR = ["1753-01-02", "1899-12-31", "2011-12-30", "2100-02-28", "9997-12-30"]
CODES = [1, 2, 3, 4, 101, 102, 110, 112, 201, 202, 301, 401, 410, 413]
VISIT = {
    "x_visit": {
        "primary_key": "x_visitid",
        "primary_name": "x_name",
        "ownership": "user",
        "columns": {
            "x_name": "string",
            "statecode": {"type": "state", "options": {"0": "Open", "1": "Done"}, "default": 0},
            "statuscode": {
                "type": "status",
                "options": {"1": "Open", "2": "Done", "3": "Late"},
                "states": {"1": 0, "2": 1, "3": 1},
                "default": 1,
            },
            "x_day": "datetime:dateonly",
            "x_at": "datetime:userlocal",
            "x_wall": "datetime:timezoneindependent",
            "x_amount": "money",
            "x_share": "decimal:10",
            "x_count": "integer",
            "x_dealid": "lookup:opportunity",
            "x_accountid": "lookup:account",
        },
    }
}
VISIT_CONDITIONS = [
    '<condition attribute="x_at" operator="last-x-weeks" value="7"/>',
    '<condition attribute="x_day" operator="last-fiscal-period"/>',
    '<condition attribute="x_wall" operator="this-year"/>',
    '<condition attribute="x_wall" operator="on" value="2026-10-25"/>',
    '<condition attribute="x_at" operator="not-null"/>',
    '<condition attribute="x_share" operator="gt" value="0.0000000001"/>',
    '<condition attribute="ownerid" operator="ne-userid"/>',
    '<condition attribute="ownerid" operator="eq-userteams"/>',
    (
        '<filter type="or"><link-entity name="opportunity" from="opportunityid" to="x_dealid" link-type="all"><filter>'
        '<condition attribute="statecode" operator="eq" value="1"/></filter></link-entity>'
        '<condition attribute="x_count" operator="null"/></filter>'
    ),
    (
        '<filter><link-entity name="x_visit" from="x_accountid" to="x_accountid" link-type="not all">'
        '<filter><condition attribute="x_count" operator="gt" value="1"/></filter></link-entity></filter>'
    ),
]


class BruteMaker(HistoryMaker):
    """Makes organizations with a table that has every kind of date column, and goals at the edges of everything."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.zone = self.pick(ZONES)

    def instant_near(self, text: str) -> str:
        """Return an instant within seconds, or hours, of the first instant of a day in the zone."""
        start = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), ZoneInfo(self.zone)).astimezone(dt.UTC)
        off = self.pick([-7200, -3600, -1800, -1, 0, 1, 1799, 1800, 3600, 7200, 43200, 86399, 86400, 90000])
        return (start + dt.timedelta(seconds=off)).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")

    def org(self) -> dict[str, list[dict[str, Any]]]:
        org = super().org()
        month, day = self.pick([(1, 1), (4, 1), (7, 15), (12, 31), (3, 21), (2, 28)])
        org["organizations"][0] |= {
            "fiscalcalendarstart": self.day(f"2024-{month:02}-{day:02}"),
            "fiscalperiodtype": self.pick([2000, 2001, 2002, 2003, 2004]),
            "weekstartdaycode": self.pick([0, 1, 6]),
        }
        org["x_visits"] = [self.visit(org["opportunities"]) for _ in range(self.random.randint(0, 30))]
        return org

    def visit(self, deals: list[dict[str, Any]]) -> dict[str, Any]:
        state, status = self.pick([(0, 1), (1, 2), (1, 3)])
        day = self.pick([*DAYS, *FAR])
        return {
            "x_visitid": self.guid(),
            "x_name": "visit",
            "statecode": state,
            "statuscode": status,
            **self.owner("ownerid"),
            "x_day": self.pick([day, None]),
            "x_at": self.pick([self.instant_near(day), self.instant_near(day), None]),
            "x_wall": self.pick([f"{day}T00:00:00Z", f"{day}T23:59:59Z", f"{day}T12:30:00Z", None]),
            "x_amount": self.amount(),
            "x_share": self.pick([Decimal("0.0000000001"), Decimal("-900000000.0000000003"), Decimal(7), None]),
            "x_count": self.pick([0, 1, -5, 2**31 - 1, None]),
            "_x_dealid_value": self.pick(deals)["opportunityid"] if deals and self.often(0.7) else None,
            "_x_accountid_value": self.pick([*self.accounts, None]),
            "_transactioncurrencyid_value": self.pick(self.currencies),
            "exchangerate": Decimal(self.pick(RATES)),
        }

    def amount(self) -> Decimal | None:
        return self.pick([super().amount(), super().amount(), Decimal("800000000000000"), Decimal("-0.0001")])

    def fields(self, metrics: dict[str, str]) -> Any:
        for one in super().fields(metrics):
            if self.often(0.6):
                yield one | self.over_visits(one["goalattribute"], counted=one["sourceattribute"] is None)
            else:
                yield one

    def over_visits(self, column: str, *, counted: bool) -> dict[str, Any]:
        kind = next(kind for kind in ("money", "decimal", "integer") if column.endswith(kind))
        dated = self.often(0.25)
        return {
            "sourceentity": "x_visit",
            "sourceattribute": None if counted else {"money": "x_amount", "decimal": "x_share"}.get(kind, "x_count"),
            "entityfordateattribute": "opportunity" if dated else self.pick(["x_visit", None]),
            "dateattribute": "actualclosedate" if dated else self.pick(["x_day", "x_at", "x_wall"]),
            "isstateparententityattribute": dated and self.often(0.5),
            "sourcestate": self.pick([None, 0, 1]),
            "sourcestatus": self.pick([None, None, 2]),
        }

    def query(self, query_id: str) -> dict[str, Any]:
        query = super().query(query_id)
        table = self.pick(["opportunity", "x_visit", "x_visit"])
        if table == "x_visit":
            inner = "".join(self.random.sample(VISIT_CONDITIONS, self.random.randint(0, 2)))
            query |= {
                "queryentitytype": table,
                "fetchxml": f'<fetch><entity name="x_visit"><filter>{inner}</filter></entity></fetch>',
            }
        return query

    def goal(self, kind: str, metric_id: str, tree: list[dict[str, Any]]) -> dict[str, Any]:
        goal = super().goal(kind, metric_id, tree)
        first, last = sorted([self.pick([*DAYS, *FAR, "2026-01-01"]), self.pick([*DAYS, "2026-12-31"])])
        goal |= {"goalstartdate": self.day(first), "goalenddate": self.day(self.pick([first, last]))}
        if self.often(0.4):
            goal |= {
                "isfiscalperiodgoal": True,
                "fiscalyear": self.pick([2025, 2026]),
                "fiscalperiod": self.pick(CODES),
            }
            goal |= self.pick([{"goalstartdate": None, "goalenddate": None}, {"goalstartdate": None}])
        goal |= {"_parentgoalid_value": tree[-1]["goalid"] if tree and self.often(0.5) else goal["_parentgoalid_value"]}
        data_type = {"calls": "integer"}.get(kind, kind)
        for category in ("actual", "inprogress", "custom"):
            if self.often(0.5):
                goal[f"_rollupquery{category}{data_type}id_value"] = self.pick(self.queries)
        return goal | self.pick([{}, {}, {}, {f"inprogress{data_type}": 3}])

    def goals(self, metrics: dict[str, str]) -> list[dict[str, Any]]:
        goals = super().goals(metrics)
        if len(goals) > 3 and self.often(0.3):
            self.pick(goals)["_parentgoalid_value"] = self.pick(goals)["goalid"]
        return goals

    def day(self, text: str) -> str:
        return super().day(text).rjust(20, "0")


def compared(seed: int, folder: Path, url: str | None = None) -> tuple[dict[str, Columns], dict[str, Columns]]:
    """Return what the engine and what brute force gives, by goal."""
    maker = BruteMaker(seed)
    (folder / "org").mkdir()
    (folder / "org" / "schema.json").write_text(json.dumps(VISIT))
    write_org(maker.org(), folder / "org")
    emulator = Emulator.load(folder / "org", now=NOW)
    closed = random.Random(seed).choice(["stored", "excluded"])
    sections: dict[str, Mapping[str, object]] = {"storage": {"mirror": url}} if url else {}
    config = configuration(
        emulator,
        folder,
        rollup={"time_zone": maker.zone, "closed_child": closed},
        writeback={"mode": "plan"},
        **sections,
    )
    with opened(config, clock=emulator.clock.now, environ={}, session=emulator.session()) as app:
        totals = app.sync(write=False).rollup.totals
    brute = Brute(emulator, ZoneInfo(maker.zone), closed=closed == "stored").all()
    return {
        goal_id: {name: exact(one.totals[name]) for name in VALUE_COLUMNS} for goal_id, one in totals.items()
    }, brute


def exact(value: object) -> Decimal | None:
    return None if value is None else Decimal(str(value))


@relaxed
@given(st.integers(0, 2**32))
def test_the_nine_columns_are_those_of_brute_force(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        ours, brute = compared(seed, Path(name))
        assert ours == brute


@pytest.mark.postgresql
@settings(relaxed, max_examples=examples(4))
@given(seed=st.integers(0, 2**32))
def test_on_postgresql_too(postgresql_url: str, seed: int) -> None:
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    with tempfile.TemporaryDirectory() as name:
        ours, brute = compared(seed, Path(name), postgresql_url)
        assert ours == brute
