from __future__ import annotations

import datetime as dt

import pytest

from d365sync.cli.goals_shown import period_words
from d365sync.core.period import DaySpan


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("2026-01-01", "2026-12-31", "2026"),
        ("2026-10-01", "2026-12-31", "2026 Q4"),
        ("2026-01-01", "2026-03-31", "2026 Q1"),
        ("2026-02-01", "2026-02-28", "2026-02"),
        ("2026-02-01", "2026-04-30", "2026-02-01 to 2026-04-30"),
        ("2026-07-01", "2027-06-30", "2026-07-01 to 2027-06-30"),
        ("2026-09-23", "2026-12-21", "2026-09-23 to 2026-12-21"),
    ],
)
def test_periods_are_named_as_people_name_them(first: str, last: str, words: str) -> None:
    assert period_words(DaySpan(dt.date.fromisoformat(first), dt.date.fromisoformat(last))) == words
