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
from d365sync.core.goals.doubles import Doubles, double_problems
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.guards import Finding
from d365sync.core.goals.modes import COLUMNS, OVERRIDE, PLAN, RECALCULATE
from d365sync.core.goals.periods import differing_periods
from d365sync.core.goals.rollup import Rollup, roll_up
from d365sync.core.goals.stale import stale_trees
from d365sync.core.goals.writes import Skip, SkipReason, WritePlan, overridden_by_person, plan_writes
from d365sync.core.problems import Problem, Severity
from d365sync.dataverse.usage import Traffic
from d365sync.errors import FORBIDDEN, AuthError, ConfigError, GuardError, StoppedError
from d365sync.journal.store import Values
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.collecting import uncollected
from d365sync.sync.cuts import columns_read
from d365sync.sync.doubles import begin_watch, watched_doubles
from d365sync.sync.guarding import NOTHING, Accepted, Warden, accepted_message, writable
from d365sync.sync.identity import Owned, check_organization, claim
from d365sync.sync.modes import check_own_columns, own_columns, planned_as, planner_of
from d365sync.sync.pull import TablePull, Way
from d365sync.sync.pulling import pull_fitting
from d365sync.sync.push import Pushed, Pusher, planning_again
from d365sync.sync.recalculate import Recalculator
from d365sync.sync.recompute import Recomputed, Recomputer
from d365sync.sync.snapshot import Line, Snapshot
from d365sync.sync.steps import step
from d365sync.sync.visibility import Visibility, VisibilityReader

log = structlog.get_logger(__name__)


class Outcome(IntEnum):
    """How a cycle ended; the value is the exit code."""

    OK = 0
    FAILED = 1
    PARTIAL = 3
    REFUSED = 4


