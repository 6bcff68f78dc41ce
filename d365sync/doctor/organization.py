"""The organization's settings that decide how often a run must come, and which days a goal's period has.

Source: organization table reference (expirechangetrackingindays); Work with fiscal year settings.

IO: HTTP.
"""

from __future__ import annotations

import calendar
import datetime as dt
import itertools
from collections.abc import Iterator

from d365sync.core.counts import counted
from d365sync.core.fiscal import FiscalCalendar
from d365sync.core.schedule import Schedule, in_words
from d365sync.dataverse.wire import decode_object
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Verdict

EXPIRES = "expirechangetrackingindays"
OUTAGE_DAYS = 3
"""Days (a long weekend) that a service may stand still without having to read everything again."""
DUE_LOOKED_AT = 60
"""Instants of a schedule among which the longest interval is looked for."""


def retention(case: Case) -> Iterator[Check]:
    """Compare how long deleted rows and changes are remembered with how often cycles come."""
    answer = case.client.get("organizations", {"$select": EXPIRES})
    listed = decode_object(answer.body).get("value")
    row = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    days = row.get(EXPIRES)
    plan = case.config.daemon.schedule("", case.config.rollup.zone)
    yield retained(days if isinstance(days, int) else None, longest_wait(plan, case.now()), in_words(plan))


def longest_wait(schedule: Schedule, now: dt.datetime) -> dt.timedelta:
    """Return the longest time between two due instants from now on."""
    due = [schedule.due_after(now)]
    for _ in range(DUE_LOOKED_AT):
        due.append(schedule.due_after(due[-1]))
    return max(later - earlier for earlier, later in itertools.pairwise(due))


def retained(days: int | None, wait: dt.timedelta, schedule: str) -> Check:
    """Return the check of the days that changes are remembered against the longest wait between two cycles."""
    if days is None:
        return Check("delta retention", Verdict.WARN, "the organization does not say how long changes are remembered")
    remembered = dt.timedelta(days=days)
    said = f"changes are remembered for {counted(days, 'day')} (ExpireChangeTrackingInDays); cycles come {schedule}"
    if wait >= remembered:
        mend = "let cycles come more often (daemon.every, daemon.cron), or have ExpireChangeTrackingInDays raised"
        return Check("delta retention", Verdict.FAIL, f"{said}: every cycle would read everything again", mend, 1)
    if remembered - wait < dt.timedelta(days=OUTAGE_DAYS):
        mend = "have ExpireChangeTrackingInDays raised; a longer pause costs a full read, and loses nothing"
        return Check("delta retention", Verdict.WARN, f"{said}: after a pause everything is read again", mend)
    return Check("delta retention", Verdict.OK, said)


def fiscal(case: Case) -> Iterator[Check]:
    """Say what fiscal years and periods the goals have."""
    goals = sum(goal.is_fiscal for goal in case.book.goals.values())
    yield fiscal_told(case.book.organization.fiscal, is_told=bool(case.rows.get("organization")), goals=goals)


def fiscal_told(fiscal: FiscalCalendar, *, is_told: bool, goals: int = 0) -> Check:
    """Return the check of a fiscal calendar; without the organization's row it is the platform's default.

    ``goals`` is how many goals have fiscal periods; without any, an unknown calendar is a warning.
    """
    if fiscal.fault:
        mend = "set the keys of [fiscal] that it names; goals with fiscal periods are not computed until then"
        has = f"{fiscal.fault}; {counted(goals, 'goal')} with fiscal periods"
        return Check("fiscal year", Verdict.FAIL if goals else Verdict.WARN, has, mend, int(bool(goals)))
    begins = f"{fiscal.start_day} {calendar.month_name[fiscal.start_month]}"
    said = f"{fiscal.template.replace('_', '-')} periods, years from {begins}, named by their {fiscal.named_by}"
    if not is_told:
        mend = "give the user prvReadOrganization, or set the keys of [fiscal]"
        return Check("fiscal year", Verdict.WARN, f"the organization does not tell; assumed: {said}", mend)
    return Check("fiscal year", Verdict.OK, said)
