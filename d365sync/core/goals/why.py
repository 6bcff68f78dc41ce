"""Which tests admit a record to a goal's number, or keep it out, in words.

A group's query holds, in one tree, the tests a goal puts to a record: its date in the period, its state and status,
its owner, and the rollup query. Here the tree's verdict is told test by test.

Source: Roll up goal totals; Add complex goal criteria.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.ast import Condition, Filter, Link, Placeholder
from d365sync.core.fetchxml.names import find_column
from d365sync.core.fetchxml.verdict import Verdict
from d365sync.core.goals.bounds import BOUNDS
from d365sync.core.goals.participation import PARENT_ALIAS, Group
from d365sync.core.goals.words import condition_words, state_words, value_words
from d365sync.core.period import DaySpan
from d365sync.core.schema import DateBehavior, Schema
from d365sync.core.values import Value


class CriterionKind(StrEnum):
    """What a test is about."""

    STATE = "state"
    STATUS = "status"
    DATE = "date"
    OWNER = "owner"
    PARENT = "parent record"
    QUERY = "rollup query"
    CONDITION = "condition"
    FILTER = "filter"
    LINK = "linked record"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One test: what is asked, what the record has, and whether that holds.

    ``value`` is the column's value as it is, for tests of one column. ``path`` is the place in the rollup query's
    document; ``parts`` are the tests a query, filter or link is made of.
    """

    kind: CriterionKind
    holds: bool
    asked: str
    found: str = ""
    path: str = ""
    parts: tuple[Criterion, ...] = ()
    value: Value = None

    @property
    def sentence(self) -> str:
        """The test in a phrase: what held, or what was found instead of what was asked."""
        if self.parts:
            return _nested(self)
        if self.kind is CriterionKind.DATE:
            return f"{self.found}, {'within' if self.holds else 'outside'} {self.asked}"
        if self.kind is CriterionKind.OWNER:
            return f"owner {self.found}" + ("" if self.holds else f", not {self.asked}")
        if self.kind is CriterionKind.CONDITION:
            return self.asked if self.holds else f"{self.asked} (it is {self.found})"
        if self.kind in (CriterionKind.LINK, CriterionKind.PARENT):
            return self.asked if self.holds else self.found
        return self.asked if self.holds else f"{self.found}, not {self.asked}"


@dataclass(frozen=True, slots=True)
class Asking:
    """One goal's values of a group's query, and what puts them into words.

    ``names`` gives display names by id; ``zone`` is where goal days begin.
    """

    group: Group
    schema: Schema
    span: DaySpan
    owner_id: str | None
    names: Mapping[str, str]
    zone: ZoneInfo


def typed_bounds(asking: Asking) -> Mapping[str, Value]:
    """Return the values of the placeholders in a group's query as the evaluator compares them."""
    bounds = {
        bound.name: _bound_value(dates, operator, asking)
        for dates, named in BOUNDS.items()
        for operator, bound in named
    }
    return {"owner": asking.owner_id, **bounds}


def _bound_value(dates: DateBehavior, operator: str, asking: Asking) -> Value:
    """Return a bound as columns of one behaviour hold it; ``lt`` asks for the first moment after the period."""
    if dates is DateBehavior.DATE_ONLY:
        after = asking.span.last_on + dt.timedelta(days=operator == "lt")
        return asking.span.first_on if operator == "ge" else after
    span = asking.span
    starts, ends = span.instants(asking.zone) if dates is DateBehavior.USER_LOCAL else span.wall_clock()
    return starts if operator == "ge" else ends


