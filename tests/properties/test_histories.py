"""After any history of edits, the kept sums give what a mirror pulled from nothing gives, and what the emulator's own
rollup, written by another hand, gives: all nine columns, to the last digit."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.app import App, opened
from d365sync.core.goals.goal import VALUE_COLUMNS, Number
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from d365sync.emulator.settings import EmulatorSettings
from tests.effort import examples
from tests.emulated import configuration
from tests.properties.histories import START, HistoryMaker, edit
from tests.properties.orgs import write_org

relaxed = settings(max_examples=examples(5), deadline=None, suppress_health_check=list(HealthCheck))
Numbers = dict[str, dict[str, Decimal | None]]


@contextmanager
def line(emulator: Emulator, folder: Path, zone: str, reread_up_to: int) -> Iterator[App]:
    config = configuration(
        emulator,
        folder,
        rollup={"time_zone": zone},
        pull={"reread_up_to": reread_up_to, "sweep_every": "0s"},
        writeback={"mode": "plan"},
    )
    with opened(config, clock=emulator.clock.now, environ={}, session=emulator.session()) as app:
        yield app


def ours(app: App) -> Numbers:
    result = app.sync(write=False)
    return {goal_id: _decimals(one.totals) for goal_id, one in result.rollup.totals.items()}


def natively(emulator: Emulator, goal_ids: set[str]) -> Numbers:
    """Let the emulator roll everything up, and return the goals of ``goal_ids``."""
    for goal in list(emulator.store.rows("goal").values()):
        if goal.get("parentgoalid") is None:
            recalculate(emulator.store, str(goal["goalid"]), emulator.store.settings, emulator.clock.now())
    rows = emulator.store.rows("goal")
    return {goal_id: _decimals({name: rows[goal_id].get(name) for name in VALUE_COLUMNS}) for goal_id in goal_ids}


def _decimals(values: Mapping[str, object]) -> dict[str, Decimal | None]:
    return {name: Decimal(str(value)) if isinstance(value, Number) else None for name, value in values.items()}


@relaxed
@given(st.integers(0, 2**32))
def test_kept_sums_equal_sums_from_nothing_and_the_native_rollup(seed: int) -> None:
    dice, maker = random.Random(seed), HistoryMaker(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_org(maker.org(), folder / "org")
        rollup_settings = EmulatorSettings(rollup_time_zone=ZoneInfo(maker.zone))
        emulator = Emulator.load(folder / "org", now=START, settings=rollup_settings, page_size=dice.choice([2, 5000]))
        small = dice.choice([0, 1000])
        with line(emulator, folder, maker.zone, small) as app:
            for _ in range(dice.randint(1, 4)):
                app.sync(write=False)
                for _ in range(dice.randint(0, 5)):
                    edit(emulator, maker, dice)
            kept = ours(app)
        (folder / "mirror.db").unlink()
        with line(emulator, folder, maker.zone, small) as app:
            assert kept == ours(app)
        overridden = {str(row["goalid"]) for row in emulator.store.rows("goal").values() if row.get("isoverridden")}
        judged = kept.keys() - overridden
        assert {goal_id: kept[goal_id] for goal_id in judged} == natively(emulator, set(judged))
