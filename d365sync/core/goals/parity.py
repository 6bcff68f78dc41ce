"""Why the platform's number differs from ours: one difference, put into a class with its evidence.

The platform's number is taken apart first: what its children hold is subtracted, so that a difference of a child is
told at the child. What is left, the difference of the own part, is then tried against everything that could explain
it, arithmetic that comes out exactly before what is only possible.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from functools import reduce
from itertools import combinations, islice
from zoneinfo import ZoneInfo

from d365sync.core.counts import counted
from d365sync.core.goals.goal import Number
from d365sync.core.period import DaySpan
from d365sync.core.storage import EXACT
from d365sync.core.values import Value

MOST_COMBINED = 12
"""Records of which every combination is tried; of more, each alone and all together."""
MOST_NAMED = 3
NEAR_SHIFTS = sorted(range(-14 * 4, 14 * 4 + 1), key=abs)
FAR_SHIFTS = sorted(set(range(-24 * 4, 24 * 4 + 1)) - set(NEAR_SHIFTS), key=abs)
"""Shifts of the period that are tried, in quarters of an hour: those one zone makes, then those that two make."""


class Kind(StrEnum):
    """What a difference comes from."""

    EQUAL = "equal"
    STALE = "stale"
    VISIBILITY = "visibility"
    EDGE_DAY = "edge day"
    LIMIT = "limit"
    CLOSED_CHILD = "closed child"
    OVERRIDDEN_CHILD = "overridden child"
    CHILDREN = "children"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many records the platform counts. Source: Add complex goal criteria (rollup queries); aggregate limit."""

    query: int = 5_000
    aggregate: int = 50_000


@dataclass(frozen=True, slots=True)
class RecordFact:
    """What is known of one record.

    ``amount`` is what it adds when it counts, ``counts`` whether it is in our number, ``fits`` whether it would be if
    its date (``moment``) were in the period, ``likely`` whether it would be with another state or date: then it may
    have counted before it changed. ``changed_at`` is its last change, None when not known; ``readable`` whether the
    goal's manager may read it, None when not known.
    """

    id: str
    name: str
    owner: str
    amount: Number
    counts: bool
    fits: bool
    likely: bool = False
    moment: Value = None
    changed_at: dt.datetime | None = None
    readable: bool | None = None


