"""Push: send the plan in batches, each goal only if it is still as it was read.

Every write is in the journal before it is sent and again when its outcome is known. After a batch, the goals that
changed meanwhile and those whose outcome is unknown (a lost connection, a failing gateway) are read again together,
before anything is sent again: a write that arrived is recognised, an untouched goal is sent again as it was, a changed
one is planned once more. A goal that changed again, or that a person has overridden, is left alone and reported.

Only where the outcome of a sending is unknown can what a goal holds be our hand's; after a plain 412 it is somebody
else's, whatever it says.

IO: HTTP and SQL, through the client, the journal and the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import structlog

from d365sync.core.goals.book import goal_of
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.writes import (
    GoalWrite,
    Planner,
    Skip,
    SkipReason,
    WritePlan,
    arrived,
    held,
    is_ours,
    left_alone,
    sent,
    stored,
    write_body,
)
from d365sync.core.values import Row
from d365sync.errors import (
    FORBIDDEN,
    NOT_THERE,
    THROTTLED,
    AuthError,
    ConflictError,
    ProtocolError,
    RejectedError,
    RemoteError,
    RetryableError,
)
from d365sync.journal.store import Ending, Intent, Journal, Values, WriteOutcome
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient
    from d365sync.dataverse.rowbatch import Outcome

log = structlog.get_logger(__name__)

SERVER_ERROR = 500
MANY_FORBIDDEN = 3
"""Goals refused for want of a right, and none written: it is the identity, whatever else was wrong with the first."""
ATTEMPTS = 2
FEWER = 4
"""After a batch of which nothing arrived, and nobody knows why (it may take too long), batches have this part of it."""
SMALL = 100
"""Size below which a batch does not take too long."""
PATIENCE = 4
"""How often a throttled goal is sent again before the run ends as temporary."""


Again: TypeAlias = Callable[[Goal, Goal, Sequence[Values]], GoalWrite | Skip | None]
"""Plans a goal once more: as it is now, as it was, and the columns it may hold by our hand."""


@dataclass(slots=True)
class Pushed:
    """What became of a plan: the goals written, those already as planned, and those left alone with the reason.

    ``asked`` is the number of trees that the platform was asked to roll up.
    """

    written: list[GoalWrite] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    failures: list[Skip] = field(default_factory=list)
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Forbidden(Skip):
    """A goal that this identity may not write, with the answer that said so."""

    error: AuthError


@dataclass(slots=True)
class _Step:
    """One goal on its way: what to write, the goal it was planned from, what may be ours in it, how often it was sent.

    ``number`` is that of its last write in the journal. ``open`` are the numbers of earlier sendings of the same write
    whose outcome is unknown: they may still arrive, as long as the goal keeps its etag. ``lost`` says so of the
    last one: of a part that was answered, with whatever failure, nothing is on its way any more.
    """

    write: GoalWrite
    goal: Goal
    ours: tuple[Values, ...]
    attempts: int = 0
    throttled: int = 0
    number: int = 0
    open: tuple[int, ...] = ()
    lost: bool = False


@dataclass(slots=True)
class _Settled:
    """What is to be noted after a batch: endings for the journal, rows for the mirror, steps to be sent again."""

    endings: list[Ending] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    again: list[_Step] = field(default_factory=list)
    fatal: RemoteError | None = None

    def end(self, step: _Step, outcome: WriteOutcome, error: RemoteError) -> None:
        """Note that no sending of a step's write has arrived or can arrive any more."""
        self.endings += [Ending(number, outcome, message=str(error)) for number in (*step.open, step.number)]


