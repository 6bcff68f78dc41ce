"""``undo`` and ``apply``: writes that a person commands.

IO: terminal, files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d365sync.cli.context import Settings
from d365sync.cli.output import console, print_json, print_plan
from d365sync.cli.sync import accept_option
from d365sync.core.counts import counted
from d365sync.core.goals.savedplan import read_saved_plan
from d365sync.errors import ProtocolError, UsageError
from d365sync.sync.documents import goal_documents, skip_documents

if TYPE_CHECKING:
    from d365sync.sync.commanded import Commanded


@click.command()
@click.argument("run")
@click.option("--dry-run", is_flag=True, help="Show what would be put back and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def undo(settings: Settings, *, run: str, dry_run: bool, as_json: bool) -> int:
    """Put back what a run wrote, where nobody has changed it since.

    `status` lists the runs.

    \b
    Examples:
      d365sync undo 20261120T090000Z-1a2b3c4d --dry-run
    """
    from d365sync.sync.commanded import undo as undo_run

    with settings.app() as app, app.lease():
        result = undo_run(app.line, run, write=not dry_run)
    return _show(result, f"Undo of {run}", undone=run, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("plan", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check whether the plan could be applied, and write nothing.")
@accept_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def apply(settings: Settings, *, plan: Path, dry_run: bool, accept: int | None, as_json: bool) -> int:
    """Apply a plan saved by `plan --output`; refuses (exit code 4) if any goal of it changed since.

    The guards of `sync` hold here too. It writes in every mode, also if writeback.mode is plan: the command is the
    consent.
    """
    from d365sync.sync.commanded import apply_saved
    from d365sync.sync.guarding import Accepted

    saved = read_saved_plan(_read(plan))
    with settings.app() as app, app.lease():
        result = apply_saved(app.line, saved, write=not dry_run, accepted=Accepted(accept))
    return _show(result, f"Plan of {saved.run_id}", undone=None, dry_run=dry_run, as_json=as_json)


def _read(path: Path) -> object:
    from d365sync.dataverse.wire import decode_json

    try:
        return decode_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"the plan {path} cannot be read: {error.strerror}", hint="save one with `d365sync plan --output plan.json`"
        ) from None
    except ProtocolError:
        raise UsageError(f"{path} is not JSON", hint="make it with `d365sync plan --output FILE`") from None


def _show(result: Commanded, title: str, *, undone: str | None, dry_run: bool, as_json: bool) -> int:
    if as_json:
        print_json(_document(result, undone))
    else:
        out = console()
        print_plan(result.plan, out, title=title)
        for skip in _not_written(result):
            out.print(f"not written: {skip.message}")
        if dry_run:
            out.print("nothing was written: this was a dry run")
        elif result.pushed is not None:
            out.print(f"wrote {counted(len(result.pushed.written), 'goal')} (run {result.run_id})")
    return int(result.outcome)


def _document(result: Commanded, undone: str | None) -> dict[str, object]:
    written = result.pushed.written if result.pushed else []
    return {
        "run": result.run_id,
        **({} if undone is None else {"undone": undone}),
        "outcome": result.outcome.name.lower(),
        "goals": goal_documents(result.plan),
        "left_alone": skip_documents(result.plan.skips),
        "unchanged": result.plan.unchanged,
        "written": [{"goal": write.goal_id, "title": write.title} for write in written],
        "not_written": skip_documents(_not_written(result)),
    }


def _not_written(result: Commanded) -> list[Any]:
    return [*result.pushed.skips, *result.pushed.failures] if result.pushed else []
