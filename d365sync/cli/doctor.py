"""``doctor``: check everything a run needs.

IO: terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d365sync.cli.output import console, print_json

if TYPE_CHECKING:
    from d365sync.cli.context import Settings
    from d365sync.sync.check import Check

STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def doctor(settings: Settings, *, as_json: bool) -> int:
    """Check reach, sign-in, tables, columns, write access, change tracking and clocks. Changes nothing."""
    from d365sync.app import certificate_of, make_client
    from d365sync.sync.check import Verdict
    from d365sync.sync.doctor import examine

    config = settings.load()
    client = make_client(config, environ=settings.environ, say=settings.say)
    until = certificate_of(config, settings.environ).expires_at if config.dataverse.auth == "certificate" else None
    checks: list[Check] = []
    for check in examine(config, client, settings.clock, certificate_until=until):
        checks.append(check)
        if not as_json:
            _print(check)
    if as_json:
        print_json({"checks": checks})
    return max((check.exit_code for check in checks if check.verdict is Verdict.FAIL), default=0)


def _print(check: Check) -> None:
    from rich.text import Text

    from d365sync.logs import redact

    line = Text.assemble((f"{check.verdict:<4} ", STYLES[check.verdict]), f"{check.name}: {redact(check.found)}")
    console().print(line, soft_wrap=True)
    if check.mend:
        console().print(f"     mend: {redact(check.mend)}", soft_wrap=True)
