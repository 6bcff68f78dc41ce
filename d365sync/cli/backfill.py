"""``backfill``: the goals of a window of days, closed history included, in batches that survive a kill.

IO: terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from d365sync.cli.output import console, fits, number, print_json, print_plan
from d365sync.cli.sync import MOST_SHOWN, accept_option, traffic_line
from d365sync.core.counts import counted
from d365sync.core.problems import Severity
from d365sync.sync.documents import document_of_plan, skip_documents

if TYPE_CHECKING:
    import datetime as dt

    from rich.console import Console
    from rich.table import Table

    from d365sync.cli.context import Settings
    from d365sync.core.goals.backfill import Batch, Unwritable, Window, Year
    from d365sync.core.goals.writes import GoalWrite
    from d365sync.sync.backfill import BackfillResult, Steps

SAY_EVERY_S = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def _day(_ctx: click.Context, _param: click.Parameter, value: str) -> dt.date:
    from d365sync.core.values import parse_on

    try:
        return parse_on(value)
    except ValueError:
        raise click.BadParameter("must be a day such as 2026-01-31") from None


@click.command()
@click.option("--from", "first_on", metavar="DATE", required=True, callback=_day, help="First day of the window.")
@click.option("--to", "last_on", metavar="DATE", required=True, callback=_day, help="Last day of the window.")
@click.option("--dry-run", is_flag=True, help="Show what would be written and write nothing, whatever the mode.")
@click.option("--restart", is_flag=True, help="Begin again instead of going on with one that was broken off.")
@accept_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def backfill(
    settings: Settings, /, *, first_on: dt.date, last_on: dt.date, dry_run: bool, as_json: bool, **choices: Any
) -> int:
    """Compute the goals whose period touches a window of days, closed ones too, and write those that differ.

    Both days belong to the window. Closed goals cannot be written: they are listed with the stored number and ours.
    Run again with the same window, it goes on where it was broken off.

    \b
    Examples:
      d365sync backfill --from 2024-01-01 --to 2025-12-31 --dry-run
      d365sync backfill --from 2024-01-01 --to 2025-12-31
    """
    from d365sync.core.goals.backfill import Window
    from d365sync.errors import UsageError

    try:
        window = Window(first_on, last_on)
    except ValueError as error:
        raise UsageError(str(error), hint="--from is the earlier day, --to the later one") from None
    config = settings.load()
    write = config.writeback.mode in ("override", "columns") and not dry_run
    result = _run(settings, config, window, write=write, **choices)
    if as_json:
        print_json(_document(result, mode=config.writeback.mode, write=write))
    else:
        _print(result, mode=config.writeback.mode, write=write)
    return int(result.outcome)


def _run(
    settings: Settings, config: Any, window: Window, *, write: bool, restart: bool, accept: int | None
) -> BackfillResult:
    from d365sync.sync.backfill import backfill as run
    from d365sync.sync.guarding import Accepted

    with (
        _progress() as (steps, line_options),
        settings.app(config, line_options=line_options) as app,
        app.lease(),
    ):
        return run(app.line, window, write=write, restart=restart, accepted=Accepted(accept), steps=steps)


@contextmanager
def _progress() -> Iterator[tuple[Steps, dict[str, Any]]]:
    """Show a bar with rate and time left on a terminal's stderr, elsewhere a line now and then."""
    from rich.console import Console

    out = Console(stderr=True)
    if not out.is_terminal:
        yield Lines(lambda text: click.echo(text, err=True)).steps, {}
        return
    with _bar(out) as shown:
        yield shown


