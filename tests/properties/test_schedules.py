"""Schedules over simulated years: nothing comes early, nothing twice, and what was missed comes once, at once."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.core.schedule import Schedule, shift_of
from tests.effort import examples

ZONES = ["UTC", "Europe/Berlin", "Asia/Tehran", "Australia/Lord_Howe", "America/New_York", "Atlantic/Azores"]
CRONS = [
    "*/5 * * * *",
    "0 2 * * *",
    "30 1,2,3 * * *",
    "15 */6 * * *",
    "0 7 * * 6",
    "59 23 L * *",
    "0 0 29 2 *",
    "5 4 * * MON-FRI",
]
START = dt.datetime(2019, 1, 1, tzinfo=dt.UTC)
YEARS_S = 8 * 366 * 86_400
SECOND = dt.timedelta(seconds=1)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    shift = shift_of(draw(st.text(max_size=5)), dt.timedelta(seconds=draw(st.integers(0, 900))))
    if draw(st.booleans()):
        return Schedule(every=dt.timedelta(seconds=draw(st.integers(1, 200_000))), shift=shift)
    return Schedule(cron=draw(st.sampled_from(CRONS)), zone=ZoneInfo(draw(st.sampled_from(ZONES))), shift=shift)


instants = st.integers(0, YEARS_S).map(lambda seconds: START + dt.timedelta(seconds=seconds))


@settings(max_examples=examples(60), deadline=None)
@given(schedules(), instants)
def test_due_instants_are_the_same_from_wherever_one_looks(schedule: Schedule, begin: dt.datetime) -> None:
    due = schedule.due_after(begin)
    assert due > begin
    assert schedule.due_after(due - SECOND) == due == schedule.due_after(begin + (due - begin) / 2)
    assert schedule.due_after(due) > due
    if schedule.every:
        assert schedule.due_after(due) - due == schedule.every


@settings(max_examples=examples(15), deadline=None)
@given(st.integers(0, 23), st.integers(0, 59), st.sampled_from(ZONES), st.integers(2019, 2025))
def test_a_time_of_day_comes_once_on_every_date_of_a_year(hour: int, minute: int, zone: str, year: int) -> None:
    schedule = Schedule(cron=f"{minute} {hour} * * *", zone=ZoneInfo(zone))
    at, dates = dt.datetime(year, 1, 1, tzinfo=ZoneInfo(zone)) - SECOND, []
    for _ in range(365):
        at = schedule.due_after(at)
        dates.append(at.astimezone(ZoneInfo(zone)).date())
    assert all(after - before == dt.timedelta(days=1) for before, after in pairwise(dates))


steps = st.one_of(
    st.integers(1, 20),  # the loop turns
    st.integers(60, 30 * 86_400),  # the machine sleeps, or a cycle takes long
    st.integers(-30 * 86_400, -1),  # the clock is set back
)


@settings(max_examples=examples(80), deadline=None)
@given(schedules(), instants, st.lists(steps, min_size=1, max_size=60))
def test_a_loop_runs_once_for_all_it_missed_and_never_waits_longer_than_the_schedule(
    schedule: Schedule, now: dt.datetime, taken: list[int]
) -> None:
    next_at = schedule.first(None, now)
    for seconds in taken:
        missed = next_at <= now + dt.timedelta(seconds=seconds)
        now += dt.timedelta(seconds=seconds)
        next_at = schedule.planned(next_at, now)
        ran = next_at <= now
        assert ran == missed
        if ran:
            next_at = schedule.due_after(now)
        assert now < next_at <= schedule.due_after(now)
