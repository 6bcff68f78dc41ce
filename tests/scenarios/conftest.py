"""The installed command against an emulator process, over TLS: what an administrator does, as they do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import canary
from tests.golden.casebook import read_cases, write_org

COMMAND = str(Path(sys.executable).with_name("d365sync"))
NOW = "2026-11-20T09:00:00Z"
CASES = {case.name: case for case in read_cases(Path(__file__).parents[2] / "fixtures" / "goals")}


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Admin:
    """A folder with a configuration for a served organization, and the commands run in it."""

    folder: Path
    remote: dict[str, str]

    def run(self, *arguments: str, **environment: str) -> Done:
        """Run a command in the folder."""
        return run(self.folder, *arguments, **environment)


def run(folder: Path, *arguments: str, **environment: str) -> Done:
    """Run ``d365sync`` in a folder, at the frozen instant."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("D365SYNC_")}
    env = {**inherited, "D365SYNC_NOW": NOW, "COLUMNS": "160", **environment}
    done = subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    canary.assert_silent(done.stdout + done.stderr)
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def served(org: Path, *options: str) -> Iterator[dict[str, str]]:
    """Serve an org folder on a free port; yield what the emulator says about itself."""
    command = [COMMAND, "emulator", "serve", "--org", str(org), "--port", "0", "--now", NOW, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0


def initialise(folder: Path, remote: dict[str, str], mode: str = "override") -> Admin:
    """Write a configuration with ``init``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secret").write_text(canary.plant(remote["client_secret"], folder), encoding="utf-8")
    done = run(
        folder,
        *("init", "--non-interactive", "--url", remote["url"], "--tenant-id", remote["tenant_id"]),
        *("--client-id", remote["client_id"], "--client-secret", "file:secret", "--authority", remote["authority"]),
        *("--ca-bundle", remote["ca_bundle"], "--mode", mode),
    )
    assert done.code == 0, done.err
    return Admin(folder, remote)


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    """An administrator of the organization of the case ``tree``, served for one test."""
    write_org(CASES["tree"], tmp_path / "org")
    with served(tmp_path / "org") as remote:
        yield initialise(tmp_path / "admin", remote)
