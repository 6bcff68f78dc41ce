"""The documents against the code: commands, links, exit codes, emulator options and faults."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest

from d365sync import errors
from d365sync.cli.main import COMMANDS, cli
from d365sync.config import RollupSection
from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.parity import Kind
from d365sync.core.goals.probe import QUESTIONS
from d365sync.emulator import EmulatorSettings
from d365sync.emulator.faults import EFFECTS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_command_is_in_the_readme_and_has_help() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert f"`{name}" in README, name
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert leaf.help, leaf.name
            for option in leaf.params:
                assert not isinstance(option, click.Option) or option.help, (leaf.name, option.name)


def test_every_command_takes_json() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        leaves = command.commands.values() if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert leaf is not None
            assert any("--json" in option.opts for option in leaf.params), leaf.name


@pytest.mark.parametrize(("name", "document"), [("explain", "explain"), ("parity", "parity"), ("probe", "parity")])
def test_every_option_is_in_the_commands_document(name: str, document: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    text = (ROOT / "docs" / f"{document}.md").read_text(encoding="utf-8")
    options = [option for one in command.params if isinstance(one, click.Option) for option in one.opts]
    assert [option for option in options if f"`{option}" not in text] == []


def test_every_class_and_reading_is_documented() -> None:
    text = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
    assert [
        name for name in (*(str(kind) for kind in Kind), *(one.id for one in QUESTIONS)) if f"`{name}`" not in text
    ] == []


def test_the_readme_names_every_exit_code() -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    listed = {int(code) for code in re.findall(r"(?:codes: |· )(\d+) ", README.replace("\n", " "))}
    assert codes <= listed


def test_the_emulators_faults_are_documented() -> None:
    text = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")
    assert [effect for effect in EFFECTS if f"`{effect}`" not in text] == []


SITUATIONS = {"missing_privileges", "application_user", "certificates", "token_lifetime_s"}
KNOWN = {"now", "time_zone", "fiscal", "user_id", "business_unit_id", "user_team_ids", "user_language"}
KNOWN |= {"user_hierarchy", "team_members", "option_labels"}


def test_every_setting_that_stands_for_an_assumption_is_listed() -> None:
    listed = (ROOT / "docs" / "assumptions.md").read_text(encoding="utf-8")
    emulator = {one.name for one in dataclasses.fields(EmulatorSettings)} - SITUATIONS
    queries = {one.name for one in dataclasses.fields(Context)} - KNOWN
    rollup = {f"rollup.{name}" for name in RollupSection.model_fields}
    assert [name for name in sorted(emulator | queries | rollup) if f"`{name}`" not in listed] == []
