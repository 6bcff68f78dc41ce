"""Processes that run the command: as installed, or forked from one that has imported it already.

A forked one has its own memory, folder, environment, output and exit code, like any other; what it lacks is a second of
imports. That a command also starts on its own is shown once for each.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from d365sync.cli.commands import COMMANDS
from d365sync.cli.main import main

COMMAND = str(Path(sys.executable).with_name("d365sync"))
PATIENCE = 60
"""How many seconds a command may take."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [__name__, "pytest", "d365sync.app", "d365sync.cli.output", "d365sync.emulator.server", "rich.table"]
    + [target.partition(":")[0] for target, _ in COMMANDS.values()]
)


def run_forked(arguments: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it said on stdout and stderr."""
    with tempfile.TemporaryDirectory() as said:
        out, err = Path(said, "out"), Path(said, "err")
        process = _processes.Process(target=_into_files, args=(arguments, folder, dict(env), out, err))
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(arguments)
        return process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


def run_installed(arguments: list[str], folder: Path, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command as a shell does; return its exit code and what it said on stdout and stderr."""
    done = subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def kept_forked(arguments: list[str]) -> Iterator[IO[str]]:
    """Run a command that ends, with 0, when it is told to; yield its stdout."""
    reading, writing = _processes.Pipe(duplex=False)
    process = _processes.Process(target=_into_pipe, args=(arguments, dict(os.environ), writing))
    process.start()
    writing.close()
    with open(reading.fileno(), encoding="utf-8", closefd=False) as out:
        try:
            yield out
        finally:
            process.terminate()
            process.join(10)
            reading.close()
    assert process.exitcode == 0


@contextmanager
def kept_installed(arguments: list[str]) -> Iterator[IO[str]]:
    """Run a command as a shell does that ends, with 0, when it is told to; yield its stdout."""
    with subprocess.Popen([COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.terminate()
            assert process.wait(timeout=10) == 0


def _into_files(arguments: list[str], folder: Path, env: dict[str, str], out: Path, err: Path) -> None:
    os.chdir(folder)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY), number)
    _become(arguments, env)


def _into_pipe(arguments: list[str], env: dict[str, str], out: Connection) -> None:
    os.dup2(out.fileno(), 1)
    out.close()
    _become(arguments, env)


def _become(arguments: list[str], env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    main(arguments)
