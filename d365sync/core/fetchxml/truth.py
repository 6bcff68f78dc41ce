"""Whether one condition holds for one value: the evaluator's meaning of every operator.

Null first: an empty column passes exactly the operators listed for it and no other.
Source: FetchXML operators reference. That ne, not-like and their kin keep rows with an empty column is what
integration tests and maintainers of public converters observed on live organizations.

Pure.
"""

from __future__ import annotations

import operator as op
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from d365sync.core.fetchxml.ast import Condition, Placeholder
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.dates import Bounds, date_bounds, end_literal
from d365sync.core.fetchxml.like import matches
from d365sync.core.fetchxml.literals import typed
from d365sync.core.fetchxml.operators import (
    DATE_OPERATORS,
    HIERARCHY_OPERATORS,
    TEXT_OPERATORS,
    USER_OPERATORS,
)
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.schema import Column, ColumnType, Schema, Table
from d365sync.core.storage import fold, without_accents
from d365sync.core.values import Value, parse_guid

Test: TypeAlias = Callable[[Value], bool]

_ALWAYS_KEEP_NULL = frozenset({"null", "not-like"})
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": op.eq,
    "ne": op.ne,
    "neq": op.ne,
    "gt": op.gt,
    "ge": op.ge,
    "lt": op.lt,
    "le": op.le,
}


class Hierarchies(Protocol):
    """Answers which rows stand above and below a row."""

    def below(self, key: str, table: Table, column: Column) -> frozenset[str]:
        """Return the keys below a row, in the hierarchy that the column refers to."""

    def above(self, key: str, table: Table, column: Column) -> frozenset[str]:
        """Return the keys above a row, in the hierarchy that the column refers to."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a condition may depend on besides the value."""

    schema: Schema
    context: Context
    placeholders: Mapping[str, Value]
    hierarchies: Hierarchies


def test_of(condition: Condition, table: Table, column: Column, facts: Facts) -> Test:
    """Return the test a condition without ``valueof`` puts to a column's value; its operands are typed once.

    Raises:
        FetchXmlError: the condition needs a user, a placeholder or a date that is not there.
    """
    present = _test_of_present(condition, table, column, facts)
    keeps_null = condition.operator in _keeping_null(facts.context)

    def test(value: Value) -> bool:
        return keeps_null if is_empty(value) else present(value)

    return test


def is_empty(value: Value) -> bool:
    """Say whether a value counts as null: a multi-select choice without a selection does."""
    return value is None or value == frozenset()


def compare_columns(operator: str, one: Value, other: Value, context: Context) -> bool:
    """Compare two columns of a row, as ``valueof`` asks; a null compares with nothing, except for ``ne``."""
    empty = is_empty(one), is_empty(other)
    if operator in ("ne", "neq") and any(empty):
        return not all(empty) or context.valueof_ne_keeps_both_null
    return not any(empty) and _COMPARISONS[operator](compared_key(one, context), compared_key(other, context))


def compared_key(value: Value, context: Context) -> Value:
    """Return what a value is compared by: as :func:`key_of`, without accents and end blanks if those do not count."""
    if not isinstance(value, str):
        return value
    key = _folded(value, context)
    return key if context.trailing_blanks_count else key.rstrip(" ")


def _folded(text: str, context: Context) -> str:
    return fold(text) if context.accents_count else without_accents(fold(text))


def key_of(value: Value) -> Value:
    """Return what a value is compared by: text without regard to case, anything else as it is."""
    return fold(value) if isinstance(value, str) else value


def _keeping_null(context: Context) -> frozenset[str]:
    kept = set(_ALWAYS_KEEP_NULL)
    if context.ne_keeps_null:
        kept |= {"ne", "neq", "ne-userid", "ne-businessid"}
    if context.not_contain_keeps_null:
        kept.add("not-contain-values")
    if context.not_in_keeps_null:
        kept.add("not-in")
    if context.not_begin_keeps_null:
        kept |= {"not-begin-with", "not-end-with"}
    if context.not_under_keeps_null:
        kept.add("not-under")
    return frozenset(kept)


def _test_of_present(condition: Condition, table: Table, column: Column, facts: Facts) -> Test:
    name = condition.operator
    if name in ("null", "not-null"):
        return lambda _: name == "not-null"
    if name in DATE_OPERATORS:
        ranges = date_bounds(condition, column, facts.context)
        return lambda value: any(_within(value, bounds) for bounds in ranges)
    if name in TEXT_OPERATORS:
        return _text_test(name, str(condition.values[0]), facts.context)
    if name in HIERARCHY_OPERATORS:
        return _hierarchy_test(condition, table, column, facts)
    if name in USER_OPERATORS or name == "eq-userlanguage":
        return _caller_test(condition, facts.context)
    operands = [_operand(condition, value, column, facts, at) for at, value in enumerate(condition.values)]
    return _value_test(name, operands, column, facts.context)


