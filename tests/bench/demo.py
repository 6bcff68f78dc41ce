"""Pairs on the demo organization: d365sync and the emulator in process, no network."""

from __future__ import annotations

import tempfile
from pathlib import Path

from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from d365sync.sync.offline import mirrored
from d365sync.sync.recompute import Recomputer
from tests.bench.ours import prepare
from tests.bench.report import Line, faster, measured
from tests.emulated import NOW, application

DEMO = Path(__file__).parents[2] / "fixtures" / "orgs" / "demo"


def demo_pairs(rounds: int) -> list[Line]:
    """Measure a cycle from nothing against an idle one, and the groups against goal by goal and record by record."""
    emulator = Emulator.load(DEMO, now=NOW)
    with tempfile.TemporaryDirectory() as folder, application(emulator, Path(folder)) as app:
        app.sync(write=True)
        cycles = measured(
            {
                "idle": lambda: app.sync(write=False),
                "full": lambda: app.sync(write=False, full=True),
            },
            rounds,
        )
        snapshot = mirrored(app.line, NOW)
        worker = Recomputer(
            app.line.mirror, snapshot.book, snapshot.schema, snapshot.tables, snapshot.context, snapshot.zone
        )
        cuts = [one.cut for one in prepare(worker, snapshot.grouping.groups)]
        roots = [goal.id for goal in snapshot.book.goals.values() if goal.parent_id is None]
        ways = measured(
            {
                "groups": lambda: worker.summed(cuts),
                "records": lambda: [recalculate(emulator.store, root, emulator.store.settings, NOW) for root in roots],
            },
            rounds,
        )
    groups = ("every goal's slices, group by group", ways["groups"])
    return [
        faster("demo", ("an idle cycle", cycles["idle"]), ("a cycle from nothing", cycles["full"])),
        faster("demo", groups, ("record by record, as the emulator does", ways["records"])),
    ]
