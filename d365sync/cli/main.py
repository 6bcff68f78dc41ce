"""The command ``d365sync``: global options, the commands, and the one place where errors become text and exit codes.

IO: terminal.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click

from d365sync import __version__
from d365sync.cli.context import Settings
from d365sync.core.values import parse_instant
from d365sync.errors import D365SyncError

COMMANDS = {
    "init": "d365sync.cli.init:init",
    "doctor": "d365sync.cli.doctor:doctor",
    "sync": "d365sync.cli.sync:sync",
    "plan": "d365sync.cli.sync:plan",
    "status": "d365sync.cli.status:status",
    "explain": "d365sync.cli.explain:explain",
    "goals": "d365sync.cli.goals:goals",
    "parity": "d365sync.cli.parity:parity",
    "probe": "d365sync.cli.probe:probe",
    "emulator": "d365sync.cli.emulator:emulator",
}
"""Commands in the order of their help, imported when they are used."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for, so that ``--help`` and ``--version`` answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order they are best learnt."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, importing its module."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


def _instant(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dt.datetime | None:
    if value is None:
        return None
    try:
        return parse_instant(value)
    except ValueError:
        raise click.BadParameter("must be an instant such as 2026-11-20T09:00:00Z") from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="d365sync")
@click.option("--config", metavar="FILE", envvar="D365SYNC_CONFIG", help="Configuration file [./d365sync.toml].")
@click.option(
    "--now", metavar="INSTANT", envvar="D365SYNC_NOW", callback=_instant, help="Work as if it were this instant."
)
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, on stderr.")
@click.option("--debug", is_flag=True, help="Log every request, and show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, config: str | None, now: dt.datetime | None, *, verbose: bool, debug: bool) -> None:
    """Dynamics 365 sales goals, recomputed exactly, explained, and written back.

    \b
    First steps:
      d365sync init      write a configuration
      d365sync doctor    check that everything it needs is there
      d365sync sync      pull, recompute, and show what would be written
    """
    from d365sync import logs

    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logs.configure(level=level, tty=sys.stderr.isatty())
    ctx.obj = Settings(config_path=config, now=now, environ=dict(os.environ), folder=Path.cwd())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; the entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        result = cli.main(args=arguments, prog_name="d365sync", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("d365sync: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except D365SyncError as error:
        _report(error, arguments)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one sentence, never a stack
        _report(error, arguments)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def _report(error: Exception, arguments: list[str]) -> None:
    """Say in one sentence what is wrong and what mends it; with ``--json``, as a document on stdout."""
    from d365sync.logs import redact

    if "--debug" in arguments:
        click.echo(redact("".join(traceback.format_exception(error))), err=True)
    known = isinstance(error, D365SyncError)
    message = redact(str(error)) if known else redact(f"unexpected {type(error).__name__}: {error}")
    hint = redact(getattr(error, "hint", "")) if known else "run again with --debug and report what it shows"
    click.echo(f"d365sync: {message}" + (f"\n  mend: {hint}" if hint else ""), err=True)
    if "--json" in arguments:
        code = getattr(error, "exit_code", 1)
        document = {"error": {"type": type(error).__name__, "message": message, "hint": hint, "exit_code": code}}
        click.echo(json.dumps(document, ensure_ascii=False))


if __name__ == "__main__":
    main()
