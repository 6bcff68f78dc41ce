"""The entry point of ``d365sync``: ``--version`` at once, all else through the commands; errors become text here.

Nothing heavy is imported until it is needed: shells ask for completions at every press of the tab key.

IO: terminal.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from d365sync import __version__

USAGE = 2
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code; the entry point."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        sys.stdout.write(f"d365sync, version {__version__}\n")
        sys.exit(0)
    sys.exit(_run(arguments))


def _run(arguments: list[str]) -> int:
    """Run a command; return its exit code, after saying on stderr what went wrong."""
    import click

    from d365sync.cli.commands import cli

    try:
        _know_shells()
        result = cli.main(args=arguments, prog_name="d365sync", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("d365sync: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: one sentence, never a stack
        _report(error, arguments)
        return int(getattr(error, "exit_code", 1))
    return result if isinstance(result, int) else 0


def _know_shells() -> None:
    """Add the shells that click does not know, where a shell is asking for completions."""
    import os

    from d365sync.cli.commands import COMPLETE

    if COMPLETE in os.environ:
        from d365sync.cli.completion import register

        register()


def _report(error: Exception, arguments: list[str]) -> None:
    """Say in one sentence what is wrong and what mends it; with ``--json``, as a document on stdout."""
    import click

    from d365sync.errors import D365SyncError
    from d365sync.logs import redact

    if "--debug" in arguments:
        import traceback

        click.echo(redact("".join(traceback.format_exception(error))), err=True)
    known = isinstance(error, D365SyncError)
    message = redact(str(error)) if known else redact(f"unexpected {type(error).__name__}: {error}")
    hint = redact(getattr(error, "hint", "")) if known else "run again with --debug and report what it shows"
    click.echo(f"d365sync: {message}" + (f"\n  mend: {hint}" if hint else ""), err=True)
    if "--json" in arguments:
        import json

        code = getattr(error, "exit_code", 1)
        document = {"error": {"type": type(error).__name__, "message": message, "hint": hint, "exit_code": code}}
        if seen := getattr(error, "document", {}):
            from d365sync.cli.output import print_json

            print_json({**document, "refused": seen})
            return
        click.echo(json.dumps(document, ensure_ascii=False))


if __name__ == "__main__":
    main()
