"""The command ``d365sync``: global options, and the commands with one line about each.

A command's module is imported when the command is used; it declares its options and imports what it does when it runs.

IO: terminal.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from d365sync import __version__

if TYPE_CHECKING:
    import datetime as dt

    from click.shell_completion import CompletionItem

COMPLETE = "_D365SYNC_COMPLETE"
"""The variable by which a shell asks for completions."""
COMMANDS = {
    "init": ("d365sync.cli.init:init", "Write a complete, commented configuration."),
    "doctor": (
        "d365sync.cli.doctor:doctor",
        "Check everything a run needs: files, databases, network, sign-in, privileges, tables.",
    ),
    "sync": ("d365sync.cli.sync:sync", "Run one cycle: pull, recompute, plan, push."),
    "run": ("d365sync.cli.run:run", "Run cycles by the schedule in [daemon] until stopped: the service."),
    "plan": (
        "d365sync.cli.sync:plan",
        "Show what a sync would write: goal, column, native value, ours, difference, why.",
    ),
    "apply": (
        "d365sync.cli.undo:apply",
        "Apply a plan saved by `plan --output`; refuses (exit code 4) if any goal of it changed since.",
    ),
    "undo": (
        "d365sync.cli.undo:undo",
        "Put back what a run wrote, where nobody has changed it since.",
    ),
    "backfill": (
        "d365sync.cli.backfill:backfill",
        "Compute the goals whose period touches a window of days, closed ones too, and write those that differ.",
    ),
    "status": ("d365sync.cli.status:status", "Show the last cycles, how fresh each table is, and what is wrong."),
    "explain": (
        "d365sync.cli.explain:explain",
        "Show the records behind each number of GOAL (its title or id), why they count, and the sum.",
    ),
    "goals": ("d365sync.cli.goals:goals", "Look at goals."),
    "parity": (
        "d365sync.cli.parity:parity",
        "Compare the numbers that Dynamics 365 rolled up itself with ours, and class every difference.",
    ),
    "probe": (
        "d365sync.cli.probe:probe",
        "Create two goals on a TRIAL organization, let it roll them up, and report which assumptions hold there.",
    ),
    "service": ("d365sync.cli.service:service", "Write the files by which systemd or Windows runs d365sync."),
    "health": ("d365sync.cli.health:health", "Ask the service on this machine whether it is alive, or ready."),
    "db": ("d365sync.cli.db:db", "Look after the databases: check, backup, restore, prune, upgrade, unlock."),
    "emulator": ("d365sync.cli.emulator:emulator", "Run a local Dataverse."),
    "completion": ("d365sync.cli.completion:completion", "Print the script that teaches a shell to complete d365sync."),
}
"""Commands in the order of their help: where they are, and the first sentence of what they say about themselves."""


class LazyGroup(click.Group):
    """A group that imports a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order they are best learnt."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return a command, importing its module."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands with their summaries, importing none."""
        width = formatter.width - 6 - max(len(name) for name in COMMANDS)
        with formatter.section("Commands"):
            formatter.write_dl([(name, _shortened(summary, width)) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands (or global options) that begin with what is typed, importing none."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


def _shortened(summary: str, width: int) -> str:
    """Return what fits of a summary, whole words."""
    text = summary.rstrip(".")
    return text if len(text) <= width else f"{text[: width - 3].rpartition(' ')[0]}..."


def _instant(_ctx: click.Context, _param: click.Parameter, value: str | None) -> dt.datetime | None:
    if value is None:
        return None
    from d365sync.core.values import parse_instant

    try:
        return parse_instant(value)
    except ValueError:
        raise click.BadParameter("must be an instant such as 2026-11-20T09:00:00Z") from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="d365sync")
@click.option("--config", metavar="FILE", envvar="D365SYNC_CONFIG", help="Configuration file [./d365sync.toml].")
@click.option(
    "--environment",
    metavar="NAME",
    envvar="D365SYNC_ENVIRONMENT",
    help="Environment of the configuration, if it has several.",
)
@click.option(
    "--now", metavar="INSTANT", envvar="D365SYNC_NOW", callback=_instant, help="Work as if it were this instant."
)
@click.option("-v", "--verbose", is_flag=True, help="Log what is done, on stderr.")
@click.option("--debug", is_flag=True, help="Log every request, and show tracebacks.")
@click.pass_context
def cli(
    ctx: click.Context, /, config: str | None, environment: str | None, now: dt.datetime | None, **logging: Any
) -> None:
    """Dynamics 365 sales goals, recomputed exactly, explained, and written back.

    \b
    First steps:
      d365sync init      write a configuration
      d365sync doctor    check that everything it needs is there
      d365sync sync      pull, recompute, and show what would be written
    """
    from pathlib import Path

    from d365sync.cli.context import Settings

    environ = dict(os.environ)
    ctx.obj = Settings(config, now, environ, Path.cwd(), environment=environment, **logging)
