"""Groups of goals on their way through a recompute: what is kept of them, how they are cut, what must be summed.

Pure.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.fetchxml.used import columns_used, tables_joined
from d365sync.core.goals.bounds import bounds_in, owner_span
from d365sync.core.goals.goal import Goal, GoalBook
from d365sync.core.goals.participation import Group
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.goals.slices import Lane, Layout, Slice, SliceSum, SliceSums, goal_totals
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem
from d365sync.core.rowshape import DAMAGED
from d365sync.core.schema import Schema
from d365sync.mirror.slices import KeptGroup, KeptSlices
from d365sync.mirror.sums import amount_of
from d365sync.mirror.unfit import Unfit

MANY_OWNERS = 50
"""Owners in a group beyond which the rows it links to are taken as a set, not looked up record by record."""
SLICES_PER_STATEMENT = 5000
"""Slices summed by one statement, so that several processors share the work evenly."""


@dataclass(slots=True)
class Refreshed:
    """One group with what its kept sums have become.

    ``kept`` None: nothing usable is kept, or it must be summed from nothing (``again``: its slices still stand).
    ``updates`` are new sums of kept slices, by id.
    """

    group: Group
    predicate: Predicate
    key: str
    fingerprint: str
    kept: KeptGroup | None
    again: bool = False
    updates: Mapping[int, SliceSum] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """One group with its goals cut: the sums that are known, and the slices that must be summed.

    ``again`` are the ids of the kept slices when all of them must be; otherwise ``missing`` are the slices that are
    not among the ``known``.
    """

    one: Refreshed
    layout: Layout
    kept: KeptSlices
    known: Mapping[Slice, SliceSum] = field(default_factory=dict)
    missing: Sequence[Slice] = ()
    again: Sequence[int] = ()

    @property
    def wanted(self) -> Sequence[Slice]:
        """The slices to be summed."""
        return self.layout.slices if self.again else self.missing

    @property
    def question(self) -> tuple[object, ...]:
        """What groups share that may ask for the same records: their condition, and the ends of what they want."""
        predicate, wanted = self.one.predicate, self.wanted
        asked = predicate.sql, tuple(predicate.parameters.items())
        return self.one.group.table, asked, len(wanted), tuple(wanted[:1]), tuple(wanted[-1:])

    def pieces(self, schema: Schema) -> list[slice]:
        """Return the stretches to be summed by one statement each; a group with links is summed in one."""
        count = len(self.again or self.missing)
        step = count if tables_joined(self.one.group.fetch, schema) else SLICES_PER_STATEMENT
        return [slice(start, start + step) for start in range(0, count, max(step, 1))]


def columns_read(group: Group, schema: Schema) -> Mapping[str, set[str]]:
    """Return, by table, the columns that decide which records of a group count, and what is summed of them."""
    read = {name: set(columns) for name, columns in columns_used(group.fetch, schema).items()}
    read.setdefault(group.table, set()).update(one.logical_name for one in (group.value, group.base) if one)
    return read


def without_goals(group: Group, goal_ids: Container[str]) -> list[Group]:
    """Return the group without these goals; nothing if none is left."""
    left = tuple(goal_id for goal_id in group.goal_ids if goal_id not in goal_ids)
    return [replace(group, goal_ids=left)] if left else []


def concerned_goals(
    book: GoalBook, group: Group, schema: Schema, table: str, left_out: Iterable[Unfit]
) -> dict[str, str]:
    """Return the goals of a group for which a record may count of which a value was left out, each with the record.

    A goal that counts its owner's records only is not concerned by those of others, unless whose they are is unknown.
    """
    records = list(left_out)
    by_owner = {one.owner: one.record for one in reversed(records)}
    only_owners = group.owned and table == group.table and table not in tables_joined(group.fetch, schema)
    if not only_owners or None in by_owner:
        return dict.fromkeys(group.goal_ids, records[0].record)
    owners = {goal_id: book.goals[goal_id].owner_id for goal_id in group.goal_ids}
    return {goal_id: by_owner[owner] for goal_id, owner in owners.items() if owner in by_owner}


def unusable_value(book: GoalBook, column: tuple[str, str], concerned: Mapping[str, str]) -> list[Problem]:
    """Return the problems of goals when a value of a column they read is not in the mirror.

    ``column`` is table and column as the mirror names what it left out; ``concerned`` are the goals with the record.
    """
    table, name = column
    damaged = name.startswith(DAMAGED)
    why = "is damaged" if damaged else "is too large to be mirrored exactly"
    mend = "correct the record" if damaged else "correct the record, or give the column fewer decimal places"
    return [
        Problem(
            code="record-damaged" if damaged else "record-too-large",
            message=(
                f"'{book.goals[goal_id].title}' cannot be computed: '{name.removeprefix(DAMAGED)}' of the record "
                f"{record} of '{table}' {why}"
            ),
            goal_id=goal_id,
            hint=mend,
        )
        for goal_id, record in concerned.items()
    ]


def hidden_column(book: GoalBook, group: Group, table: str, column: str) -> list[Problem]:
    """Return the problems of a group's goals when they read a secured column that shows no value."""
    return [
        Problem(
            code="column-hidden",
            message=(
                f"'{book.goals[goal_id].title}' cannot be computed: the column '{column}' of '{table}' is secured, and "
                "no record shows a value in it"
            ),
            goal_id=goal_id,
            hint="give the application user a column security profile that may read it",
        )
        for goal_id in group.goal_ids
    ]


