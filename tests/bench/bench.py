"""Benchmarks: pairs measured in one run, medians of repeated rounds, and their ratio. Run by `make bench`.

Everything is in process on the demo organization, so only d365sync and the emulator are measured, no network.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from d365sync.core.fetchxml.context import Context
from d365sync.core.period import DaySpan
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from d365sync.mirror.sums import group_predicate
from d365sync.sync.offline import mirrored
from d365sync.sync.recompute import bound_of, goal_spans
from tests.emulated import NOW, application

DEMO = Path(__file__).parents[2] / "fixtures" / "orgs" / "demo"
ROUNDS = 5


def pair(title: str, slow: Callable[[], object], fast: Callable[[], object]) -> None:
    """Measure two ways in turn, and print both medians and how many times faster the second is."""
    times: dict[str, list[float]] = {"slow": [], "fast": []}
    for _ in range(ROUNDS):
        for name, way in (("slow", slow), ("fast", fast)):
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    slow_s, fast_s = (statistics.median(times[name]) for name in ("slow", "fast"))
    print(f"{title}: {slow_s * 1000:.0f} ms against {fast_s * 1000:.0f} ms, ratio {slow_s / fast_s:.1f}")  # noqa: T201


def main() -> None:
    """Run every pair."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    emulator = Emulator.load(DEMO, now=NOW)
    with tempfile.TemporaryDirectory() as folder, application(emulator, Path(folder)) as app:
        app.sync(write=True)
        pair(
            "a cycle from nothing, an idle cycle",
            lambda: app.sync(write=False, full=True),
            lambda: app.sync(write=False),
        )
        snapshot = mirrored(app.line, NOW)
        spans: dict[str, DaySpan] = goal_spans(snapshot.book, snapshot.grouping, snapshot.zone, [])
        context: Context = snapshot.context
        prepared = [
            (group, group_predicate(group, snapshot.schema, context, app.line.mirror.dialect),
             [bound_of(snapshot.book, group, goal, spans[goal], snapshot.zone) for goal in group.goal_ids])
            for group in snapshot.grouping.groups
        ]  # fmt: skip

        def by_goal() -> None:
            for group, predicate, bounds in prepared:
                for bound in bounds:
                    app.line.mirror.own_parts(group, predicate, [bound])

        def by_group() -> None:
            for group, predicate, bounds in prepared:
                app.line.mirror.own_parts(group, predicate, bounds)

        pair("own parts, a statement for each goal, a statement for each group", by_goal, by_group)
        roots = [goal.id for goal in snapshot.book.goals.values() if goal.parent_id is None]

        def natively() -> None:
            for root in roots:
                recalculate(emulator.store, root, emulator.store.settings, NOW)

        pair("all goals record by record (the emulator), by groups (the mirror)", natively, by_group)


if __name__ == "__main__":
    main()
