"""The container: its recipe by a linter and by rules of our own, the composition by its specification."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from d365sync.config_template import render

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name.upper(), arguments.strip()) for name, _, arguments in found]


def last_stage() -> list[tuple[str, str]]:
    found = instructions(DOCKERFILE)
    return found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]


@pytest.mark.skipif(sys.platform == "win32", reason="the linter has no program for Windows")
def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_built_in_one_stage_and_runs_in_another_without_rights() -> None:
    assert sum(name == "FROM" for name, _ in instructions(DOCKERFILE)) == 2
    stage = last_stage()
    users = [arguments for name, arguments in stage if name == "USER"]
    assert [bool(re.fullmatch(r"[1-9][0-9]{3,}:[1-9][0-9]{3,}", one)) for one in users] == [True]
    (check,) = [arguments for name, arguments in stage if name == "HEALTHCHECK"]
    assert check.endswith('CMD ["d365sync", "health"]')
    assert ("ENTRYPOINT", '["d365sync"]') in stage
    assert not any("pip install" in arguments for _, arguments in stage)


def test_everything_installed_is_locked_with_hashes() -> None:
    installs = [
        one
        for name, one in instructions(DOCKERFILE)
        if name == "RUN"
        for one in one.split("&&")
        if "pip install" in one
    ]
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert {"--no-deps", "--no-build-isolation"} <= set(installs[1].split())
    assert not re.search(r"(secret|password|token)\s*=", DOCKERFILE, re.IGNORECASE)


def test_what_is_copied_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copied = [one for name, arguments in instructions(DOCKERFILE) if name == "COPY" for one in arguments.split()[:-1]]
    for source in copied:
        if not source.startswith(("--from", "/")):
            assert f"!{source}" in ignored
            assert (ROOT / source).exists()


def test_the_composition_is_one_by_the_specification() -> None:
    composition = compose_spec.PyCompose.from_yaml(COMPOSE)
    composition.validate()
    assert composition.service_names == ["d365sync", "database"] or composition.service_names() == [
        "d365sync",
        "database",
    ]


@pytest.fixture
def composition() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE)
    return found


@pytest.mark.parametrize("name", ["d365sync", "database"])
def test_each_service_may_little(name: str, composition: dict[str, Any]) -> None:
    one = composition["services"][name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in one["security_opt"]
    assert "healthcheck" in one
    assert "ports" not in one
    assert not one.get("privileged")


def test_d365sync_starts_when_its_database_is_healthy_and_takes_secrets_from_files(composition: dict[str, Any]) -> None:
    one = composition["services"]["d365sync"]
    assert one["depends_on"]["database"]["condition"] == "service_healthy"
    assert "cap_add" not in one
    assert set(one["secrets"]) <= set(composition["secrets"])
    assert all("file" in secret for secret in composition["secrets"].values())
    assert composition["networks"]["database"]["internal"] is True
    for key, value in one["environment"].items():
        assert not re.search(r"(SECRET|PASSWORD|TOKEN)", key) or str(value).startswith("file:/run/secrets/")


def test_its_variables_are_keys_of_the_configuration(composition: dict[str, Any]) -> None:
    document = tomllib.loads(render({}))
    for variable in composition["services"]["d365sync"]["environment"]:
        section, separator, key = variable.removeprefix("D365SYNC_").lower().partition("__")
        assert not separator or key in document[section]


def test_the_user_of_the_composition_is_that_of_the_image(composition: dict[str, Any]) -> None:
    (user,) = [arguments for name, arguments in last_stage() if name == "USER"]
    assert composition["services"]["d365sync"]["user"] == user
