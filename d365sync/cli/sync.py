"""``sync`` and ``plan``: one cycle, with or without its last step.

IO: terminal.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d365sync.cli.output import console, print_json, print_plan, progress_watcher
from d365sync.core.counts import by_count, counted
from d365sync.core.problems import Severity
from d365sync.errors import UsageError
from d365sync.sync.documents import document_of_plan, json_text

if TYPE_CHECKING:
    from d365sync.cli.context import Settings
    from d365sync.config import Config
    from d365sync.dataverse.usage import Traffic
    from d365sync.sync.cycle import CycleResult

MOST_SHOWN = 15
"""Goals a sync lists after writing them; the plan lists all."""


accept_option = click.option(
    "--accept", type=click.IntRange(0), metavar="N", help="Let a guard pass, if no more than N goals are to be written."
)


@click.command()
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing, whatever the mode.")
@click.option("--full", is_flag=True, help="Drop the bookmarks: read every table in full again.")
@accept_option
@click.option(
    "--accept-deletions", type=click.IntRange(0), metavar="N", help="Let a guard pass that saw up to N rows vanish."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def sync(
    settings: Settings, *, dry_run: bool, full: bool, accept: int | None, accept_deletions: int | None, as_json: bool
) -> int:
    """Run one cycle: pull, recompute, plan, push.

    A guard stops it before its first write (exit code 4) if rows vanished or the plan is not plausible.

    \b
    Examples:
      d365sync sync --dry-run     show what would be written
      d365sync sync               write it, unless writeback.mode is plan
      d365sync sync --accept 1204 write a plan that a guard stopped, of at most 1,204 goals
    """
    from d365sync.sync.guarding import Accepted

    config = settings.load()
    write = config.writeback.mode != "plan" and not dry_run
    options: dict[str, Any] = {"write": write, "full": full, "accepted": Accepted(accept, accept_deletions)}
    result = _run(settings, config, command="sync", quiet=as_json, **options)
    if as_json:
        print_json(_document(result, mode=config.writeback.mode, write=write))
    else:
        _print(result, config, write=write)
    return int(result.outcome)


@click.command()
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Also save the plan to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def plan(settings: Settings, *, output: Path | None, as_json: bool) -> int:
    """Show what a sync would write: goal, column, native value, ours, difference, why. Writes nothing."""
    config = settings.load()
    result = _run(settings, config, command="plan", quiet=as_json, write=False)
    document = plan_document(result)
    if output is not None:
        _save(output, document)
    if as_json:
        print_json(document)
    else:
        out = console()
        print_plan(result.plan, out, title="Plan")
        _print_findings(result, config, write=False)
        _print_problems(result)
    return int(result.outcome)


def _run(settings: Settings, config: Any, *, command: str, quiet: bool, write: bool, **rest: Any) -> CycleResult:
    with progress_watcher(quiet=quiet, write=write) as (watcher, (on_plan, on_write)):
        options = {"watcher": watcher, "on_plan": on_plan, "on_write": on_write}
        with settings.app(config, line_options=options) as app, app.lease():
            return app.sync(command=command, write=write, **rest)


def _save(path: Path, document: dict[str, object]) -> None:
    try:
        path.write_text(json_text(document) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the plan cannot be saved to {path}: {error.strerror}") from None


def plan_document(result: CycleResult) -> dict[str, object]:
    """Return the plan of a cycle as a document, with what guards say of it."""
    document = document_of_plan(
        result.plan,
        run_id=result.run_id,
        mode=result.mode,
        organization_id=result.snapshot.book.organization.id,
        problems=result.rollup.problems,
    )
    return {**document, "guards": result.findings}


def _document(result: CycleResult, *, mode: str, write: bool) -> dict[str, object]:
    titles = {goal.id: goal.title for goal in result.snapshot.book.goals.values()}
    pushed = result.pushed
    return {
        **plan_document(result),
        "mode": mode,
        "wrote": write,
        "outcome": result.outcome.name.lower(),
        "counts": result.counts,
        "tables": result.pulls,
        "recomputed": [{"goal": goal_id, "title": titles[goal_id]} for goal_id in sorted(result.recomputed)],
        "written": [{"goal": w.goal_id, "title": w.title} for w in pushed.written] if pushed else [],
        "not_written": [{"goal": s.goal_id, "reason": s.reason, "message": s.message} for s in _unwritten(result)],
    }


def _unwritten(result: CycleResult) -> list[Any]:
    return [*result.pushed.skips, *result.pushed.failures] if result.pushed else []


def _print(result: CycleResult, config: Config, *, write: bool) -> None:
    mode = config.writeback.mode
    out = console()
    counts = result.counts
    out.print(
        f"pulled {counted(counts['rows'], 'row')} of {counted(len(result.pulls), 'table')} "
        f"({counts['changed_rows']:,} changed) in {counted(counts['requests'], 'request')}"
    )
    _print_recomputed(result)
    recalculated = write and result.mode == "recalculate"
    title = "Plan" if not write else "Stale" if recalculated else "Written"
    print_plan(result.plan, out, title=title, most=MOST_SHOWN if write else None)
    if recalculated:
        trees, goals = counted(counts["recalculated_trees"], "tree"), counted(counts["planned_goals"], "stale goal")
        agree = f"{counts['written_goals']:,} of {goals} agree now"
        out.print(f"had Dataverse roll up {trees}: {agree} (run {result.run_id})")
    elif write:
        planned = counted(counts["planned_goals"], "goal")
        out.print(f"wrote {counts['written_goals']:,} of {planned} (run {result.run_id})")
    elif mode == "plan":
        out.print('nothing was written: writeback.mode is "plan"; set it to "override" to write')
    else:
        out.print("nothing was written: this was a dry run")
    out.print(traffic_line(result.traffic))
    for reason in (reason for pull in result.pulls for reason in pull.damaged):
        out.print(f"left out: {reason}")
    for skip in _unwritten(result):
        out.print(f"{'open' if recalculated else 'not written'}: {skip.message}")
    _print_findings(result, config, write=write)
    _print_problems(result)


def traffic_line(traffic: Traffic) -> str:
    """Say in one line what a cycle cost."""
    answers = ", ".join(f"{count:,} x {name}" for name, count in sorted(traffic.answers.items()))
    patience = f"; repeated {traffic.retries:,}" if traffic.retries else ""
    patience += f"; asked to wait {traffic.throttled_s:.0f} s" if traffic.throttled_s else ""
    return (
        f"{counted(traffic.requests, 'request')} ({answers or 'none'}), {traffic.received_bytes:,} bytes received "
        f"({traffic.bytes:,} unpacked), {traffic.sent_bytes:,} sent{patience}"
    )


def _print_recomputed(result: CycleResult) -> None:
    out = console()
    computable = sum(len(group.goal_ids) for group in result.snapshot.grouping.groups)
    titles = sorted(result.snapshot.book.goals[goal_id].title for goal_id in result.recomputed)
    listed = f": {', '.join(titles)}" if 0 < len(titles) <= 12 else ""
    whose = f"{counted(len(titles), 'goal')} from {by_count(len(titles), 'its', 'their')} records"
    out.print(f"recomputed {whose}{listed}" if computable else "no goal counts records")


def _print_findings(result: CycleResult, config: Config, *, write: bool) -> None:
    for finding in result.findings:
        console().print(f"{'accepted' if write else 'a guard would stop this'}: {finding.message}")
    if result.findings and not write:
        console().print(f"to write it all the same: {config.command(f'sync --accept {len(result.plan.writes)}')}")


def _print_problems(result: CycleResult) -> None:
    out = console()
    for problem in result.rollup.problems:
        word = "problem" if problem.severity is Severity.BLOCKING else "warning"
        out.print(f"{word}: {problem.message}" + (f" (mend: {problem.hint})" if problem.hint else ""))
