"""Which goals may count the same record twice in one total: found before any record is looked at.

A total holds the records of its goal and of every goal below that adds to it, and nothing takes out what is there
twice. Two goals of one tree may share records if they feed the same column over overlapping days, and either both ask
for the same owner or one of them asks for all owners.

Source: Add complex goal criteria (preventing double counting); Create goal hierarchy, goals, and targets.

Pure.
"""

from __future__ import annotations

import datetime as dt
import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from d365sync.core.counts import by_count, counted
from d365sync.core.goals.forest import Forest
from d365sync.core.goals.goal import SLOT_BY_COLUMN, DataType, Goal, GoalBook, Number
from d365sync.core.goals.participation import Group, Grouping
from d365sync.core.goals.rollup import OverriddenChild
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem, Severity
from d365sync.core.values import plain

MOST_PAIRS = 500_000
"""Pairs of one tree and column beyond which the rest is not checked, and that is said."""
MOST_WIDE_PAIRS = 2_000
"""The same for pairs of which both goals ask for all owners: each is a search through the whole table."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two goals that may count the same record, and ``at``, the lowest goal whose total then holds it twice.

    If one goal is above the other it is ``first``, and ``at`` as well.
    """

    at: str
    first: str
    second: str
    column: str
    first_group: Group
    second_group: Group

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells a pair from every other: both goals and the column."""
        return self.first, self.second, self.column


@dataclass(frozen=True, slots=True)
class Shared:
    """The records two goals share: how many, what they add to a column, and the first few by id, with their names.

    ``amount`` is in base currency for money, and the number of records where records are counted.
    """

    records: int
    amount: Number
    sample: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Double:
    """Records that two goals share and that the total of ``at`` therefore holds twice; see :class:`Pair`."""

    at: str
    first: str
    second: str
    column: str
    shared: Shared


@dataclass(frozen=True, slots=True)
class Doubles:
    """What a look found; ``unchecked`` are the tops of trees that have too many pairs to look at all of them."""

    found: tuple[Double, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidates:
    """The pairs to check, in a fixed order; ``unchecked`` are the tops of trees that have too many of them."""

    pairs: tuple[Pair, ...]
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Member:
    goal_id: str
    owner_id: str | None
    first_on: dt.date
    last_on: dt.date
    group: Group

    def overlaps(self, other: _Member) -> bool:
        return self.first_on <= other.last_on and other.first_on <= self.last_on


@dataclass(frozen=True, slots=True)
class Trees:
    """The trees along which totals are added: what is closed, or stored for another reason, begins a tree of its own.

    ``top`` is each goal's root; ``place`` and ``size`` number the goals so that those below one follow it directly.
    """

    above: Mapping[str, str]
    top: Mapping[str, str]
    place: Mapping[str, int]
    size: Mapping[str, int]

    def holds(self, upper: str, lower: str) -> bool:
        """Say whether a goal's total holds another's (or is the same goal's)."""
        if self.top[upper] != self.top[lower]:
            return False
        return 0 <= self.place[lower] - self.place[upper] < self.size[upper]

    def path(self, goal_id: str) -> Iterator[str]:
        """Yield the goals above a goal whose totals hold its own, the nearest first."""
        current = self.above.get(goal_id)
        while current is not None:
            yield current
            current = self.above.get(current)

    def meeting(self, one: str, other: str) -> str:
        """Return the lowest goal whose total holds both of two goals of one tree."""
        while not self.holds(one, other):
            one = self.above[one]
        return one


def candidates(
    book: GoalBook,
    forest: Forest,
    grouping: Grouping,
    spans: Mapping[str, DaySpan],
    *,
    theirs: frozenset[str] = frozenset(),
    overridden_child: OverriddenChild = OverriddenChild.STORED,
    most_wide: int = MOST_WIDE_PAIRS,
) -> Candidates:
    """Return the pairs of goals that may count the same records.

    ``theirs`` are the goals overridden by a person; what they add by the rule "stored" is no record of theirs.
    ``most_wide`` is the most pairs of one tree and column of which both goals ask for all owners.
    """
    stored = theirs if overridden_child is OverriddenChild.STORED else frozenset()
    trees = adding_trees(book.goals, forest, stored)
    pairs: list[Pair] = []
    unchecked: set[str] = set()
    for (top, column), members in _by_tree(book, grouping, spans, trees).items():
        if len(members) > 1 and not _pair_up(trees, column, members, pairs, most_wide):
            unchecked.add(top)
    return Candidates(tuple(pairs), tuple(sorted(unchecked)))


def adding_trees(goals: Mapping[str, Goal], forest: Forest, stored: frozenset[str]) -> Trees:
    """Arrange the open goals by who adds whose computed total; goals on circles are left out.

    A goal of another metric than its parent's begins a tree too: it is not added, and may count another table.
    """
    placed = frozenset(forest.bottom_up)
    above: dict[str, str] = {}
    size = dict.fromkeys(forest.bottom_up, 1)
    for goal_id in forest.bottom_up:
        goal = goals[goal_id]
        parent = goal.parent_id
        if parent in placed and goal_id not in stored and _adds_to(goal, goals[parent]):
            above[goal_id] = parent
            size[parent] += size[goal_id]
    top: dict[str, str] = {}
    place: dict[str, int] = {}
    free: dict[str, int] = {}
    for goal_id in reversed(forest.bottom_up):
        parent = above.get(goal_id)
        top[goal_id] = goal_id if parent is None else top[parent]
        place[goal_id] = 0 if parent is None else free[parent]
        free[goal_id] = place[goal_id] + 1
        if parent is not None:
            free[parent] += size[goal_id]
    return Trees(above, top, place, size)


def _adds_to(goal: Goal, parent: Goal) -> bool:
    return goal.is_open and parent.is_open and goal.metric_id == parent.metric_id


def _by_tree(
    book: GoalBook, grouping: Grouping, spans: Mapping[str, DaySpan], trees: Trees
) -> Mapping[tuple[str, str], Sequence[_Member]]:
    members: defaultdict[tuple[str, str], list[_Member]] = defaultdict(list)
    for group in grouping.groups:
        column = group.slot.column
        for goal_id in group.goal_ids:
            if goal_id in spans and goal_id in trees.top:
                span = spans[goal_id]
                owner = book.goals[goal_id].owner_id if group.owned else None
                member = _Member(goal_id, owner, span.first_on, span.last_on, group)
                members[trees.top[goal_id], column].append(member)
    return members


def _pair_up(trees: Trees, column: str, members: Sequence[_Member], pairs: list[Pair], most_wide: int) -> bool:
    """Add the pairs of one tree and column; say whether all of them found room."""
    every = sorted((one for one in members if one.owner_id is None), key=_by_start)
    narrow = itertools.chain(_of_one_owner(members), _wide_and_owned(trees, every, members))
    wide = _overlapping(every)
    return _add(trees, column, narrow, MOST_PAIRS, pairs) & _add(trees, column, wide, most_wide, pairs)


def _of_one_owner(members: Sequence[_Member]) -> Iterator[tuple[_Member, _Member]]:
    owned: defaultdict[str, list[_Member]] = defaultdict(list)
    for one in members:
        if one.owner_id is not None:
            owned[one.owner_id].append(one)
    for own in owned.values():
        if len(own) > 1:
            yield from _overlapping(sorted(own, key=_by_start))


def _wide_and_owned(
    trees: Trees, every: Sequence[_Member], members: Sequence[_Member]
) -> Iterator[tuple[_Member, _Member]]:
    """Yield goals of all owners with goals of one: those above or below each other first, then the others."""
    owned = sorted((one for one in members if one.owner_id is not None), key=lambda one: trees.place[one.goal_id])
    places = [trees.place[one.goal_id] for one in owned]
    by_id = {one.goal_id: one for one in owned}
    for wide in every:
        place = trees.place[wide.goal_id]
        below = owned[bisect_left(places, place) : bisect_left(places, place + trees.size[wide.goal_id])]
        above = (by_id[one] for one in trees.path(wide.goal_id) if one in by_id)
        yield from ((wide, one) for one in itertools.chain(below, above) if wide.overlaps(one))
    for wide in every:
        for one in owned:
            apart = not trees.holds(wide.goal_id, one.goal_id) and not trees.holds(one.goal_id, wide.goal_id)
            if apart and wide.overlaps(one):
                yield wide, one


def _overlapping(members: Sequence[_Member]) -> Iterator[tuple[_Member, _Member]]:
    """Yield the pairs of members whose days overlap; ``members`` are in order of their first day."""
    running: list[_Member] = []
    for one in members:
        running = [other for other in running if other.last_on >= one.first_on]
        yield from ((other, one) for other in running)
        running.append(one)


def _by_start(member: _Member) -> tuple[dt.date, str]:
    return member.first_on, member.goal_id


def _add(trees: Trees, column: str, found: Iterator[tuple[_Member, _Member]], most: int, pairs: list[Pair]) -> bool:
    for count, (one, other) in enumerate(found):
        if count == most:
            return False
        at = trees.meeting(one.goal_id, other.goal_id)
        second_is_above = at == other.goal_id
        if second_is_above or (at != one.goal_id and other.goal_id < one.goal_id):
            one, other = other, one
        pairs.append(Pair(at, one.goal_id, other.goal_id, column, one.group, other.group))
    return True


def double_problems(book: GoalBook, doubles: Doubles) -> Iterator[Problem]:
    """Yield one warning per goal and column whose total holds records twice, and one per tree not wholly looked at."""
    by_goal: defaultdict[tuple[str, str], list[Double]] = defaultdict(list)
    for double in doubles.found:
        by_goal[double.at, double.column].append(double)
    for (goal_id, column), found in sorted(by_goal.items()):
        worst = max(found, key=lambda one: (one.shared.records, abs(one.shared.amount), one.first, one.second))
        yield Problem(
            code="double-count",
            message=_sentence(book, column, worst, len(found) - 1),
            goal_id=goal_id,
            severity=Severity.WARNING,
            hint=f"`d365sync explain {goal_id} --double` shows the records; let one of the goals leave them out",
        )
    for goal_id in doubles.unchecked:
        title = book.goals[goal_id].title
        yield Problem(
            code="double-count-unchecked",
            message=f"so many goals below '{title}' may share records that not all of them were compared",
            goal_id=goal_id,
            severity=Severity.WARNING,
        )


def _sentence(book: GoalBook, column: str, double: Double, others: int) -> str:
    first, second, at = (book.goals[one].title for one in (double.first, double.second, double.at))
    shared = double.shared
    records = f"{counted(shared.records, 'record')}{_worth(book, column, shared.amount)}"
    verb = by_count(shared.records, "counts", "count")
    if double.at == double.first:
        is_child = book.goals[double.second].parent_id == double.first
        below = f"again through {'its child ' if is_child else ''}'{second}'"
        text = f"{records} {verb} in '{first}' and {below}"
    else:
        text = f"{records} {verb} in '{first}' and again in '{second}', and both add to '{at}'"
    return text + (f" (so do others, through {counted(others, 'more pair')} of goals)" if others else "")


def _worth(book: GoalBook, column: str, amount: Number) -> str:
    slot = SLOT_BY_COLUMN[column]
    if slot.data_type is DataType.INTEGER:
        return ""
    code = book.organization.base_currency_code if slot.data_type is DataType.MONEY else ""
    return f" worth {plain(Decimal(amount))}{' ' if code else ''}{code}"
