"""Records counted twice in one total: what is reported against every pair of goals, compared record by record."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.core.goals.doubles import Doubles
from d365sync.emulator import Emulator
from d365sync.emulator.native import counted_records
from d365sync.sync.doubles import all_doubles
from tests.effort import examples
from tests.emulated import NOW, application
from tests.properties.orgs import write_random_org
from tests.properties.test_sync_agreement import edit

relaxed = settings(max_examples=examples(5), deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**32)
EVERY = 10**6
Doubled = tuple[str, str, str]


def brute_force(emulator: Emulator) -> set[Doubled]:
    """Return goal, column and record wherever a total holds a record twice, comparing each goal with each."""
    goals = emulator.store.rows("goal")
    counted = {
        goal: counted_records(emulator.store, goal, emulator.store.settings, NOW)
        for goal, row in goals.items()
        if row.get("statecode") == 0
    }
    doubled: set[Doubled] = set()
    for one, other in itertools.combinations(counted, 2):
        above = list(line_of(emulator, other))
        at = next((goal for goal in line_of(emulator, one) if goal in above), None)
        if at is not None:
            for column in counted[one]:
                doubled |= {(at, column, record) for record in counted[one][column] & counted[other].get(column, set())}
    return doubled


def line_of(emulator: Emulator, goal: str) -> Iterator[str]:
    """Yield a goal and those above it that add its computed total."""
    goals = emulator.store.rows("goal")
    yield goal
    while True:
        row = goals[goal]
        parent = str(row.get("parentgoalid"))
        if row.get("isoverridden") or parent not in goals or goals[parent].get("statecode") != 0:
            return
        goal = parent
        yield goal


def told(doubles: Doubles) -> set[Doubled]:
    return {(one.at, one.column, record) for one in doubles.found for record, _ in one.shared.sample}


def sums(doubles: Doubles) -> dict[tuple[str, str, str, str], tuple[int, object]]:
    return {
        (one.at, one.first, one.second, one.column): (one.shared.records, one.shared.amount) for one in doubles.found
    }


@relaxed
@given(seeds)
def test_exactly_the_records_that_count_twice_are_reported(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_org(seed, folder / "org")
        emulator = Emulator.load(folder / "org", now=NOW)
        with application(emulator, folder) as app:
            snapshot = app.sync(write=False).snapshot
            assert told(all_doubles(app.line, snapshot, most=EVERY)) == brute_force(emulator)


@relaxed
@given(seeds)
def test_what_is_kept_and_looked_at_again_equals_a_look_at_everything(seed: int) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_org(seed, folder / "org")
        emulator = Emulator.load(folder / "org", now=NOW)
        with application(emulator, folder) as app:
            for _ in range(4):
                result = app.sync(write=False)
                assert sums(result.doubles) == sums(all_doubles(app.line, result.snapshot))
                for _ in range(dice.randint(0, 4)):
                    edit(emulator, dice)
