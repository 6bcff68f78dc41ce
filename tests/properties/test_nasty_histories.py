"""Incremental equals full, in the kept sums too, whatever is done to an organization, a configuration or a cycle."""

from __future__ import annotations

import datetime as dt
import json
import random
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.app import App, opened
from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.problems import Problem
from d365sync.core.values import Row, parse_instant
from d365sync.emulator import Emulator
from d365sync.errors import UsageError
from d365sync.mirror.store import Mirror
from d365sync.sync import recompute
from d365sync.sync.cycle import CycleResult
from d365sync.sync.offline import computed, mirrored
from tests.effort import examples
from tests.emulated import configuration
from tests.properties.brute import Brute
from tests.properties.histories import PERIODS, edit
from tests.properties.orgs import RATES, write_org
from tests.properties.test_brute_agreement import DAYS, NOW, VISIT, ZONES, BruteMaker, exact

relaxed = settings(max_examples=examples(4), deadline=None, suppress_health_check=list(HealthCheck))
FETCH_RULES = ["ne_keeps_null", "not_in_keeps_null", "accents_count", "between_to_end_of_day", "all_means_every"]
Document = dict[str, dict[str, Any]]


class NastyMaker(BruteMaker):
    """Makes users that can be impersonated."""

    def user(self, number: int, user_id: str) -> dict[str, Any]:
        return super().user(number, user_id) | {"azureactivedirectoryobjectid": self.guid()}


