"""Writes that a person commands: a saved plan that is applied, a run that is undone. Each is a run of its own.

Both read the goals they concern first, write only where nothing changed since, and go on where one goal is refused.

IO: HTTP and SQL, through the client, the journal and the mirror.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d365sync.core.counts import counted
from d365sync.core.goals.book import BOOK_COLUMNS, goal_of
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.modes import COLUMNS, RECALCULATE
from d365sync.core.goals.owncolumns import OwnColumns, number_columns
from d365sync.core.goals.putback import plan_undo
from d365sync.core.goals.savedplan import SavedPlan, as_write_plan, differences
from d365sync.core.goals.writes import STAMP, SkipReason, WritePlan
from d365sync.dataverse.rowbatch import read_rows
from d365sync.dataverse.usage import Traffic
from d365sync.errors import NOT_THERE, GuardError, RemoteError, UsageError
from d365sync.journal.pruning import PRUNE
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.cycle import Outcome, databases, noted, pusher
from d365sync.sync.definitions import definitions
from d365sync.sync.guarding import NOTHING, Accepted, Warden
from d365sync.sync.identity import claim
from d365sync.sync.modes import check_columns
from d365sync.sync.pull import mirror_table
from d365sync.sync.push import Pushed, leaving_alone
from d365sync.sync.snapshot import Line

NAMED = 5
"""Differences a refusal names; the others are counted."""


@dataclass(frozen=True, slots=True)
class _Command:
    """What is commanded, in which write mode, and the columns of the organization's own it is about.

    ``before`` is the traffic of the client as it began. ``accepted`` is how far guards let it pass, None if none looks.
    """

    name: str
    mode: str
    own: tuple[str, ...]
    before: Traffic
    accepted: Accepted | None = None


@dataclass(frozen=True, slots=True)
class Commanded:
    """What became of a command; ``run_id`` and ``pushed`` are None when nothing was to be written."""

    plan: WritePlan
    run_id: str | None = None
    pushed: Pushed | None = None

    @property
    def outcome(self) -> Outcome:
        """OK, or PARTIAL when a goal was left alone."""
        skips = [*self.plan.skips, *(self.pushed.skips if self.pushed else ())]
        failed = bool(self.pushed and self.pushed.failures)
        return Outcome.PARTIAL if skips or failed else Outcome.OK


def apply_saved(line: Line, saved: SavedPlan, *, write: bool, accepted: Accepted = NOTHING) -> Commanded:
    """Write a saved plan if every goal of it still is as it was.

    Raises:
        GuardError: a goal changed, or the plan is of another organization, or it writes to columns of the
            organization's own that the configuration does not name, or it is not plausible and no more is
            ``accepted``; nothing was written.
        ConfigError: a column of the organization's own cannot take its number.
    """
    before = line.client.usage.since()
    claim(line.client, line.config.dataverse.url, databases(line))
    own = _named(line.config.writeback.columns, saved)
    table = _goal_table(line, own)
    owner = line.journal.owner()
    organization_id = owner[1] if owner else ""
    goals = (
        _goals(line, table, [one.goal_id for one in saved.goals], own)
        if saved.organization_id == organization_id
        else {}
    )
    stale = differences(saved, organization_id, goals)
    if stale:
        more = f" and {counted(len(stale) - NAMED, 'more goal')}" if len(stale) > NAMED else ""
        raise GuardError(f"the plan is stale: {'; '.join(stale[:NAMED])}{more}", hint="make a new plan and look at it")
    plan = as_write_plan(saved, goals, line.config.writeback.columns.get(STAMP, ""))
    return _write(line, table, _Command("apply", saved.mode, own, before, accepted), plan, goals, write=write)


def undo(line: Line, run_id: str, *, write: bool) -> Commanded:
    """Put back what a run wrote, where nobody has changed it since.

    Raises:
        UsageError: there is no such run, or it cannot be undone.
    """
    run = line.journal.run(run_id)
    if run is None:
        raise UsageError(f"there is no run {run_id}", hint="`d365sync status` lists the last runs")
    if run.command == PRUNE:
        raise UsageError(f"run {run_id} is what pruning kept of older runs, which cannot be undone")
    if run.mode == RECALCULATE:
        raise UsageError(
            f"run {run_id} had the platform recalculate goals, which cannot be undone",
            hint="the platform's own numbers follow from the records",
        )
    before = line.client.usage.since()
    claim(line.client, line.config.dataverse.url, databases(line))
    written = line.journal.written_by(run_id)
    own = tuple(dict.fromkeys(name for one in written for name in one.before)) if run.mode == COLUMNS else ()
    table = _goal_table(line, own)
    goals = _goals(line, table, [one.goal_id for one in written], own)
    stamp = line.config.writeback.columns.get(STAMP, "")
    plan = plan_undo(written, goals, own, stamp if stamp in table.table.columns else "")
    return _write(line, table, _Command("undo", run.mode, own, before), plan, goals, write=write)


def _named(columns: OwnColumns, saved: SavedPlan) -> tuple[str, ...]:
    """Return the columns of the organization's own that a plan writes to.

    Raises:
        GuardError: the configuration does not name them all.
    """
    if saved.mode != COLUMNS:
        return ()
    unnamed = [column for column in saved.columns if column not in number_columns(columns)]
    if unnamed:
        raise GuardError(f"the plan writes to {', '.join(unnamed)}, which writeback.columns does not name")
    return saved.columns


def _write(
    line: Line, table: MirrorTable, command: _Command, plan: WritePlan, goals: Mapping[str, Goal], *, write: bool
) -> Commanded:
    if command.name == "apply" and command.mode == COLUMNS:
        check_columns(line.config.writeback.columns, table.table)
    if plan.is_empty or not write:
        return Commanded(plan)
    with noted(line, command.name, command.mode, line.clock(), command.before) as run_id:
        written = line.journal.written_values(goals)
        if command.accepted is not None:
            _guard(Warden(line, run_id, command.accepted, "apply PLAN"), table, command, plan, goals)
        pushed = pusher(line, run_id, table, command.own).push(plan, goals, leaving_alone, written)
    result = Commanded(plan, run_id, pushed)
    counts = {**_counts(result, pushed), **line.client.usage.since(command.before).counts}
    line.journal.finish_run(run_id, result.outcome.name.lower(), counts, "", line.clock())
    return result


def _guard(warden: Warden, table: MirrorTable, command: _Command, plan: WritePlan, goals: Mapping[str, Goal]) -> None:
    """Let a plan pass that is plausible, beside the other open goals as they are mirrored, or accepted.

    Raises:
        GuardError: it is neither.
    """
    line = warden.line
    mirrored = line.mirror.rows(table) if line.mirror.is_pulled(table) else []
    others = (goal_of(row, command.own) for row in mirrored)
    every = {**{goal.id: goal for goal in others if goal.is_open}, **goals}
    findings = warden.judge(plan, every, line.journal.goals_written(every, command.mode), {}, command.mode)
    owner = line.journal.owner()
    warden.check(plan, findings, command.mode, owner[1] if owner else "")


def _counts(result: Commanded, pushed: Pushed) -> Mapping[str, int]:
    return {
        "planned_goals": len(result.plan.writes),
        "written_goals": len(pushed.written),
        "conflicts": sum(one.reason is SkipReason.CONFLICT for one in (*result.plan.skips, *pushed.skips)),
        "failures": len(pushed.failures),
    }


def _goal_table(line: Line, own: Sequence[str]) -> MirrorTable:
    goals = definitions(line.client, line.mirror, ["goal"], line.clock()).table("goal")
    for name in own:
        goals.column(name)
    return mirror_table(goals, [*BOOK_COLUMNS["goal"], *line.mirror.columns_of("goal"), *own])


def _goals(line: Line, table: MirrorTable, ids: Sequence[str], own: Sequence[str]) -> dict[str, Goal]:
    """Read goals by id, in batches, with these columns of the organization's own; those not there are left out."""
    size = line.config.writeback.batch_size
    found: dict[str, Goal] = {}
    for start in range(0, len(ids), size):
        some = ids[start : start + size]
        for goal_id, outcome in zip(some, read_rows(line.client, table.table, some, table.column_names), strict=True):
            if not isinstance(outcome, RemoteError):
                found[goal_id] = goal_of(outcome, own)
            elif outcome.status != NOT_THERE:
                raise outcome
    return found
