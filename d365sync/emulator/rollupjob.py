"""The native rollup of goals on its schedule: a second writer beside whoever synchronizes.

Source: Set up automatic rollup of goals (``goalrollupfrequency`` in hours, ``goalrollupexpirytime`` in days after a
goal's end); AsyncOperation table reference (operation type 40, Goal Roll Up). ``Assumed:``

- the first run comes one interval after the first request; a changed interval counts from the next run on
- a goal whose time has expired keeps its columns, and its stored values flow into its parent
- of many runs missed at once (the clock has jumped) the last fifty are made up

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from d365sync.core.values import Row
from d365sync.emulator.jobrows import GOAL_ROLLUP, OPEN, TABLE, add_job
from d365sync.emulator.native import recalculate
from d365sync.emulator.nativerecords import Records
from d365sync.emulator.refuse import Refusal
from d365sync.emulator.store import Store

FREQUENCY_H, EXPIRY_DAYS = 24, 30
"""Used when the organization does not say. Source: organization table reference (defaults)."""
MADE_UP = 50
NEVER = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)


def is_wanted(store: Store) -> bool:
    """Say whether the job runs: as the settings say, otherwise unless the clock stands still."""
    wanted = store.settings.native_rollup
    return not store.clock.frozen if wanted is None else wanted


def schedule(store: Store) -> None:
    """See to it that the next run is waiting, one interval from now."""
    if is_wanted(store) and not any(_is_waiting(job) for job in store.rows(TABLE).values()):
        now = store.clock.now()
        _add(store, _after(now, interval(store)), now)


def interval(store: Store) -> dt.timedelta:
    """Return the time between two runs."""
    hours = store.only("organization").get("goalrollupfrequency")
    return dt.timedelta(hours=hours if isinstance(hours, int) and hours > 0 else FREQUENCY_H)


def roll_up_goals(store: Store, job: Row, at: dt.datetime) -> str:
    """Roll up every tree as at an instant, and put the next run in its place; return what is to be said of it."""
    leaves = _expired(store, at)
    goals = list(store.rows("goal").values())
    rolled_up = 0
    for goal in goals:
        if store.get("goal", goal.get("parentgoalid")) is None:
            try:
                recalculate(store, str(goal["goalid"]), store.settings, at, leaves)
                rolled_up += 1
            except Refusal:
                continue
    step = interval(store)
    missed = max(0, (store.clock.now() - at) // step - MADE_UP)
    _add(store, _after(at, step * (missed + 1)), at, job)
    return f"{rolled_up} goal trees were rolled up."


def _is_waiting(job: Row) -> bool:
    return job.get("operationtype") == GOAL_ROLLUP and job.get("statecode") in OPEN


def _add(store: Store, due: dt.datetime, now: dt.datetime, job: Row | None = None) -> None:
    owner = None if job is None else job.get("ownerid")
    user = owner or next(iter(store.rows("systemuser")), None)
    add_job(store, GOAL_ROLLUP, "Goal Roll Up", user, due, now, primaryentitytype="goal", recurrencestarttime=due)


def _after(at: dt.datetime, step: dt.timedelta) -> dt.datetime:
    return at + step if step < NEVER - at else NEVER


def _expired(store: Store, at: dt.datetime) -> Callable[[Row], bool]:
    """Return the test whether the job leaves a goal alone because it ended too long ago."""
    days = store.only("organization").get("goalrollupexpirytime")
    records = Records(store, store.settings, at)
    today = at.astimezone(store.settings.rollup_time_zone).date()
    kept = dt.timedelta(days=days if isinstance(days, int) else EXPIRY_DAYS)

    def leaves(goal: Row) -> bool:
        period = records.period(goal)
        return period is not None and today - period.last > kept

    return leaves
