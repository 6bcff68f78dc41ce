"""What managers may read, asked for and counted in SQL, against the native rollup that tests row by row."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given

from d365sync.app import App
from d365sync.core.values import Row
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from tests.emulated import NOW, application
from tests.properties.secured import DEPTHS, write_secured_org
from tests.properties.test_sync_agreement import edit, plain_values, relaxed, seeds
from tests.security import id_of

MANAGER = {"rollup": {"visibility": "manager", "visibility_refresh": "0s"}}


def untouched(row: Row) -> bool:
    return bool(row.get("statecode") or row.get("isoverridden"))


def compare(app: App, emulator: Emulator) -> None:
    """Sync, writing nothing, then let the emulator roll up; every goal both computed is the same."""
    result = app.sync(write=False)
    assert result.outcome == 0
    rows = [row for row in emulator.store.rows("goal").values() if not untouched(row)]
    ours = {str(row["title"]): _ours(result.rollup.totals[str(row["goalid"])]) for row in rows}
    for goal in [row for row in emulator.store.rows("goal").values() if row.get("parentgoalid") is None]:
        recalculate(emulator.store, str(goal["goalid"]), emulator.store.settings, NOW)
    theirs = plain_values(emulator)
    assert ours == {title: theirs[title] for title in ours}


def _ours(totals: Any) -> dict[str, Any]:
    return {**totals.totals, "percentage": totals.percentage}


@relaxed
@given(seeds)
def test_sync_counts_what_each_manager_may_read(seed: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_secured_org(seed, folder / "org")
        emulator = Emulator.load(folder / "org", now=NOW, page_size=dice.choice([1, 3, 5000]))
        with application(emulator, folder, **MANAGER) as app:
            compare(app, emulator)


@relaxed
@given(seeds)
def test_and_goes_on_counting_it_when_records_and_roles_change(seed: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_secured_org(seed, folder / "org")
        emulator = Emulator.load(folder / "org", now=NOW)
        with application(emulator, folder, **MANAGER) as app:
            for _ in range(3):
                compare(app, emulator)
                for _ in range(dice.randint(0, 4)):
                    dice.choice([edit, reassign, regrant])(emulator, dice)
            compare(app, emulator)


@relaxed
@given(seeds)
def test_between_refreshes_the_rows_that_change_are_followed(seed: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_secured_org(seed, folder / "org")
        emulator = Emulator.load(folder / "org", now=NOW)
        with application(emulator, folder, rollup={"visibility": "manager", "visibility_refresh": "1d"}) as app:
            for _ in range(3):
                compare(app, emulator)
                for _ in range(dice.randint(0, 4)):
                    reassign(emulator, dice)
            compare(app, emulator)


def reassign(emulator: Emulator, dice: random.Random) -> None:
    """Give a deal or a call to another user; the lines of a deal go with it, and so change too."""
    store = emulator.store
    table = dice.choice(["opportunity", "phonecall"])
    rows, users = list(store.rows(table).values()), list(store.rows("systemuser").values())
    if rows:
        row, owner = dice.choice(rows), dice.choice(users)
        whose = {"ownerid": owner["systemuserid"], "owneridtype": "systemuser"}
        key = store.catalogue.tables[table].key
        store.change(table, str(row[key]), {**whose, "owningbusinessunit": owner["businessunitid"]})
        for line in store.referring("opportunityproduct", "opportunityid", str(row[key])):
            store.change("opportunityproduct", str(line["opportunityproductid"]), whose)


def regrant(emulator: Emulator, dice: random.Random) -> None:
    """Change a depth of a role, or give or take a role."""
    store = emulator.store
    grants, users = list(store.rows("roleprivileges").values()), list(store.rows("systemuser"))
    if dice.random() < 0.5:
        store.change(
            "roleprivileges", str(dice.choice(grants)["roleprivilegeid"]), {"privilegedepthmask": dice.choice(DEPTHS)}
        )
        return
    ids = {"systemuserid": dice.choice(users), "roleid": id_of("role", dice.choice(["one", "two", "three"]))}
    given_id = id_of("given", *ids.values())
    if store.get("systemuserroles", given_id):
        store.remove("systemuserroles", given_id)
    else:
        store.put("systemuserroles", {"systemuserroleid": given_id, **ids})
