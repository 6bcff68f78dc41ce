"""Measuring ways in turn, and printing medians and ratios as a Markdown table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Way = Callable[[], object]
Kind = Callable[[float, float], bool]


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison: ours against another way. ``goal`` is the bound asked for, ``met`` None where there is none."""

    part: str
    ours: str
    other: str
    ours_s: float
    other_s: float
    goal: str
    met: bool | None

    def __str__(self) -> str:
        ratio = self.ours_s / self.other_s
        shown = f"{ratio:.2f}" if ratio >= 1 else f"1/{1 / ratio:.1f}"
        verdict = "" if self.met is None else f"{self.goal}: {'yes' if self.met else 'no'}"
        return (
            f"| {self.part} | {self.ours} | {milliseconds(self.ours_s)} | {self.other} | "
            f"{milliseconds(self.other_s)} | {shown} | {verdict} |"
        )


HEADER = "| part | ours | ms | against | ms | ratio | goal |\n| --- | --- | ---: | --- | ---: | ---: | --- |"


def measured(ways: Mapping[str, Way], rounds: int, before: Mapping[str, Way] | None = None) -> dict[str, float]:
    """Return the median seconds of each way; rounds are taken in turn, ``before`` prepares one unmeasured."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            if before and name in before:
                before[name]()
            if rounds > 1:
                gc.collect()
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(one) for name, one in times.items()}


def within(part: str, ours: tuple[str, float], other: tuple[str, float], bound: float) -> Line:
    """Compare: ours takes at most ``bound`` times as long."""
    return Line(part, ours[0], other[0], ours[1], other[1], f"within {bound:g}x", ours[1] <= bound * other[1])


def faster(part: str, ours: tuple[str, float], other: tuple[str, float], times: float = 1) -> Line:
    """Compare: the other way takes at least ``times`` as long."""
    goal = "faster" if times == 1 else f"{times:g}x faster"
    return Line(part, ours[0], other[0], ours[1], other[1], goal, times * ours[1] <= other[1])


def told(part: str, name: str, seconds: float) -> str:
    """Return a line for a time that is compared with nothing."""
    return f"| {part} | {name} | {milliseconds(seconds)} | | | | |"


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds, with three figures."""
    value = seconds * 1000
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def printed(lines: Sequence[object]) -> None:
    """Print lines as they come."""
    for line in lines:
        print(line, flush=True)  # noqa: T201


def equal_line(title: str, what: str, counted: int, least: int) -> str:
    """Return the line that compares a count with the arithmetic minimum."""
    verdict = "yes" if counted == least else "no"
    return f"| {title} | {what}, counted: {counted:,} | | the minimum: {least:,} | | | equal: {verdict} |"
