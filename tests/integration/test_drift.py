"""What a table is changes between cycles: tracking, columns, their types; and the mirror's own file is damaged."""

from __future__ import annotations

import datetime as dt
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from d365sync.app import App, opened
from d365sync.core.goals.rollup import Rollup
from d365sync.dataverse.wire import encode_body
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.facts import Catalogue
from d365sync.sync.cycle import Outcome
from d365sync.sync.pull import Way
from tests.emulated import NOW, configuration
from tests.golden.casebook import made_id
from tests.integration.test_fault_rows import DEAL, ORG
from tests.integration.test_pull import assert_mirrored, pulled

FEES = made_id("goal", "Fees")
ATTRIBUTES = f"EntityDefinitions(LogicalName='{DEAL}')/Attributes"
TEXT = {"@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "SchemaName": "new_Fee", "MaxLength": 100}
MONEY = {"@odata.type": "Microsoft.Dynamics.CRM.MoneyAttributeMetadata", "SchemaName": "new_Fee"}


@contextmanager
def running(emulator: Emulator, folder: Path) -> Iterator[App]:
    """Build the application; its clock is the emulator's."""
    config = configuration(emulator, folder, dataverse={"page_size": 10}, pull={"partitions": 1})
    with opened(config, clock=emulator.clock.now, environ={}, session=emulator.session()) as app:
        yield app


@pytest.fixture
def emulator() -> Emulator:
    return Emulator.load(ORG, now=NOW, settings=EmulatorSettings(change_tracking={DEAL: True}))


def track(emulator: Emulator, *, tracked: bool) -> None:
    tables = dict(emulator.store.catalogue.tables)
    facts = tables[DEAL]
    tables[DEAL] = replace(facts, table=replace(facts.table, change_tracking=tracked))
    emulator.store.redefine(Catalogue.of(tables.values()))


def define(app: App, column: dict[str, object] | None) -> None:
    """Take the fee away, or make it."""
    root = app.line.client.api_root
    if column is None:
        app.line.client.transport.send("DELETE", f"{root}/{ATTRIBUTES}(LogicalName='new_fee')")
    else:
        app.line.client.transport.send("POST", f"{root}/{ATTRIBUTES}", body=encode_body(column))


def problems(rollup: Rollup) -> dict[str | None, str]:
    return {problem.goal_id: problem.code for problem in rollup.problems}


def test_tracking_switched_off_and_on_again_is_noticed_by_the_service_itself(
    emulator: Emulator, tmp_path: Path
) -> None:
    with running(emulator, tmp_path) as app:
        app.sync(write=False)
        for tracked, ways in ((False, (Way.FULL, Way.FULL)), (True, (Way.FULL, Way.DELTA))):
            track(emulator, tracked=tracked)
            emulator.clock.advance(dt.timedelta(days=2) if tracked else dt.timedelta(minutes=5))
            emulator.store.remove(DEAL, sorted(emulator.store.rows(DEAL))[3])
            for number, way in enumerate(ways):
                result = app.sync(write=False)
                assert pulled(result).way is way
                assert number == 0 or not any(name.endswith(" 400") for name in result.traffic.answers)
                assert_mirrored(app, emulator, result)


def test_a_column_taken_away_stops_the_goals_that_add_it_up_until_it_is_there_again(
    emulator: Emulator, tmp_path: Path
) -> None:
    with running(emulator, tmp_path) as app:
        right = app.sync(write=True).rollup.totals
        define(app, None)
        emulator.clock.advance(dt.timedelta(hours=1))
        result = app.sync(write=True)
        assert result.outcome is Outcome.PARTIAL
        assert problems(result.rollup) == {FEES: "rollup-field-unusable"}
        assert {goal: result.rollup.totals[goal] for goal in right if goal != FEES} == {
            goal: total for goal, total in right.items() if goal != FEES
        }
        define(app, MONEY)
        for number, key in enumerate(sorted(emulator.store.rows(DEAL))):
            emulator.store.change(DEAL, key, {"new_fee": Decimal(number), "new_fee_base": Decimal(number)})
        emulator.clock.advance(dt.timedelta(hours=1))
        again = app.sync(write=True)
        assert (again.outcome, problems(again.rollup)) == (Outcome.OK, {})
        assert_mirrored(app, emulator, again)


@pytest.mark.parametrize("minutes", [1, 60])
def test_a_column_made_again_with_another_type_is_never_added_up(
    emulator: Emulator, tmp_path: Path, minutes: int
) -> None:
    with running(emulator, tmp_path) as app:
        app.sync(write=True)
        define(app, None)
        define(app, TEXT)
        emulator.store.change(DEAL, sorted(emulator.store.rows(DEAL))[0], {"new_fee": "much"})
        emulator.clock.advance(dt.timedelta(minutes=minutes))
        result = app.sync(write=True)
        assert (result.outcome, problems(result.rollup)) == (Outcome.PARTIAL, {FEES: "rollup-field-unusable"})


@pytest.mark.parametrize("seed", range(2))
def test_a_mirror_with_damaged_pages_is_made_again_in_the_same_cycle(
    emulator: Emulator, tmp_path: Path, seed: int
) -> None:
    with running(emulator, tmp_path) as app:
        right = app.sync(write=False).rollup.totals
    path = tmp_path / "mirror.db"
    content, dice = bytearray(path.read_bytes()), random.Random(seed)
    pages = len(content) // 4096
    for page in dice.sample(range(pages), pages // 2):
        content[page * 4096 : page * 4096 + 2048] = dice.randbytes(2048)
    path.write_bytes(content)
    with running(emulator, tmp_path) as app:
        assert app.sync(write=False).rollup.totals == right
    assert list(tmp_path.glob("mirror.db.damaged-*"))


def test_a_secured_column_that_shows_nothing_is_not_taken_for_empty(tmp_path: Path) -> None:
    shutil.copytree(ORG, tmp_path / "org")
    schema = {DEAL: {"columns": {"new_fee": {"type": "money", "secured": True}}}}
    (tmp_path / "org" / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    right = Emulator.load(tmp_path / "org", now=NOW)
    with running(right, tmp_path) as app:
        totals = app.sync(write=False).rollup.totals
    hidden = Emulator.load(tmp_path / "org", now=NOW, settings=EmulatorSettings(reads_secured=False))
    (tmp_path / "mirror.db").unlink()
    with running(hidden, tmp_path) as app:
        result = app.sync(write=True)
    assert (result.outcome, problems(result.rollup)) == (Outcome.PARTIAL, {FEES: "column-hidden"})
    assert "column security profile" in result.rollup.problems[0].hint
    assert result.rollup.totals == {goal: total for goal, total in totals.items() if goal != FEES}
