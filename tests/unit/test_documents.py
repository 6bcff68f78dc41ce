"""The documents against the code: commands, links, exit codes, emulator options and faults."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest

from d365sync import errors
from d365sync.cli.commands import COMMANDS, cli
from d365sync.config import Config, RollupSection
from d365sync.config_rules import FetchxmlSection, FiscalSection
from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.parity import Kind
from d365sync.core.goals.probe import QUESTIONS
from d365sync.doctor.page import page
from d365sync.doctor.steps import STEPS
from d365sync.emulator import EmulatorSettings
from d365sync.emulator.faultfile import KEYS
from d365sync.emulator.support import support_document

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
    assert [key for key in KEYS if f"`{key}`" not in text] == []


FAULTS = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def test_every_row_of_the_fault_list_is_there_once_and_says_what_shows_it() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", FAULTS, re.MULTILINE)
    missing = {*range(1, 49)} - {int(number) for number, _ in rows}
    assert (len(rows), missing) == (len({number for number, _ in rows}), set())
    assert [number for number, shown in rows if not re.search(r"`tests/|\*\d\d-|not yet", shown)] == []


def test_every_test_named_in_the_fault_list_exists_and_every_fault_file_is_named() -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", FAULTS):
        text = (ROOT / path).read_text(encoding="utf-8")
        assert f"def {name}(" in text if name else text, (path, name)
    files = {path.stem for path in (ROOT / "fixtures" / "faults").glob("*.toml")}
    assert set(re.findall(r"\*(\d\d-[a-z-]+)\*", FAULTS)) - {"01-throttled"} == files - {"01-throttled"}


def test_what_the_emulator_supports_is_written_down_as_it_is() -> None:
    text = (ROOT / "docs" / "emulator-support.md").read_text(encoding="utf-8")
    assert text == support_document(), "run `make docs`"


def test_what_doctor_says_is_written_down_as_it_is() -> None:
    assert (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8") == page(), "run `make docs`"


def test_what_a_check_of_doctor_needs_is_made_before_it() -> None:
    before: set[str] = set()
    for step in STEPS:
        assert set(step.needs) <= before, step.topic
        before.add(step.topic)
    assert len(before) == len(STEPS)


ASSUMPTIONS = (ROOT / "docs" / "assumptions.md").read_text(encoding="utf-8")
RULES = {"rollup": RollupSection, "fetchxml": FetchxmlSection, "fiscal": FiscalSection}
SITUATIONS = {"missing_privileges", "application_user", "certificates", "token_lifetime_s", "secret_expired"}
SITUATIONS |= {"managed_identity", "device_answers", "device_interval_s", "person", "reads_secured"}
KNOWN = {"now", "time_zone", "fiscal", "user_id", "business_unit_id", "user_team_ids", "user_language"}
KNOWN |= {"user_hierarchy", "team_members", "option_labels"}


def test_every_setting_that_stands_for_an_assumption_is_listed() -> None:
    listed = ASSUMPTIONS
    emulator = {one.name for one in dataclasses.fields(EmulatorSettings)} - SITUATIONS
    ours = {f"{section}.{name}" for section, model in RULES.items() for name in model.model_fields}
    assert [name for name in sorted(emulator | ours) if f"`{name}`" not in listed] == []


def test_every_open_point_of_queries_is_a_setting_or_has_a_reason_not_to_be() -> None:
    queries = {one.name for one in dataclasses.fields(Context)} - KNOWN
    assert queries - set(FetchxmlSection.model_fields) == {"integer_avg_rounds"}
    assert "`integer_avg_rounds`" in ASSUMPTIONS


def test_every_setting_that_is_listed_exists() -> None:
    listed = re.findall(r"`((?:rollup|fetchxml|fiscal)\.\w+)`", ASSUMPTIONS)
    assert len(listed) > 20
    for key in listed:
        section, _, name = key.partition(".")
        assert name in RULES[section].model_fields, key
        assert section in Config.model_fields


def test_every_module_that_marks_an_assumption_is_listed_and_no_other() -> None:
    marking = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "d365sync").rglob("*.py")
        if "Assumed" in path.read_text(encoding="utf-8")
    }
    assert set(re.findall(r"^- `(d365sync/[\w/]+\.py)`$", ASSUMPTIONS, re.MULTILINE)) == marking
