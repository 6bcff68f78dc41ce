"""Benchmarks: ways measured in turn in one run, medians, ratios, and the bounds they have to keep. Run by `make bench`.

Parts: ``a`` full recompute, ``b`` with rollup queries, ``c`` growth and memory, ``d`` small changes, ``e`` compile,
``demo`` the demo organization, ``throttled`` a server that asks for patience, ``start`` how soon the command answers,
``listing`` pull and store against Microsoft's client, ``million`` against the bare limit, ``ranges`` page after page,
``wire`` requests and bytes of cycles against their minimum.
Every way's numbers are compared with ours before anything is measured.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from tests.bench.changes import small_change
from tests.bench.compile import compile_times
from tests.bench.data import Size
from tests.bench.demo import demo_pairs
from tests.bench.large import growth
from tests.bench.reading import listing, million, ranges
from tests.bench.report import HEADER, printed
from tests.bench.rollup import full
from tests.bench.startup import start_up
from tests.bench.throttled import throttled
from tests.bench.wire import wire

ELEVEN_THOUSAND = Size(1_000_000, teams=10, sellers=312)
HUNDRED_THOUSAND = Size(1_000_000, teams=60, sellers=2_879)
FIVE_MILLION = Size(5_000_000, teams=60, sellers=2_879)
QUERIES = 200
READS = 40
PARTS = ("a", "b", "c", "d", "e", "demo", "throttled", "start", "listing", "million", "ranges", "wire")


def measure(parts: Sequence[str], scale: float, rounds: int, folder: Path) -> Iterator[object]:
    """Measure parts, and return their lines as they are done."""
    small, many, large = (size.scaled(scale) for size in (ELEVEN_THOUSAND, HUNDRED_THOUSAND, FIVE_MILLION))
    queried = [
        Size(one.rows, one.teams, one.sellers, QUERIES).scaled(scale) for one in (ELEVEN_THOUSAND, HUNDRED_THOUSAND)
    ]
    if "a" in parts:
        for size in (small, many):
            yield from full("a", size, folder, rounds)
    if "b" in parts:
        for size in queried:
            yield from full(f"b, {size.queries} queries", size, folder, min(rounds, 3))
    if "c" in parts:
        yield from growth("c", many, large, folder)
    if "d" in parts:
        for size in (small, many):
            yield from small_change("d", size, folder, rounds + 2)
    yield from _unscaled(parts, rounds)
    yield from _read(parts, scale, rounds)


def _unscaled(parts: Sequence[str], rounds: int) -> Iterator[object]:
    if "e" in parts:
        yield from compile_times("e", rounds)
    if "demo" in parts:
        yield from demo_pairs(rounds)
    if "throttled" in parts:
        yield from throttled("throttled", READS)
    if "wire" in parts:
        yield from wire("wire")
    if "start" in parts:
        yield from start_up("start", rounds)


def _read(parts: Sequence[str], scale: float, rounds: int) -> Iterator[object]:
    if "listing" in parts:
        yield from listing("listing", int(20_000 * scale), rounds)
    if "million" in parts:
        yield from million("million", int(1_000_000 * scale), max(1, rounds // 2))
    if "ranges" in parts:
        yield from ranges("ranges", max(4, int(160 * scale)), max(2, int(100 * scale)), 0.5 * scale)


def main() -> None:
    """Read the options, measure and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench", description="d365sync's benchmarks")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas between: {', '.join(PARTS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="share of rows, goals and queries to generate")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median is taken")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "d365sync-bench")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    printed([HEADER])
    for line in measure(parts, options.scale, options.rounds, options.folder):
        printed([line])


if __name__ == "__main__":
    main()
