"""Growth and memory: a full recompute in a process of its own, at two sizes."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench import ours
from tests.bench.data import Size
from tests.bench.report import told
from tests.bench.rollup import working_copy

LIMIT_MIB = 1024
ROUNDS = 3


def growth(part: str, small: Size, large: Size, folder: Path) -> list[object]:
    """Measure both sizes, and compare how time grew with how rows and goals grew."""
    results = [_in_a_child(size, folder) for size in (small, large)]
    grown = results[1]["seconds"] / results[0]["seconds"]
    allowed = (large.rows + large.goals) / (small.rows + small.goals)
    peak = results[1]["peak_mib"]
    lines: list[object] = [
        told(f"{part}: {size.goals:,} goals, {size.rows:,} rows", "full recompute", result["seconds"])
        for size, result in zip((small, large), results, strict=True)
    ]
    return [
        *lines,
        (
            f"| {part} | time grew {grown:.2f} times | | rows and goals {allowed:.2f} times | | | "
            f"no worse than linear: {_word(grown <= allowed)} |"
        ),
        f"| {part} | peak memory {peak:.0f} MiB | | | | | under {LIMIT_MIB} MiB: {_word(peak < LIMIT_MIB)} |",
    ]


def _word(met: bool) -> str:
    return "yes" if met else "no"


def _in_a_child(size: Size, folder: Path) -> dict[str, float]:
    with working_copy(size, folder) as file:
        done = subprocess.run([sys.executable, "-m", __name__, str(file)], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def peak_mib() -> float:
    """Return the most memory this process held, in MiB.

    Linux counts what the parent held before the program was loaded into ``ru_maxrss``; its own account does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Recompute the mirror of the file named, and print seconds and peak memory."""
    times = []
    with ours.opened(Path(sys.argv[1])) as bench:
        bench.recompute()
        for _ in range(ROUNDS):
            bench.forget()
            started = time.perf_counter()
            bench.recompute()
            times.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(times), "peak_mib": peak_mib()}))  # noqa: T201


if __name__ == "__main__":
    main()
