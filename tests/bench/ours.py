"""What is measured of d365sync: a whole recompute, its bare statements, and the rest of a cycle.

The one place to change when recomputing gets another form.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from d365sync.app import build
from d365sync.config import parse
from d365sync.core.goals.participation import Group
from d365sync.core.goals.rollup import OwnPart, Rollup
from d365sync.core.goals.slices import goal_totals
from d365sync.core.storage import scale_of
from d365sync.sync.cycle import Line, Snapshot, recompute, roll_up_all, snapshot_of
from d365sync.sync.recompute import Cut, Recomputed, Recomputer
from tests.bench import data

Sums = dict[tuple[str, str], int]
"""Exact amounts (money in ten-thousandths, counts), by goal id and column; nothing (0) is left out."""


@dataclass(frozen=True, slots=True)
class Bench:
    """An opened mirror, and what its goals ask for."""

    file: Path
    line: Line
    snapshot: Snapshot
    worker: Recomputer
    cuts: list[Cut]

    def forget(self) -> None:
        """Forget every sum kept, so that the next recompute is a full one."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("DELETE FROM _group")
            connection.execute("DELETE FROM _slice")
            connection.execute("UPDATE _table SET all_changed = 1")

    def recompute(self) -> Recomputed:
        """Recompute as a cycle does, keeping the sums."""
        return recompute(self.line, self.snapshot)

    def statements(self) -> list[tuple[Cut, dict[str, int]]]:
        """Sum every kept slice again, and give every goal its amount."""
        sums = self.worker.summed(self.cuts)
        return [(cut, goal_totals(cut.layout, its.totals)) for cut, its in zip(self.cuts, sums, strict=True)]

    def load(self) -> Snapshot:
        """Read the goals from the mirror and group them."""
        return snapshot_of(self.line, self.snapshot.schema, self.snapshot.tables, data.NOW)

    def roll_up(self, recomputed: Recomputed) -> Rollup:
        """Add up every tree."""
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
        yield Bench(file, app.line, snapshot, worker, all_again(worker, snapshot.grouping.groups))
    finally:
        app.close()


def all_again(worker: Recomputer, groups: Sequence[Group]) -> list[Cut]:
    """Return every group, cut as it is kept, with all its slices to be summed again."""
    return [replace(cut, again=cut.kept.ids) for cut in worker.cuts(worker.refresh(groups, []), [])]


def sums_of_recompute(bench: Bench, recomputed: Recomputed) -> Sums:
    """Return what a recompute found, in the form in which all ways are compared."""
    by_column = {cut.one.group.slot.column: cut.one.group for cut in bench.cuts}
    found = {key: whole(by_column[key[1]], part) for key, part in recomputed.own.items()}
    return {key: entry for key, entry in found.items() if entry}


def sums_of_statements(found: list[tuple[Cut, dict[str, int]]]) -> Sums:
    """Return what the bare statements found, in the same form."""
    return {
        (goal_id, cut.one.group.slot.column): total
        for cut, totals in found
        for goal_id, total in totals.items()
        if total
    }


def whole(group: Group, part: OwnPart) -> int:
    """Return an amount, money in whole units of its scale."""
    source = group.base or group.value
    return int(Decimal(part.amount).scaleb(scale_of(source)) if source else part.amount)
