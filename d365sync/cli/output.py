"""Printing: tables and progress for people, documents for programs. Stdout is for results, stderr for the rest.

IO: terminal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from d365sync.core.counts import by_count, counted
from d365sync.core.values import plain
from d365sync.sync.documents import json_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from d365sync.core.goals.goal import Number
    from d365sync.core.goals.writes import GoalWrite, WritePlan
    from d365sync.sync.pull import TablePull, Watcher

UNBOUNDED = 10_000
"""Columns enough for every table: rich knows no table without a width."""
LEAST_FIRST = 20
"""Columns that the first column of a table is left with at least."""


def console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal; where there is none, as wide as COLUMNS says or as what is printed.

    A pipe and a file have no width, and who reads them (grep, an editor, a job's log) needs whole lines: a cell that is
    cut cannot be got back, one that is wrapped is no longer on the line it belongs to. COLUMNS stands in the
    environment only where somebody put it, since shells do not export it, and so it is a wish. Whether colours are
    forced (FORCE_COLOR) does not make a terminal of a pipe.
    """
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not found.file.isatty():
        found.width = _wished(os.environ.get("COLUMNS", "")) or UNBOUNDED
    return found


def _wished(columns: str) -> int:
    return int(columns) if columns.isascii() and columns.isdigit() and len(columns) <= len(str(UNBOUNDED)) else 0


def print_json(document: object) -> None:
    """Print one document: decimals as JSON numbers with all their digits, instants with Z, no secret."""
    from d365sync.logs import redact

    click.echo(redact(json_text(document)))


def number(value: Number | None, places: int | None = None) -> str:
    """Write a number for people: thousands apart, an empty cell for none."""
    if value is None:
        return "-"
    return f"{value:,.{places}f}" if places is not None else f"{Decimal(plain(Decimal(value))):,f}"


def percent(value: Decimal | None) -> str:
    """Write a fraction as a whole percentage."""
    return "-" if value is None else f"{value * 100:,.0f} %"


def fits(table: Table, out: Console) -> bool:
    """Say whether a table fits a console by narrowing its first column alone: no other cell is cut or wrapped."""
    from rich.cells import cell_len
    from rich.measure import Measurement

    natural = Measurement.get(out, out.options.update(width=UNBOUNDED), table).maximum
    first = max((cell_len(str(cell)) for cell in table.columns[0].cells), default=0)
    return natural - max(first - LEAST_FIRST, 0) <= out.width


def print_plan(plan: WritePlan, out: Console, *, title: str, most: int | None = None) -> None:
    """Print the plan, a line per goal and column (``most`` goals), then what is left alone and why."""
    if plan.writes:
        _print_writes(plan.writes[:most], out, title)
        if most is not None and len(plan.writes) > most:
            out.print(f"... and {counted(len(plan.writes) - most, 'more goal')} (--json lists all)")
    else:
        out.print(f"{title}: nothing to write")
    for skip in plan.skips:
        if skip.reason.name != "CLOSED":
            out.print(f"left alone: {skip.message}")
    closed = sum(skip.reason.name == "CLOSED" for skip in plan.skips)
    differ = f"{counted(len(plan.writes), 'goal')} {by_count(len(plan.writes), 'differs', 'differ')}"
    right = f"{plan.unchanged:,} {by_count(plan.unchanged, 'is', 'are')} right already"
    out.print(f"{differ}, {right}, {closed:,} {by_count(closed, 'is', 'are')} closed")


def _print_writes(writes: Sequence[GoalWrite], out: Console, title: str) -> None:
    """Print changes as a table, or as lines where a table would cut them."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("Goal")
    table.add_column("Column", no_wrap=True)
    for name in ("Native", "Ours", "Difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Why", no_wrap=True)
    for write in writes:
        _plan_rows(table, write)
    if fits(table, out):
        out.print(table)
        return
    out.print(title)
    for write in writes:
        out.print(Text(write.title, "bold"))
        for one in write.changes:
            numbers = f"native {number(one.native)}, ours {number(one.ours)}, difference {number(one.difference)}"
            out.print(Padding(f"{one.column}: {numbers}", (0, 0, 0, 2), expand=False))
            out.print(Padding(one.why, (0, 0, 0, 4), expand=False))


def _plan_rows(table: Table, write: GoalWrite) -> None:
    for index, change in enumerate(write.changes):
        table.add_row(
            write.title if index == 0 else "",
            change.column,
            number(change.native),
            number(change.ours),
            number(change.difference),
            change.why,
            end_section=index == len(write.changes) - 1,
        )


@contextmanager
def progress_watcher(*, quiet: bool, write: bool) -> Iterator[tuple[Watcher, Any]]:
    """Show progress bars on a terminal's stderr; yield the watcher of pulls and the callbacks for plan and writes."""
    from rich.console import Console

    from d365sync.sync.pull import Watcher

    out = Console(stderr=True)
    if quiet or not out.is_terminal:
        yield Watcher(), (lambda _plan: None, lambda _write: None)
        return
    with _progress(out, write=write) as shown:
        yield shown


@contextmanager
def _progress(out: Console, *, write: bool) -> Iterator[tuple[Watcher, Any]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from d365sync.sync.pull import Watcher

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, transient=False) as progress:
        pulling = progress.add_task("pulling rows", total=None)
        done: dict[str, int] = {}

        def on_rows(name: str, rows: int) -> None:
            done[name] = rows
            progress.update(pulling, completed=sum(done.values()), description=f"pulling {name}")

        def on_table(pull: TablePull) -> None:
            done[pull.name] = pull.rows

        def on_plan(plan: WritePlan) -> None:
            rows = sum(done.values())
            progress.update(pulling, total=max(rows, 1), completed=max(rows, 1), description="pulled rows")
            if write:
                progress.writing = progress.add_task("writing goals", total=len(plan.writes))  # type: ignore[attr-defined]

        def on_write(_write: GoalWrite) -> None:
            progress.advance(progress.writing)  # type: ignore[attr-defined]

        yield Watcher(on_rows, on_table), (on_plan, on_write)
