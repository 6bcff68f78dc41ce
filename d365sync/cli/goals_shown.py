"""What ``goals list`` shows: a line per goal, as a table, as lines, or as a document.

IO: terminal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from d365sync.app import App
from d365sync.cli.output import fits, number, percent
from d365sync.core.goals.bounds import owner_span
from d365sync.core.goals.goal import Category, DataType, Goal, Number, Slot
from d365sync.core.goals.progress import Pace, Progress, progress_of
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.writes import SkipReason, WritePlan
from d365sync.core.period import DaySpan, day_of
from d365sync.sync.explain import find_goal
from d365sync.sync.offline import computed, mirrored
from d365sync.sync.snapshot import Snapshot

NativeValues: TypeAlias = Mapping[str, Mapping[str, Number | None]]

MOST_PACE = 16
"""Columns of the pace; longer words are wrapped."""

PACE_STYLES = {
    Pace.AHEAD: "green",
    Pace.REACHED: "bold green",
    Pace.ON_PACE: "cyan",
    Pace.BEHIND: "yellow",
    Pace.MISSED: "red",
}


@dataclass(frozen=True, slots=True)
class GoalLine:
    """One goal as it is listed; ``ours`` None when it is not computed (closed, or a problem).

    ``held`` is what Dataverse holds now; ``native`` what it held of its own, before d365sync took the goal over.
    """

    goal: Goal
    depth: int
    owner: str
    metric: str
    span: DaySpan | None
    data_type: DataType | None
    target: Number | None
    native: Number | None
    held: Number | None
    ours: Number | None
    progress: Progress | None
    note: str


def listed(app: App, *, everything: bool, tree: str | None) -> tuple[Snapshot, list[GoalLine]]:
    """Return the goals that are asked for, children below their parents; ``tree`` names a goal of the only tree."""
    snapshot = mirrored(app.line, app.clock())
    rollup, plan = computed(app.line, snapshot)
    lines = list(goal_lines(snapshot, rollup, plan, app.line.journal.native_values()))
    root = None
    if tree is not None:
        root = snapshot.forest.tree_of(snapshot.book.goals, find_goal(snapshot, tree).id)
    return snapshot, [
        line
        for line in lines
        if (everything or line.goal.is_open)
        and (root is None or snapshot.forest.tree_of(snapshot.book.goals, line.goal.id) == root)
    ]


def goal_lines(snapshot: Snapshot, rollup: Rollup, plan: WritePlan, native: NativeValues) -> Iterator[GoalLine]:
    """Yield every goal, each tree from its root down, trees by title.

    ``native`` holds the columns of the goals that d365sync took over as they were before, by goal id.
    """
    book = snapshot.book
    notes = {skip.goal_id: skip.reason for skip in plan.skips}
    roots = [goal for goal in book.goals.values() if goal.parent_id not in book.goals]
    pending = [(goal.id, 0) for goal in sorted(roots, key=_by_title, reverse=True)]
    listed: set[str] = set()
    while pending:
        goal_id, depth = pending.pop()
        listed.add(goal_id)
        yield _line(snapshot, rollup, notes, native, book.goals[goal_id], depth)
        children = sorted((book.goals[one] for one in snapshot.forest.children[goal_id]), key=_by_title, reverse=True)
        pending.extend((child.id, depth + 1) for child in children)
    for goal in sorted((goal for goal in book.goals.values() if goal.id not in listed), key=_by_title):
        yield _line(snapshot, rollup, notes, native, goal, 0)


def _by_title(goal: Goal) -> tuple[str, str]:
    return goal.title, goal.id


def _line(
    snapshot: Snapshot,
    rollup: Rollup,
    notes: Mapping[str, SkipReason],
    native: NativeValues,
    goal: Goal,
    depth: int,
) -> GoalLine:
    metric = snapshot.book.metric_of(goal)
    data_type = metric.data_type if metric else None
    column = Slot(Category.ACTUAL, data_type).column if data_type else ""
    totals = rollup.totals.get(goal.id)
    ours = totals.totals.get(column) if totals else None
    held = goal.native.get(column)
    taken_over = goal.is_overridden and goal.id not in notes
    try:
        span = owner_span(goal, snapshot.book, snapshot.zone)
    except ValueError:
        span = None
    target = goal.targets.get(data_type) if data_type else None
    shown = held if goal.id in notes or ours is None else ours
    today = day_of(snapshot.context.now, snapshot.zone)
    return GoalLine(
        goal=goal,
        depth=depth,
        owner=snapshot.book.names.get(goal.owner_id or "", ""),
        metric=metric.name if metric else "",
        span=span,
        data_type=data_type,
        target=target,
        native=native.get(goal.id, goal.native).get(column) if taken_over else held,
        held=held,
        ours=ours,
        progress=progress_of(shown, target, span, today) if span else None,
        note=str(notes[goal.id].value) if goal.id in notes else "",
    )


def print_goals(lines: Sequence[GoalLine], currency: str | None, out: Console) -> None:
    """Print a table of goals, with their owners if there is room, or lines where a table would cut numbers."""
    title = f"Goals (money in {currency})" if currency else "Goals"
    for with_owner in (True, False):
        table = _table(lines, title, with_owner=with_owner)
        if fits(table, out):
            out.print(table)
            return
    out.print(title)
    for line in lines:
        target, native, ours = (number(value, 0) for value in (line.target, line.native, line.ours))
        period = f"{line.owner or '-'}, {_period(line)}"
        out.print(Padding(Text(line.goal.title, "bold"), (0, 0, 0, 2 * line.depth), expand=False))
        out.print(Padding(f"{period}: target {target}, native {native},", (0, 0, 0, 2 * line.depth + 2), expand=False))
        reached = Text(f"ours {ours}, reached {_reached(line)}, ") + _pace(line)
        out.print(Padding(reached, (0, 0, 0, 2 * line.depth + 2), expand=False))


def _table(lines: Sequence[GoalLine], title: str, *, with_owner: bool) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("Goal")
    if with_owner:
        table.add_column("Owner", no_wrap=True)
    table.add_column("Period", no_wrap=True)
    for name in ("Target", "Native", "Ours", "Reached"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Pace", max_width=MOST_PACE)
    for line in lines:
        table.add_row(
            "  " * line.depth + line.goal.title,
            *([line.owner] if with_owner else []),
            _period(line),
            *(number(value, 0) for value in (line.target, line.native, line.ours)),
            _reached(line),
            _pace(line),
        )
    return table


def _period(line: GoalLine) -> str:
    return period_words(line.span) if line.span else "-"


def _reached(line: GoalLine) -> str:
    return percent(line.progress.attainment if line.progress else None)


def _pace(line: GoalLine) -> Text:
    pace = line.progress.pace if line.progress else None
    return Text(_words(line), style=PACE_STYLES.get(pace, "") if pace else "")


def period_words(span: DaySpan) -> str:
    """Write a period shortly: a calendar year, quarter or month by its name, any other by its days."""
    first, after = span.first_on, min(span.last_on, dt.date.max - dt.timedelta(days=1)) + dt.timedelta(days=1)
    months = (after.year - first.year) * 12 + after.month - first.month
    if (first.day, after.day) == (1, 1):
        if months == 12 and first.month == 1:
            return str(first.year)
        if months == 3 and first.month % 3 == 1:
            return f"{first.year} Q{first.month // 3 + 1}"
        if months == 1:
            return f"{first:%Y-%m}"
    return f"{span.first_on} to {span.last_on}"


def _words(line: GoalLine) -> str:
    if line.progress is None:
        return line.note or "-"
    index = line.progress.pace_index
    words = str(line.progress.pace.value) + (f" ({index:.2f})" if index is not None and not line.note else "")
    return f"{words}, {line.note}" if line.note else words


def line_document(line: GoalLine) -> dict[str, object]:
    """Return one goal as a document."""
    progress = line.progress
    return {
        "goal": line.goal.id,
        "title": line.goal.title,
        "parent": line.goal.parent_id,
        "owner": line.owner,
        "metric": line.metric,
        "open": line.goal.is_open,
        "from": line.span.first_on if line.span else None,
        "to": line.span.last_on if line.span else None,
        "target": line.target,
        "native": line.native,
        "held": line.held,
        "ours": line.ours,
        "attainment": _short(progress.attainment) if progress else None,
        "today_target": _short(progress.today_target) if progress else None,
        "pace_index": _short(progress.pace_index) if progress else None,
        "pace": progress.pace if progress else None,
        "note": line.note,
    }


def _short(value: Decimal | None) -> Decimal | None:
    return None if value is None else value.quantize(Decimal("0.0001"))
