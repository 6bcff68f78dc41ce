"""``goals lint``: what is wrong or unwise about the goals.

IO: terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from d365sync.core.counts import counted
from d365sync.core.problems import Problem, Severity

if TYPE_CHECKING:
    from d365sync.cli.context import Settings
    from d365sync.sync.snapshot import Snapshot

STYLES = {Severity.BLOCKING: "red", Severity.WARNING: "yellow"}


@click.command("lint")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def lint_command(settings: Settings, *, as_json: bool) -> int:
    """Check the goals: targets, periods, metrics, queries, limits, and records that count twice.

    Reads what the last sync mirrored; asks Dataverse nothing. Ends with 3 when a goal cannot be computed.
    """
    from d365sync.cli.output import print_json
    from d365sync.sync.cycle import Outcome
    from d365sync.sync.lint import lint
    from d365sync.sync.offline import mirrored

    with settings.app(offline=True) as app:
        snapshot = mirrored(app.line, app.clock())
        problems = lint(app.line, snapshot)
    if as_json:
        print_json({"goals": len(snapshot.book.goals), "problems": [_document(snapshot, one) for one in problems]})
    else:
        _print(snapshot, problems)
    blocked = any(one.severity is Severity.BLOCKING for one in problems)
    return int(Outcome.PARTIAL if blocked else Outcome.OK)


def _print(snapshot: Snapshot, problems: Sequence[Problem]) -> None:
    from rich.text import Text

    from d365sync.cli.output import console

    out = console()
    for problem in problems:
        out.print(Text(f"{problem.severity}: {problem.message}", style=STYLES[problem.severity]))
        if problem.hint:
            out.print(f"  {problem.hint}")
    goals = len(snapshot.book.goals)
    out.print(f"{counted(goals, 'goal')}, {counted(len(problems), 'problem') if problems else 'no problems'}")


def _document(snapshot: Snapshot, problem: Problem) -> object:
    from d365sync.sync.documents import plain_document

    goal = snapshot.book.goals.get(problem.goal_id or "")
    return {**plain_document(problem), "goal": problem.goal_id, "title": goal.title if goal else ""}