@dataclass(frozen=True, slots=True)
class ChildFact:
    """What one child holds and gives: Dataverse's value, what our rollup added, and what we compute for it."""

    title: str
    native: Number
    added: Number
    computed: Number | None
    closed: bool = False
    overridden: bool = False
    rolled_up_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One column of one goal that the platform rolled up at ``rolled_up_at``.

    ``own`` is our sum of the goal's own records as of then. ``query_rows`` is how many rows the rollup query returns
    (None without one). ``instants`` says that the records' dates have a time.
    """

    native: Number | None
    own: Number
    rolled_up_at: dt.datetime
    span: DaySpan
    zone: ZoneInfo
    instants: bool = False
    records: Sequence[RecordFact] = ()
    children: Sequence[ChildFact] = ()
    query_rows: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def ours(self) -> Number:
        """Our total."""
        return total([self.own, *(child.added for child in self.children)])

    @property
    def difference(self) -> Number:
        """Ours less the platform's, an empty column taken as 0."""
        return minus(self.ours, self.native or 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """The class of a difference and its evidence.

    ``certain``: the numbers come out exactly. ``amount`` is the part of the difference the evidence accounts for,
    None when that cannot be told. ``setting`` is what would make d365sync follow the platform.
    """

    kind: Kind
    difference: Number
    words: str
    certain: bool = True
    amount: Number | None = None
    records: Sequence[RecordFact] = ()
    setting: str = ""

    @property
    def is_explained(self) -> bool:
        """Whether the difference is accounted for, or there is none."""
        return self.kind is not Kind.UNKNOWN


def classify(case: Comparison) -> Finding:
    """Put a difference into the first class that accounts for it: what comes out exactly, then what is possible."""
    if case.difference == 0:
        return Finding(Kind.EQUAL, case.difference, "equal", amount=case.difference)
    tried: tuple[Callable[[Comparison, Number], Finding | None], ...] = (
        _children_differ,
        _changed_exactly,
        _edge_day,
        _not_readable,
        _beyond_a_limit,
        _changed_possibly,
        _child_later,
        _owners_missing,
    )
    missing = minus(case.own, minus(case.native or 0, total(child.native for child in case.children)))
    found = next((finding for one in tried if (finding := one(case, missing)) is not None), None)
    return found or Finding(Kind.UNKNOWN, case.difference, "nothing that is known accounts for it", certain=False)


def _children_differ(case: Comparison, _missing: Number) -> Finding | None:
    """The own part agrees, if the platform added its children by one of the rules it may have."""
    for closed_excluded, recomputed in ((False, False), (True, False), (False, True), (True, True)):
        taken = [_taken(child, closed_excluded=closed_excluded, recomputed=recomputed) for child in case.children]
        if minus(case.native or 0, total(taken)) != case.own:
            continue
        blamed = [child for child, amount in zip(case.children, taken, strict=True) if child.added != amount]
        if any(child.closed for child in blamed):
            rule = "excluded" if closed_excluded else "stored"
            return _child_rule(case, Kind.CLOSED_CHILD, blamed, f'rollup.closed_child = "{rule}"')
        if any(child.overridden for child in blamed):
            rule = "recomputed" if recomputed else "stored"
            return _child_rule(case, Kind.OVERRIDDEN_CHILD, blamed, f'rollup.overridden_child = "{rule}"')
        return Finding(
            Kind.CHILDREN, case.difference, f"the children differ: {_titles(blamed)}", amount=case.difference
        )
    return None


def _taken(child: ChildFact, *, closed_excluded: bool, recomputed: bool) -> Number:
    if child.closed and closed_excluded:
        return 0
    if child.overridden and recomputed and child.computed is not None:
        return child.computed
    return child.native


def _child_rule(case: Comparison, kind: Kind, blamed: Sequence[ChildFact], setting: str) -> Finding:
    words = f"the platform adds another value of {_titles(blamed)}"
    return Finding(kind, case.difference, words, amount=case.difference, setting=setting)


def _changed_exactly(case: Comparison, missing: Number) -> Finding | None:
    """Records that changed since account for the difference to the last digit: they came, or they went."""
    came, went = _changed(case)
    signed = [*came, *(replace(one, amount=minus(0, one.amount)) for one in went)]
    for some in (came, signed[len(came) :], signed):
        found, is_only = _combination([one for one in some if one.amount], missing)
        if found:
            ids = {one.id for one in found}
            return _stale(case, [one for one in (*came, *went) if one.id in ids], missing, certain=is_only)
    return None


def _changed_possibly(case: Comparison, missing: Number) -> Finding | None:
    """Records that count changed since, or records that could have counted: their old values are not known."""
    came, went = _changed(case)
    if came:
        return _stale(case, came, None, certain=False)
    if went and missing < 0 and total(one.amount for one in went) >= minus(0, missing):
        return _stale(case, went, None, certain=False)
    return None


def _stale(case: Comparison, records: Sequence[RecordFact], amount: Number | None, *, certain: bool) -> Finding:
    words = f"{_count(records)} changed after the rollup of {case.rolled_up_at:%Y-%m-%d %H:%M}Z"
    return Finding(Kind.STALE, case.difference, words, certain, amount, records)


def _changed(case: Comparison) -> tuple[list[RecordFact], list[RecordFact]]:
    """Return the records that changed after the rollup: those that count, and those that may have counted before."""
    changed = [one for one in case.records if one.changed_at is not None and one.changed_at > case.rolled_up_at]
    return [one for one in changed if one.counts], [one for one in changed if one.likely and not one.counts]


def _edge_day(case: Comparison, missing: Number) -> Finding | None:
    """With the period's ends moved by a zone, or without its last day, the records give the platform's number."""
    fitting = [one for one in case.records if one.fits and isinstance(one.moment, dt.date)]
    wanted = minus(case.own, missing)
    for words, holds in _other_ends(case):
        inside = [one for one in fitting if holds(one.moment)]
        if total(one.amount for one in inside) == wanted:
            moved = [one for one in fitting if one.counts is not holds(one.moment)]
            if moved:
                amount = case.difference
                return Finding(Kind.EDGE_DAY, amount, words, True, missing, moved, "rollup.time_zone")
    return None


def _other_ends(case: Comparison) -> Iterator[tuple[str, Callable[[Value], bool]]]:
    """Yield other readings of the period in words, each with the test whether a moment is inside; the nearest first."""
    if not case.instants:
        first, last, day = case.span.first_on, case.span.last_on, dt.timedelta(days=1)
        for start, end in ((-1, -1), (1, 1), (0, -1), (-1, 0), (1, 0), (0, 1), (1, -1), (-1, 1)):
            words = f"the platform counted {first + start * day} to {last + end * day}"
            yield words, _between(first + start * day, last + end * day)
        return
    begins, ends = case.span.instants(case.zone)
    for cut, shifts in ((0, NEAR_SHIFTS), (1, NEAR_SHIFTS), (0, FAR_SHIFTS)):
        for quarters in shifts:
            if quarters or cut:
                shift, days = dt.timedelta(minutes=15 * quarters), dt.timedelta(days=cut)
                yield _shift_words(quarters, cut), _half_open(begins + shift, ends + shift - days)


def _shift_words(quarters: int, cut: int) -> str:
    parts = [f"begins its days {quarters / 4:+g} hours from ours"] if quarters else []
    return f"the platform {' and '.join([*parts, *(['does not count the last day'] if cut else [])])}"


def _between(first: dt.date, last: dt.date) -> Callable[[Value], bool]:
    return lambda moment: isinstance(moment, dt.date) and first <= moment <= last


def _half_open(begins: dt.datetime, ends: dt.datetime) -> Callable[[Value], bool]:
    return lambda moment: isinstance(moment, dt.datetime) and begins <= moment < ends


def _not_readable(case: Comparison, missing: Number) -> Finding | None:
    """The records that the goal's manager may not read are what is missing."""
    hidden = [one for one in case.records if one.counts and one.readable is False]
    if not hidden or total(one.amount for one in hidden) != missing:
        return None
    words = f"the goal's manager may not read {_count(hidden)}"
    return Finding(Kind.VISIBILITY, case.difference, words, True, missing, hidden)


def _owners_missing(case: Comparison, missing: Number) -> Finding | None:
    """All records of some owners, and of no other choice of owners, are missing: as if they could not be read."""
    counting = [one for one in case.records if one.counts]
    sums = [
        RecordFact(who, who, who, total(one.amount for one in counting if one.owner == who), True, True)
        for who in sorted({one.owner for one in counting})
    ]
    found = list(_combinations([one for one in sums if one.amount], missing))
    if len(found) != 1 or len(found[0]) == len(sums):
        return None
    names = sorted(one.id for one in found[0])
    words = f"every record of {', '.join(names)} is missing, as if the goal's manager could not read them"
    records = [one for one in counting if one.owner in names]
    return Finding(Kind.VISIBILITY, case.difference, words, False, missing, records)


def _beyond_a_limit(case: Comparison, missing: Number) -> Finding | None:
    """More records than the platform counts, and its number is the smaller one."""
    counting = [one for one in case.records if one.counts]
    if case.query_rows is not None and case.query_rows > case.limits.query and missing > 0:
        words = f"the rollup query returns {case.query_rows} records, the platform counts {case.limits.query}"
        return Finding(Kind.LIMIT, case.difference, words, certain=False)
    if len(counting) > case.limits.aggregate:
        words = f"{len(counting)} records count, the platform adds up to {case.limits.aggregate}"
        return Finding(Kind.LIMIT, case.difference, words, certain=False)
    return None


def _child_later(case: Comparison, _missing: Number) -> Finding | None:
    """A child was rolled up, or written, after its parent."""
    later = [one for one in case.children if one.rolled_up_at is not None and one.rolled_up_at > case.rolled_up_at]
    if not later:
        return None
    return Finding(Kind.STALE, case.difference, f"rolled up later: {_titles(later)}", certain=False)


def _combination(records: Sequence[RecordFact], wanted: Number) -> tuple[Sequence[RecordFact], bool]:
    """Return records whose amounts add up to exactly ``wanted``, and whether no others do as well as they.

    All of them come before some, and few before many; nothing when there are none.
    """
    if records and total(one.amount for one in records) == wanted:
        return records, True
    found = list(islice(_combinations(records, wanted), 2))
    return (found[0], len(found) == 1) if found else ((), False)


def _combinations(records: Sequence[RecordFact], wanted: Number) -> Iterator[tuple[RecordFact, ...]]:
    """Yield the choices of records whose amounts add up to exactly ``wanted``, small ones first."""
    sizes = range(1, len(records) + 1) if len(records) <= MOST_COMBINED else (1, len(records) - 1, len(records))
    for size in sizes:
        for some in combinations(records, size):
            if total(one.amount for one in some) == wanted:
                yield some


def total(amounts: Iterable[Number]) -> Number:
    """Add amounts without rounding."""
    return reduce(lambda one, other: EXACT.add(Decimal(one), Decimal(other)), amounts, Decimal(0))


def minus(one: Number, other: Number) -> Number:
    """Subtract without rounding."""
    return EXACT.subtract(Decimal(one), Decimal(other))


def _titles(children: Sequence[ChildFact]) -> str:
    more = f" and {len(children) - MOST_NAMED} more" if len(children) > MOST_NAMED else ""
    return ", ".join(f"'{child.title}'" for child in children[:MOST_NAMED]) + more


def _count(records: Sequence[RecordFact]) -> str:
    return counted(len(records), "record")