class Nasty:
    """Does to an organization what nobody expects."""

    def __init__(self, emulator: Emulator, maker: NastyMaker, dice: random.Random) -> None:
        self.store, self.maker, self.dice, self.emulator = emulator.store, maker, dice, emulator
        self.acts: list[Callable[[], object]] = [
            self.recreate, self.back_and_forth, self.field, self.lose_field, self.break_query, self.mend_query,
            self.metric, self.membership, self.person, self.organization, self.currency, self.goal, self.lose_goal,
            self.visit, self.visit, self.visit, self.midnight, self.usual, self.usual, self.usual,
        ]  # fmt: skip

    def act(self) -> None:
        self.dice.choice(self.acts)()

    def usual(self) -> None:
        edit(self.emulator, self.maker, self.dice)

    def some(self, table: str) -> Row:
        rows = list(self.store.rows(table).values())
        return self.dice.choice(rows) if rows else {}

    def change(self, table: str, **changes: Any) -> None:
        row = self.some(table)
        if row:
            self.store.change(table, str(row[self.key(table)]), changes)

    def key(self, table: str) -> str:
        return self.store.catalogue.tables[table].key

    def record(self) -> tuple[str, Row]:
        table = self.dice.choice(["opportunity", "x_visit", "phonecall", "opportunityproduct", "account"])
        return table, self.some(table)

    def recreate(self) -> None:
        table, row = self.record()
        if row and table != "account":
            self.store.remove(table, str(row[self.key(table)]))
            other = self.dice.choice([row, self.some(table) or row])
            self.store.put(table, {**other, self.key(table): row[self.key(table)]})

    def back_and_forth(self) -> None:
        row = self.some("opportunity")
        if row:
            for state in (self.dice.choice([0, 1, 2]), row["statecode"]):
                self.store.change("opportunity", str(row["opportunityid"]), {"statecode": state})

    def visit(self) -> None:
        amount, rate = Decimal(self.dice.randint(-(10**6), 10**6)).scaleb(-2), Decimal(self.dice.choice(RATES))
        day = self.dice.choice(DAYS)
        changes = self.dice.choice(
            [
                {"x_amount": amount, "x_amount_base": round(amount / rate, 4), "exchangerate": rate},
                {"x_amount": amount, "x_amount_base": None},
                {"x_day": dt.date.fromisoformat(day)},
                {"x_at": parse_instant(self.maker.instant_near(day))},
                {"x_count": self.dice.choice([None, 1, 2**31 - 1])},
                {"x_dealid": self.some("opportunity").get("opportunityid")},
                {"statecode": self.dice.choice([0, 1])},
                {"ownerid": self.dice.choice(self.maker.users), "owneridtype": "systemuser"},
            ]
        )
        self.change("x_visit", **changes)

    def field(self) -> None:
        self.change(
            "rollupfield",
            **self.dice.choice(
                [
                    {"sourcestate": self.dice.choice([None, 0, 1])},
                    {"sourcestatus": self.dice.choice([None, 2])},
                    {"dateattribute": self.dice.choice(["x_at", "x_day", "x_wall", "actualclosedate", "nowhere"])},
                    {"sourceattribute": self.dice.choice(["x_count", "x_amount", "actualvalue"])},
                ]
            ),
        )

    def lose_field(self) -> None:
        row = self.some("rollupfield")
        if row:
            self.store.remove("rollupfield", str(row["rollupfieldid"]))
            if self.dice.random() < 0.5:
                self.store.put("rollupfield", {**row, "sourcestatus": None})

    def break_query(self) -> None:
        broken = ["<fetch>", "", '<fetch><entity name="opportunity"><filter><condition/></filter></entity></fetch>']
        self.change("goalrollupquery", fetchxml=self.dice.choice(broken))

    def mend_query(self) -> None:
        query = self.maker.query("")
        self.change("goalrollupquery", fetchxml=query["fetchxml"], queryentitytype=query["queryentitytype"])

    def metric(self) -> None:
        self.change("metric", **self.dice.choice([{"isamount": False}, {"isamount": True}, {"amountdatatype": 2}]))

    def membership(self) -> None:
        row = self.some("teammembership")
        if row and self.dice.random() < 0.5:
            self.store.remove("teammembership", str(row["teammembershipid"]))
        else:
            ids = {"teamid": self.maker.teams[0], "systemuserid": self.dice.choice(self.maker.users)}
            self.store.put("teammembership", {"teammembershipid": self.maker.guid(), **ids})

    def person(self) -> None:
        above = self.dice.choice([None, *self.maker.users])
        self.change(
            "systemuser",
            **self.dice.choice([{"parentsystemuserid": above}, {"businessunitid": self.dice.choice(self.maker.units)}]),
        )

    def organization(self) -> None:
        start = parse_instant(self.maker.day(self.dice.choice(["2024-04-01", "2024-07-15", "2024-01-01"])))
        changes = [
            {"fiscalperiodtype": self.dice.choice([2000, 2001, 2002, 2003, 2004])},
            {"fiscalcalendarstart": start},
            {"weekstartdaycode": self.dice.choice([0, 1, 6])},
        ]
        self.change("organization", **self.dice.choice(changes))

    def currency(self) -> None:
        key = self.maker.guid()
        self.store.put("transactioncurrency", {**self.some("transactioncurrency"), "transactioncurrencyid": key})

    def goal(self) -> None:
        first, last = self.dice.choice(PERIODS)
        starts, ends = (parse_instant(self.maker.day(one)) for one in (first, last))
        changes: list[dict[str, Any]] = [
            {"goalstartdate": starts, "goalenddate": ends},
            {"goalenddate": None},
            {"statecode": self.dice.choice([0, 1])},
            {"isoverridden": self.dice.choice([True, False])},
            {"parentgoalid": self.some("goal").get("goalid")},
            {"ownerid": self.dice.choice([*self.maker.users, *self.maker.teams])},
            {"metricid": self.some("metric").get("metricid")},
            {"goalownerid": self.dice.choice([None, *self.maker.users])},
        ]
        self.change("goal", **self.dice.choice(changes))

    def lose_goal(self) -> None:
        row = self.some("goal")
        if row and self.dice.random() < 0.3:
            self.store.remove("goal", str(row["goalid"]))

    def midnight(self) -> None:
        zone = ZoneInfo(self.maker.zone)
        tomorrow = self.emulator.clock.now().astimezone(zone).date() + dt.timedelta(days=1)
        start = dt.datetime.combine(tomorrow, dt.time(), zone).astimezone(dt.UTC)
        self.emulator.clock.advance(start - self.emulator.clock.now() + dt.timedelta(seconds=self.dice.choice([-1, 0])))


