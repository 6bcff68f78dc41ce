"""Each import contract is seen red once: a planted violation must be caught by the contract that forbids it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VIOLATIONS = {
    "imports point down the house": ("d365sync/mirror/pages.py", "import d365sync.dataverse.client"),
    "inside the core, imports point down too": ("d365sync/core/schema.py", "import d365sync.core.fetchxml.ast"),
    "the core touches nothing": ("d365sync/core/period.py", "import time"),
    "the emulator shares only the parser and the values": (
        "d365sync/emulator/__init__.py",
        "import d365sync.core.storage",
    ),
    "only dataverse.auth knows MSAL": ("d365sync/dataverse/client.py", "import msal"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(folder)}
    )


@pytest.fixture
def house(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "d365sync", tmp_path / "d365sync", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_house_as_it_is_keeps_every_contract(house: Path) -> None:
    done = lint(house)
    assert done.returncode == 0, done.stdout
    assert f"Contracts: {len(VIOLATIONS)} kept, 0 broken." in done.stdout


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_planted_violation_is_caught(contract: str, house: Path) -> None:
    name, line = VIOLATIONS[contract]
    path = house / name
    path.write_text(path.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    done = lint(house)
    assert done.returncode == 1
    assert f"{contract} BROKEN" in done.stdout
