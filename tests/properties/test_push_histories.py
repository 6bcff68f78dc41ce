"""Whatever people, the native rollup and bad networks do around pushes: what a person typed is never overwritten, what
d365sync wrote is always known as its own, and in the end every other goal is right."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.app import App, opened
from d365sync.core.goals.writes import SkipReason
from d365sync.emulator.inprocess import mounted_session
from d365sync.errors import D365SyncError
from tests.effort import examples
from tests.emulated import configuration
from tests.integration.test_line import load
from tests.properties.pushes import FATES, OWN, Careless, Killed, OverwrittenError, Wild, World
from tests.scripted import VirtualTimer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

relaxed = settings(max_examples=examples(4), deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def line(world: World, app: WSGIApplication, folder: Path, mode: str) -> Iterator[App]:
    writeback = {"mode": mode, "columns": {"actualmoney": OWN}, "batch_size": world.dice.choice([1, 2, 1000])}
    remote = {"retry_budget": world.dice.choice(["0s", "60s"])}
    config = configuration(
        world.emulator, folder, writeback=writeback, dataverse=remote, rollup={"double_counting": "off"}
    )
    options = {"line_options": {"on_plan": lambda _plan: world.planned()}, "timer": VirtualTimer()}
    with opened(config, clock=world.emulator.clock.now, environ={}, session=mounted_session(app), **options) as one:
        yield one


def live(seed: int, folder: Path, mutate: Callable[[WSGIApplication], WSGIApplication] = lambda app: app) -> None:
    """Live through some cycles with everything that happens in between, then through quiet ones."""
    dice = random.Random(seed)
    (folder / "org").mkdir()
    (folder / "org" / "schema.json").write_text(json.dumps({"goal": {"columns": {OWN: "money"}}}))
    fates = ("well", *dice.sample(FATES, 2)) if dice.random() < 0.6 else ()
    emulator = load(folder)
    emulator.store.settings = replace(emulator.store.settings, native_rollup=True)
    world = World(emulator, dice, fates)
    wild = Wild(world)
    app = mutate(wild)
    for _ in range(dice.randint(1, 4)):
        with line(world, app, folder, dice.choice(["override", "override", "columns"])) as one:
            world.begin(one.line.journal.written_values(world.emulator.store.rows("goal")))
            with suppress(D365SyncError, Killed):
                one.sync(write=True)
            world.check()
        for _ in range(dice.randint(0, 3)):
            dice.choice([world.act, world.native, world.deal, world.deal])()
    while wild.late:
        wild.arrive()
    quiet(world, wild, app, folder)


def quiet(world: World, wild: Wild, app: WSGIApplication, folder: Path) -> None:
    wild.quiet = True
    for mode in ("columns", "override"):
        with line(world, app, folder, mode) as one:
            world.begin(one.line.journal.written_values(world.emulator.store.rows("goal")))
            one.sync(write=True)
            result = one.sync(write=True)
            assert result.plan.is_empty, "the second time there is nothing to write"
            world.check()
            alone = {skip.goal_id for skip in result.plan.skips if skip.reason is SkipReason.OVERRIDDEN}
            assert world.theirs.keys() <= alone <= world.theirs.keys() | world.unclear, "whose override is whose"


@relaxed
@given(st.integers(0, 2**32))
def test_no_edit_of_a_person_is_overwritten_and_every_write_of_ours_is_known(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        live(seed, Path(name))


def test_the_checker_finds_writes_that_are_not_conditional() -> None:
    with pytest.raises(OverwrittenError):
        live_many(range(40), Careless)


def live_many(seeds: Iterable[int], mutate: Callable[[WSGIApplication], WSGIApplication]) -> None:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as name:
            live(seed, Path(name), mutate)
