"""``completion``: the script that teaches a shell to complete ``d365sync``; bash, zsh, fish and PowerShell.

Click knows the first three. Each script asks the command itself what may follow, so completions never get old.

Source: Shell Completion (Click); Register-ArgumentCompleter (PowerShell).

IO: terminal, environment.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from d365sync.cli.commands import COMPLETE, cli

SHELLS = ("bash", "zsh", "fish", "powershell")
PROGRAM = "d365sync"
POWERSHELL = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:%(complete_var)s = 'powershell_complete'
    $env:COMP_WORD = $wordToComplete
    $env:COMP_ARGS = ($commandAst.CommandElements |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition -or -not $wordToComplete } |
        Select-Object -Skip 1 | ForEach-Object { $_.Extent.Text }) -join "`n"
    try {
        & $commandAst.CommandElements[0].Extent.Text | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:COMP_WORD, Env:COMP_ARGS -ErrorAction SilentlyContinue
    }
}
"""
"""Where nothing is offered, PowerShell itself completes files."""


class PowerShellComplete(ShellComplete):
    """Completion for PowerShell: the finished words arrive one a line, the word at the cursor by itself."""

    name: ClassVar[str] = "powershell"
    source_template: ClassVar[str] = POWERSHELL

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the finished words and the one at the cursor."""
        words = [word.strip("'\"") for word in os.environ.get("COMP_ARGS", "").split("\n")]
        return [word for word in words if word], os.environ.get("COMP_WORD", "")

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line for the script: value, a tab, and a text that must not be empty."""
        return f"{item.value}\t{' '.join((item.help or item.value).split())}"

    def complete(self) -> str:
        """Return the lines; files and folders are left to PowerShell."""
        found = self.get_completions(*self.get_completion_args())
        return "\n".join(self.format_completion(item) for item in found if item.type == "plain")


def register() -> None:
    """Let click know PowerShell."""
    add_completion_class(PowerShellComplete)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def completion(shell: str, *, as_json: bool) -> int:
    """Print the script that teaches a shell to complete d365sync.

    \b
    bash        d365sync completion bash > ~/.local/share/bash-completion/completions/d365sync
    zsh         d365sync completion zsh > a folder of your fpath, as _d365sync
    fish        d365sync completion fish > ~/.config/fish/completions/d365sync.fish
    PowerShell  d365sync completion powershell >> $PROFILE
    """
    text = script(shell)
    if as_json:
        import json

        text = json.dumps({"shell": shell, "script": text})
    click.echo(text.rstrip("\n"))
    return 0


def script(shell: str) -> str:
    """Return the completion script of a shell."""
    register()
    kind: Any = get_completion_class(shell)
    return ShellComplete.source(kind(cli, {}, PROGRAM, COMPLETE))
