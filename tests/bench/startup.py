"""Start-up: the installed command against an empty interpreter, as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.bench.report import Line, measured, within

COMMAND = str(Path(sys.executable).with_name("d365sync"))
EMPTY = "an empty interpreter"
BOUND = 5
ROUNDS = 4
"""Rounds for each one asked for: a start is short, and a few of them say little."""


def start_up(part: str, rounds: int) -> list[Line]:
    """Measure --version, --help and completions; what subcommands cost besides has no bound."""
    bounded = {
        "--version": ([COMMAND, "--version"], {}),
        "--help": ([COMMAND, "--help"], {}),
        "complete a command": ([COMMAND], _completion("d365sync ", 1)),
        "complete an option": ([COMMAND], _completion("d365sync explain --", 2)),
        "completion bash": ([COMMAND, "completion", "bash"], {}),
    }
    others = {"goals list --help": ([COMMAND, "goals", "list", "--help"], {})}
    ways = {EMPTY: ([sys.executable, "-c", "pass"], {}), **bounded, **others}
    times = measured({name: lambda way=way: _run(*way) for name, way in ways.items()}, rounds * ROUNDS)  # type: ignore[misc]
    empty = (EMPTY, times[EMPTY])
    unbounded = [Line(part, name, EMPTY, times[name], times[EMPTY], "", None) for name in others]
    return [*(within(part, (name, times[name]), empty, BOUND) for name in bounded), *unbounded]


def _completion(words: str, index: int) -> dict[str, str]:
    return {"_D365SYNC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index)}


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