def _operand(condition: Condition, value: str | Placeholder, column: Column, facts: Facts, at: int) -> Value:
    if isinstance(value, Placeholder):
        if value.name not in facts.placeholders:
            raise refusal(f"nothing is bound to the placeholder '{value.name}'", condition)
        return facts.placeholders[value.name]
    try:
        if at == 1 and condition.operator.endswith("between") and column.type is ColumnType.DATETIME:
            return end_literal(value, column, facts.context)
        return typed(value, column, facts.schema, facts.context)
    except ValueError as error:
        raise refusal(str(error), condition) from error


def _within(value: Value, bounds: Bounds) -> bool:
    after = bounds.start is None or value >= bounds.start  # type: ignore[operator]
    return after and (bounds.end is None or value < bounds.end)  # type: ignore[operator]


def _text_test(name: str, text: str, context: Context) -> Test:
    pattern = {"begins": text + "%", "ends": "%" + text, "begin": text + "%", "end": "%" + text}.get(
        name.removeprefix("not-").removesuffix("-with"), text
    )
    folded = _folded(pattern, context)
    return lambda value: matches(_folded(str(value), context), folded) is not name.startswith("not-")


def _hierarchy_test(condition: Condition, table: Table, column: Column, facts: Facts) -> Test:
    key = parse_guid(str(condition.values[0]))
    name = condition.operator
    walk = facts.hierarchies.above if name.endswith("above") else facts.hierarchies.below
    found = walk(key, table, column)
    if name == "not-under":
        left_out = found if facts.context.not_under_keeps_anchor else found | {key}
        return lambda value: value not in left_out
    if name.startswith("eq-or-"):
        found |= {key}
    return lambda value: value in found


def _value_test(name: str, operands: list[Value], column: Column, context: Context) -> Test:
    if column.type is ColumnType.MULTISELECT:
        return _selection_test(name, frozenset(v for v in operands if isinstance(v, int)))
    keys = [compared_key(operand, context) for operand in operands]
    if name in _COMPARISONS:
        return lambda value: keys[0] is not None and _COMPARISONS[name](compared_key(value, context), keys[0])
    if name in ("in", "not-in"):
        known = frozenset(keys)
        if name == "in":
            return lambda value: compared_key(value, context) in known
        return lambda value: None not in known and compared_key(value, context) not in known
    low, high = keys
    if low is None or high is None:
        return lambda _: False
    return lambda value: (low <= compared_key(value, context) <= high) is (name == "between")  # type: ignore[operator]


def _selection_test(name: str, wanted: frozenset[int]) -> Test:
    if name == "contain-values":
        return lambda value: isinstance(value, frozenset) and not wanted.isdisjoint(value)
    if name == "not-contain-values":
        return lambda value: isinstance(value, frozenset) and wanted.isdisjoint(value)
    return lambda value: (value == wanted) is (name in ("eq", "in"))


def _caller_test(condition: Condition, context: Context) -> Test:
    name = condition.operator
    if name == "eq-userlanguage":
        if context.user_language is None:
            raise refusal("the query depends on the caller's language, which is not known", condition)
        return lambda value: value in (context.user_language, -1)
    if name.endswith("-businessid"):
        if context.business_unit_id is None:
            raise refusal("the query depends on the caller's business unit, which is not known", condition)
        return lambda value: (value == context.business_unit_id) is (name == "eq-businessid")
    if context.user_id is None:
        raise refusal("the query depends on the calling user, who is not known", condition)
    if name in ("eq-userid", "ne-userid"):
        return lambda value: (value == context.user_id) is (name == "eq-userid")
    owners = _owners(name, context.user_id, context)
    return lambda value: value in owners


def _owners(name: str, user: str, context: Context) -> set[str]:
    teams = set(context.user_team_ids)
    if name == "eq-userteams":
        return teams
    if name == "eq-useroruserteams":
        return teams | {user}
    users, pending = {user}, [user]
    while pending:
        reports = set(context.user_hierarchy.get(pending.pop(), ())) - users
        users |= reports
        pending.extend(reports)
    if name == "eq-useroruserhierarchy":
        return users
    joined = {team for team, members in context.team_members.items() if not users.isdisjoint(members)}
    return users | teams | joined
