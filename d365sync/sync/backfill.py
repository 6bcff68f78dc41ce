"""Backfill: compute every goal whose period touches a window of days, and write those that differ, batch by batch.

It begins as a cycle does (pull, compute, plan, guards), with the closed goals of the window computed too. What is to be
written is put into batches in the journal first, and each is marked when it is done; so one that was killed goes on
where it was: what had arrived is right already and is not sent again, and what has changed since is written too. One
backfill is one run, however often it is begun.

IO: through the client, the mirror and the journal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from d365sync.core.goals.backfill import (
    Batch,
    Unwritable,
    Window,
    Year,
    batches,
    goals_in,
    only,
    reopened,
    unwritable,
    years,
)
from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import VALUE_COLUMNS, GoalBook
from d365sync.core.goals.guards import Finding
from d365sync.core.goals.modes import COLUMNS, PLAN
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.writes import SkipReason, WritePlan, overridden_by_person
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem, Severity
from d365sync.dataverse.usage import Traffic
from d365sync.journal.backfills import Backfill
from d365sync.journal.store import Values
from d365sync.sync.collecting import uncollected
from d365sync.sync.cycle import (
    Outcome,
    check_owner,
    databases,
    give_up_when_no_goal_may_be_computed,
    judged,
    noted,
    plan_of,
    pusher,
    recompute,
    refresh_visibility,
    roll_up_all,
)
from d365sync.sync.guarding import NOTHING, Accepted, Warden, accepted_message
from d365sync.sync.identity import claim
from d365sync.sync.modes import check_own_columns, own_columns, planned_as, planner_of
from d365sync.sync.pulling import pull_fitting
from d365sync.sync.push import Pushed, planning_again
from d365sync.sync.recompute import Recomputed
from d365sync.sync.snapshot import Line, Snapshot, load_book


@dataclass(frozen=True, slots=True)
class Steps:
    """Told how it goes: how many goals there are to write, and how many of them were done before; then each batch."""

    on_begin: Callable[[int, int], None] = field(default=lambda _goals, _done: None)
    on_batch: Callable[[Batch], None] = field(default=lambda _batch: None)


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """What a backfill did.

    ``resumed`` is the number of goals that an earlier try had done, None for a first one. ``plan`` is what was to be
    written of the rest, ``pushed`` None when nothing was to be.
    """

    run_id: str
    window: Window
    mode: str
    organization_id: str
    years: tuple[Year, ...]
    unwritable: tuple[Unwritable, ...]
    plan: WritePlan
    problems: tuple[Problem, ...]
    findings: tuple[Finding, ...]
    pushed: Pushed | None
    resumed: int | None
    traffic: Traffic

    @property
    def outcome(self) -> Outcome:
        """OK, or PARTIAL when a problem, a conflict or a refusal kept a goal from being computed or written."""
        blocked = any(one.severity is Severity.BLOCKING for one in self.problems)
        blocked = blocked or any(one.reason is SkipReason.PROBLEM for one in self.plan.skips)
        left = self.pushed is not None and (
            self.pushed.failures
            or any(one.reason in (SkipReason.CONFLICT, SkipReason.PROBLEM) for one in self.pushed.skips)
        )
        return Outcome.PARTIAL if blocked or left else Outcome.OK

    @property
    def counts(self) -> Mapping[str, int]:
        """The backfill in numbers, for the journal and for programs."""
        pushed = self.pushed or Pushed()
        return {
            "goals": sum(one.goals for one in self.years),
            "planned_goals": len(self.plan.writes),
            "written_goals": len(pushed.written),
            "unwritable_goals": len(self.unwritable),
            "conflicts": sum(one.reason is SkipReason.CONFLICT for one in pushed.skips),
            "failures": len(pushed.failures),
            "problems": len(self.problems),
            **self.traffic.counts,
        }


@dataclass(frozen=True, slots=True)
class _Computed:
    """The goals as they are, those of the window with their days, and our numbers; ``closed`` those of closed ones."""

    book: GoalBook
    spans: Mapping[str, DaySpan]
    snapshot: Snapshot
    rollup: Rollup
    closed: Rollup
    plan: WritePlan
    written: Mapping[str, tuple[Values, ...]]


def backfill(
    line: Line,
    window: Window,
    *,
    write: bool,
    restart: bool = False,
    accepted: Accepted = NOTHING,
    steps: Steps = Steps(),
) -> BackfillResult:
    """Compute the goals of a window and write those that differ, if ``write``; go on with one that was broken off.

    ``restart`` begins again instead: as a run of its own, with what is to be written now.

    Raises:
        D365SyncError: the run cannot go on, or a guard refuses it; called again, it goes on where it was.
    """
    now, before = line.clock(), line.client.usage.since()
    mode = planned_as(line.config) if write else PLAN
    claim(line.client, line.config.dataverse.url, databases(line))
    earlier = line.journal.open_backfill(window, mode) if write and not restart else None
    again = earlier.run_id if earlier else None
    with noted(line, "backfill", mode, now, before, again=again) as run_id, uncollected():
        told = f"backfill --from {window.first_on} --to {window.last_on}"
        warden = Warden(line, run_id, _accepting(accepted, earlier), told)
        found = _compute(line, warden, window, now)
        job = _Job(line, warden, window, found, earlier)
        pushed = job.write(steps) if write else None
        result = _result(job, pushed, line.client.usage.since(before))
    message = "; ".join(filter(None, (str(window), accepted_message(result.findings) if write else "")))
    line.journal.finish_run(run_id, result.outcome.name.lower(), result.counts, message, line.clock())
    return result


class _Job:
    """What is to be written of a window, by a warden's run; ``earlier`` is the try that it goes on with.

    ``known`` are that one's batches, ``more`` those of goals that differ besides: all of them for a first try, later
    those of which records or definitions changed meanwhile.
    """

    def __init__(self, line: Line, warden: Warden, window: Window, found: _Computed, earlier: Backfill | None) -> None:
        self.line, self.warden, self.window, self.found, self.earlier = line, warden, window, found, earlier
        self.done = earlier.done if earlier else frozenset()
        self.known = earlier.batches if earlier else ()
        left = {goal_id for one in self.known if one.number not in self.done for goal_id in one.goal_ids}
        new = [write.goal_id for write in found.plan.writes if write.goal_id not in left]
        self.more = batches(new, found.spans, line.config.writeback.batch_size, first=len(self.known))
        self.plan = found.plan
        here = replace(found.book, goals={goal_id: found.book.goals[goal_id] for goal_id in found.spans})
        self.findings = judged(warden, here, self.plan, found.written)

    @property
    def changed(self) -> set[str]:
        """The goals that were or are to be written."""
        return {goal_id for one in (*self.known, *self.more) for goal_id in one.goal_ids}

    @property
    def done_before(self) -> int:
        """How many of them an earlier try had done."""
        return sum(len(one.goal_ids) for one in self.known if one.number in self.done)

    def write(self, steps: Steps) -> Pushed:
        """Write what is left, batch by batch; each is marked when it is done.

        Raises:
            GuardError: the plan is neither plausible nor accepted.
        """
        line, run_id = self.line, self.warden.run_id
        mode = planned_as(line.config)
        self.warden.check(self.plan, self.findings, mode, self.found.book.organization.id)
        if self.earlier is None:
            line.journal.begin_backfill(run_id, self.window, mode, self.warden.accepted.goals)
        line.journal.add_batches(run_id, self.more)
        todo = [one for one in (*self.known, *self.more) if one.number not in self.done]
        steps.on_begin(self.done_before + sum(len(one.goal_ids) for one in todo), self.done_before)
        pushed = Pushed()
        for batch in todo:
            one = self._push(batch)
            pushed.written += one.written
            pushed.skips += one.skips
            pushed.failures += one.failures
            line.journal.batch_done(run_id, batch.number, line.clock())
            steps.on_batch(batch)
        return pushed

    def _push(self, batch: Batch) -> Pushed:
        wanted = set(batch.goal_ids)
        part = WritePlan(tuple(one for one in self.plan.writes if one.goal_id in wanted), (), 0)
        again = planning_again(self.found.rollup, planner_of(self.line.config))
        sender = pusher(
            self.line, self.warden.run_id, self.found.snapshot.tables["goal"], own_columns(self.line.config)
        )
        return sender.push(part, self.found.book.goals, again, self.found.written)


def _compute(line: Line, warden: Warden, window: Window, now: dt.datetime) -> _Computed:
    """Pull what the goals of a window need, closed ones too, and compute them."""
    zone = line.config.rollup.zone

    def widened(book: GoalBook) -> GoalBook:
        return reopened(book, goals_in(book, window, zone))

    pulls, wide = pull_fitting(line, now, warden, widened)
    check_owner(line, wide)
    check_own_columns(line.config, wide.schema.table("goal"))
    give_up_when_no_goal_may_be_computed(pulls, wide)
    recomputed = recompute(line, wide, settle=False, visibility=refresh_visibility(line, wide, now))
    book = load_book(line, wide.tables)
    snapshot = replace(wide, book=book, forest=build_forest(book.goals))
    written = line.journal.written_values(book.goals)
    theirs = overridden_by_person(book.goals.values(), written)
    rollup = roll_up_all(line.config, snapshot, _of_open_goals(book, recomputed), theirs)
    spans = goals_in(book, window, zone)
    return _Computed(
        book=book,
        spans=spans,
        snapshot=snapshot,
        rollup=rollup,
        closed=roll_up_all(line.config, wide, recomputed, theirs),
        plan=only(plan_of(line, snapshot, rollup, theirs), spans, len(spans)),
        written=written,
    )


def _of_open_goals(book: GoalBook, recomputed: Recomputed) -> Recomputed:
    """Return what was computed without the problems of goals that are closed."""
    return replace(recomputed, problems=[one for one in recomputed.problems if _concerns_open(book, one)])


def _concerns_open(book: GoalBook, problem: Problem) -> bool:
    goal = book.goals.get(problem.goal_id) if problem.goal_id else None
    return goal is None or goal.is_open


def _accepting(accepted: Accepted, earlier: Backfill | None) -> Accepted:
    """Return what is accepted now or was when the earlier try began."""
    said = [one for one in (accepted.goals, earlier.accepted if earlier else None) if one is not None]
    return replace(accepted, goals=max(said, default=None))


def _result(job: _Job, pushed: Pushed | None, traffic: Traffic) -> BackfillResult:
    found, line = job.found, job.line
    problems = (one for one in found.rollup.problems if one.goal_id in found.spans or one.goal_id is None)
    return BackfillResult(
        run_id=job.warden.run_id,
        window=job.window,
        mode=planned_as(line.config),
        organization_id=found.book.organization.id,
        years=_years(job, pushed),
        unwritable=unwritable(found.book, found.spans, found.closed),
        plan=job.plan,
        problems=tuple(problems),
        findings=job.findings,
        pushed=pushed,
        resumed=job.done_before if job.earlier else None,
        traffic=traffic,
    )


def _years(job: _Job, pushed: Pushed | None) -> tuple[Year, ...]:
    found, config = job.found, job.line.config
    written = job.line.journal.written_by(job.warden.run_id) if pushed is not None else ()
    named = config.writeback.columns if planned_as(config) == COLUMNS else {name: name for name in VALUE_COLUMNS}
    return years(
        found.book,
        found.spans,
        {**found.closed.totals, **found.rollup.totals},
        changed=job.changed,
        written={one.goal_id: one.before for one in written if one.sure},
        actuals={name: named[name] for name in VALUE_COLUMNS if name in named},
    )
