"""``explain``: the records and children behind each number of a goal, and why a record counts or does not.

IO: terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d365sync.errors import UsageError

if TYPE_CHECKING:
    from d365sync.cli.context import Settings

EVERY_LEVEL = 10_000
EVERY_RECORD = 2**31


@click.command()
@click.argument("goal")
@click.option("--why-not", "record", metavar="RECORD", help="Say which tests admit or exclude a record (id or name).")
@click.option("--double", "doubles", is_flag=True, help="Show the records that the goal's total holds twice.")
@click.option("--depth", metavar="N", default=1, type=click.IntRange(0), help="Levels of child goals to show [1].")
@click.option("--all", "everything", is_flag=True, help="The whole tree below, with the records behind each child.")
@click.option("--limit", metavar="N", default=50, type=click.IntRange(0), help="Records shown per number [50].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with all records and tests.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all records as CSV.")
@click.option("--query", "with_query", is_flag=True, help="Show the FetchXML that the records match.")
@click.pass_obj
def explain(
    settings: Settings,
    goal: str,
    *,
    record: str | None,
    doubles: bool,
    depth: int,
    everything: bool,
    limit: int,
    as_json: bool,
    as_csv: bool,
    with_query: bool,
) -> int:
    """Show the records behind each number of GOAL (its title or id), why they count, and the sum.

    Reads what the last sync mirrored; asks Dataverse nothing.
    """
    if sum((doubles, record is not None, as_csv)) > 1 or (as_json and as_csv):
        raise UsageError("--double, --why-not and --csv exclude each other, and so do --csv and --json")
    from d365sync.cli.doubles import doubles_document, print_doubles
    from d365sync.cli.explain_documents import document, print_csv, verdict_document
    from d365sync.cli.explain_shown import print_answer, print_explanation
    from d365sync.cli.output import print_json
    from d365sync.sync.doubles import double_counted
    from d365sync.sync.explain import Extent, find_goal
    from d365sync.sync.explain import explain as explain_goal
    from d365sync.sync.offline import computed, mirrored
    from d365sync.sync.whynot import why_not

    extent = Extent(None if as_json or as_csv else limit, EVERY_LEVEL if everything else depth, everything)
    with settings.app(offline=True) as app:
        snapshot = mirrored(app.line, app.clock())
        asked = find_goal(snapshot, goal)
        if doubles:
            shared = double_counted(app.line, snapshot, asked, most=EVERY_RECORD if as_json else limit)
            if as_json:
                print_json(doubles_document(snapshot, asked, shared))
            else:
                print_doubles(snapshot, asked, shared)
            return 0
        if record is not None:
            answer = why_not(app.line, snapshot, asked, record)
        else:
            rollup, plan = computed(app.line, snapshot)
            found = explain_goal(app.line, snapshot, rollup, asked, plan=plan, extent=extent)
    if record is not None:
        print_json(verdict_document(answer)) if as_json else print_answer(answer)
    elif as_json:
        print_json(document(found))
    elif as_csv:
        print_csv(found)
    else:
        print_explanation(found, with_query=with_query)
    return 0
