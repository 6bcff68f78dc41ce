"""``parity``: the platform's own numbers beside ours, and what each difference comes from.

IO: terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from d365sync.cli.context import Settings

NOT_SETTLED = 3


@click.command()
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Equal numbers, those that differ only by their children, and goals not compared, too.",
)
@click.option(
    "--ask-managers",
    is_flag=True,
    help="Ask Dataverse, as each goal manager, what the manager may read (needs impersonation).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def parity(settings: Settings, *, everything: bool, ask_managers: bool, as_json: bool) -> int:
    """Compare the numbers that Dynamics 365 rolled up itself with ours, and class every difference.

    Reads what the last sync mirrored; asks Dataverse nothing, but for --ask-managers. Exit code 3 when a difference
    is not explained, or a manager cannot be asked.
    """
    from d365sync.cli.output import print_json
    from d365sync.cli.parity_shown import parity_document, print_parity
    from d365sync.sync.offline import mirrored
    from d365sync.sync.parity import compare

    with settings.app(offline=not ask_managers) as app:
        found = compare(app.line, mirrored(app.line, app.clock()), ask_managers=ask_managers)
    if as_json:
        print_json(parity_document(found, everything=everything))
    else:
        print_parity(found, everything=everything)
    return NOT_SETTLED if found.unknown or found.unasked else 0
