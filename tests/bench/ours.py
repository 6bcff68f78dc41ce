"""What is measured of d365sync: a whole recompute, its bare statements, and the rest of a cycle.

The one place to change when recomputing gets another form.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from d365sync.app import build
from d365sync.config import parse
from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.goals.participation import Group
from d365sync.core.goals.rollup import OwnPart, Rollup
from d365sync.core.storage import scale_of
from d365sync.mirror.sums import group_predicate
from d365sync.sync.cycle import Line, Snapshot, recompute, roll_up_all, snapshot_of
from d365sync.sync.recompute import Recomputed, bound_of, goal_spans
from tests.bench import data

Bound = Mapping[str, str | None]
Sums = dict[tuple[str, str], tuple[int, int]]
"""Number of records and exact amount (money in ten-thousandths), by goal id and column; empty ones left out."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One group with its predicate and the bounds of its goals."""

    group: Group
    predicate: Predicate
    bounds: list[Bound]


@dataclass(frozen=True, slots=True)
class Bench:
    """An opened mirror, and what its goals ask for."""

    file: Path
    line: Line
    snapshot: Snapshot
    prepared: list[Prepared]

    def forget(self) -> None:
        """Forget every sum kept, so that the next recompute is a full one."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute("DELETE FROM _own")
            connection.execute("UPDATE _table SET all_changed = 1")

    def recompute(self) -> Recomputed:
        """Recompute as a cycle does, keeping the sums."""
        return recompute(self.line, self.snapshot)

    def statements(self) -> list[tuple[Prepared, dict[str, OwnPart]]]:
        """Run the bare statement of every group."""
        return [(one, self.line.mirror.own_parts(one.group, one.predicate, one.bounds)) for one in self.prepared]

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
        yield Bench(file, app.line, snapshot, prepare(app.line, snapshot))
    finally:
        app.close()


def prepare(line: Line, snapshot: Snapshot) -> list[Prepared]:
    """Compile every group, and work out the bounds of its goals."""
    spans = goal_spans(snapshot.book, snapshot.grouping, snapshot.zone, [])
    return [
        Prepared(
            group,
            group_predicate(group, snapshot.schema, snapshot.context, line.mirror.dialect),
            [bound_of(snapshot.book, group, one, spans[one], snapshot.zone) for one in group.goal_ids],
        )
        for group in snapshot.grouping.groups
    ]


def sums_of_recompute(bench: Bench, recomputed: Recomputed) -> Sums:
    """Return what a recompute found, in the form in which all ways are compared."""
    by_column = {one.group.slot.column: one.group for one in bench.prepared}
    found = {key: whole(by_column[key[1]], part) for key, part in recomputed.own.items()}
    return {key: entry for key, entry in found.items() if entry[0]}


def sums_of_statements(found: list[tuple[Prepared, dict[str, OwnPart]]]) -> Sums:
    """Return what the bare statements found, in the same form."""
    return {
        (goal_id, one.group.slot.column): whole(one.group, part)
        for one, parts in found
        for goal_id, part in parts.items()
        if part.records
    }


def whole(group: Group, part: OwnPart) -> tuple[int, int]:
    """Return records and amount, money in whole units of its scale."""
    source = group.base or group.value
    amount = Decimal(part.amount).scaleb(scale_of(source)) if source else part.amount
    return part.records, int(amount)
