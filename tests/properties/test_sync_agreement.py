"""The fast way against the slow way, and a mirror fed by changes against one pulled from nothing."""

from __future__ import annotations

import datetime as dt
import random
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.app import App
from d365sync.core.values import Row, Value
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from tests.effort import examples
from tests.emulated import NOW, application, goal_values
from tests.properties.orgs import DAYS, write_random_org

relaxed = settings(max_examples=examples(5), deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)


def plain_values(emulator: Emulator) -> dict[str, dict[str, Decimal | None]]:
    return {
        goal: {column: None if value is None else Decimal(str(value)) for column, value in columns.items()}
        for goal, columns in goal_values(emulator).items()
    }


@relaxed
@given(seeds)
def test_sync_writes_what_the_native_rollup_gives(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_org(seed, folder / "org")
        synced, native = (Emulator.load(folder / "org", now=NOW) for _ in range(2))
        with application(synced, folder) as app:
            assert app.sync(write=True).outcome == 0
        for goal in [row for row in native.store.rows("goal").values() if row.get("parentgoalid") is None]:
            recalculate(native.store, str(goal["goalid"]), native.store.settings, NOW)
        left_alone = {
            str(r["title"]) for r in native.store.rows("goal").values() if r.get("statecode") or r.get("isoverridden")
        }
        ours, theirs = plain_values(synced), plain_values(native)
        assert {goal: ours[goal] for goal in ours if goal not in left_alone} == {
            goal: theirs[goal] for goal in theirs if goal not in left_alone
        }


def edit(emulator: Emulator, dice: random.Random) -> None:
    """Do one random thing to the organization: change, add or delete a record, a goal or a query."""
    store = emulator.store
    table = dice.choice(
        ["opportunity"] * 3 + ["phonecall", "opportunityproduct", "goal", "account", "systemuser", "teammembership"]
    )
    rows = list(store.rows(table).values())
    if not rows:
        return
    row = dice.choice(rows)
    key = store.catalogue.tables[table].key
    if dice.random() < 0.2 and table not in ("goal", "systemuser"):
        store.remove(table, str(row[key]))
    elif dice.random() < 0.2 and table not in ("goal", "account", "systemuser"):
        store.put(table, {**row, key: f"{dice.getrandbits(32):08x}-0000-4000-8000-000000000000"})
    else:
        store.change(table, str(row[key]), change_of(table, row, dice))


def change_of(table: str, row: Row, dice: random.Random) -> Mapping[str, Value]:
    if table == "opportunity":
        amount = Decimal(dice.randint(0, 10**6)).scaleb(-2)
        day = dice.choice([day for day in DAYS if day])
        return dice.choice(
            [
                {"actualvalue": amount, "actualvalue_base": amount},
                {"name": dice.choice(["Anna", "x"])},
                {"statecode": 1, "statuscode": 3, "actualclosedate": dt.date.fromisoformat(day)},
                {"statecode": 2, "statuscode": 4},
            ]
        )
    if table == "goal":
        return dice.choice([{"consideronlygoalownersrecords": dice.random() < 0.5}, {"title": str(row["title"])}])
    if table == "account":
        return {"name": dice.choice(["Acme", "Other"])}
    if table == "systemuser":
        return {"parentsystemuserid": dice.choice([None, row["systemuserid"]])}
    if table == "teammembership":
        return {"versionnumber": row["versionnumber"]}
    if table == "phonecall":
        return {"statecode": dice.choice([0, 1])}
    return {"quantity": Decimal(dice.randint(0, 10**6)).scaleb(-5)}


def mirrored(app: App) -> dict[str, list[dict[str, Value]]]:
    snapshot = app.sync(write=False).snapshot
    return {name: app.line.mirror.rows(table) for name, table in snapshot.tables.items() if name != "organization"}


@relaxed
@given(seeds)
def test_a_mirror_fed_by_changes_equals_one_pulled_from_nothing(seed: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_org(seed, folder / "org")
        emulator = Emulator.load(folder / "org", now=NOW, page_size=dice.choice([1, 3, 5000]))
        rules = {"pull": {"reread_up_to": dice.choice([0, 1000]), "sweep_every": "0s"}}
        with application(emulator, folder, **rules) as app:
            for _ in range(3):
                app.sync(write=True)
                for _ in range(dice.randint(0, 6)):
                    edit(emulator, dice)
            plan = app.sync(write=False)
            fed = mirrored(app)
        (folder / "mirror.db").unlink()
        with application(emulator, folder, **rules) as app:
            fresh_plan = app.sync(write=False)
            assert plan.rollup.totals == fresh_plan.rollup.totals
            assert plan.plan == fresh_plan.plan
            assert fed == mirrored(app)


@relaxed
@given(seeds)
def test_a_plan_applied_is_empty_the_second_time(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_org(seed, folder / "org")
        emulator = Emulator.load(folder / "org", now=NOW)
        with application(emulator, folder) as app:
            first = app.sync(write=True)
            assert len(first.pushed.written if first.pushed else ()) == len(first.plan.writes)
            second = app.sync(write=True)
            assert second.plan.is_empty
            assert second.recomputed == frozenset()
