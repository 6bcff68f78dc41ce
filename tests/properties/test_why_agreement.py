"""What ``--why-not`` says of a record is what the mirror's sums count, and what the evaluator answers."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given

from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.goals.why import typed_bounds
from d365sync.emulator import Emulator
from d365sync.sync.explain import parts_of
from d365sync.sync.offline import mirrored
from tests.emulated import NOW, application
from tests.properties.orgs import write_random_org
from tests.properties.test_sync_agreement import relaxed, seeds


@relaxed
@given(seeds)
def test_a_record_counts_exactly_when_every_test_holds(seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_org(seed, folder / "org")
        with application(Emulator.load(folder / "org", now=NOW), folder, rollup={"time_zone": "Europe/Berlin"}) as app:
            app.sync(write=False)
            snapshot = mirrored(app.line, NOW)
            tables = {name: app.line.mirror.rows(table) for name, table in snapshot.tables.items()}
            for goal in snapshot.book.goals.values():
                for part in parts_of(app.line, snapshot, goal).values():
                    key = part.group.primary_id
                    rows = tables[part.group.table]
                    counted = {row[key] for row in part.records()}
                    judged_so = zip(rows, part.criteria(rows), strict=True)
                    assert {row[key] for row, tests in judged_so if all(one.holds for one in tests)} == counted
                    bounds = typed_bounds(part.asking)
                    judged = evaluate(part.group.fetch, tables, snapshot.schema, part.context, placeholders=bounds)
                    assert {row[key] for row in judged} == counted