class Lines:
    """Progress as lines, ``every_s`` seconds apart at least by ``clock``: goals done, rate, time left."""

    def __init__(
        self, say: Callable[[str], None], *, every_s: float = SAY_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._every_s, self._clock = say, every_s, clock
        self._began = self._said = clock()
        self._goals = self._before = self._done = 0

    @property
    def steps(self) -> Steps:
        """What a backfill tells it."""
        from d365sync.sync.backfill import Steps

        return Steps(self._begin, self._batch)

    def _begin(self, goals: int, done: int) -> None:
        self._goals, self._before, self._done = goals, done, done
        self._began = self._said = self._clock()
        if done:
            self._say(f"backfill: goes on; {done:,} of {counted(goals, 'goal')} were done before")

    def _batch(self, batch: Batch) -> None:
        self._done += len(batch.goal_ids)
        now = self._clock()
        if now - self._said < self._every_s:
            return
        self._said = now
        rate = (self._done - self._before) / (now - self._began)
        left = (self._goals - self._done) / rate
        self._say(
            f"backfill: {self._done:,} of {counted(self._goals, 'goal')} ({batch.period}), "
            f"{rate:,.0f} a second, {_spell(left)} left"
        )


def _spell(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def _bar(out: Console) -> Iterator[tuple[Steps, dict[str, Any]]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from d365sync.sync.backfill import Steps
    from d365sync.sync.pull import Watcher

    class RateColumn(ProgressColumn):
        """Goals a second."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:,.0f}/s")

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out) as progress:
        bar = progress.add_task("pulling rows", total=None)
        rows: dict[str, int] = {}

        def on_rows(name: str, count: int) -> None:
            rows[name] = count
            progress.update(bar, completed=sum(rows.values()), description=f"pulling {name}")

        def on_begin(goals: int, done: int) -> None:
            progress.reset(bar, total=max(goals, 1), completed=done if goals else 1, description="writing goals")
            if done:
                out.print(f"goes on; {done:,} of {counted(goals, 'goal')} were done before")

        def on_write(_write: GoalWrite) -> None:
            progress.advance(bar)

        yield Steps(on_begin), {"watcher": Watcher(on_rows), "on_write": on_write}


def _document(result: BackfillResult, *, mode: str, write: bool) -> dict[str, object]:
    pushed = result.pushed
    plan = document_of_plan(
        result.plan,
        run_id=result.run_id,
        mode=result.mode,
        organization_id=result.organization_id,
        problems=result.problems,
    )
    return {
        **plan,
        "mode": mode,
        "from": result.window.first_on,
        "to": result.window.last_on,
        "wrote": write,
        "outcome": result.outcome.name.lower(),
        "resumed": result.resumed is not None,
        "done_before": result.resumed or 0,
        "counts": result.counts,
        "years": result.years,
        "guards": result.findings,
        "unwritable": [
            {
                "goal": one.goal_id,
                "title": one.title,
                "stored": one.stored,
                "ours": one.ours,
                "differs": one.differs,
                "problem": one.problem,
            }
            for one in result.unwritable
        ],
        "written": [{"goal": one.goal_id, "title": one.title} for one in pushed.written] if pushed else [],
        "not_written": skip_documents([*pushed.skips, *pushed.failures]) if pushed else [],
    }


def _print(result: BackfillResult, *, mode: str, write: bool) -> None:
    out = console()
    if result.resumed is not None:
        out.print(f"went on with run {result.run_id}: {counted(result.resumed, 'goal')} had been done before")
    print_plan(result.plan, out, title="Written" if write else "Plan", most=MOST_SHOWN if write else None)
    _print_unwritable(result, out)
    print_years(result.years, result.window, out)
    if result.pushed is not None:
        planned = counted(len(result.plan.writes), "goal")
        out.print(f"wrote {len(result.pushed.written):,} of {planned} (run {result.run_id})")
        for skip in (*result.pushed.skips, *result.pushed.failures):
            out.print(f"not written: {skip.message}")
    elif mode == "plan":
        out.print('nothing was written: writeback.mode is "plan"; set it to "override" to write')
    elif mode == "recalculate":
        out.print('nothing was written: in mode "recalculate" the platform writes its own numbers; run `d365sync sync`')
    else:
        out.print("nothing was written: this was a dry run")
    for finding in result.findings:
        out.print(f"{'accepted' if write else 'a guard would stop this'}: {finding.message}")
    for problem in result.problems:
        word = "problem" if problem.severity is Severity.BLOCKING else "warning"
        out.print(f"{word}: {problem.message}" + (f" (mend: {problem.hint})" if problem.hint else ""))
    out.print(traffic_line(result.traffic))


def _print_unwritable(result: BackfillResult, out: Console) -> None:
    from rich.table import Table

    differing = [one for one in result.unwritable if one.differs]
    if differing:
        title = "Closed, so not writable, and different"
        table = Table(title=title, title_justify="left", header_style="bold")
        table.add_column("Goal")
        for name in ("Column", "Stored", "Ours"):
            table.add_column(name, justify="left" if name == "Column" else "right", no_wrap=True)
        for cells in (cells for one in differing[:MOST_SHOWN] for cells in _differences(one)):
            table.add_row(*cells)
        _print_table(table, title, out)
        if len(differing) > MOST_SHOWN:
            out.print(f"... and {counted(len(differing) - MOST_SHOWN, 'more goal')} (--json lists all)")
    for one in result.unwritable:
        if one.problem:
            out.print(f"closed and not computed: {one.problem}")


def _differences(one: Unwritable) -> Iterator[tuple[str, ...]]:
    for column, ours in (one.ours or {}).items():
        if one.stored.get(column) != ours:
            yield one.title, column, number(one.stored.get(column)), number(ours)


def print_years(years: Iterable[Year], window: Window, out: Console) -> None:
    """Print what came of each year: a line for its goals, then one for each metric."""
    from rich.table import Table

    title = f"Goals with a day from {window}"
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("Metric")
    for name in ("Year", "Goals", "Changed", "Written", "Closed", "Before", "After", "Ours"):
        table.add_column(name, justify="right", no_wrap=True)
    for year in years:
        counts = [str(year.year), *(f"{one:,}" for one in (year.goals, year.changed, year.written, year.unwritable))]
        table.add_row("all", *counts, style="bold")
        for one in year.sums:
            sums = (number(one.before), number(one.after), number(one.computed))
            table.add_row(one.metric, str(year.year), *[""] * (len(counts) - 1), *sums)
    _print_table(table, title, out)


def _print_table(table: Table, title: str, out: Console) -> None:
    """Print a table, or its rows as lines where it would cut them."""
    if fits(table, out):
        out.print(table)
        return
    out.print(title)
    names = [str(column.header).lower() for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        rest = [f"{name} {cell}" for name, cell in zip(names[1:], cells[1:], strict=True) if cell]
        out.print(f"  {cells[0]}: {', '.join(rest)}")