def criteria_of(verdict: Verdict, asking: Asking) -> tuple[Criterion, ...]:
    """Return the tests of a goal for one record, from the verdict on the group's query: all hold if it counts."""
    filters = [part for part in verdict.parts if isinstance(part.node, Filter)]
    links = [part for part in verdict.parts if isinstance(part.node, Link)]
    found = [test for part in filters for test in _own_tests(part, asking)]
    parents = [part for part in links if _link_of(part).alias == PARENT_ALIAS]
    found += [test for part in parents for test in _parent_tests(part, asking)]
    if asking.group.query is not None:
        nested = [one for part in filters for one in part.parts if isinstance(one.node, Filter)]
        found.append(_query_test([*nested, *(part for part in links if part not in parents)], asking))
    return tuple(found)


def branch_of(tests: Iterable[Criterion]) -> str:
    """Return what admitted a record through a query with alternatives, and what linked rows it was found by."""
    queries = [test for test in tests if test.kind is CriterionKind.QUERY]
    return "; ".join(part for test in queries for part in _branches(test))


def asked_words(test: Criterion) -> str:
    """Return what a test asks, whatever a record has: for a query, all its conditions."""
    if test.kind is CriterionKind.DATE:
        return f"date from {test.asked}"
    if test.kind is CriterionKind.OWNER:
        return f"owner {test.asked}"
    if not test.parts:
        return test.asked
    parts = [asked_words(part) for part in test.parts]
    if test.kind is CriterionKind.FILTER:
        return f"({(' or ' if test.asked == 'one of' else ' and ').join(parts)})"
    return f"{test.asked}: {' and '.join(parts)}"


def failures(tests: Iterable[Criterion]) -> tuple[str, ...]:
    """Return the sentences of the tests that do not hold."""
    return tuple(test.sentence for test in tests if not test.holds)


def _branches(test: Criterion) -> Iterator[str]:
    if test.kind is CriterionKind.FILTER and test.asked == "one of":
        yield next((part.sentence for part in test.parts if part.holds), "")
        return
    for part in test.parts:
        yield from _branches(part)


def _own_tests(verdict: Verdict, asking: Asking) -> list[Criterion]:
    """Return the tests of the record's own columns; the two conditions on a date are one test."""
    conditions = [part for part in verdict.parts if isinstance(part.node, Condition)]
    dates = [part for part in conditions if _bound(part) not in (None, "owner")]
    found = [_column_test(part, asking) for part in conditions if part not in dates]
    return [*found, *([_date_test(dates, asking)] if dates else [])]


def _parent_tests(verdict: Verdict, asking: Asking) -> list[Criterion]:
    """Return the tests of the parent record: the deal's state and date, for a product line."""
    if not verdict.parts:
        key = _link_of(verdict).to
        asked = f"{verdict.table} through {key}"
        return [Criterion(CriterionKind.PARENT, False, asked, f"no {asked}")]
    return [test for part in verdict.parts for test in _own_tests(part, asking)]


def _column_test(verdict: Verdict, asking: Asking) -> Criterion:
    condition = _condition_of(verdict)
    holds = verdict.holds is True
    if _bound(verdict) == "owner":
        owner = asking.names.get(asking.owner_id or "", asking.owner_id or "nobody")
        return Criterion(CriterionKind.OWNER, holds, owner, _value(verdict, asking), value=verdict.value)
    asked = int(str(condition.values[0]))
    if condition.attribute == "statecode":
        words = state_words(verdict.table, asked), state_words(verdict.table, verdict.value)
        return Criterion(CriterionKind.STATE, holds, *words, value=verdict.value)
    found = "no status" if verdict.value is None else f"statuscode {verdict.value}"
    return Criterion(CriterionKind.STATUS, holds, f"statuscode {asked}", found, value=verdict.value)


def _date_test(bounds: list[Verdict], asking: Asking) -> Criterion:
    name = _condition_of(bounds[0]).attribute
    own = bounds[0].table == asking.group.table
    subject = name if own else f"{bounds[0].table}.{name}"
    value = bounds[0].value
    words = _value(bounds[0], asking)
    found = f"{subject} {words}" if value is not None else f"{subject} is empty"
    span = f"{asking.span.first_on} to {asking.span.last_on}"
    column = asking.schema.table(bounds[0].table).column(name)
    zoned = column.date_behavior is DateBehavior.USER_LOCAL
    asked = f"{span} ({asking.zone.key})" if zoned else span
    return Criterion(CriterionKind.DATE, all(part.holds for part in bounds), asked, found, value=value)


