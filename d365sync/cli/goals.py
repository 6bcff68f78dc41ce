"""``goals list`` (``goals lint`` has a file of its own): every goal with native value, ours, attainment and pace.

IO: terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d365sync.cli.lint import lint_command

if TYPE_CHECKING:
    from d365sync.cli.context import Settings


@click.group()
def goals() -> None:
    """Look at goals."""


goals.add_command(lint_command)


@goals.command("list")
@click.option("--all", "everything", is_flag=True, help="Closed and discarded goals too.")
@click.option("--tree", metavar="GOAL", help="Only the tree that holds this goal (title or id).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def list_goals(settings: Settings, *, everything: bool, tree: str | None, as_json: bool) -> int:
    """List goals with native value, ours, attainment and pace, children below their parents.

    Reads what the last sync mirrored; asks Dataverse nothing.
    """
    from d365sync.cli.goals_shown import line_document, listed, print_goals
    from d365sync.cli.output import console, print_json

    with settings.app(offline=True) as app:
        snapshot, shown = listed(app, everything=everything, tree=tree)
    if as_json:
        print_json({"goals": [line_document(line) for line in shown]})
    else:
        print_goals(shown, snapshot.book.organization.base_currency_code, console())
    return 0
