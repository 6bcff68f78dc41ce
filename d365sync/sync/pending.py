"""Conflicts that are still open: goals whose last write met another's change, or may or may not have arrived.

IO: SQL, through the journal.
"""

from __future__ import annotations

from dataclasses import dataclass

from d365sync.core.goals.writes import SkipReason, WritePlan
from d365sync.journal.store import Journal, WriteOutcome

UNKNOWN = "outcome unknown"


@dataclass(frozen=True, slots=True)
class Pending:
    """One goal with an open conflict: what is the matter in a phrase, and what an administrator can do."""

    goal_id: str
    title: str
    state: str
    mend: str


def pending_conflicts(journal: Journal, plan: WritePlan, mode: str) -> tuple[Pending, ...]:
    """Return the open conflicts of a mode by title; ``plan`` is what would be written now.

    A goal that holds our numbers by now, is closed or is gone has none.
    """
    titles = {write.goal_id: write.title for write in plan.writes}
    theirs = {skip.goal_id: skip.title for skip in plan.skips if skip.reason is SkipReason.OVERRIDDEN}
    unsettled = journal.unsettled([*titles, *theirs], mode)
    found = [
        _pending(goal_id, (titles | theirs)[goal_id], outcome, overridden=goal_id in theirs)
        for goal_id, outcome in unsettled.items()
    ]
    return tuple(sorted(found, key=lambda one: (one.title, one.goal_id)))


def _pending(goal_id: str, title: str, outcome: WriteOutcome, *, overridden: bool) -> Pending:
    if overridden:
        mend = "agree with whoever overrode it; with Override set to No in the goal, the next sync writes it again"
        return Pending(goal_id, title, str(SkipReason.OVERRIDDEN), mend)
    if outcome is WriteOutcome.INTENDED:
        mend = "if no cycle is under way, run `d365sync sync`: it reads the goal before it writes"
        return Pending(goal_id, title, UNKNOWN, mend)
    mend = "run `d365sync sync`; if it comes back, see in the goal's audit history who changes it at the same time"
    return Pending(goal_id, title, str(SkipReason.CONFLICT), mend)