def _query_test(parts: list[Verdict], asking: Asking) -> Criterion:
    name = asking.group.query.name if asking.group.query else ""
    holds = all(part.holds is not False for part in parts)
    tests = tuple(test for part in parts for test in _query_parts(part, asking))
    return Criterion(CriterionKind.QUERY, holds, f"query '{name}'", parts=tests)


def _query_parts(verdict: Verdict, asking: Asking) -> Iterator[Criterion]:
    """Yield the tests of a query: those of an ``and`` one by one, an ``or`` with its alternatives as one."""
    if isinstance(verdict.node, Filter) and verdict.node.type == "and":
        for part in verdict.parts:
            yield from _query_parts(part, asking)
    elif isinstance(verdict.node, Filter) and verdict.holds is not None:
        parts = tuple(test for part in verdict.parts for test in _alternative(part, asking))
        yield Criterion(CriterionKind.FILTER, verdict.holds, "one of", path=verdict.node.path, parts=parts)
    elif isinstance(verdict.node, Link):
        yield _link_test(verdict, asking)
    elif isinstance(verdict.node, Condition) and verdict.holds is not None:
        asked = condition_words(verdict.node, asking.names)
        yield Criterion(
            CriterionKind.CONDITION,
            verdict.holds,
            asked,
            _value(verdict, asking),
            verdict.node.path,
            value=verdict.value,
        )


def _alternative(verdict: Verdict, asking: Asking) -> Iterator[Criterion]:
    """Yield one alternative of an ``or`` as one test."""
    tests = tuple(_query_parts(verdict, asking))
    if len(tests) > 1:
        yield Criterion(CriterionKind.FILTER, verdict.holds is True, "all of", path=verdict.node.path, parts=tests)
    else:
        yield from tests


def _link_test(verdict: Verdict, asking: Asking) -> Criterion:
    link = _link_of(verdict)
    kind = f"{link.link_type} " if link.link_type not in ("inner", "natural", "outer") else ""
    asked = f"{kind}{link.label} through {link.to}"
    parts = tuple(test for part in verdict.parts for test in _query_parts(part, asking))
    found = f"none of {verdict.related} {asked} fits" if verdict.related else f"no {asked}"
    return Criterion(
        CriterionKind.LINK, verdict.holds is True, asked, found, link.path, parts if verdict.related else ()
    )


def _nested(test: Criterion) -> str:
    """Tell a test by its parts: those that hold, or those that do not."""
    parts = [part for part in test.parts if part.holds is test.holds] or list(test.parts)
    if test.kind is CriterionKind.FILTER and test.asked == "one of":
        return parts[0].sentence if test.holds else f"none of: {'; '.join(part.sentence for part in parts)}"
    words = " and ".join(part.sentence for part in parts)
    if test.kind is CriterionKind.FILTER:
        return words
    return f"{test.asked}: {words}"


def _bound(verdict: Verdict) -> str | None:
    values = _condition_of(verdict).values
    return values[0].name if values and isinstance(values[0], Placeholder) else None


def _value(verdict: Verdict, asking: Asking) -> str:
    table = asking.schema.table(verdict.table)
    column = find_column(table, _condition_of(verdict).attribute)
    return value_words(verdict.value, asking.names, asking.zone, column)


def _condition_of(verdict: Verdict) -> Condition:
    if not isinstance(verdict.node, Condition):
        raise TypeError("not a condition's verdict")
    return verdict.node


def _link_of(verdict: Verdict) -> Link:
    if not isinstance(verdict.node, Link):
        raise TypeError("not a link's verdict")
    return verdict.node
