"""Runs one scene's kill loop and prints what went wrong, one line each; the last line says how many points there were.

``python -m tests.kills.loop SCENE [--every N] [--at TEXT] [--flaw NAME] [--postgresql URL]``. A process of its own,
because it forks.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import structlog

from tests.kills.places import Files, Server
from tests.kills.scenes import FLAWS, SCENES
from tests.kills.world import Loop


def main() -> int:
    """Run the loop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", choices=SCENES)
    parser.add_argument("--every", type=int, default=1, help="kill at every so-manieth point")
    parser.add_argument("--at", default="", help="kill only at points whose description holds this")
    parser.add_argument("--flaw", choices=FLAWS)
    parser.add_argument("--postgresql", help="the address of a server to keep the databases in, instead of files")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    scenario = replace(SCENES[asked.scene], flaw=FLAWS.get(asked.flaw), at=asked.at)
    if asked.flaw:  # one table after the other: every run passes the same points in the same order
        scenario = replace(scenario, sections={**scenario.sections, "pull": {**scenario.sections["pull"], "tables": 1}})
    with tempfile.TemporaryDirectory() as folder:
        place = Server(asked.postgresql) if asked.postgresql else Files()
        if isinstance(place, Server):
            place.prepare(Path(folder))
        loop = Loop(scenario, Path(folder), place)
        faults = [f"without a kill: {fault}" for fault in loop.expected.faults]
        points = range(0, len(loop.expected.points), asked.every)
        for kill_at in points:
            faults += loop.judged(kill_at)
    for fault in faults:
        print(fault)  # noqa: T201
    print(f"{len(faults)} faults, {len(points)} of {len(loop.expected.points)} points")  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    code = main()
    sys.stdout.flush()
    os._exit(code)
