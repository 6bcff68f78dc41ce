"""One line of what ``doctor`` says, how an error becomes one, and how checks that need each other are made in turn.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, TypeVar

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
    """One line of the report; ``exit_code`` is what a FAIL makes the command exit with.

    ``topic`` is where docs/doctor.md says more about it.
    """

    name: str
    verdict: Verdict
    found: str
    mend: str = ""
    exit_code: int = 0
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """Some lines about one topic: how they are found, what they mean, and what mends them.

    ``ask`` yields lines; it raises :class:`Stop` where those that need this topic cannot be asked. ``needs`` are the
    topics it needs. It is left out where it does not ``apply``.
    """

    topic: str
    ask: Callable[[T], Iterable[Check]]
    means: str
    mend: str
    needs: tuple[str, ...] = ()
    applies: Callable[[T], bool] = lambda _case: True


class Stop(Exception):  # noqa: N818 - ends a step, carries its last line
    """A check failed that others need."""

    def __init__(self, check: Check) -> None:
        super().__init__(check.name)
        self.check = check


def examined(steps: Iterable[Step[T]], case: T) -> Iterator[Check]:
    """Yield the lines of all steps that apply; one that needs a topic that failed is named as not checked.

    What is named there is the first of the failures, not the one after it.
    """
    failed: dict[str, str] = {}
    told: set[str] = set()
    for step in steps:
        if not step.applies(case):
            continue
        causes = [failed[need] for need in step.needs if need in failed]
        if causes:
            failed[step.topic] = causes[0]
            if step.topic not in told:
                yield not_checked(step.topic, causes[0])
            continue
        try:
            for check in step.ask(case):
                yield _placed(check, step.topic, told)
        except Stop as stop:
            failed[step.topic] = stop.check.name
            yield _placed(stop.check, step.topic, told)
        except D365SyncError as error:
            failed[step.topic] = step.topic
            yield _placed(failure(step.topic, error), step.topic, told)
        except (OSError, ValueError) as error:
            failed[step.topic] = step.topic
            yield _placed(Check(step.topic, Verdict.FAIL, f"could not be asked: {error}", "", 1), step.topic, told)


def not_checked(name: str, cause: str) -> Check:
    """Return the line of what could not be asked because of something else."""
    return Check(name, Verdict.WARN, f"not checked: needs {cause}", topic=name)


def exit_code_of(checks: Iterable[Check], *, strict: bool) -> int:
    """Return what the command exits with: the gravest of the failures; with ``strict`` a warning counts as one (1)."""
    counts = {Verdict.OK: 0, Verdict.WARN: int(strict), Verdict.FAIL: 1}
    codes = ((check.exit_code if check.verdict is Verdict.FAIL else 0) or counts[check.verdict] for check in checks)
    return max(codes, default=0)


def failure(name: str, error: D365SyncError, mend: str = "") -> Check:
    """Return the line of a check that ended with an error: a lack by its name, anything else by its own words."""
    lack = lack_of(error)
    if lack is not None:
        return Check(name, Verdict.FAIL, lack.found, mend or lack.mend, error.exit_code)
    return Check(name, Verdict.FAIL, str(error), mend or error.hint, error.exit_code)


def ask(name: str, question: Callable[[], T]) -> T:
    """Return the answer to a question that further checks need.

    Raises:
        Stop: it ended with an error.
    """
    try:
        return question()
    except D365SyncError as error:
        raise Stop(failure(name, error)) from None


def _placed(check: Check, topic: str, told: set[str]) -> Check:
    placed = replace(check, topic=check.topic or topic)
    told.add(placed.topic)
    return placed
