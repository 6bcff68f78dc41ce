"""``init``: write a complete, commented configuration.

IO: terminal, files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from d365sync.cli.output import print_json
from d365sync.config_template import DEFAULTS, render
from d365sync.errors import UsageError

if TYPE_CHECKING:
    from d365sync.cli.context import Settings

FILE_NAME = "d365sync.toml"
QUESTIONS = {
    "url": "Address of the organization (https://…)",
    "tenant_id": "Tenant (directory) id",
    "client_id": "Application (client) id",
    "client_secret": "Where the client secret is (env:NAME or file:PATH)",
    "time_zone": "Time zone of goal days (IANA)",
    "mode": "Write results to the goals? (plan: only show, override: write, recalculate: have Dataverse do it)",
}


@click.command()
@click.option(
    "--output",
    default=FILE_NAME,
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.",
)
@click.option("--non-interactive", is_flag=True, help="Ask nothing; take the flags and defaults.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--url", default="", help="Address of the organization.")
@click.option("--tenant-id", default="", help="Microsoft Entra tenant id.")
@click.option("--client-id", default="", help="Application id of the app registration.")
@click.option("--auth", default="", help="client_secret (the default), certificate, managed_identity or device_code.")
@click.option("--client-secret", default="", help="env:NAME or file:PATH (never the secret itself).")
@click.option("--certificate", default="", help="PEM or PFX file.")
@click.option("--authority", default="", help="Sign-in authority, for the emulator or AD FS.")
@click.option("--ca-bundle", default="", help="Further trust anchors (PEM).")
@click.option("--mirror", default="", help="Database URL of the mirror.")
@click.option("--journal", default="", help="Database URL of the journal.")
@click.option("--mode", default="", help="plan, override or recalculate; columns needs the columns, in the file.")
@click.option("--time-zone", default="", help="IANA zone in which goal days begin and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def init(
    settings: Settings, /, *, output: Path, non_interactive: bool, force: bool, as_json: bool, **values: str
) -> int:
    """Write a complete, commented configuration.

    Asks for what the flags do not say, if run on a terminal. The secret itself is never written: name the
    environment variable or the file that holds it.
    """
    import tomllib

    from d365sync.config import parse

    path = settings.folder / output
    if path.exists() and not force:
        raise UsageError(f"{path} exists already", hint="choose another --output, or replace it with --force")
    if not non_interactive and sys.stdin.isatty():
        values = _ask(values)
    elif not (values["url"] and values["tenant_id"] and values["client_id"]):
        raise UsageError("--url, --tenant-id and --client-id are needed", hint="or run it on a terminal to be asked")
    text = render(values)
    parse(tomllib.loads(text), {}, folder=path.parent, path=path)
    _write(path, text)
    if as_json:
        print_json({"written": str(path)})
    else:
        click.echo(
            f"wrote {path}\nnext: `d365sync doctor`" + ("" if path.name == FILE_NAME else f" with --config {path}")
        )
    return 0


def _ask(values: dict[str, str]) -> dict[str, str]:
    asked = dict(values)
    for name, question in QUESTIONS.items():
        if not asked[name]:
            placeholder = name in ("url", "tenant_id", "client_id")
            asked[name] = click.prompt(question, default=None if placeholder else DEFAULTS[name])
    return asked


def _write(path: Path, text: str) -> None:
    """Write the whole file or none of it, readable by its owner and group only."""
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text(text, encoding="utf-8")
        if os.name == "posix":
            beside.chmod(0o640)
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
