"""What the probe concludes from the rows it read, where the emulator cannot be made to differ."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.core.goals.probe import Observed, Pair, Reading, current_period, readings
from d365sync.core.period import DaySpan
from d365sync.core.values import Row

QUARTER = DaySpan(dt.date(2026, 10, 1), dt.date(2026, 12, 31))
TODAY = dt.date(2026, 11, 20)


def reading(
    question: str, step: str = "", *, parent: Row | None = None, child: Row | None = None, **more: object
) -> Reading:
    values: dict[str, object] = {"days": QUARTER, **more}
    steps = {step: Pair(parent or {}, child or {})} if step else {}
    found = readings(Observed(steps, ZoneInfo("UTC"), TODAY, **values))  # type: ignore[arg-type]
    return next(one for one in found if one.id == question)


def test_a_step_that_was_not_reached_leaves_its_questions_open() -> None:
    assert {one.holds for one in readings(Observed({}, ZoneInfo("UTC"), TODAY))} == {None}


@pytest.mark.parametrize(
    ("amount", "holds", "words", "setting"),
    [
        (6, True, "counted: the first day, the last day", ""),
        (3, False, "counted: the day before, the first day", "rollup.time_zone: a zone west of UTC"),
        (12, False, "counted: the last day, the day after", "rollup.time_zone: a zone east of UTC"),
        (2, False, "counted: the first day", ""),
        (0, False, "counted: none", ""),
        (106, None, "could not be told: other records count too (106)", ""),
    ],
)
def test_the_sum_of_the_samples_says_which_days_count(
    amount: int, holds: bool | None, words: str, setting: str
) -> None:
    one = reading("bounds-days", "edges", child={"inprogressmoney": Decimal(amount)}, edge_column="inprogressmoney")
    assert (one.holds, one.found, one.setting) == (holds, words, setting)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (dt.datetime(2026, 9, 30, 20, 30, tzinfo=dt.UTC), "UTC+3.5"),
        (dt.datetime(2026, 10, 1, 7, tzinfo=dt.UTC), "UTC-7"),
        (dt.datetime(2026, 9, 30, 22, tzinfo=dt.UTC), "UTC+2"),
    ],
)
def test_a_midnight_elsewhere_is_told_by_its_offset(start: dt.datetime, words: str) -> None:
    assert words in reading("bounds-zone", "created", parent={"goalstartdate": start}).found


def test_start_dates_left_empty_are_said_so() -> None:
    one = reading("bounds-filled", "created", parent={"goalstartdate": None})
    assert (one.holds, one.found) == (False, "not filled")


def test_a_percentage_that_is_cut_is_neither_rounding() -> None:
    steps = {name: Pair({}, {"percentage": Decimal(value)}) for name, value in (("half", 12), ("half_even", 37))}
    found = {one.id: one for one in readings(Observed(steps, ZoneInfo("UTC"), TODAY))}
    assert (found["percentage-rounding"].holds, found["percentage-rounding"].setting) == (False, "")


@pytest.mark.parametrize(("value", "holds"), [("549.4505", True), ("554.3478", False), ("550", False)])
def test_todays_target_is_told_by_its_formula(value: str, holds: bool) -> None:
    bounds = {
        "goalstartdate": dt.datetime(2026, 10, 1, tzinfo=dt.UTC),
        "goalenddate": dt.datetime(2026, 12, 31, tzinfo=dt.UTC),
    }
    one = reading("todays-target", "empty", parent={**bounds, "computedtargetasoftodaymoney": Decimal(value)})
    assert one.holds is holds


def test_records_of_others_make_an_empty_category_untellable() -> None:
    assert reading("empty-category", "empty", child={"actualmoney": Decimal(5)}).holds is None


@pytest.mark.parametrize(
    ("template", "code"),
    [
        (FiscalTemplate.ANNUAL, 301),
        (FiscalTemplate.SEMIANNUAL, 202),
        (FiscalTemplate.QUARTERLY, 4),
        (FiscalTemplate.MONTHLY, 111),
        (FiscalTemplate.FOUR_WEEK, 412),
    ],
)
def test_the_current_fiscal_period(template: FiscalTemplate, code: int) -> None:
    found = current_period(FiscalCalendar(template=template), TODAY)
    assert found is not None
    assert found[:2] == (2026, code)
    assert TODAY in found[2]


def test_a_leftover_day_has_no_period() -> None:
    assert current_period(FiscalCalendar(template=FiscalTemplate.FOUR_WEEK), dt.date(2026, 12, 31)) is None