@dataclass(frozen=True, slots=True)
class CycleResult:
    """What one cycle did; ``recomputed`` are the ids of the goals whose own part was computed now.

    ``mode`` is the write mode that ``plan`` is made for. ``findings`` say what guards see in it: what a person
    accepted, or, where nothing was to be written, what would stop it.
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
    findings: tuple[Finding, ...] = ()

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
            "deleted_rows": sum(pull.deleted for pull in self.pulls),
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


def run_cycle(
    line: Line, *, command: str, write: bool, full: bool = False, accepted: Accepted = NOTHING
) -> CycleResult:
    """Run one cycle; write only if ``write``, from nothing if ``full``; past the guards as far as ``accepted``.

    Raises:
        GuardError: rows are gone, or (with ``write``) the plan is not plausible, and no more is accepted.
        D365SyncError: the run cannot go on; the journal says so, and the mirror stays usable.
    """
    now = line.clock()
    before = line.client.usage.since()
    mode = line.config.writeback.mode if write else PLAN
    with step("cycle") as note, noted(line, command, mode, now, before) as run_id, uncollected():
        note("run", run_id)
        note("mode", mode)
        result = _cycle(line, Warden(line, run_id, accepted), now, before, write=write, full=full)
        note("outcome", result.outcome.name.lower())
    message = accepted_message(result.findings) if write else ""
    line.journal.finish_run(run_id, result.outcome.name.lower(), result.counts, message, line.clock())
    return result


@contextmanager
def noted(
    line: Line, command: str, mode: str, now: dt.datetime, before: Traffic, *, again: str | None = None
) -> Iterator[str]:
    """Note in the journal that a run begins, and that it failed, was refused or stopped if it is; yield its id.

    ``again`` is the id of a run that did not come to its end and goes on now, None for a new one.
    ``before`` is the traffic before it. What came of a run that did not fail is for the caller to note.
    """
    if again is not None:
        line.journal.resume_run(again)
    run_id = again or line.journal.start_run(command, mode, now)
    try:
        with structlog.contextvars.bound_contextvars(run=run_id):
            yield run_id
    except BaseException as error:
        cost = dict(line.client.usage.since(before).counts)
        if isinstance(error, GuardError) and isinstance(error.plan, WritePlan):
            cost["planned_goals"] = len(error.plan.writes)
        message = str(error) or type(error).__name__
        line.journal.finish_run(run_id, _ending(error), cost, message, line.clock())
        raise


def _ending(error: BaseException) -> str:
    return "refused" if isinstance(error, GuardError) else "stopped" if isinstance(error, StoppedError) else "failed"


def _cycle(line: Line, warden: Warden, now: dt.datetime, before: Traffic, *, write: bool, full: bool) -> CycleResult:
    url = line.config.dataverse.url
    claim(line.client, url, databases(line))
    if full:
        line.mirror.drop_positions()
    with step("pull"):
        pulls, snapshot = pull_fitting(line, now, warden)
    check_owner(line, snapshot)
    check_own_columns(line.config, snapshot.schema.table("goal"))
    give_up_when_no_goal_may_be_computed(pulls, snapshot)
    with step("visibility"):
        visibility = refresh_visibility(line, snapshot, now, full=full)
    trusted = begin_watch(line)
    with step("recompute"):
        recomputed = recompute(line, snapshot, visibility=visibility)
    written = line.journal.written_values(snapshot.book.goals)
    theirs = overridden_by_person(snapshot.book.goals.values(), written)
    rollup = roll_up_all(line.config, snapshot, recomputed, theirs)
    doubles = Doubles()
    if line.config.rollup.double_counting == "report":
        idle = not recomputed.goals and not any(pull.changed or pull.deleted for pull in pulls)
        doubles = watched_doubles(line, snapshot, theirs, frozenset(recomputed.goals), trusted=trusted, idle=idle)
        rollup = replace(rollup, problems=(*rollup.problems, *double_problems(snapshot.book, doubles)))
    with step("plan"):
        plan = plan_of(line, snapshot, rollup, theirs)
        findings = judged(warden, snapshot.book, plan, written)
    if write:
        warden.check(plan, findings, planned_as(line.config), snapshot.book.organization.id)
    line.on_plan(plan)
    with step("push"):
        pushed = _push(line, warden.run_id, snapshot, plan, rollup, written) if write else None
    return CycleResult(
        run_id=warden.run_id,
        snapshot=snapshot,
        pulls=pulls,
        recomputed=frozenset(recomputed.goals),
        rollup=rollup,
        plan=plan,
        pushed=pushed,
        traffic=line.client.usage.since(before),
        doubles=doubles,
        mode=planned_as(line.config),
        findings=findings,
    )


def check_owner(line: Line, snapshot: Snapshot) -> None:
    """Stop when what was pulled is another organization's: it is not kept.

    Raises:
        ConfigError: it is.
    """
    try:
        check_organization(line.config.dataverse.url, snapshot.book.organization.id, databases(line))
    except ConfigError:
        line.mirror.drop_positions()
        raise


def give_up_when_no_goal_may_be_computed(pulls: Iterable[TablePull], snapshot: Snapshot) -> None:
    """Stop when every rollup reads a table that may not be read: it is the identity that lacks a right.

    Raises:
        AuthError: what was said of the first such table.
    """
    closed = {pull.name: pull for pull in pulls if pull.way is Way.UNREADABLE}
    groups = snapshot.grouping.groups
    if closed and groups and all(closed.keys() & columns_read(group, snapshot.schema).keys() for group in groups):
        first = closed[min(closed)]
        raise AuthError(first.reason, status=FORBIDDEN, hint=first.mend)


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
    kept = line.journal.kept_values(snapshot.book.goals, planned_as(line.config))
    return plan_writes(snapshot.book, rollup, theirs, kept, planner_of(line.config))


def judged(
    warden: Warden, book: GoalBook, plan: WritePlan, written: Mapping[str, tuple[Values, ...]]
) -> tuple[Finding, ...]:
    """Return what guards see in a plan for the goals of a book."""
    mode = planned_as(warden.line.config)
    known = warden.line.journal.goals_written(book.goals, mode) if mode == COLUMNS else written.keys()
    names = {metric.id: metric.name for metric in book.metrics.values()}
    return warden.judge(plan, writable(book.goals, plan), known, names, mode)


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
    rules = line.config
    return VisibilityReader(
        line.client,
        line.mirror,
        snapshot.book,
        snapshot.grouping,
        snapshot.tables,
        rules.rollup.visibility_refresh,
        now,
        workers=rules.pull.tables,
    )


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
        tried = line.journal.attempts(snapshot.book.goals, RECALCULATE)
        trees = stale_trees(plan.writes, snapshot.book.goals, snapshot.forest, tried)
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


def _matters(skip: Skip) -> bool:
    return skip.reason in (SkipReason.CONFLICT, SkipReason.PROBLEM)


def _unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(dict.fromkeys(problems))
