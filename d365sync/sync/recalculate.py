"""Mode recalculate: have the platform roll up the trees that are stale by our numbers, then see what agrees.

Nothing but the platform's own action is called, one tree after the other with a pause between, so many in a cycle. The
journal keeps what came of it: a goal in which the platform comes to another number than we do (it has limits) is not
asked for again until either number changes. The action may be repeated without harm; after a lost answer the goals say.

IO: HTTP and SQL, through the client, the journal and the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from d365sync.core.goals.book import goal_of
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.stale import StaleTree, differs, still_differing, waiting
from d365sync.core.goals.writes import SENT, GoalWrite, Skip, SkipReason, held, left_alone, sent
from d365sync.core.values import Row
from d365sync.errors import (
    FORBIDDEN,
    NOT_THERE,
    THROTTLED,
    AuthError,
    ProtocolError,
    RejectedError,
    RemoteError,
    RetryableError,
)
from d365sync.journal.store import Ending, Intent, Journal, WriteOutcome
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.push import Forbidden, Pushed

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient
    from d365sync.dataverse.rowbatch import Outcome

log = structlog.get_logger(__name__)

ACTION = "Recalculate"
"""Source: Recalculate action (bound to goal, no parameters, no answer)."""


@dataclass(slots=True)
class _Asked:
    """A tree that the platform was asked to roll up: the numbers of its writes in the journal, and what it said."""

    tree: StaleTree
    numbers: list[int]
    error: RemoteError | ProtocolError | None = None


@dataclass(frozen=True, slots=True)
class Recalculator:
    """What recalculating needs; ``goals`` is the mirrored goal table, ``current`` the goals as they were planned from.

    At most ``at_most`` trees are asked for, ``pause_s`` seconds apart; ``batch_size`` goals are read at once.
    """

    client: DataverseClient
    journal: Journal
    mirror: Mirror
    goals: MirrorTable
    run_id: str
    clock: Callable[[], dt.datetime]
    current: Mapping[str, Goal]
    at_most: int
    pause_s: float
    batch_size: int
    on_goal: Callable[[GoalWrite], None] = field(default=lambda _write: None)

    def recalculate(self, trees: Sequence[StaleTree]) -> Pushed:
        """Have trees rolled up; ``written`` are then the goals that agree with us now.

        Raises:
            AuthError: no tree may be rolled up by this identity.
            RetryableError: throttled for longer than the retry budget; what was asked for is looked at by the next run.
        """
        pushed = Pushed()
        asked: list[_Asked] = []
        for tree in trees[: self.at_most]:
            if asked:
                self.client.wait(self.pause_s)
            asked.append(self._ask(tree))
        pushed.skips += [waiting(tree) for tree in trees[self.at_most :]]
        self._look(asked, pushed)
        pushed.asked = sum(one.error is None for one in asked)
        if not pushed.asked and asked and isinstance(asked[0].error, AuthError):
            raise asked[0].error
        return pushed

    def _ask(self, tree: StaleTree) -> _Asked:
        intents = [
            Intent(one.goal_id, one.title, one.etag, held(one, self.current[one.goal_id]), sent(one))
            for one in tree.writes
        ]
        asked = _Asked(tree, self.journal.intend(self.run_id, intents, self.clock()))
        for write in tree.writes:
            self.on_goal(write)
        try:
            self.client.act(self.goals.table, tree.ask.id, ACTION)
            log.info("tree.recalculated", goal=tree.ask.id, title=tree.ask.title, stale=len(tree.writes))
        except (RemoteError, ProtocolError) as error:
            log.warning("tree.not_recalculated", goal=tree.ask.id, title=tree.ask.title, reason=str(error))
            asked.error = error
            if _concerns_all(error):
                endings = [Ending(number, WriteOutcome.FAILED, message=str(error)) for number in asked.numbers]
                self.journal.done(endings, self.clock())
                raise
        return asked

    def _look(self, asked: Sequence[_Asked], pushed: Pushed) -> None:
        """Read the stale goals of all trees asked for, and note which agree now."""
        found = [
            (one, write, number) for one in asked for write, number in zip(one.tree.writes, one.numbers, strict=True)
        ]
        for start in range(0, len(found), self.batch_size):
            some = found[start : start + self.batch_size]
            outcomes = self._read([write.goal_id for _, write, _ in some])
            endings = [
                _ended(one, write, number, outcome, pushed)
                for (one, write, number), outcome in zip(some, outcomes, strict=True)
            ]
            self.journal.done(endings, self.clock())
            rows: list[Row] = [one for one in outcomes if not isinstance(one, RemoteError)]
            if rows and self.mirror.is_pulled(self.goals):
                self.mirror.apply(self.goals, rows, [])

    def _read(self, ids: Sequence[str]) -> Sequence[Outcome]:
        from d365sync.dataverse.rowbatch import read_rows

        return read_rows(self.client, self.goals.table, ids, self.goals.column_names)


def _ended(one: _Asked, write: GoalWrite, number: int, outcome: Outcome, pushed: Pushed) -> Ending:
    """Judge one goal after its tree was asked for: add it to what became of the plan, return how its entry ends."""
    if isinstance(outcome, RemoteError):
        return _unread(write, number, outcome, pushed)
    goal = goal_of(outcome)
    other = still_differing(write, goal)
    if not other:
        pushed.written.append(write)
        return Ending(number, WriteOutcome.DONE, goal.etag, after=held(write, goal))
    if goal.is_overridden:
        pushed.skips.append(left_alone(goal, SkipReason.CONFLICT, "was overridden meanwhile; left as it is"))
        return Ending(number, WriteOutcome.CONFLICT)
    if one.error is not None:
        pushed.failures.append(_failure(goal, one.error))
        return Ending(number, WriteOutcome.FAILED, message=str(one.error))
    if goal.etag == write.etag:
        pushed.skips.append(left_alone(goal, SkipReason.LATER, "has not been rolled up yet; the next sync looks again"))
        return Ending(number, WriteOutcome.FAILED, message="not rolled up yet")
    pushed.skips.append(differs(write, goal, other))
    ours = sent(write)
    return Ending(
        number,
        WriteOutcome.DONE,
        goal.etag,
        after=held(write, goal) | {SENT + name: ours[name] for name in other},
    )


def _unread(write: GoalWrite, number: int, error: RemoteError, pushed: Pushed) -> Ending:
    if error.status == NOT_THERE:
        message = f"'{write.title}' was deleted meanwhile"
        pushed.skips.append(Skip(write.goal_id, write.title, SkipReason.GONE, message))
        return Ending(number, WriteOutcome.GONE, message=str(error))
    message = f"'{write.title}' cannot be read after its recalculation ({error}); the next sync looks again"
    pushed.failures.append(Skip(write.goal_id, write.title, SkipReason.PROBLEM, message))
    return Ending(number, WriteOutcome.FAILED, message=str(error))


def _failure(goal: Goal, error: RemoteError | ProtocolError) -> Skip:
    message = f"'{goal.title}' was not recalculated: {error}"
    if isinstance(error, AuthError):
        return Forbidden(goal.id, goal.title, SkipReason.PROBLEM, message, error)
    return Skip(goal.id, goal.title, SkipReason.PROBLEM, message)


def _concerns_all(error: RemoteError | ProtocolError) -> bool:
    """Say whether a refusal is about the identity or the service as a whole, not about one tree."""
    if isinstance(error, RetryableError):
        return error.status == THROTTLED
    if isinstance(error, AuthError):
        return error.status != FORBIDDEN
    return isinstance(error, RemoteError) and not isinstance(error, RejectedError)
