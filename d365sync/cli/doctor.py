"""``doctor``: check everything a run needs.

IO: terminal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d365sync.cli.output import console, print_json

if TYPE_CHECKING:
    from d365sync.cli.context import Settings
    from d365sync.doctor.check import Check

STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}
PAGE = "docs/doctor.md"


@click.command()
@click.option("--strict", is_flag=True, help="A warning counts as a failure (exit code 1).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def doctor(settings: Settings, *, strict: bool, as_json: bool) -> int:
    """Check everything a run needs: files, databases, network, sign-in, privileges, tables. Changes nothing.

    Each line is OK, WARN or FAIL, what was found, and what mends it; docs/doctor.md says more about each.

    \b
    Examples:
      d365sync doctor                 look at everything
      d365sync doctor --strict        in a deployment: a warning fails it too
      d365sync doctor --json          one document, for a program
    """
    from d365sync.app import certificate_of, make_client
    from d365sync.doctor.case import Case
    from d365sync.doctor.check import exit_code_of
    from d365sync.doctor.steps import examine

    config = settings.load()
    case = Case(
        config,
        lambda: make_client(config, environ=settings.environ, say=settings.say, late=True),
        settings.clock,
        certificate_until=lambda: certificate_of(config, settings.environ).expires_at,
    )
    checks: list[Check] = []
    for check in examine(case):
        checks.append(check)
        if not as_json:
            print_check(check)
    if as_json:
        print_json({"checks": checks})
    elif any(check.mend for check in checks):
        console().print(f"what each line means: {PAGE}", soft_wrap=True)
    return exit_code_of(checks, strict=strict)


def print_check(check: Check) -> None:
    """Print one line of a report, and its mend."""
    from rich.text import Text

    from d365sync.logs import redact

    line = Text.assemble((f"{check.verdict:<4} ", STYLES[check.verdict]), f"{check.name}: {redact(check.found)}")
    console().print(line, soft_wrap=True)
    if check.mend:
        console().print(f"     mend: {redact(check.mend)}", soft_wrap=True)
