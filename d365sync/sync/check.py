"""One line of what ``doctor`` says, and how an error becomes one.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from d365sync.errors import D365SyncError
from d365sync.sync.access import lack_of

T = TypeVar("T")


class Verdict(StrEnum):
    """How a check ended."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; ``exit_code`` is what a FAIL makes the command exit with."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""
    exit_code: int = 0


class Stop(Exception):  # noqa: N818 - ends the report, carries its last line
    """A check failed that all further ones need."""

    def __init__(self, check: Check) -> None:
        super().__init__(check.name)
        self.check = check


def failure(name: str, error: D365SyncError, mend: str = "") -> Check:
    """Return the line of a check that ended with an error: a lack by its name, anything else by its own words."""
    lack = lack_of(error)
    if lack is not None:
        return Check(name, Verdict.FAIL, lack.found, mend or lack.mend, error.exit_code)
    return Check(name, Verdict.FAIL, str(error), mend or error.hint, error.exit_code)


def ask(name: str, question: Callable[[], T]) -> T:
    """Return the answer to a question that all further checks need.

    Raises:
        Stop: it ended with an error.
    """
    try:
        return question()
    except D365SyncError as error:
        raise Stop(failure(name, error)) from None
