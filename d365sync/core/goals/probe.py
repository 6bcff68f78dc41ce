"""What a trial organization says about the assumptions: two goals, rolled up by the platform, read back step by step.

Each assumption is one small question to the rows that were read back. A step that did not happen leaves its questions
open; nothing is guessed.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from zoneinfo import ZoneInfo

from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.core.period import DaySpan, day_of, is_midnight
from d365sync.core.values import Row, Value, format_instant, plain

ACTUAL, TARGET = "actualmoney", "targetmoney"
PARENT_TARGET = Decimal(1000)
STORED = Decimal(3)
"""What the child is overridden with when it is rolled up, and closed with: 3 of 8 is 37.5 %."""
EIGHT = Decimal(8)
EDGES: Mapping[str, Decimal] = {
    "before": Decimal(1),
    "first": Decimal(2),
    "last": Decimal(4),
    "after": Decimal(8),
}
"""Amounts of the sample records around the period: their sum says which days count."""
EDGE_WORDS = {"before": "the day before", "first": "the first day", "last": "the last day", "after": "the day after"}


PERIOD_CODES: Mapping[FiscalTemplate, range] = {
    FiscalTemplate.QUARTERLY: range(1, 5),
    FiscalTemplate.MONTHLY: range(101, 113),
    FiscalTemplate.SEMIANNUAL: range(201, 203),
    FiscalTemplate.ANNUAL: range(301, 302),
    FiscalTemplate.FOUR_WEEK: range(401, 414),
}
"""Values of a goal's ``fiscalperiod`` by template. Source: goal table reference."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two probe goals as read back after a step."""

    parent: Row
    child: Row


