"""The installed command against an emulator process, over TLS: what an administrator does, as they do it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests import canary
from tests.golden.casebook import read_cases, write_org
from tests.scenarios.processes import kept_forked, run_forked, run_installed

Way = Callable[[list[str], Path, Mapping[str, str]], tuple[int, str, str]]
Keep = Callable[[list[str]], AbstractContextManager[IO[str]]]
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

    def installed(self, *arguments: str) -> Done:
        """Run a command in the folder as a shell does."""
        return run(self.folder, *arguments, way=run_installed)


def run(folder: Path, *arguments: str, way: Way = run_forked, **environment: str) -> Done:
    """Run ``d365sync`` in a folder, at the frozen instant."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("D365SYNC_")}
    env = {**inherited, "D365SYNC_NOW": NOW, "COLUMNS": "160", **environment}
    code, out, err = way(list(arguments), folder, env)
    canary.assert_silent(out + err)
    return Done(code, out, err)


@contextmanager
def served(org: Path, *options: str, keep: Keep = kept_forked) -> Iterator[dict[str, str]]:
    """Serve an org folder on a free port; yield what the emulator says about itself."""
    with keep(["emulator", "serve", "--org", str(org), "--port", "0", "--now", NOW, *options]) as out:
        yield json.loads(out.readline())


def initialise(folder: Path, remote: dict[str, str], mode: str = "override", way: Way = run_forked) -> Admin:
    """Write a configuration with ``init``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secret").write_text(canary.plant(remote["client_secret"], folder), encoding="utf-8")
    done = run(
        folder,
        *("init", "--non-interactive", "--url", remote["url"], "--tenant-id", remote["tenant_id"]),
        *("--client-id", remote["client_id"], "--client-secret", "file:secret", "--authority", remote["authority"]),
        *("--ca-bundle", remote["ca_bundle"], "--mode", mode),
        way=way,
    )
    assert done.code == 0, done.err
    return Admin(folder, remote)


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    """An administrator of the organization of the case ``tree``, served for one test."""
    write_org(CASES["tree"], tmp_path / "org")
    with served(tmp_path / "org") as remote:
        yield initialise(tmp_path / "admin", remote)
