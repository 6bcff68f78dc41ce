"""One cycle, in order: pull, load, group, ask what managers see (if that counts), recompute, roll up, plan, push.

IO: through the client, the mirror and the journal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum

import structlog

from d365sync.config import Config
from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.doubles import Doubles, double_problems
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.modes import OVERRIDE, PLAN, RECALCULATE
from d365sync.core.goals.needs import (
    columns_needed,
    goals_to_compute,
    labels_tested,
    tables_named,
    tables_referred,
)
from d365sync.core.goals.participation import group_goals
from d365sync.core.goals.periods import differing_periods
from d365sync.core.goals.rollup import Rollup, roll_up
from d365sync.core.goals.stale import stale_trees
from d365sync.core.goals.writes import Skip, SkipReason, WritePlan, overridden_by_person, plan_writes
from d365sync.core.problems import Problem, Severity
from d365sync.core.schema import Schema, Table
from d365sync.dataverse.usage import Traffic
from d365sync.errors import FORBIDDEN, AuthError, ConfigError, MisfitError, RejectedError, SchemaError
from d365sync.journal.store import Values
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.collecting import uncollected
from d365sync.sync.cuts import columns_read
from d365sync.sync.definitions import definitions, labelled, oldest_definition
from d365sync.sync.doubles import begin_watch, watched_doubles
from d365sync.sync.identity import Owned, check_organization, claim
from d365sync.sync.modes import check_own_columns, faults_of, own_columns, planned_as, planner_of
from d365sync.sync.pull import UNKNOWN_COLUMN, Puller, TablePull, Way, mirror_table
from d365sync.sync.push import Pushed, Pusher, planning_again
from d365sync.sync.recalculate import Recalculator
from d365sync.sync.recompute import Recomputed, Recomputer
from d365sync.sync.snapshot import Line, Snapshot, load_book, snapshot_of
from d365sync.sync.visibility import MANAGER_COLUMNS, Visibility, VisibilityReader

log = structlog.get_logger(__name__)

LATE_TABLES = ("systemuser", "team")
"""Book tables that rollup queries often link to: pulled after it is known which columns they need."""


TRUSTED = dt.timedelta(minutes=10)
"""Age up to which remembered definitions are not doubted when a rollup field or query does not fit them."""
UNFIT = ("rollup-query-unusable", "rollup-field-unusable")


class Outcome(IntEnum):
    """How a cycle ended; the value is the exit code."""

    OK = 0
    FAILED = 1
    PARTIAL = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class CycleResult:
    """What one cycle did; ``recomputed`` are the ids of the goals whose own part was computed now.

    ``mode`` is the write mode that ``plan`` is made for.
    """

    run_id: str
    snapshot: Snapshot
    pulls: tuple[TablePull, ...]
    recomputed: frozenset[str]
    rollup: Rollup
    plan: WritePlan
    pushed: Pushed | None
    traffic: Traffic
    doubles: Doubles = field(default_factory=Doubles)
    mode: str = OVERRIDE

    @property
    def outcome(self) -> Outcome:
        """OK, or PARTIAL when a problem, a conflict or a refusal kept a goal from being computed or written."""
        blocked = any(problem.severity is Severity.BLOCKING for problem in self.rollup.problems)
        blocked = blocked or any(one.reason is SkipReason.PROBLEM for one in self.plan.skips)
        conflicts = self.pushed is not None and (
            self.pushed.failures or any(_matters(one) for one in self.pushed.skips)
        )
        return Outcome.PARTIAL if blocked or conflicts else Outcome.OK

    @property
    def counts(self) -> Mapping[str, int]:
        """The cycle in numbers, for the journal and for programs."""
        return {
            "goals": len(self.snapshot.book.goals),
            "rows": sum(pull.rows for pull in self.pulls),
            "changed_rows": sum(pull.changed + pull.deleted for pull in self.pulls),
            "recomputed_goals": len(self.recomputed),
            "planned_goals": len(self.plan.writes),
            "written_goals": len(self.pushed.written) if self.pushed else 0,
            "conflicts": sum(one.reason is SkipReason.CONFLICT for one in self.pushed.skips) if self.pushed else 0,
            "failures": len(self.pushed.failures) if self.pushed else 0,
            "recalculated_trees": self.pushed.asked if self.pushed else 0,
            "problems": len(self.rollup.problems),
            "damaged_values": sum(len(pull.damaged) for pull in self.pulls),
            **self.traffic.counts,
        }


def run_cycle(line: Line, *, command: str, write: bool, full: bool = False) -> CycleResult:
    """Run one cycle; write only if ``write``, from nothing if ``full``.

    Raises:
        D365SyncError: the run cannot go on; the journal says so, and the mirror stays usable.
    """
    now = line.clock()
    before = line.client.usage.since()
    with noted(line, command, line.config.writeback.mode if write else PLAN, now, before) as run_id, uncollected():
        result = _cycle(line, run_id, now, before, write=write, full=full)
    line.journal.finish_run(run_id, result.outcome.name.lower(), result.counts, "", line.clock())
    return result


@contextmanager
def noted(line: Line, command: str, mode: str, now: dt.datetime, before: Traffic) -> Iterator[str]:
    """Note in the journal that a run begins, and that it failed if it does; yield its id.

    ``before`` is the traffic before it. What came of a run that did not fail is for the caller to note.
    """
    run_id = line.journal.start_run(command, mode, now)
    try:
        yield run_id
    except BaseException as error:
        cost = line.client.usage.since(before).counts
        line.journal.finish_run(run_id, "failed", cost, str(error) or type(error).__name__, line.clock())
        raise


def _cycle(line: Line, run_id: str, now: dt.datetime, before: Traffic, *, write: bool, full: bool) -> CycleResult:
    url = line.config.dataverse.url
    claim(line.client, url, databases(line))
    if full:
        line.mirror.drop_positions()
    pulls, snapshot = _pull_with_fresh_definitions_if_needed(line, now)
    try:
        check_organization(url, snapshot.book.organization.id, databases(line))
    except ConfigError:
        line.mirror.drop_positions()
        raise
    check_own_columns(line.config, snapshot.schema.table("goal"))
    _give_up_when_no_goal_may_be_computed(pulls, snapshot)
    visibility = refresh_visibility(line, snapshot, now, full=full)
    trusted = begin_watch(line)
    recomputed = recompute(line, snapshot, visibility=visibility)
    written = line.journal.written_values()
    theirs = overridden_by_person(snapshot.book.goals.values(), written)
    rollup = roll_up_all(line.config, snapshot, recomputed, theirs)
    doubles = Doubles()
    if line.config.rollup.double_counting == "report":
        idle = not recomputed.goals and not any(pull.changed or pull.deleted for pull in pulls)
        doubles = watched_doubles(line, snapshot, theirs, frozenset(recomputed.goals), trusted=trusted, idle=idle)
        rollup = replace(rollup, problems=(*rollup.problems, *double_problems(snapshot.book, doubles)))
    plan = plan_of(line, snapshot, rollup, theirs)
    line.on_plan(plan)
    pushed = _push(line, run_id, snapshot, plan, rollup, written) if write else None
    return CycleResult(
        run_id=run_id,
        snapshot=snapshot,
        pulls=pulls,
        recomputed=frozenset(recomputed.goals),
        rollup=rollup,
        plan=plan,
        pushed=pushed,
        traffic=line.client.usage.since(before),
        doubles=doubles,
        mode=planned_as(line.config),
    )


def _pull_with_fresh_definitions_if_needed(line: Line, now: dt.datetime) -> tuple[tuple[TablePull, ...], Snapshot]:
    """Pull; if an answer or a goal does not fit the remembered definitions, read those again and pull once more.

    What still does not fit then, or fits definitions just read as little, is the record's own fault.
    """
    remembered = oldest_definition(line.mirror)
    old = remembered is not None and now - remembered > TRUSTED
    try:
        pulls, snapshot = pull_all(line, now, keep_damaged=remembered is not None and not old)
    except (MisfitError, RejectedError) as error:
        if isinstance(error, RejectedError) and (remembered is None or error.code not in UNKNOWN_COLUMN):
            raise
        log.warning("definitions.stale", reason=str(error))
    else:
        unfit = old and any(problem.code in UNFIT for problem in snapshot.grouping.problems)
        changed = remembered is not None and faults_of(line.config, snapshot.schema.table("goal"))
        if not unfit and not changed:
            return pulls, snapshot
    line.mirror.forget_definitions()
    return pull_all(line, now, fresh=True, keep_damaged=True)


def _give_up_when_no_goal_may_be_computed(pulls: Iterable[TablePull], snapshot: Snapshot) -> None:
    """Stop when every rollup reads a table that may not be read: it is the identity that lacks a right.

    Raises:
        AuthError: what was said of the first such table.
    """
    closed = {pull.name: pull for pull in pulls if pull.way is Way.UNREADABLE}
    groups = snapshot.grouping.groups
    if closed and groups and all(closed.keys() & columns_read(group, snapshot.schema).keys() for group in groups):
        first = closed[min(closed)]
        raise AuthError(first.reason, status=FORBIDDEN, hint=first.mend)


def pull_all(
    line: Line, now: dt.datetime, *, fresh: bool = False, keep_damaged: bool = False
) -> tuple[tuple[TablePull, ...], Snapshot]:
    """Pull what was pulled the last time, all at once; then what the goals need besides. ``fresh`` are the definitions.

    ``keep_damaged``: see :class:`Puller`.

    The first time, the tables that define goals come first: they name the others.
    """
    rules = line.config.pull
    puller = Puller(
        line.client, line.mirror, rules, now, line.watcher, definitions_are_fresh=fresh, keep_damaged=keep_damaged
    )
    before = set(line.mirror.bookmarks())
    schema = definitions(line.client, line.mirror, {*BOOK_COLUMNS, *before}, now)
    own = {"goal": own_columns(line.config)}
    extra = {name: (*line.mirror.columns_of(name), *own.get(name, ())) for name in BOOK_COLUMNS}
    tables = {name: _book_table(schema, name, extra[name]) for name in BOOK_COLUMNS}
    first = {name: table for name, table in tables.items() if name in before or name not in LATE_TABLES}
    others = sorted(before & schema.tables.keys() - tables.keys())
    first |= {name: mirror_table(schema.table(name), line.mirror.columns_of(name)) for name in others}
    pulls = puller.pull(list(first.values()))
    schema, needed = _needs(line, schema, load_book(line, tables), now)
    for name in [*LATE_TABLES, *sorted(set(needed) - set(LATE_TABLES))]:
        known = tables[name].wanted if name in tables else frozenset()
        tables[name] = _merged(schema, name, known | needed.get(name, frozenset()))
    late = [table for name, table in tables.items() if name not in first or table.shape != first[name].shape]
    for some in _rounds(line.mirror, late):
        pulls += puller.pull(some)
    line.mirror.forget_positions(first.keys() - tables.keys())
    last = {pull.name: pull for pull in pulls if pull.name in tables}
    return tuple(last.values()), snapshot_of(line, schema, tables, now)


def _needs(line: Line, schema: Schema, book: GoalBook, now: dt.datetime) -> tuple[Schema, Mapping[str, frozenset[str]]]:
    """Return the definitions of all that the goals name, and the columns they need by table."""
    schema = Schema.of([*schema.tables.values(), *_more(line, schema, tables_named(book), now)])
    schema = Schema.of([*schema.tables.values(), *_more(line, schema, tables_referred(book, schema), now)])
    schema = labelled(line.client, line.mirror, schema, labels_tested(book, schema), now)
    grouping = group_goals(book, schema, goals_to_compute(book))
    needed = columns_needed(grouping.groups, schema, book.rules.hierarchy)
    if line.config.rollup.visibility == "manager":
        needed = {**needed, **{name: needed.get(name, frozenset()) | more for name, more in MANAGER_COLUMNS.items()}}
    return schema, needed


def _rounds(mirror: Mirror, tables: list[MirrorTable]) -> list[list[MirrorTable]]:
    """Return the tables to pull together; before a first load the small ones, whose delta tokens may serve it."""
    rest = [table for table in tables if table.name not in LATE_TABLES]
    if all(mirror.position(table.name) for table in rest):
        return [tables]
    return [[table for table in tables if table.name in LATE_TABLES], rest]


def refresh_visibility(line: Line, snapshot: Snapshot, now: dt.datetime, *, full: bool = False) -> Visibility | None:
    """Ask what the goals' managers may read, where needed; None when all that the service reads counts."""
    if line.config.rollup.visibility == "manager":
        return _reader(line, snapshot, now).refresh(full=full)
    with line.mirror.visible() as ids:
        ids.keep_only(())
    return None