@dataclass(frozen=True, slots=True)
class Observed:
    """What the probe read: the pair after each step it reached, by step.

    ``days`` are the days we compute for the goals' fiscal period, None when they have a custom one. ``edge_column``
    is the goal column the sample records feed, None without them. ``percentage_alone`` says whether ``percentage``
    could be written without ``isoverride``, None when not tried.
    """

    steps: Mapping[str, Pair]
    zone: ZoneInfo
    today: dt.date
    days: DaySpan | None = None
    edge_column: str | None = None
    percentage_alone: bool | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One assumption: the question, what d365sync takes, what was found, and what to set.

    ``holds`` is None when it could not be told. ``setting`` is the configuration that follows what was found, empty
    when nothing is to be set.
    """

    id: str
    question: str
    assumed: str
    found: str
    holds: bool | None
    setting: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    id: str
    question: str
    assumed: str
    answer: Callable[[Observed], tuple[str, bool | None, str]] = field(repr=False)


def readings(observed: Observed) -> tuple[Reading, ...]:
    """Answer every question from what was read; those whose step was not reached could not be told."""
    found: list[Reading] = []
    for one in QUESTIONS:
        try:
            words, holds, setting = one.answer(observed)
        except KeyError:
            words, holds, setting = "could not be told", None, ""
        found.append(Reading(one.id, one.question, one.assumed, words, holds, setting))
    return tuple(found)


def current_period(calendar: FiscalCalendar, today: dt.date) -> tuple[int, int, DaySpan] | None:
    """Return fiscal year, value of ``fiscalperiod`` and days of the period that holds a day; None if none does."""
    year = calendar.year_of(today)
    for code in PERIOD_CODES[calendar.template]:
        span = DaySpan(*calendar.period_bounds(year, code))
        if today in span:
            return year, code, span
    return None


def _bounds_filled(observed: Observed) -> tuple[str, bool | None, str]:
    parent = observed.steps["created"].parent
    if observed.days is None:
        return "could not be told: the goals have a custom period", None, ""
    if parent.get("goalstartdate") is None or parent.get("goalenddate") is None:
        return "not filled", False, ""
    first, last = (_day(parent[name], observed.zone) for name in ("goalstartdate", "goalenddate"))
    if (first, last) == (observed.days.first_on, observed.days.last_on):
        return f"filled: {first} to {last}, as computed", True, ""
    return f"filled: {first} to {last}, computed were {observed.days.first_on} to {observed.days.last_on}", False, ""


def _bounds_zone(observed: Observed) -> tuple[str, bool | None, str]:
    start = observed.steps["created"].parent.get("goalstartdate")
    if observed.days is None or not isinstance(start, dt.datetime):
        return "could not be told: the platform filled no start date", None, ""
    stored = f"the platform stored {format_instant(start)}"
    if is_midnight(start, observed.zone):
        return f"{stored}, midnight in {observed.zone.key}", True, ""
    hours = (24 - start.hour) - start.minute / 60 if start.hour >= 12 else -start.hour - start.minute / 60
    return f"{stored}, midnight at UTC{hours:+g}", False, f"rollup.time_zone: a zone that is UTC{hours:+g} on that day"


def _bounds_days(observed: Observed) -> tuple[str, bool | None, str]:
    if observed.edge_column is None:
        return "could not be told: needs sample records (--create-records)", None, ""
    total = observed.steps["edges"].child.get(observed.edge_column)
    amount = int(Decimal(str(total or 0)))
    inside = [name for name, one in EDGES.items() if amount & int(one)]
    words = f"counted: {', '.join(EDGE_WORDS[name] for name in inside) or 'none'}"
    if amount > sum(EDGES.values()):
        return f"could not be told: other records count too ({plain(Decimal(amount))})", None, ""
    if inside == ["first", "last"]:
        return words, True, ""
    west, east = "before" in inside and "last" not in inside, "after" in inside and "first" not in inside
    zone = "west" if west else "east"
    setting = f"rollup.time_zone: a zone {zone} of {observed.zone.key}" if west or east else ""
    return words, False, setting


def _tree(observed: Observed) -> tuple[str, bool | None, str]:
    pair = observed.steps["empty"]
    done = pair.parent.get("lastrolledupdate") is not None and pair.child.get("lastrolledupdate") is not None
    return ("the whole tree" if done else "not the child of the goal asked for"), done, ""


def _empty_category(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["empty"].child.get(ACTUAL)
    if value:
        return f"could not be told: records of the goal owner count ({_words(value)})", None, ""
    return ("0" if value == 0 else _words(value)), value == 0, ""


def _no_target(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["empty"].child.get("percentage")
    return _words(value), value is None, ""


def _target_zero(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["target_zero"].child.get("percentage")
    return _words(value), value is None, ""


def _percentage_recomputed(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["half"].child.get("percentage")
    done = value in (12, 13)
    return (f"recomputed: {_words(value)}" if done else f"left at {_words(value)}"), done, ""


def _percentage_rounding(observed: Observed) -> tuple[str, bool | None, str]:
    found = tuple(observed.steps[name].child.get("percentage") for name in ("half", "half_even"))
    words = f"12.5 became {_words(found[0])}, 37.5 became {_words(found[1])}"
    if found == (13, 38):
        return f"half up: {words}", True, 'rollup.percentage_rounding = "half_up"'
    if found == (12, 38):
        return f"half even: {words}", False, 'rollup.percentage_rounding = "half_even"'
    if found == (12, 37):
        return f"cut: {words}", False, ""
    return f"could not be told: {words}", None, ""


def _percentage_alone(observed: Observed) -> tuple[str, bool | None, str]:
    if observed.percentage_alone is None:
        return "could not be told", None, ""
    return ("accepted" if observed.percentage_alone else "refused"), observed.percentage_alone, ""


def _isoverride_persists(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["half_even"].child.get("isoverride")
    return ("stored as sent" if value is True else f"reads back as {_words(value)}"), value is True, ""


def _override_kept(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["overridden"].child.get(ACTUAL)
    return (f"kept {_words(value)}" if value == STORED else f"became {_words(value)}"), value == STORED, ""


def _overridden_child(observed: Observed) -> tuple[str, bool | None, str]:
    pair = observed.steps["overridden"]
    if pair.child.get(ACTUAL) != STORED:
        return "could not be told: the override was not kept", None, ""
    value = pair.parent.get(ACTUAL)
    if value == STORED:
        return "the parent adds the stored value", True, 'rollup.overridden_child = "stored"'
    return f"the parent became {_words(value)}", False, 'rollup.overridden_child = "recomputed"'


def _hand_back(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["handed_back"].child.get(ACTUAL)
    return f"became {_words(value)}", value != STORED, ""


def _closed_child(observed: Observed) -> tuple[str, bool | None, str]:
    pair = observed.steps["closed"]
    parent, child = pair.parent.get(ACTUAL), pair.child.get(ACTUAL)
    if child != STORED:
        return f"the closed child was rolled up again: {_words(child)}", False, ""
    if parent == STORED:
        return "the parent adds the stored value", True, 'rollup.closed_child = "stored"'
    return f"the parent became {_words(parent)}", False, 'rollup.closed_child = "excluded"'


def _depth_of_root(observed: Observed) -> tuple[str, bool | None, str]:
    value = observed.steps["created"].parent.get("depth")
    return _words(value), (value == 0 if value is not None else None), ""


def _treeid(observed: Observed) -> tuple[str, bool | None, str]:
    parent = observed.steps["created"].parent
    value = parent.get("treeid")
    if value is None:
        return "empty", False, ""
    return ("the root goal's id" if value == parent.get("goalid") else "another id"), value == parent.get("goalid"), ""


def _todays_target(observed: Observed) -> tuple[str, bool | None, str]:
    parent = observed.steps["empty"].parent
    value = parent.get("computedtargetasoftodaymoney")
    first, last = (_day(parent.get(name), observed.zone) for name in ("goalstartdate", "goalenddate"))
    span = DaySpan(first, last) if first and last else observed.days
    if not isinstance(value, Decimal) or span is None or span.days < 2:
        return "could not be told", None, ""
    passed = (observed.today - span.first_on).days
    expected = PARENT_TARGET * passed / (span.days - 1)
    inclusive = PARENT_TARGET * (passed + 1) / span.days
    if abs(value - expected) < Decimal("0.01"):
        return "target x (today - start) / (end - start)", True, ""
    if abs(value - inclusive) < Decimal("0.01"):
        return "target x (days passed with today) / (days of the period)", False, ""
    return f"{plain(value)}, by another formula", False, ""


def _day(value: Value, zone: ZoneInfo) -> dt.date | None:
    return day_of(value, zone) if isinstance(value, dt.datetime) else None


def _words(value: Value) -> str:
    if value is None:
        return "empty"
    return plain(value) if isinstance(value, Decimal) else str(value)


QUESTIONS = (
    _Question("bounds-filled", "Does a fiscal goal get start and end dates?", "filled, as computed", _bounds_filled),
    _Question("bounds-zone", "In which zone is the start a midnight?", "rollup.time_zone", _bounds_zone),
    _Question("bounds-days", "Which days at the ends count?", "the first and the last day", _bounds_days),
    _Question("tree", "What does Recalculate of a parent roll up?", "the whole tree", _tree),
    _Question("empty-category", "What is a category without records?", "0", _empty_category),
    _Question("no-target", "What is percentage without a target?", "empty", _no_target),
    _Question("target-zero", "What is percentage with target 0?", "empty", _target_zero),
    _Question(
        "percentage-recomputed",
        "Is percentage recomputed when the actual is overridden?",
        "recomputed",
        _percentage_recomputed,
    ),
    _Question("percentage-rounding", "How is percentage rounded?", "half up", _percentage_rounding),
    _Question("percentage-alone", "May percentage be written without isoverride?", "accepted", _percentage_alone),
    _Question("isoverride-persists", "Does isoverride stay on the goal?", "stored as sent", _isoverride_persists),
    _Question("override-kept", "Does a rollup keep an overridden value?", "kept", _override_kept),
    _Question("overridden-child", "What does an overridden child add?", "its stored value", _overridden_child),
    _Question("hand-back", "Does a rollup take over again without isoverridden?", "computed again", _hand_back),
    _Question("closed-child", "What does a closed child add?", "its stored value", _closed_child),
    _Question("depth-of-root", "What is the depth of a root?", "0", _depth_of_root),
    _Question("treeid", "What is treeid?", "the root goal's id", _treeid),
    _Question("todays-target", "How is today's target computed?", "by (today - start) / (end - start)", _todays_target),
)
