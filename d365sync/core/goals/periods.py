"""Children whose period is not their parent's: added all the same, and named.

Source: Create goal hierarchy, goals, and targets (a child's period is its parent's); error 0x80044906
ParentChildPeriodAttributesDiffer.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from zoneinfo import ZoneInfo

from d365sync.core.goals.bounds import owner_span
from d365sync.core.goals.forest import Forest
from d365sync.core.goals.goal import Goal, GoalBook
from d365sync.core.goals.rollup import ClosedChild
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem, Severity


def differing_periods(
    book: GoalBook, forest: Forest, zone: ZoneInfo, closed_child: ClosedChild = ClosedChild.STORED
) -> Iterator[Problem]:
    """Yield a warning for every child whose days differ from those of its open parent, to which it adds.

    Only the days count: a custom and a fiscal period of the same days do not differ. A goal without a usable period
    has a problem of its own.
    """
    for parent_id, children in forest.children.items():
        parent = book.goals[parent_id]
        if not parent.is_open:
            continue
        for child in (book.goals[one] for one in children):
            adds = child.is_open or closed_child is ClosedChild.STORED
            if adds and _columns(child) != _columns(parent):
                yield from _compared(book, parent, child, zone)


def _columns(goal: Goal) -> tuple[object, ...]:
    return goal.is_fiscal, goal.fiscal_year, goal.fiscal_period, goal.starts_at, goal.ends_at


def _compared(book: GoalBook, parent: Goal, child: Goal, zone: ZoneInfo) -> Iterator[Problem]:
    ours, theirs = _span(book, child, zone), _span(book, parent, zone)
    if ours is not None and theirs is not None and ours != theirs:
        yield Problem(
            code="child-period-differs",
            message=f"'{child.title}' runs from {ours.first_on} to {ours.last_on}, but its parent '{parent.title}', "
            f"to which it adds, from {theirs.first_on} to {theirs.last_on}",
            goal_id=child.id,
            severity=Severity.WARNING,
            hint="give the child its parent's period (Dataverse refuses the difference with 0x80044906)",
        )


def _span(book: GoalBook, goal: Goal, zone: ZoneInfo) -> DaySpan | None:
    try:
        return owner_span(goal, book, zone)
    except (ValueError, OverflowError):
        return None