def known_visibility(line: Line, snapshot: Snapshot) -> Visibility | None:
    """Return what the last refresh found; None when all that the service reads counts."""
    manager = line.config.rollup.visibility == "manager"
    return _reader(line, snapshot, snapshot.context.now).known() if manager else None


def recompute(
    line: Line, snapshot: Snapshot, *, settle: bool = True, visibility: Visibility | None = None
) -> Recomputed:
    """Compute the own parts that may have changed; see :meth:`Recomputer.recompute`."""
    recomputer = Recomputer(
        mirror=line.mirror,
        book=snapshot.book,
        schema=snapshot.schema,
        tables=snapshot.tables,
        context=snapshot.context,
        zone=snapshot.zone,
        callers=snapshot.callers,
        visibility=visibility,
    )
    return recomputer.recompute(snapshot.grouping, settle=settle)


def roll_up_all(config: Config, snapshot: Snapshot, recomputed: Recomputed, theirs: frozenset[str]) -> Rollup:
    """Add up every tree."""
    rules = config.rollup.rules
    periods = differing_periods(snapshot.book, snapshot.forest, snapshot.zone, rules.closed_child)
    return roll_up(
        snapshot.book,
        snapshot.forest,
        recomputed.own,
        problems=_unique([*recomputed.problems, *periods]),
        overridden_by_person=theirs,
        rules=rules,
    )