def not_readable(book: GoalBook, group: Group, table: str, reason: str, mend: str) -> list[Problem]:
    """Return the problems of a group's goals when a table they read may not be read any more."""
    return [
        Problem(
            code="table-unreadable",
            message=f"'{book.goals[goal_id].title}' cannot be computed: '{table}' may not be read: {reason}",
            goal_id=goal_id,
            hint=mend or f"give the application user read on '{table}' at organization level",
        )
        for goal_id in group.goal_ids
    ]


def goal_spans(book: GoalBook, groups: Iterable[Group], zone: ZoneInfo, problems: list[Problem]) -> dict[str, DaySpan]:
    """Return the days of every grouped goal; a goal without a usable period gets a problem instead."""
    spans: dict[str, DaySpan] = {}
    alike: dict[tuple[object, ...], DaySpan] = {}
    for goal_id in sorted({goal_id for group in groups for goal_id in group.goal_ids}):
        goal = book.goals[goal_id]
        period = (goal.starts_at, goal.ends_at, goal.is_fiscal, goal.fiscal_year, goal.fiscal_period)
        try:
            spans[goal_id] = alike.get(period) or alike.setdefault(period, owner_span(goal, book, zone))
        except (ValueError, OverflowError) as error:
            problems.append(Problem("goal-period", f"'{goal.title}' has no usable period: {error}", goal_id))
    return spans


def layout_key(group: Group) -> tuple[object, ...]:
    """Return what tells apart groups whose goals are cut differently."""
    return group.goal_ids, group.dates, group.owned, group.table


def lane_of(goal: Goal, group: Group, seen: Mapping[tuple[str, str], int] | None) -> Lane:
    """Return whose records a group looks at for a goal; with ``seen``, as its manager sees them.

    ``seen`` numbers what each manager may read, by table and manager.
    """
    owner = (goal.owner_id or "") if group.owned else ""
    if seen is None:
        return Lane(owner)
    manager = goal.manager_id or ""
    return Lane(owner, manager, seen.get((group.table, manager), 0))


def whole_slice(goal: Goal, group: Group, span: DaySpan, zone: ZoneInfo, *, sighted: bool) -> Slice:
    """Return a goal's whole period as one slice of a group, as its manager sees it if ``sighted``."""
    return Slice(*lane_of(goal, group, {} if sighted else None), *bounds_in(group.dates, span, zone))


def reads_many(cut: Cut) -> bool:
    """Say whether summing a group reads so many records that what they link to is better taken as a set."""
    return not cut.one.group.owned or len({part.owner for part in cut.layout.slices}) > MANY_OWNERS


def is_answered(cut: Cut, cuts: Sequence[Cut], summing: Mapping[tuple[object, ...], int]) -> bool:
    """Say whether a group only counts what another one sums, in the very same slices."""
    other = None if cut.one.group.value is not None else summing.get(cut.question)
    return other is not None and list(cut.wanted) == list(cuts[other].wanted)


def by_slice(kept: KeptSlices, updates: Mapping[int, SliceSum]) -> dict[Slice, SliceSum]:
    """Return the kept sums by slice, with ``updates`` (new sums by id) in their place."""
    return {
        part: updates.get(slice_id) or kept.sums.at(position)
        for position, (slice_id, part) in enumerate(zip(kept.ids, kept.slices, strict=True))
    }


def updated(kept: KeptSlices, updates: Mapping[int, SliceSum]) -> SliceSums:
    """Return the kept sums in order, with ``updates`` (new sums by id) in their place."""
    if not updates:
        return kept.sums
    return SliceSums.of([updates.get(slice_id) or kept.sums.at(at) for at, slice_id in enumerate(kept.ids)])


def strung(parts: Sequence[SliceSums]) -> SliceSums:
    """Put the sums of the pieces of a group together."""
    if len(parts) == 1:
        return parts[0]
    missing = [count for part in parts for count in part.unpriced or [0] * len(part.totals)]
    return SliceSums(
        [total for part in parts for total in part.totals],
        [count for part in parts for count in part.records],
        missing if any(missing) else (),
    )


def own_parts(group: Group, layout: Layout, sums: SliceSums) -> dict[tuple[str, str], OwnPart]:
    """Return the own parts of a group's goals, by goal id and column."""
    column = group.slot.column
    records = goal_totals(layout, sums.records)
    unpriced = goal_totals(layout, sums.unpriced) if sums.unpriced else {}
    return {
        (goal_id, column): OwnPart(records[goal_id], amount_of(group, total), unpriced.get(goal_id, 0))
        for goal_id, total in goal_totals(layout, sums.totals).items()
    }


def plus(one: SliceSum, change: SliceSum) -> SliceSum:
    """Add a change to a sum."""
    return SliceSum(one.total + change.total, one.records + change.records, one.unpriced + change.unpriced)