def document_of(dice: random.Random, zone: str) -> Document:
    """Return a random configuration: mostly in the organization's zone, seen by the service."""
    rollup = {
        "time_zone": dice.choice([zone] * 4 + ZONES),
        "closed_child": dice.choice(["stored", "excluded"]),
        "visibility": dice.choice(["service"] * 4 + ["manager"]),
        "visibility_refresh": dice.choice(["0s", "1h"]),
    }
    fetchxml = {dice.choice(FETCH_RULES): dice.random() < 0.5} if dice.random() < 0.3 else {}
    return {
        "rollup": rollup,
        "fetchxml": fetchxml,
        "pull": {"reread_up_to": dice.choice([0, 1000]), "sweep_every": "0s"},
    }


def cycle(app: App, dice: random.Random) -> None:
    """Run a cycle; some fail somewhere, some follow few changed rows only, some are full; then list what is kept."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(recompute, "MOST_FOLLOWED", dice.choice([0, 2, 5000])))
        failing = dice.random() < 0.25
        if failing:
            name = dice.choice(["settle", "index", "apply", "begin_load", "adder"])
            real, left = getattr(Mirror, name), [dice.randint(0, 12)]

            def faulty(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise InterruptedError
                return real(*args, **kwargs)

            stack.enter_context(patch.object(Mirror, name, faulty))
        try:
            app.sync(write=False, full=dice.random() < 0.1)
        except InterruptedError:
            assert failing
    if dice.random() < 0.4:
        try:
            computed(app.line, mirrored(app.line, app.line.clock()))
        except UsageError:
            assert failing


def kept(app: App) -> list[tuple[Any, ...]]:
    with app.line.mirror.connection() as connection:
        rows = connection.exec_driver_sql(
            "SELECT key, fingerprint, owner, manager, starts, ends, total, records, unpriced FROM _group "
            "LEFT JOIN _slice ON number = group_number ORDER BY 1, 2, 3, 4, 5, 6"
        )
        left = [connection.exec_driver_sql("SELECT COUNT(*) FROM _changed").scalar()]
        return [*(tuple(row) for row in rows), tuple(left)]


def problems(result: CycleResult) -> set[Problem]:
    """Return the problems but for double counting, which is not followed exactly (see the test that says so)."""
    return set(result.rollup.problems)


@relaxed
@given(st.integers(0, 2**32))
def test_incremental_equals_full_whatever_happens(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        check(seed, Path(name))


def check(seed: int, folder: Path) -> None:
    """Live through a history; compare what is kept with a mirror made from nothing, the totals with brute force."""
    dice, maker = random.Random(seed), NastyMaker(seed)
    (folder / "org").mkdir()
    (folder / "org" / "schema.json").write_text(json.dumps(VISIT))
    write_org(maker.org(), folder / "org")
    emulator = Emulator.load(folder / "org", now=NOW, page_size=dice.choice([2, 5000]))
    nasty = Nasty(emulator, maker, dice)

    def line(document: Document) -> Any:
        config = configuration(emulator, folder, **document, writeback={"mode": "plan"})
        return opened(config, clock=emulator.clock.now, environ={}, session=emulator.session())

    document = document_of(dice, maker.zone)
    for _ in range(dice.randint(1, 5)):
        if dice.random() < 0.4:
            document = document_of(dice, maker.zone)
        with line(document) as app:
            cycle(app, dice)
        for _ in range(dice.randint(0, 6)):
            nasty.act()
    with line(document) as app:
        result = app.sync(write=False)
        fed = kept(app)
    (folder / "mirror.db").unlink()
    with line(document) as app:
        fresh = app.sync(write=False)
        assert result.rollup.totals == fresh.rollup.totals
        assert problems(result) == problems(fresh)
        assert fed == kept(app)
    rollup = document["rollup"]
    if rollup["visibility"] == "service" and not document["fetchxml"]:
        brute = Brute(emulator, ZoneInfo(rollup["time_zone"]), closed=rollup["closed_child"] == "stored").all()
        totals = fresh.rollup.totals.items()
        assert {one: {name: exact(t.totals[name]) for name in VALUE_COLUMNS} for one, t in totals} == brute
