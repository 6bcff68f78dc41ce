"""Records that count twice in one total: looked for, kept, and said; never taken out.

A pair of goals is looked at again when the query or the days of either differ from when it was last looked at, or when
the records of either changed.

IO: SQL, through the mirror.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.goals.bounds import bounds_in, owner_span
from d365sync.core.goals.doubles import Candidates, Double, Doubles, Pair, Shared, candidates
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.participation import Group
from d365sync.core.goals.rollup import OverriddenChild
from d365sync.core.goals.slices import Slice
from d365sync.core.goals.writes import overridden_by_person
from d365sync.core.period import DaySpan
from d365sync.errors import FetchXmlError
from d365sync.mirror import doubles as facts
from d365sync.sync.cuts import goal_spans, lane_of

if TYPE_CHECKING:
    from d365sync.sync.snapshot import Line, Snapshot

DIGITS = 32


def begin_watch(line: Line) -> bool:
    """Begin to watch for doubles, before own parts are computed; say whether what the last look kept can be trusted.

    With ``rollup.double_counting`` off nothing is kept.
    """
    if line.config.rollup.double_counting == "off":
        facts.forget_pairs(line.mirror)
        return False
    return facts.begin_look(line.mirror)


def watched_doubles(
    line: Line, snapshot: Snapshot, theirs: frozenset[str], recomputed: frozenset[str], *, trusted: bool, idle: bool
) -> Doubles:
    """Return the doubles of a snapshot, looking only at the pairs that can have changed, and keep what was found.

    ``theirs`` are the goals overridden by a person, ``recomputed`` those whose own part was computed in this cycle.
    ``trusted`` says that the last look came to its end, ``idle`` that nothing at all changed since.
    """
    rules, made_by = _rules(line), facts.looked_by(line.mirror) if trusted else None
    if idle and made_by is not None and made_by[0] == rules:
        facts.end_look(line.mirror)
        return _all_kept(line)
    look = _Look(line, snapshot)
    goals = look.goals(theirs)
    if made_by == (rules, goals):
        touched = facts.touched_pairs(line.mirror, recomputed)
        facts.keep_pairs(line.mirror, (), look.again(touched), facts.unchecked_tops(line.mirror), (rules, goals))
        return _all_kept(line)
    kept = facts.kept_pairs(line.mirror)
    chosen = look.candidates(theirs)
    usable = [pair for pair in chosen.pairs if look.is_usable(pair)]
    due = (pair for pair in usable if made_by is None or look.is_due(pair, kept.get(pair.key), recomputed))
    gone = kept.keys() - {pair.key for pair in usable}
    facts.keep_pairs(line.mirror, gone, look.kept(due), chosen.unchecked, (rules, goals))
    return _all_kept(line)


def _all_kept(line: Line) -> Doubles:
    return Doubles(_found(facts.kept_pairs(line.mirror, shared_only=True)), facts.unchecked_tops(line.mirror))


def kept_doubles(line: Line, snapshot: Snapshot) -> Doubles:
    """Return what the last cycle kept, as far as its goals are still there."""
    goals, kept = snapshot.book.goals, _all_kept(line)
    return Doubles(
        tuple(one for one in kept.found if {one.at, one.first, one.second} <= goals.keys()),
        tuple(top for top in kept.unchecked if top in goals),
    )


def all_doubles(line: Line, snapshot: Snapshot, *, most: int = facts.SAMPLE) -> Doubles:
    """Look at every pair of a snapshot anew, and keep nothing; ``most`` records of each pair are named."""
    look = _Look(line, snapshot)
    chosen = look.candidates(_theirs(line, snapshot))
    return Doubles(
        _found(look.kept([pair for pair in chosen.pairs if look.is_usable(pair)], most=most)), chosen.unchecked
    )


def double_counted(line: Line, snapshot: Snapshot, goal: Goal, *, most: int = facts.SAMPLE) -> tuple[Double, ...]:
    """Return what one goal's own total holds twice, in the goal itself or through its children; nothing is kept.

    ``most`` records of each pair are named.
    """
    look = _Look(line, snapshot)
    pairs = look.candidates(_theirs(line, snapshot)).pairs
    return _found(look.kept([pair for pair in pairs if pair.at == goal.id and look.is_usable(pair)], most=most))


def _rules(line: Line) -> str:
    """Return a text that differs when the settings for open points do."""
    config = line.config
    return _digest_of([section.model_dump(mode="json") for section in (config.rollup, config.fiscal, config.fetchxml)])


def _theirs(line: Line, snapshot: Snapshot) -> frozenset[str]:
    return overridden_by_person(snapshot.book.goals.values(), line.journal.written_values(snapshot.book.goals))


def _found(kept: dict[facts.PairKey, facts.Kept]) -> tuple[Double, ...]:
    return tuple(Double(one.at, *key, one.shared) for key, one in sorted(kept.items()) if one.shared.records)


def _digest_of(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:DIGITS]


class _Look:
    """One look at one snapshot: predicates and bounds are made once."""

    def __init__(self, line: Line, snapshot: Snapshot) -> None:
        self._line = line
        self._snapshot = snapshot
        self._spans: dict[str, DaySpan] = {}
        self._seen = seen_versions(line)
        self._predicates: dict[tuple[facts.Side, object], tuple[Predicate, str] | None] = {}
        self._digests: dict[tuple[object, str, facts.Side], str] = {}

    def candidates(self, theirs: frozenset[str]) -> Candidates:
        one = self._snapshot
        self._spans = goal_spans(one.book, one.grouping.groups, one.zone, [])
        rule = self._line.config.rollup.overridden_child
        return candidates(one.book, one.forest, one.grouping, self._spans, theirs=theirs, overridden_child=rule)

    def is_usable(self, pair: Pair) -> bool:
        """Say whether both queries can be used; where one cannot, its goal has a problem that says so."""
        return self._side(pair.first_group, "a") is not None and self._side(pair.second_group, "b") is not None

    def is_due(self, pair: Pair, kept: facts.Kept | None, recomputed: frozenset[str]) -> bool:
        if kept is None or kept.at != pair.at or kept.definition != self._definition(pair):
            return True
        return pair.first in recomputed or pair.second in recomputed

    def goals(self, theirs: frozenset[str]) -> str:
        """Return a word that differs when other goals, trees, days or queries may make other pairs."""
        one = self._snapshot
        stored = theirs if self._line.config.rollup.overridden_child is OverriddenChild.STORED else frozenset()
        digest = hashlib.sha256()
        for group in one.grouping.groups:
            side = self._side(group, "a")
            digest.update(repr((group.key, side and side[1], group.goal_ids)).encode())
        for goal in one.book.goals.values():
            place = goal.id, goal.parent_id, goal.metric_id, goal.is_open, goal.id in stored, goal.owner_id
            digest.update(repr(place).encode())
            days = goal.starts_at, goal.ends_at, goal.is_fiscal, goal.fiscal_year, goal.fiscal_period
            digest.update(repr(days).encode())
        digest.update(repr((one.book.organization.fiscal, one.zone.key)).encode())
        return digest.hexdigest()[:DIGITS]

    def again(self, touched: Mapping[facts.PairKey, facts.Kept]) -> dict[facts.PairKey, facts.Kept]:
        """Look again at pairs kept by the same goals, trees, days and queries."""
        wanted = {goal_id for first, second, _ in touched for goal_id in (first, second)}
        groups = {
            (goal_id, group.slot.column): group
            for group in self._snapshot.grouping.groups
            for goal_id in group.goal_ids
            if goal_id in wanted
        }
        return self.kept(
            Pair(kept.at, first, second, column, groups[first, column], groups[second, column])
            for (first, second, column), kept in touched.items()
        )

    def kept(self, pairs: Iterable[Pair], *, most: int = facts.SAMPLE) -> dict[facts.PairKey, facts.Kept]:
        """Look at pairs, one statement for all that share both groups."""
        by_groups: defaultdict[tuple[object, object], list[Pair]] = defaultdict(list)
        for pair in pairs:
            by_groups[pair.first_group.key, pair.second_group.key].append(pair)
        found: dict[facts.PairKey, facts.Kept] = {}
        for alike in by_groups.values():
            for pair, shared in zip(alike, self._shared(alike, most), strict=True):
                found[pair.key] = facts.Kept(pair.at, self._definition(pair), shared)
        return found

    def _shared(self, alike: Sequence[Pair], most: int) -> list[Shared]:
        groups = alike[0].first_group, alike[0].second_group
        first, second = self._side(groups[0], "a"), self._side(groups[1], "b")
        if first is None or second is None:
            raise ValueError("a pair that cannot be used")
        bounds = [
            (self._bound(pair.first_group, pair.first), self._bound(pair.second_group, pair.second)) for pair in alike
        ]
        name = self._snapshot.schema.table(groups[0].table).primary_name
        return facts.shared_records(self._line.mirror, groups, (first[0], second[0]), bounds, name, most=most)

    def _side(self, group: Group, side: facts.Side) -> tuple[Predicate, str] | None:
        """Return a group's condition on one side of a pair, and a text that differs when the condition does."""
        key = side, group.key
        if key not in self._predicates:
            try:
                made = self._compiled(group, side)
            except FetchXmlError:
                self._predicates[key] = None
            else:
                self._predicates[key] = made, _digest_of([made.sql, sorted(made.parameters.items())])
        return self._predicates[key]

    def _compiled(self, group: Group, side: facts.Side) -> Predicate:
        one = self._snapshot
        context, dialect = one.context_of(group), self._line.mirror.dialect
        return facts.side_predicate(group, one.schema, context, dialect, side, sighted=self._seen is not None)

    def _bound(self, group: Group, goal_id: str) -> Slice:
        one, goal = self._snapshot, self._snapshot.book.goals[goal_id]
        if goal_id not in self._spans:
            self._spans[goal_id] = owner_span(goal, one.book, one.zone)
        return Slice(*lane_of(goal, group, self._seen), *bounds_in(group.dates, self._spans[goal_id], one.zone))

    def _definition(self, pair: Pair) -> str:
        return self._digest(pair.first_group, pair.first, "a") + self._digest(pair.second_group, pair.second, "b")

    def _digest(self, group: Group, goal_id: str, side: facts.Side) -> str:
        key = group.key, goal_id, side
        if key not in self._digests:
            made = self._side(group, side)
            parts = [made[1] if made else "", *self._bound(group, goal_id)]
            self._digests[key] = _digest_of(parts)
        return self._digests[key]


def seen_versions(line: Line) -> Mapping[tuple[str, str], int] | None:
    """Return the version of what each manager may read, by table and manager; None when the service's eyes count."""
    if line.config.rollup.visibility != "manager":
        return None
    with line.mirror.visible() as ids:
        return {pair: state.version for pair, state in ids.states().items()}