def plan_of(line: Line, snapshot: Snapshot, rollup: Rollup, theirs: frozenset[str]) -> WritePlan:
    """Compare every goal with our numbers, as the write mode does."""
    kept = line.journal.kept_values(planned_as(line.config))
    return plan_writes(snapshot.book, rollup, theirs, kept, planner_of(line.config))


def pusher(line: Line, run_id: str, goals: MirrorTable, own: tuple[str, ...]) -> Pusher:
    """Return what sends plans for the goal table in a run; ``own`` are the columns of the organization's own."""
    return Pusher(
        client=line.client,
        journal=line.journal,
        mirror=line.mirror,
        goals=goals,
        run_id=run_id,
        clock=line.clock,
        batch_size=line.config.writeback.batch_size,
        on_goal=line.on_write,
        own=own,
    )


def databases(line: Line) -> Mapping[str, Owned]:
    """Return the databases that belong to one organization, by the key of the configuration."""
    return {"mirror": line.mirror, "journal": line.journal}


def _reader(line: Line, snapshot: Snapshot, now: dt.datetime) -> VisibilityReader:
    refresh_s = line.config.rollup.visibility_refresh
    return VisibilityReader(line.client, line.mirror, snapshot.book, snapshot.grouping, snapshot.tables, refresh_s, now)


