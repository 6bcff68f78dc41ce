"""What is measured of d365sync: a whole recompute, its bare statements, and the rest of a cycle.

The one place to change when recomputing gets another form.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from d365sync.app import build
from d365sync.config import parse
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.participation import Group
from d365sync.core.goals.rollup import OwnPart, Rollup
from d365sync.core.goals.slices import goal_totals
from d365sync.core.period import DaySpan
from d365sync.core.storage import scale_of
from d365sync.mirror.slices import GroupSums
from d365sync.sync.collecting import uncollected
from d365sync.sync.cuts import Cut, goal_spans
from d365sync.sync.cycle import recompute, roll_up_all
from d365sync.sync.recompute import Recomputed, Recomputer
from d365sync.sync.snapshot import Line, Snapshot, snapshot_of
from tests.bench import data

Bound = Mapping[str, str]
Sums = dict[tuple[str, str], int]
"""Exact amounts (money in ten-thousandths) and counts, by goal id and column; nothing (0) is left out."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One group as it is summed again, and the owner and days of its goals, for the other ways."""

    cut: Cut
    bounds: list[Bound]

    @property
    def group(self) -> Group:
        """The group itself."""
        return self.cut.one.group


@dataclass(frozen=True, slots=True)
class Bench:
    """An opened mirror, and what its goals ask for."""

    file: Path
    line: Line
    snapshot: Snapshot
    worker: Recomputer
    prepared: list[Prepared]

    def forget(self) -> None:
        """Forget every sum kept, so that the next recompute is a full one."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("DELETE FROM _group")
            connection.execute("DELETE FROM _slice")
            connection.execute("UPDATE _table SET all_changed = 1")

    def recompute(self) -> Recomputed:
        """Recompute as a cycle does, keeping the sums."""
        with uncollected():
            return recompute(self.line, self.snapshot)

    def sums(self) -> list[tuple[Prepared, dict[str, int]]]:
        """Sum everything again, and give every goal its amount; where the goals are cut is known."""
        with uncollected():
            sums = self.worker.summed([one.cut for one in self.prepared])
            return [
                (one, goal_totals(one.cut.layout, its.totals)) for one, its in zip(self.prepared, sums, strict=True)
            ]

    def follow(self) -> None:
        """Bring the kept sums up to date with what changed in the mirror."""
        self.worker.index(self.snapshot.grouping.groups)
        refreshed = self.worker.refresh(self.snapshot.grouping.groups, [])
        self.line.mirror.settle([GroupSums(one.key, one.fingerprint, one.updates) for one in refreshed])

    def load(self) -> Snapshot:
        """Read the goals from the mirror and group them."""
        with uncollected():
            return snapshot_of(self.line, self.snapshot.schema, self.snapshot.tables, data.NOW)

    def roll_up(self, recomputed: Recomputed) -> Rollup:
        """Add up every tree."""
        with uncollected():
            return roll_up_all(self.line.config, self.snapshot, recomputed, frozenset())


@contextmanager
def opened(file: Path) -> Iterator[Bench]:
    """Open a mirror; nothing else of the application is used."""
    remote = {
        "url": "https://bench.test",
        "tenant_id": "bench",
        "client_id": "00000000-0000-0000-0000-000000000000",
        "client_secret": "env:UNUSED",
    }
    config = parse({"dataverse": remote, "storage": {"mirror": f"sqlite:///{file}"}}, {}, folder=file.parent)
    app = build(config, clock=lambda: data.NOW, environ={}, offline=True)
    try:
        snapshot = snapshot_of(app.line, data.schema(), data.tables(), data.NOW)
        recompute(app.line, snapshot)
        worker = Recomputer(
            app.line.mirror, snapshot.book, snapshot.schema, snapshot.tables, snapshot.context, snapshot.zone
        )
        yield Bench(file, app.line, snapshot, worker, prepare(worker, snapshot.grouping.groups))
    finally:
        app.close()


def prepare(worker: Recomputer, groups: Sequence[Group]) -> list[Prepared]:
    """Cut every group as it is kept, with all its slices to be summed again."""
    cuts = worker.cuts(worker.refresh(groups, []), [])
    spans = goal_spans(worker.book, groups, worker.zone, [])
    return [
        Prepared(
            replace(cut, again=cut.kept.ids),
            [_bound(worker.book.goals[goal_id], spans[goal_id]) for goal_id in cut.one.group.goal_ids],
        )
        for cut in cuts
    ]


def _bound(goal: Goal, span: DaySpan) -> Bound:
    return {
        "goal_id": goal.id,
        "owner": goal.owner_id or "",
        "first_on": span.first_on.isoformat(),
        "last_on": span.last_on.isoformat(),
    }


def sums_of_recompute(bench: Bench, recomputed: Recomputed) -> Sums:
    """Return what a recompute found, in the form in which all ways are compared."""
    by_column = {one.group.slot.column: one.group for one in bench.prepared}
    found = {key: whole(by_column[key[1]], part) for key, part in recomputed.own.items()}
    return {key: amount for key, amount in found.items() if amount}


def sums_of_statements(found: list[tuple[Prepared, dict[str, int]]]) -> Sums:
    """Return what summing everything again found, in the same form."""
    return {
        (goal_id, one.group.slot.column): total for one, totals in found for goal_id, total in totals.items() if total
    }


def whole(group: Group, part: OwnPart) -> int:
    """Return an amount, money in whole units of its scale."""
    source = group.base or group.value
    return int(Decimal(part.amount).scaleb(scale_of(source)) if source else part.amount)
