"""Problems: what is wrong with one goal, returned as a value so that the others go on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Whether a problem stops the goal's numbers from being computed."""

    WARNING = "warning"
    BLOCKING = "blocking"


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of one goal.

    ``code`` is a stable kebab-case name for programs, ``message`` one sentence for people, ``hint``
    the mend. ``goal_id`` is the goal concerned; a blocking problem also blocks the goals above it,
    each with a problem of its own that names this one's goal.
    """

    code: str
    message: str
    goal_id: str | None = None
    severity: Severity = Severity.BLOCKING
    hint: str = ""
