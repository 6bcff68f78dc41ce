"""One condition as SQL: plain comparisons of a stored column, so that an index can serve them.

Every test comes out as one parenthesised unit that is true for the rows meant; for the others it may be false
or null, which a WHERE treats alike. Operators that keep empty columns say so with ``OR … IS NULL``.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from d365sync.core.fetchxml.ast import Condition
from d365sync.core.fetchxml.dates import Bounds, date_bounds
from d365sync.core.fetchxml.names import hierarchy_of, name_columns, named_owner
from d365sync.core.fetchxml.operators import (
    DATE_OPERATORS,
    HIERARCHY_OPERATORS,
    TEXT_OPERATORS,
    USER_OPERATORS,
)
from d365sync.core.fetchxml.refusal import refusal
from d365sync.core.fetchxml.sql_like import like_sql
from d365sync.core.fetchxml.sql_values import (
    ALWAYS,
    NEVER,
    Operand,
    Target,
    combine,
    compared_column,
    folded_text,
    operand,
    quoted,
    shadow_suffix,
    spell_bound,
    stored_column,
)
from d365sync.core.schema import Column, ColumnType, Table
from d365sync.core.storage import ACCENT_FUNCTION, fold
from d365sync.core.values import parse_guid

_SIGNS = {"eq": "=", "ne": "<>", "neq": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_HIERARCHY_DEPTH = 100  # Source: Query hierarchical data (default recursion limit of 100)


@dataclass(frozen=True, slots=True)
class Subject:
    """The column a condition tests, and where it stands in the statement."""

    table: Table
    column: Column
    stored: str
    """SQL of the stored column."""
    folded: str
    """SQL of what patterns look at."""
    compared: str
    """SQL of what comparisons look at."""

    @classmethod
    def of(cls, table: Table, column: Column, alias: str, target: Target) -> Subject:
        """Find a column of a table that stands under an alias in the statement."""
        owner = named_owner(table, column.logical_name)
        if owner is None:
            stored, folded = stored_column(alias, column), compared_column(alias, column)
        else:
            stored = folded = _name_sql(owner, table, alias, target)
        folded = folded_sql(folded, column, target)
        return cls(table, column, stored, folded, blank_sql(folded, column, target))


def folded_sql(folded: str, column: Column, target: Target) -> str:
    """Return the SQL of folded text, without its accents if those do not count; other columns stay."""
    if target.context.accents_count or not shadow_suffix(column):
        return folded
    if target.dialect == "sqlite":
        return f"{ACCENT_FUNCTION}({folded})"
    return f"regexp_replace(normalize({folded}, NFD), U&'[\\0300-\\036F]', '', 'g')"


def blank_sql(folded: str, column: Column, target: Target) -> str:
    """Return the SQL of text without the blanks at its end if those do not count; other columns stay."""
    keeps = target.context.trailing_blanks_count or not shadow_suffix(column)
    return folded if keeps else f"rtrim({folded}, ' ')"


def _name_sql(owner: Column, table: Table, alias: str, target: Target) -> str:
    """The folded virtual name of a lookup (its target's primary name) or of a choice (its label)."""
    column = stored_column(alias, owner)
    if not owner.is_lookup:
        labels = target.context.labels_of(table, owner)
        cases = (f"WHEN {value} THEN {target.parameters.add(fold(label))}" for value, label in sorted(labels.items()))
        return f"(CASE {column} {' '.join(cases)} END)"
    names: list[str] = []
    for other, name in name_columns(owner, target.schema):
        source = f"{quoted(other.logical_name)} AS named WHERE named.{quoted(other.primary_id)} = {column}"
        if owner.is_polymorphic:
            kind = f"{alias}.{quoted(owner.type_name)}"
            source += f" AND ({kind} IS NULL OR {kind} = {target.parameters.add(other.logical_name)})"
        names.append(f"(SELECT {compared_column('named', name)} FROM {source})")  # noqa: S608
    return names[0] if len(names) == 1 else f"COALESCE({', '.join(names)})"


def condition_sql(condition: Condition, subject: Subject, target: Target) -> str:
    """Return the SQL of a condition without ``valueof``.

    Raises:
        FetchXmlError: a value cannot be spelled, or the condition needs a user or a placeholder that is not there.
    """
    name = condition.operator
    if name in ("null", "not-null"):
        return f"({subject.stored} IS {'NOT ' if name == 'not-null' else ''}NULL)"
    for family, compile_one in _FAMILIES:
        if name in family:
            return compile_one(condition, subject, target)
    if subject.column.type is ColumnType.MULTISELECT:
        return _selection(condition, subject, target)
    return _comparison(condition, subject, target)


def columns_sql(operator: str, one: Subject, other: Subject, target: Target) -> str:
    """Return the SQL that compares two columns, as ``valueof`` asks."""
    test = f"{one.compared} {_SIGNS[operator]} {other.compared}"
    if operator not in ("ne", "neq"):
        return f"({test})"
    if target.context.valueof_ne_keeps_both_null:
        return f"({test} OR {one.stored} IS NULL OR {other.stored} IS NULL)"
    only_one = f"({one.stored} IS NULL AND {other.stored} IS NOT NULL)"
    only_other = f"({one.stored} IS NOT NULL AND {other.stored} IS NULL)"
    return f"({test} OR {only_one} OR {only_other})"


def _or_null(test: str, column: str, *, keep: bool = True) -> str:
    return f"({test} OR {column} IS NULL)" if keep else f"({test})"


def _comparison(condition: Condition, subject: Subject, target: Target) -> str:
    operands = [operand(condition, at, subject.column, target) for at in range(len(condition.values))]
    column, name = subject.compared, condition.operator
    if name in ("in", "not-in"):
        return _listed(name, column, operands, target)
    if name == "between":
        return f"({column} >= {operands[0].high} AND {column} <= {operands[1].low})"
    if name == "not-between":
        return f"({column} < {operands[0].high} OR {column} > {operands[1].low})"
    return _compared(name, column, operands[0], keep=target.context.ne_keeps_null)


def _compared(name: str, column: str, value: Operand, *, keep: bool) -> str:
    if name == "eq":
        return f"({column} = {value.low})" if value.exact else NEVER
    if name in ("ne", "neq"):
        if value.exact:
            return _or_null(f"{column} <> {value.low}", column, keep=keep)
        return ALWAYS if keep else f"({column} IS NOT NULL)"
    return f"({column} {_SIGNS[name]} {value.low if name in ('gt', 'le') else value.high})"


def _listed(name: str, column: str, operands: Sequence[Operand], target: Target) -> str:
    listed = ", ".join(value.low for value in operands if value.exact)
    if name == "in":
        return f"({column} IN ({listed}))" if listed else NEVER
    test = f"{column} NOT IN ({listed})" if listed else f"{column} IS NOT NULL"
    return _or_null(test, column, keep=target.context.not_in_keeps_null)


def _dates(condition: Condition, subject: Subject, target: Target) -> str:
    ranges = date_bounds(condition, subject.column, target.context)
    return combine([_range(subject.stored, bounds, target) for bounds in ranges], "OR") if ranges else NEVER


def _range(column: str, bounds: Bounds, target: Target) -> str:
    tests = []
    if bounds.start is not None:
        tests.append(f"{column} >= {target.parameters.add(spell_bound(bounds.start))}")
    if bounds.end is not None:
        tests.append(f"{column} < {target.parameters.add(spell_bound(bounds.end))}")
    return f"({' AND '.join(tests or [f'{column} IS NOT NULL'])})"


def _text(condition: Condition, subject: Subject, target: Target) -> str:
    text, name, column = folded_text(str(condition.values[0]), target), condition.operator, subject.folded
    if name.endswith("-with"):
        text = f"{text}%" if "begin" in name else f"%{text}"
    test = like_sql(column, text, target)
    if not name.startswith("not-"):
        return f"({test})"
    keep = name == "not-like" or target.context.not_begin_keeps_null
    negated = f"{column} IS NOT NULL" if test == NEVER else f"NOT ({test})"
    return _or_null(negated, column, keep=keep)


def _selection(condition: Condition, subject: Subject, target: Target) -> str:
    """A multi-select choice is stored as ``,1,3,``: sets are equal as texts, one option is a part of it."""
    column, name = subject.stored, condition.operator
    wanted = sorted({int(str(value)) for value in condition.values})
    if name in ("contain-values", "not-contain-values"):
        parts = [f"{column} LIKE {target.parameters.add(f'%,{value},%')}" for value in wanted]
        found = combine(parts, "OR")
        keep = target.context.not_contain_keeps_null
        return f"({found})" if name == "contain-values" else _or_null(f"NOT ({found})", column, keep=keep)
    same = target.parameters.add(f",{','.join(map(str, wanted))},")
    if name in ("eq", "in"):
        return f"({column} = {same})"
    keep = target.context.not_in_keeps_null if name == "not-in" else target.context.ne_keeps_null
    return _or_null(f"{column} <> {same}", column, keep=keep)


def _hierarchy(condition: Condition, subject: Subject, target: Target) -> str:
    name, column = condition.operator, subject.stored
    table = hierarchy_of(subject.table, subject.column, target.schema)
    if table is None or table.hierarchy_parent is None:
        raise refusal(f"'{condition.attribute}' has no hierarchical relationship", condition, code="0x80047020")
    key = parse_guid(str(condition.values[0]))
    walk = _walk_up if name.endswith("above") else _walk_down
    found = walk(table, table.hierarchy_parent, target.parameters.add(key))
    if name == "not-under":
        # NULL NOT IN (nothing) is true, so leaving empty lookups out must be said.
        others = f"{column} NOT IN ({found})"
        if not target.context.not_under_keeps_anchor:
            others = f"({others} AND {column} <> {target.parameters.add(key)})"
        if target.context.not_under_keeps_null:
            return f"({others} OR {column} IS NULL)"
        return f"({others} AND {column} IS NOT NULL)"
    if name.startswith("eq-or-"):
        return f"({column} = {target.parameters.add(key)} OR {column} IN ({found}))"
    return f"({column} IN ({found}))"


def _walk_down(table: Table, parent: str, key: str) -> str:
    name, own, up = quoted(table.logical_name), quoted(table.primary_id), quoted(parent)
    return (
        f"WITH RECURSIVE walk(id, depth) AS (SELECT {own}, 1 FROM {name} WHERE {up} = {key}"  # noqa: S608
        f" UNION SELECT t.{own}, walk.depth + 1 FROM {name} AS t JOIN walk ON t.{up} = walk.id"
        f" WHERE walk.depth < {_HIERARCHY_DEPTH}) SELECT id FROM walk WHERE id <> {key}"
    )


def _walk_up(table: Table, parent: str, key: str) -> str:
    name, own, up = quoted(table.logical_name), quoted(table.primary_id), quoted(parent)
    return (
        f"WITH RECURSIVE walk(id, depth) AS (SELECT {up}, 1 FROM {name} WHERE {own} = {key} AND {up} IS NOT NULL"  # noqa: S608
        f" UNION SELECT t.{up}, walk.depth + 1 FROM {name} AS t JOIN walk ON t.{own} = walk.id"
        f" WHERE walk.depth < {_HIERARCHY_DEPTH} AND t.{up} IS NOT NULL) SELECT id FROM walk WHERE id <> {key}"
    )


def _caller(condition: Condition, subject: Subject, target: Target) -> str:
    name, context = condition.operator, target.context
    if name in ("eq-businessid", "ne-businessid"):
        if context.business_unit_id is None:
            raise refusal("the query depends on the caller's business unit, which is not known", condition)
        return _is(subject.stored, context.business_unit_id, target, negated=name == "ne-businessid")
    if context.user_id is None:
        raise refusal("the query depends on the calling user, who is not known", condition)
    if name in ("eq-userid", "ne-userid"):
        return _is(subject.stored, context.user_id, target, negated=name == "ne-userid")
    return _among(subject.stored, sorted(_owners(name, context.user_id, target)), target)


def _is(column: str, key: str, target: Target, *, negated: bool) -> str:
    parameter, keep = target.parameters.add(key), target.context.ne_keeps_null
    return _or_null(f"{column} <> {parameter}", column, keep=keep) if negated else f"({column} = {parameter})"


def _among(column: str, keys: Sequence[str], target: Target) -> str:
    return f"({column} IN ({', '.join(map(target.parameters.add, keys))}))" if keys else NEVER


def _owners(name: str, user: str, target: Target) -> set[str]:
    context = target.context
    if name == "eq-userteams":
        return set(context.user_team_ids)
    if name == "eq-useroruserteams":
        return {user, *context.user_team_ids}
    users = _with_reports(user, target)
    if name == "eq-useroruserhierarchy":
        return users
    teams = {team for team, members in context.team_members.items() if users & set(members)}
    return users | teams | set(context.user_team_ids)


def _with_reports(user: str, target: Target) -> set[str]:
    found: set[str] = set()
    level = {user}
    while level:
        found |= level
        level = {report for one in level for report in target.context.user_hierarchy.get(one, ())} - found
    return found


def _language(condition: Condition, subject: Subject, target: Target) -> str:
    language = target.context.user_language
    if language is None:
        raise refusal("the query depends on the caller's language, which is not known", condition)
    return f"({subject.stored} IN ({target.parameters.add(language)}, -1))"


_FAMILIES: tuple[tuple[frozenset[str], Callable[[Condition, Subject, Target], str]], ...] = (
    (DATE_OPERATORS, _dates),
    (TEXT_OPERATORS, _text),
    (HIERARCHY_OPERATORS, _hierarchy),
    (USER_OPERATORS, _caller),
    (frozenset({"eq-userlanguage"}), _language),
)