@dataclass(frozen=True, slots=True)
class Pusher:
    """What pushing needs; ``goals`` is the mirrored goal table, ``clock`` gives the present instant.

    ``own`` are the columns of the organization's own that the writes are about.
    """

    client: DataverseClient
    journal: Journal
    mirror: Mirror
    goals: MirrorTable
    run_id: str
    clock: Callable[[], dt.datetime]
    batch_size: int = 1000
    on_goal: Callable[[GoalWrite], None] = field(default=lambda _write: None)
    own: tuple[str, ...] = ()

    def push(
        self, plan: WritePlan, current: Mapping[str, Goal], again: Again, ours: Mapping[str, tuple[Values, ...]]
    ) -> Pushed:
        """Send every write of a plan; one goal's refusal does not stop the others.

        ``again`` plans a goal once more that changed meanwhile; ``ours`` are the columns that goals may hold by our
        hand, as the journal tells.

        Raises:
            AuthError, RetryableError, RejectedError: the remote as a whole; what was written stays written and
                journalled, and what is unknown is looked at by the next run.
        """
        pushed = Pushed()
        steps = [_Step(write, current[write.goal_id], ours.get(write.goal_id, ())) for write in plan.writes]
        size = self.batch_size
        while steps:
            batch, steps = steps[:size], steps[size:]
            for step in batch:
                if not step.attempts and not step.throttled:
                    self.on_goal(step.write)
            more = self._batch(batch, again, pushed)
            if len(more) == len(batch) and all(step.open for step in more):
                size = min(size, max(SMALL, len(batch) // FEWER))
            steps = [*more, *steps]
        _give_up_when_all_is_forbidden(pushed)
        return pushed

    def _batch(self, steps: Sequence[_Step], again: Again, pushed: Pushed) -> list[_Step]:
        """Send one batch, settle every outcome, and return the steps to be sent again."""
        settled = _Settled()
        unsettled: list[tuple[_Step, RemoteError]] = []
        throttled: list[tuple[_Step, RetryableError]] = []
        for step, outcome in zip(steps, self._send(steps), strict=True):
            if not isinstance(outcome, RemoteError):
                self._written(step, outcome, settled, pushed)
            elif isinstance(outcome, RetryableError) and outcome.status == THROTTLED:
                throttled.append((step, outcome))
                settled.endings.append(Ending(step.number, WriteOutcome.FAILED, message=str(outcome)))
            elif isinstance(outcome, ConflictError | RetryableError):
                if isinstance(outcome, ConflictError) and not step.open:
                    settled.endings.append(Ending(step.number, WriteOutcome.CONFLICT, message=str(outcome)))
                unsettled.append((step, outcome))
            else:
                _refused(step, outcome, settled, pushed)
        self._note(settled)
        planned = self._look_again(unsettled, again, pushed) if unsettled else []
        return [*planned, *self._wait(throttled)]

    def _send(self, steps: Sequence[_Step]) -> Sequence[Outcome]:
        """Note the writes and send them; an outcome that is unknown is a RetryableError."""
        from d365sync.dataverse.rowbatch import RowChange, change_rows

        intents = [_intent(step) for step in steps]
        for step, number in zip(steps, self.journal.intend(self.run_id, intents, self.clock()), strict=True):
            step.number, step.lost = number, False
        changes = [RowChange(s.goal.id, write_body(s.write, self.clock()), s.write.etag) for s in steps]
        try:
            return change_rows(self.client, self.goals.table, changes, self.goals.column_names)
        except ProtocolError as error:
            return _all_lost(steps, RetryableError(str(error)))
        except RemoteError as error:
            if _is_unknown(error):
                return _all_lost(steps, RetryableError(str(error), status=error.status))
            self.journal.done([Ending(s.number, WriteOutcome.FAILED, message=str(error)) for s in steps], self.clock())
            raise

    def _look_again(self, unsettled: Sequence[tuple[_Step, RemoteError]], again: Again, pushed: Pushed) -> list[_Step]:
        """Read goals back together: see what arrived, send again what nobody touched, plan the others once more.

        What cannot be read stays open in the journal, so that the next run recognises it.
        """
        from d365sync.dataverse.rowbatch import read_rows

        ids = [step.goal.id for step, _ in unsettled]
        found = read_rows(self.client, self.goals.table, ids, self.goals.column_names)
        settled = _Settled()
        for (step, error), outcome in zip(unsettled, found, strict=True):
            if isinstance(outcome, RemoteError):
                _unreadable(step, outcome, settled, pushed)
                continue
            goal = goal_of(outcome, self.own)
            in_doubt = step.open or not isinstance(error, ConflictError)
            if in_doubt and goal.etag != step.write.etag and arrived(step.write, step.goal, goal):
                self._written(step, outcome, settled, pushed)
            elif in_doubt and goal.etag == step.write.etag:
                _send_again(step, error, settled, pushed)
            else:
                settled.end(step, WriteOutcome.CONFLICT, error)
                settled.rows.append(outcome)
                log.info("goal.conflict", goal=goal.id, title=goal.title, reason=str(error))
                self._plan_again(step, goal, again, settled, pushed)
        self._note(settled)
        return settled.again

    def _written(self, step: _Step, row: Row, settled: _Settled, pushed: Pushed) -> None:
        goal = goal_of(row, self.own)
        ending = Ending(step.number, WriteOutcome.DONE, etag=goal.etag, after=stored(step.write, goal))
        settled.endings.append(ending)
        settled.rows.append(row)
        pushed.written.append(step.write)
        log.info("goal.written", goal=goal.id, title=goal.title)

    def _plan_again(self, step: _Step, goal: Goal, again: Again, settled: _Settled, pushed: Pushed) -> None:
        planned = again(goal, step.goal, step.ours)
        if isinstance(planned, GoalWrite) and step.attempts + 1 < ATTEMPTS:
            settled.again.append(_Step(planned, goal, step.ours, step.attempts + 1, step.throttled))
        elif isinstance(planned, GoalWrite):
            pushed.skips.append(left_alone(goal, SkipReason.CONFLICT, "keeps being changed by others; left as it is"))
        elif planned is not None:
            pushed.skips.append(planned)

    def _wait(self, throttled: Sequence[tuple[_Step, RetryableError]]) -> list[_Step]:
        """Be patient with the server; return the goals it refused for now.

        Raises:
            RetryableError: it has refused one too often.
        """
        for step, error in throttled:
            step.throttled += 1
            if step.throttled > PATIENCE:
                raise error
        if throttled:
            step, error = max(throttled, key=lambda one: one[1].retry_after_s or 0)
            self.client.ask_patience(error, step.throttled)
        return [step for step, _ in throttled]

    def _note(self, settled: _Settled) -> None:
        self.journal.done(settled.endings, self.clock())
        if (settled.rows or settled.gone) and self.mirror.is_pulled(self.goals):
            self.mirror.apply(self.goals, settled.rows, settled.gone)
        if settled.fatal is not None:
            raise settled.fatal


def _intent(step: _Step) -> Intent:
    return Intent(step.goal.id, step.goal.title, step.write.etag, held(step.write, step.goal), sent(step.write))


def _refused(step: _Step, error: RemoteError, settled: _Settled, pushed: Pushed) -> None:
    """Note that a goal is gone, or was refused; a token that is not accepted concerns all of them."""
    goal = step.goal
    if error.status == NOT_THERE:
        _vanished(step, error, settled, pushed)
        return
    settled.endings.append(Ending(step.number, WriteOutcome.FAILED, message=str(error)))
    if isinstance(error, AuthError) and error.status == FORBIDDEN:
        message = f"'{goal.title}' may not be written: {error}"
        pushed.failures.append(Forbidden(goal.id, goal.title, SkipReason.PROBLEM, message, error))
    elif isinstance(error, RejectedError):
        log.warning("goal.refused", goal=goal.id, title=goal.title, reason=str(error))
        message = f"Dataverse refused to write '{goal.title}': {error}"
        pushed.failures.append(Skip(goal.id, goal.title, SkipReason.PROBLEM, message))
    else:
        settled.fatal = settled.fatal or error


def _send_again(step: _Step, error: RemoteError, settled: _Settled, pushed: Pushed) -> None:
    """Send a write again that may still arrive: the goal is as it was, so one of the sendings holds, and only one."""
    numbers = (*step.open, step.number) if step.lost else step.open
    if not step.lost:
        settled.endings.append(Ending(step.number, WriteOutcome.FAILED, message=str(error)))
    if step.attempts + 1 < ATTEMPTS:
        settled.again.append(_Step(step.write, step.goal, step.ours, step.attempts + 1, step.throttled, open=numbers))
    else:
        tail = f"could not be written ({error}); the next sync looks at it again"
        pushed.failures.append(left_alone(step.goal, SkipReason.PROBLEM, tail))


def _is_unknown(error: RemoteError) -> bool:
    """Say whether a batch that failed may have been carried out all the same."""
    if isinstance(error, AuthError) or error.status == THROTTLED:
        return False
    return isinstance(error, RetryableError) or error.status is None or error.status >= SERVER_ERROR


def _all_lost(steps: Sequence[_Step], error: RetryableError) -> Sequence[Outcome]:
    """Return the outcome of a batch of which nothing is known."""
    for step in steps:
        step.lost = True
    return [error] * len(steps)


def _unreadable(step: _Step, error: RemoteError, settled: _Settled, pushed: Pushed) -> None:
    if error.status == NOT_THERE:
        _vanished(step, error, settled, pushed)
    else:
        tail = f"may have been written; it cannot be read back now ({error}); the next sync looks again"
        pushed.failures.append(left_alone(step.goal, SkipReason.PROBLEM, tail))


def _vanished(step: _Step, error: RemoteError, settled: _Settled, pushed: Pushed) -> None:
    settled.end(step, WriteOutcome.GONE, error)
    settled.gone.append(step.goal.id)
    pushed.skips.append(left_alone(step.goal, SkipReason.GONE, "was deleted meanwhile"))


def _give_up_when_all_is_forbidden(pushed: Pushed) -> None:
    """Stop when nothing could be written for want of a right: it is not about one goal.

    Raises:
        AuthError: the first refusal.
    """
    forbidden = [one for one in pushed.failures if isinstance(one, Forbidden)]
    if pushed.written or not forbidden:
        return
    if pushed.failures[0] is forbidden[0] or len(forbidden) >= MANY_FORBIDDEN:
        raise forbidden[0].error


def planning_again(rollup: Rollup, planner: Planner) -> Again:
    """Return how a sync plans a goal again: from what it is now, unless what defines its numbers changed.

    Columns of the organization's own are ours by configuration, but not what somebody has just put into them.
    """

    def again(goal: Goal, before: Goal, ours: Sequence[Values]) -> GoalWrite | Skip | None:
        if not goal.is_open:
            return left_alone(goal, SkipReason.CLOSED, "was closed meanwhile")
        if goal.is_overridden and not is_ours(goal, ours):
            return left_alone(goal, SkipReason.CONFLICT, "was overridden by a person meanwhile")
        if _definition(goal) != _definition(before):
            return left_alone(goal, SkipReason.CONFLICT, "was redefined meanwhile; the next sync takes it up")
        if goal.own != before.own:
            return left_alone(
                goal, SkipReason.CONFLICT, "has other values in its columns since; the next sync sees them"
            )
        return planner(goal, rollup.totals[goal.id], None)

    return again


def leaving_alone(goal: Goal, _before: Goal, _ours: Sequence[Values]) -> Skip:
    """Plan nothing for a goal that changed meanwhile: what was decided before does not fit it any more."""
    return left_alone(goal, SkipReason.CONFLICT, "was changed meanwhile; left as it is")


def _definition(goal: Goal) -> Goal:
    """Return a goal without what a rollup, a rename or an override changes."""
    return replace(goal, title="", etag="", native={}, own={}, percentage=None, rolled_up_at=None, is_overridden=False)
