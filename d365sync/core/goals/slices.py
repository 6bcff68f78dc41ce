"""Slices: the disjoint stretches of time into which the goals of a group cut the records of one owner.

January, the first quarter and the year of one seller have five first and last days between them; between two
neighbouring ones lies a slice. Each record of the seller falls into one slice at most, so a sum for each slice is
enough to give every goal its own part, and a changed record changes one sum only.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple


class Lane(NamedTuple):
    """Whose records are looked at: the owner's, or everybody's (``''``); as ``manager`` sees them, if that is asked.

    ``seen`` numbers the state of what the manager may see, so that another state is another lane.
    """

    owner: str = ""
    manager: str = ""
    seen: int = 0


class GoalBounds(NamedTuple):
    """Where a goal lies within its group: the lane, and the half-open bounds of its period in stored spelling."""

    goal_id: str
    lane: Lane
    starts: str
    ends: str


class Slice(NamedTuple):
    """A stretch of one lane, half open: ``starts <= date < ends``, in stored spelling."""

    owner: str
    manager: str
    seen: int
    starts: str
    ends: str


class SliceSum(NamedTuple):
    """What the records in a slice give.

    ``total`` is the sum in the stored integer scale of the column, or the number of records where they are counted.
    ``unpriced`` counts records with an amount but without a base-currency amount.
    """

    total: int = 0
    records: int = 0
    unpriced: int = 0


class SliceSums(NamedTuple):
    """The sums of slices, in their order; an empty ``unpriced`` says that no record of any slice is unpriced."""

    totals: Sequence[int]
    records: Sequence[int]
    unpriced: Sequence[int] = ()

    def at(self, position: int) -> SliceSum:
        """Return the sum of one slice."""
        missing = self.unpriced[position] if self.unpriced else 0
        return SliceSum(self.totals[position], self.records[position], missing)

    @classmethod
    def of(cls, sums: Sequence[SliceSum]) -> SliceSums:
        """Bring single sums together."""
        if not sums:
            return NO_SUMS
        totals, records, missing = (list(column) for column in zip(*sums, strict=True))
        return cls(totals, records, missing if any(missing) else ())


NOTHING = SliceSum()
NO_SUMS = SliceSums((), ())


@dataclass(frozen=True, slots=True)
class Layout:
    """How the goals of a group are cut.

    ``slices`` are in order of lane and time, and cover exactly what some goal covers. ``spans`` gives each goal's
    slices as a half-open range of positions in them.
    """

    slices: Sequence[Slice]
    spans: Mapping[str, tuple[int, int]]


def lay_out(goals: Iterable[GoalBounds]) -> Layout:
    """Cut the lanes at every first and last day of the goals; the same goals give the same layout in any order."""
    lanes: defaultdict[Lane, list[GoalBounds]] = defaultdict(list)
    for goal in goals:
        lanes[goal.lane].append(goal)
    slices: list[Slice] = []
    spans: dict[str, tuple[int, int]] = {}
    for lane in sorted(lanes):
        position = _cut(lane, lanes[lane], slices)
        for goal in lanes[lane]:
            spans[goal.goal_id] = (position[goal.starts], position[goal.ends])
    return Layout(slices, spans)


def _cut(lane: Lane, goals: Sequence[GoalBounds], slices: list[Slice]) -> Mapping[str, int]:
    """Append a lane's slices; return for each cut how many slices of all lie before it."""
    opening: defaultdict[str, int] = defaultdict(int)
    for _, _, starts, ends in goals:
        opening[starts] += 1
        opening[ends] -= 1
    cuts = sorted(opening)
    position = dict.fromkeys(cuts, 0)
    covering = 0
    for cut, following in zip(cuts, [*cuts[1:], ""], strict=True):
        position[cut] = len(slices)
        covering += opening[cut]
        if covering:
            slices.append(Slice(*lane, cut, following))
    return position


def goal_totals(layout: Layout, sums: Sequence[int]) -> dict[str, int]:
    """Add up each goal's slices; ``sums`` are in the order of the layout's slices."""
    before = [0, *accumulate(sums)]
    return {goal_id: before[until] - before[first] for goal_id, (first, until) in layout.spans.items()}


def goals_over(layout: Layout, positions: Iterable[int]) -> set[str]:
    """Return the goals that cover one of the slices at these positions."""
    marked = [0] * len(layout.slices)
    for position in positions:
        marked[position] = 1
    before = [0, *accumulate(marked)]
    return {goal_id for goal_id, (first, until) in layout.spans.items() if before[first] != before[until]}
