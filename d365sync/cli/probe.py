"""``probe``: which assumptions hold on a trial organization.

IO: terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from d365sync.cli.output import console, print_json
from d365sync.core.counts import counted

if TYPE_CHECKING:
    from rich.console import Console

    from d365sync.cli.context import Settings
    from d365sync.core.goals.probe import Reading
    from d365sync.sync.probe import Made

REFUSED = 2
INCOMPLETE = 3
WORDS = {True: ("holds", "green"), False: ("differs", "bold yellow"), None: ("not told", "dim")}


@click.command()
@click.option("--yes", is_flag=True, help="Really create the probe goals, and remove them afterwards.")
@click.option("--keep", is_flag=True, help="Leave what was created in place.")
@click.option("--create-records", is_flag=True, help="Also create sample opportunities, to see which days count.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def probe(settings: Settings, *, yes: bool, keep: bool, create_records: bool, as_json: bool) -> int:
    """Create two goals on a TRIAL organization, let it roll them up, and report which assumptions hold there.

    Never changes a row it did not make. Exit code 3 when something it made could not be removed.
    """
    from d365sync.app import make_client
    from d365sync.sync.probe import Probe

    config = settings.load()
    if not yes:
        _print_plan(config.dataverse.url, create_records=create_records, as_json=as_json)
        return REFUSED
    say = console(stderr=True)
    run = Probe(
        make_client(config, environ=settings.environ, say=settings.say),
        config.rollup.zone,
        settings.clock(),
        create_records,
        on_step=(lambda _words: None) if as_json else (lambda words: say.print(f"... {words}")),
    )
    try:
        found = run.run()
    finally:
        try:
            left = list(run.made) if keep else run.clean_up()
        finally:
            _name_left(say, run.made, keep=keep)
    if as_json:
        print_json({"readings": found, "notes": run.notes, "left": [_left(one) for one in left]})
    else:
        _print(found, run.notes)
    return INCOMPLETE if left and not keep else 0


def _name_left(say: Console, left: Sequence[Made], *, keep: bool) -> None:
    words = "kept" if keep else "left behind, remove it by hand"
    for one in left:
        say.print(f"{words}: {one.name}: {one.table.entity_set_name}({one.id})", soft_wrap=True)


def _print_plan(url: str, *, create_records: bool, as_json: bool) -> None:
    from rich.padding import Padding

    from d365sync.sync.probe import PLAN, RECORDS_PLAN

    plan = [*PLAN, *([RECORDS_PLAN] if create_records else [])]
    if as_json:
        print_json({"url": url, "would_create": plan})
        return
    out = console()
    out.print(f"probe would create, on {url}:", soft_wrap=True)
    for line in plan:
        out.print(Padding(f"- {line}", (0, 0, 0, 2), expand=False))
    out.print("and remove all of it at the end. Use a trial organization. Nothing was done: run it again with --yes")


def _print(found: Sequence[Reading], notes: Sequence[str]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from d365sync.logs import redact

    out = console()
    for reading in found:
        word, style = WORDS[reading.holds]
        out.print(Text.assemble((f"{word:<9}", style), (f"{reading.id}: ", "bold"), reading.question))
        out.print(Padding(f"{reading.found} (assumed: {reading.assumed})", (0, 0, 0, 9), expand=False))
        if reading.setting and reading.holds is False:
            out.print(Padding(f"set {reading.setting}", (0, 0, 0, 9), expand=False))
    for note in notes:
        out.print(f"note: {redact(note)}", soft_wrap=True)
    counts = [f"{sum(one.holds is holds for one in found)} {word}" for holds, (word, _) in WORDS.items()]
    out.print(f"{counted(len(found), 'assumption')}: {', '.join(counts)}")


def _left(one: Made) -> dict[str, str]:
    return {"table": one.table.logical_name, "id": one.id, "what": one.name}
