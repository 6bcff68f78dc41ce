"""How the command starts: what is imported for an answer, and completions in every shell. Nothing is said of time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from d365sync import __version__
from d365sync.cli.commands import COMMANDS, cli
from d365sync.cli.completion import SHELLS, script

HEAVY = {"sqlalchemy", "sqlmodel", "msal", "requests", "pydantic", "rich", "structlog", "msgspec", "werkzeug"}
HEAVY |= {"cryptography", "tenacity", "logging", "asyncio"}
NETWORK = {"msal", "requests", "urllib3", "tenacity"}
TELL = """
import sys, atexit
atexit.register(lambda: print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr))
from d365sync.cli.main import main
main()
"""


def run(*arguments: str, folder: Path = Path(), **environment: str) -> tuple[str, set[str]]:
    """Run the command; return its output and the packages imported in its process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("D365SYNC_")}
    done = subprocess.run(
        [sys.executable, "-c", TELL, *arguments],
        env={**inherited, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout, set(done.stderr.rpartition("imported:")[2].split())


def complete(shell: str, **environment: str) -> tuple[list[str], set[str]]:
    """Ask as a shell's script does."""
    out, imported = run(_D365SYNC_COMPLETE=f"{shell}_complete", **environment)
    return out.split("\n"), imported


def test_the_version_needs_nothing_else() -> None:
    out, imported = run("--version")
    assert out.split() == ["d365sync,", "version", __version__]
    assert not imported & {*HEAVY, "click"}


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["completion", "zsh"]])
def test_help_needs_click_alone(arguments: list[str]) -> None:
    out, imported = run(*arguments)
    assert out
    assert "click" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    ("words", "index", "expected"), [("d365sync s", 1, "plain,sync"), ("d365sync goals l", 2, "plain,list")]
)
def test_bash_completes_without_loading_anything_heavy(words: str, index: int, expected: str) -> None:
    lines, imported = complete("bash", COMP_WORDS=words, COMP_CWORD=str(index))
    assert expected in lines
    assert not imported & HEAVY


def test_powershell_is_answered_with_values_and_words() -> None:
    lines, imported = complete("powershell", COMP_ARGS="sync", COMP_WORD="--d")
    assert lines[0].split("\t") == ["--dry-run", "Show the plan and write nothing, whatever the mode."]
    assert not imported & HEAVY
    lines, _ = complete("powershell", COMP_ARGS="", COMP_WORD="go")
    assert lines[0].startswith("goals\t")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_completes_its_options_without_loading_anything_heavy(command: str) -> None:
    """In this process: the modules of commands must not pull in what they use only when they run."""
    module = COMMANDS[command][0].partition(":")[0]
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (HEAVY - {"logging"})


def test_the_help_says_of_every_command_what_the_command_says_of_itself() -> None:
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        first, _, _ = (command.help or "").partition("\n\n")
        assert " ".join(first.split()).startswith(summary), name


def test_a_command_that_asks_dataverse_nothing_loads_nothing_of_the_network(tmp_path: Path) -> None:
    (tmp_path / "d365sync.toml").write_text(
        '[dataverse]\nurl = "https://contoso.crm4.dynamics.com"\ntenant_id = "t"\n'
        'client_id = "00000000-0000-0000-0000-000000000000"\nclient_secret = "env:NONE"\n',
        encoding="utf-8",
    )
    out, imported = run("status", "--json", folder=tmp_path)
    assert '"mode": "plan"' in out
    assert not imported & NETWORK


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell: str) -> None:
    text = script(shell)
    assert "_D365SYNC_COMPLETE" in text
    assert "%(" not in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_bash_understands_its_script() -> None:
    subprocess.run(["bash", "-n"], input=script("bash"), text=True, check=True)


def test_a_command_names_its_environment_among_several(tmp_path: Path) -> None:
    (tmp_path / "d365sync.toml").write_text(
        '[dataverse]\nauth = "managed_identity"\nurl = "https://{environment}.crm4.dynamics.com"\n'
        '[environments.east]\n[environments.west.writeback]\nmode = "override"\n',
        encoding="utf-8",
    )
    out, _ = run("--environment", "west", "status", "--json", folder=tmp_path)
    assert '"mode": "override"' in out
    assert (tmp_path / "west" / "journal.db").exists()
    out, _ = run("status", "--json", folder=tmp_path)
    assert "several environments: east, west" in out
    out, _ = run("status", "--json", folder=tmp_path, D365SYNC_ENVIRONMENT="eastt")
    assert "did you mean east?" in out
