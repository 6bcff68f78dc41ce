"""Push: send the plan, one goal at a time, each only if the goal is still as it was read.

Every write is in the journal before it is sent and again when its outcome is known. A goal that changed meanwhile is
read again and planned once more; if it changed again, or a person has overridden it, it is left alone and reported.
After a lost connection the goal is read back before anything is sent again.

IO: HTTP and SQL, through the client, the journal and the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from d365sync.core.goals.book import goal_of
from d365sync.core.goals.goal import Goal, Number
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.writes import (
    PERCENTAGE,
    GoalWrite,
    Skip,
    SkipReason,
    WritePlan,
    is_ours,
    override_body,
    plan_goal,
)
from d365sync.core.values import Row
from d365sync.dataverse.client import DataverseClient
from d365sync.errors import AuthError, ConflictError, RejectedError, RemoteError, RetryableError
from d365sync.journal.store import Journal, Values, WriteOutcome
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable

log = structlog.get_logger(__name__)

NOT_THERE = 404
THROTTLED = 429
FORBIDDEN = 403
FORBIDDEN_IN_A_ROW = 3
"""Goals refused one after the other, and none written, after which it is the identity that lacks the right."""
ATTEMPTS = 2


@dataclass(slots=True)
class Pushed:
    """What became of a plan: the goals written, those already as planned, and those left alone with the reason."""

    written: list[GoalWrite] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    failures: list[Skip] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pusher:
    """What pushing needs; ``goals`` is the mirrored goal table, ``clock`` gives the present instant."""

    client: DataverseClient
    journal: Journal
    mirror: Mirror
    goals: MirrorTable
    run_id: str
    clock: Callable[[], dt.datetime]
    on_goal: Callable[[GoalWrite], None] = field(default=lambda _write: None)

    def push(self, plan: WritePlan, current: Mapping[str, Goal], rollup: Rollup) -> Pushed:
        """Send every write of a plan; one goal's refusal does not stop the others.

        Raises:
            AuthError, RetryableError: the remote as a whole; what was written stays written and journalled.
        """
        pushed = Pushed()
        written = self.journal.written_values()
        for write in plan.writes:
            self._goal(write, current[write.goal_id], rollup, written.get(write.goal_id, ()), pushed)
            self.on_goal(write)
        if not pushed.written and pushed.failures and isinstance(pushed.failures[0], _Forbidden):
            raise pushed.failures[0].error
        return pushed

    def _goal(self, write: GoalWrite, goal: Goal, rollup: Rollup, ours: tuple[Values, ...], pushed: Pushed) -> None:
        step: GoalWrite | Skip | None = write
        for _ in range(ATTEMPTS):
            if not isinstance(step, GoalWrite):
                break
            outcome = self._send(step, goal)
            if isinstance(outcome, Skip):
                pushed.failures.append(outcome)
                _give_up_when_all_is_forbidden(pushed)
                return
            if outcome is WriteOutcome.DONE:
                pushed.written.append(step)
                return
            goal_again = self._read_again(goal)
            if goal_again is None:
                step = Skip(goal.id, goal.title, SkipReason.GONE, f"'{goal.title}' was deleted meanwhile")
                break
            step = _again(goal_again, goal, rollup, (*ours, step.after))
            goal = goal_again
        if isinstance(step, GoalWrite):
            step = Skip(
                goal.id, goal.title, SkipReason.CONFLICT, f"'{goal.title}' keeps being changed by others; left as it is"
            )
        if step is not None:
            pushed.skips.append(step)

    def _send(self, write: GoalWrite, goal: Goal) -> WriteOutcome | Skip:
        """Send one write; return DONE, CONFLICT (read again), or a skip when it is refused."""
        number = self.journal.intend(
            self.run_id,
            goal_id=goal.id,
            title=goal.title,
            etag=write.etag,
            before={**goal.native, PERCENTAGE: goal.percentage},
            after=write.after,
            now=self.clock(),
        )
        try:
            row = self.client.update(
                self.goals.table,
                goal.id,
                override_body(write, self.clock()),
                if_match=write.etag,
                columns=self.goals.column_names,
            )
        except (ConflictError, RetryableError) as error:
            return self._unsettled(number, write, goal, error)
        except RejectedError as error:
            return self._refused(number, goal, error)
        except AuthError as error:
            self.journal.done(number, WriteOutcome.FAILED, self.clock(), message=str(error))
            if error.status != FORBIDDEN:
                raise
            return _Forbidden(
                goal.id, goal.title, SkipReason.PROBLEM, f"'{goal.title}' may not be written: {error}", error
            )
        self._done(number, row)
        return WriteOutcome.DONE

    def _done(self, number: int, row: Row) -> None:
        after = goal_of(row)
        self.journal.done(number, WriteOutcome.DONE, self.clock(), etag=after.etag, after=after.native)
        self.mirror.apply(self.goals, [row])
        log.info("goal.written", goal=after.id, title=after.title)

    def _unsettled(self, number: int, write: GoalWrite, goal: Goal, error: RemoteError) -> WriteOutcome:
        """After a conflict, a lost connection or a failing gateway, read the goal back: the write may have arrived.

        A conflict can be our own write, sent again after its answer was lost.
        """
        if error.status == THROTTLED:
            self.journal.done(number, WriteOutcome.FAILED, self.clock(), message=str(error))
            raise error
        row = self.client.find(self.goals.table, goal.id, self.goals.column_names)
        if row is not None:
            after = goal_of(row)
            if after.is_overridden and is_ours(after, [write.after]):
                self._done(number, row)
                return WriteOutcome.DONE
        self.journal.done(number, WriteOutcome.CONFLICT, self.clock(), message=str(error))
        log.info("goal.conflict", goal=goal.id, title=goal.title, reason=str(error))
        return WriteOutcome.CONFLICT

    def _refused(self, number: int, goal: Goal, error: RemoteError) -> WriteOutcome | Skip:
        if error.status == NOT_THERE:
            self.journal.done(number, WriteOutcome.GONE, self.clock(), message=str(error))
            return WriteOutcome.GONE
        self.journal.done(number, WriteOutcome.FAILED, self.clock(), message=str(error))
        log.warning("goal.refused", goal=goal.id, title=goal.title, reason=str(error))
        return Skip(goal.id, goal.title, SkipReason.PROBLEM, f"Dataverse refused to write '{goal.title}': {error}")

    def _read_again(self, goal: Goal) -> Goal | None:
        row = self.client.find(self.goals.table, goal.id, self.goals.column_names)
        self.mirror.apply(self.goals, [row] if row is not None else [], [] if row is not None else [goal.id])
        return goal_of(row) if row is not None else None


@dataclass(frozen=True, slots=True)
class _Forbidden(Skip):
    """A goal that this identity may not write, with the answer that said so."""

    error: AuthError


def _give_up_when_all_is_forbidden(pushed: Pushed) -> None:
    """Stop when nothing could be written and every refusal was for want of a right: it is not about one goal.

    Raises:
        AuthError: the first refusal.
    """
    forbidden = [one for one in pushed.failures if isinstance(one, _Forbidden)]
    if forbidden and not pushed.written and len(forbidden) >= FORBIDDEN_IN_A_ROW:
        raise forbidden[0].error


def _again(
    goal: Goal, before: Goal, rollup: Rollup, ours: tuple[Mapping[str, Number | None], ...]
) -> GoalWrite | Skip | None:
    """Plan a goal once more from what it is now, unless what defines its numbers changed: then they are not ours."""
    if not goal.is_open:
        return Skip(goal.id, goal.title, SkipReason.CLOSED, f"'{goal.title}' was closed meanwhile")
    if goal.is_overridden and not is_ours(goal, ours):
        return Skip(goal.id, goal.title, SkipReason.CONFLICT, f"'{goal.title}' was overridden by a person meanwhile")
    if _definition(goal) != _definition(before):
        return Skip(
            goal.id,
            goal.title,
            SkipReason.CONFLICT,
            f"'{goal.title}' was redefined meanwhile; the next sync takes it up",
        )
    return plan_goal(goal, rollup.totals[goal.id])


def _definition(goal: Goal) -> Goal:
    """Return a goal without what a rollup, a rename or an override changes."""
    return replace(goal, title="", etag="", native={}, percentage=None, rolled_up_at=None, is_overridden=False)
