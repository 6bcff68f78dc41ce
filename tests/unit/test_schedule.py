from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.schedule import Schedule, back_off, check_cron, in_words, shift_of

BERLIN = ZoneInfo("Europe/Berlin")
FIVE = dt.timedelta(minutes=5)


def at(text: str, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(dt.UTC)


@pytest.mark.parametrize(
    ("after", "due"),
    [
        ("2026-03-28T02:30", "2026-03-29T03:00"),  # 02:30 is skipped that night
        ("2026-03-29T03:00", "2026-03-30T02:30"),
        ("2026-10-24T03:00", "2026-10-25T02:30"),  # 02:30 comes twice that night
    ],
)
def test_a_time_of_day_comes_once_a_night_whatever_the_clocks_do(after: str, due: str) -> None:
    schedule = Schedule(cron="30 2 * * *", zone=BERLIN)
    assert schedule.due_after(at(after, BERLIN)) == at(due, BERLIN)


def test_the_second_of_two_equal_times_is_not_another_one() -> None:
    first = at("2026-10-25T02:30", BERLIN)
    schedule = Schedule(cron="30 2 * * *", zone=BERLIN)
    for minutes in (0, 5, 30, 59, 60, 61, 89, 90):
        assert schedule.due_after(first + dt.timedelta(minutes=minutes)) == at("2026-10-26T02:30", BERLIN)


def test_every_five_minutes_goes_on_through_the_hour_that_comes_twice() -> None:
    schedule = Schedule(cron="*/5 * * * *", zone=BERLIN)
    now = at("2026-10-25T01:55", BERLIN)
    for _ in range(36):
        assert schedule.due_after(now) == now + FIVE
        now += FIVE


def test_by_interval_the_first_cycle_is_at_once() -> None:
    now = at("2026-11-20T09:02")
    assert Schedule(every=FIVE).first(now, now) == now
    assert Schedule(every=FIVE).due_after(now) == at("2026-11-20T09:05")


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (None, "2026-11-21T02:00"),
        ("2026-11-20T02:00", "2026-11-21T02:00"),
        ("2026-11-19T02:00", "2026-11-20T09:00"),  # that of the 20th was missed
        ("2026-01-01T02:00", "2026-11-20T09:00"),  # many were: one cycle
        ("2027-01-01T02:00", "2026-11-21T02:00"),  # the clock was wrong then
    ],
)
def test_by_cron_the_first_cycle_is_at_once_only_if_one_was_missed(last: str | None, due: str) -> None:
    schedule = Schedule(cron="0 2 * * *")
    assert schedule.first(at(last) if last else None, at("2026-11-20T09:00")) == at(due)


def test_a_clock_that_is_set_back_does_not_make_it_wait() -> None:
    schedule = Schedule(every=FIVE)
    assert schedule.planned(at("2026-11-21T09:05"), at("2026-11-20T09:01")) == at("2026-11-20T09:05")
    assert schedule.planned(at("2026-11-20T09:05"), at("2026-11-20T12:00")) == at("2026-11-20T09:05")


def test_a_shift_is_always_the_same_for_a_name_and_differs_between_names() -> None:
    minute = dt.timedelta(minutes=1)
    shifts = {name: shift_of(name, minute) for name in ("east", "west", "north", "south")}
    assert shifts == {name: shift_of(name, minute) for name in shifts}
    assert len(set(shifts.values())) > 1
    assert all(dt.timedelta(0) <= shift < minute for shift in shifts.values())
    assert shift_of("east", dt.timedelta(0)) == dt.timedelta(0)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "five fields"),
        ("* * * * * *", "five fields"),
        ("61 * * * *", "bad minute"),
        ("0 0 * * XYZ", "bad day-of-week"),
        ("0 0 30 2 *", "bad day-of-month"),
    ],
)
def test_what_is_no_cron_expression_is_refused_in_words(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_cron(expression)


def test_a_schedule_in_words() -> None:
    assert in_words(Schedule(every=FIVE)) == "every 5 min"
    assert in_words(Schedule(every=dt.timedelta(hours=2))) == "every 2 h"
    assert in_words(Schedule(every=dt.timedelta(seconds=90))) == "every 90 s"
    assert in_words(Schedule(cron="30 2 * * *", zone=BERLIN)) == "at 02:30 every day (Europe/Berlin)"


def test_a_failing_environment_is_tried_less_and_less_often_up_to_every_quarter_of_an_hour() -> None:
    assert [back_off(failures).total_seconds() / 60 for failures in (1, 2, 3, 4, 5, 6, 1000)] == [
        1,
        2,
        4,
        8,
        15,
        15,
        15,
    ]
    assert back_off(1, dt.timedelta(minutes=4)) == dt.timedelta(minutes=4)