def _push(
    line: Line,
    run_id: str,
    snapshot: Snapshot,
    plan: WritePlan,
    rollup: Rollup,
    written: Mapping[str, tuple[Values, ...]],
) -> Pushed:
    goals = snapshot.tables["goal"]
    if line.config.writeback.mode == RECALCULATE:
        trees = stale_trees(plan.writes, snapshot.book.goals, snapshot.forest)
        return _recalculator(line, run_id, snapshot).recalculate(trees)
    again = planning_again(rollup, planner_of(line.config))
    return pusher(line, run_id, goals, own_columns(line.config)).push(plan, snapshot.book.goals, again, written)


def _recalculator(line: Line, run_id: str, snapshot: Snapshot) -> Recalculator:
    writeback = line.config.writeback
    return Recalculator(
        client=line.client,
        journal=line.journal,
        mirror=line.mirror,
        goals=snapshot.tables["goal"],
        run_id=run_id,
        clock=line.clock,
        current=snapshot.book.goals,
        at_most=writeback.recalculate_at_most,
        pause_s=writeback.recalculate_pause,
        batch_size=writeback.batch_size,
        on_goal=line.on_write,
    )


def _more(line: Line, schema: Schema, names: Iterable[str], now: dt.datetime) -> Iterable[Table]:
    return definitions(line.client, line.mirror, set(names) - set(schema.tables), now).tables.values()


def _book_table(schema: Schema, name: str, extra: Iterable[str]) -> MirrorTable:
    if name not in schema.tables:
        raise SchemaError(f"this organization has no table '{name}', which goals need", table=name)
    return mirror_table(schema.table(name), [*BOOK_COLUMNS[name], *extra])


def _merged(schema: Schema, name: str, needed: Iterable[str]) -> MirrorTable:
    return mirror_table(schema.table(name), [*BOOK_COLUMNS.get(name, ()), *needed])


def _matters(skip: Skip) -> bool:
    return skip.reason in (SkipReason.CONFLICT, SkipReason.PROBLEM)


def _unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(dict.fromkeys(problems))
