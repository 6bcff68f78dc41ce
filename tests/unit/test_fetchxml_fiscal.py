from __future__ import annotations

import datetime as dt

import pytest

from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate, add_months


def _days(*texts: str) -> tuple[dt.date, ...]:
    return tuple(dt.date.fromisoformat(text) for text in texts)


APRIL = FiscalCalendar(4, 1, FiscalTemplate.QUARTERLY)


@pytest.mark.parametrize(
    ("calendar", "code", "first", "last"),
    [
        (FiscalCalendar(), 1, "2024-01-01", "2024-03-31"),
        (FiscalCalendar(), 4, "2024-10-01", "2024-12-31"),
        (FiscalCalendar(), 102, "2024-02-01", "2024-02-29"),
        (APRIL, 4, "2025-01-01", "2025-03-31"),
        (APRIL, 101, "2025-01-01", "2025-01-31"),
        (APRIL, 104, "2024-04-01", "2024-04-30"),
        (APRIL, 202, "2024-10-01", "2025-03-31"),
        (APRIL, 301, "2024-04-01", "2025-03-31"),
        (FiscalCalendar(), 401, "2024-01-01", "2024-01-28"),
        (FiscalCalendar(), 413, "2024-12-02", "2024-12-29"),
        (FiscalCalendar(leftover_days="last_period"), 413, "2024-12-02", "2024-12-31"),
        (FiscalCalendar(4, 6), 104, "2024-04-06", "2024-05-05"),
        (FiscalCalendar(1, 31), 102, "2024-02-29", "2024-03-30"),
        (FiscalCalendar(2, 29), 301, "2024-02-29", "2025-02-27"),
        (FiscalCalendar(7, 1, named_by="end"), 301, "2023-07-01", "2024-06-30"),
        (FiscalCalendar(1, 1, named_by="end"), 301, "2024-01-01", "2024-12-31"),
    ],
)
def test_a_goals_period_has_both_ends_in(calendar: FiscalCalendar, code: int, first: str, last: str) -> None:
    assert calendar.period_bounds(2024, code) == _days(first, last)


@pytest.mark.parametrize("code", [0, 5, 100, 113, 203, 302, 400, 414, -1])
def test_an_unknown_period_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match="no fiscal period"):
        FiscalCalendar().period_bounds(2024, code)


@pytest.mark.parametrize("named_by", ["start", "end"])
@pytest.mark.parametrize("template", list(FiscalTemplate))
@pytest.mark.parametrize("start", [(1, 1), (4, 6), (10, 1), (2, 29)])
def test_years_and_periods_cover_every_day_once(
    start: tuple[int, int], template: FiscalTemplate, named_by: str
) -> None:
    calendar = FiscalCalendar(*start, template, named_by="end" if named_by == "end" else "start")
    for offset in range(0, 800, 3):
        day = dt.date(2023, 1, 1) + dt.timedelta(days=offset)
        first, last = calendar.year_bounds(calendar.year_of(day))
        assert first <= day <= last
        begins, ends = calendar.period_from(day)
        assert begins <= day < ends
        assert calendar.period_from(day, 1)[0] == ends
        assert calendar.period_from(day, -1)[1] == begins


def test_a_period_number_the_template_lacks_has_no_bounds() -> None:
    semesters = FiscalCalendar(template=FiscalTemplate.SEMIANNUAL)
    assert semesters.numbered(2024, 2) == _days("2024-07-01", "2025-01-01")
    assert semesters.numbered(2024, 3) is None


@pytest.mark.parametrize(
    ("day", "months", "moved"),
    [("2024-03-31", -1, "2024-02-29"), ("2023-01-31", 1, "2023-02-28"), ("2024-02-29", 12, "2025-02-28")],
)
def test_a_month_without_the_day_gives_its_last(day: str, months: int, moved: str) -> None:
    assert add_months(dt.date.fromisoformat(day), months) == dt.date.fromisoformat(moved)


def test_years_outside_the_calendar_are_refused() -> None:
    with pytest.raises(ValueError, match="no fiscal year"):
        FiscalCalendar().year_bounds(0)
    with pytest.raises(ValueError, match="no date"):
        add_months(dt.date(9999, 12, 1), 1)
