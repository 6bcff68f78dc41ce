"""The statements that add up a group of goals: one set-based statement each, exact to the last digit.

Sums of 64-bit integers are taken in two halves, which cannot overflow below four thousand million rows, and joined in
Python.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from d365sync.core.fetchxml.compile import Predicate, compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.goal import DataType, Number
from d365sync.core.goals.participation import Group
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.schema import Schema
from d365sync.core.storage import EXACT, scale_of
from d365sync.mirror.tables import BEFORE_PREFIX, Dialect, quote

BOUND_COLUMNS = ("goal_id", "owner", "first_on", "last_on", "from_at", "until_at", "wall_from", "wall_until", "manager")
PLACEHOLDERS = {name: f'g."{name}"' for name in BOUND_COLUMNS[1:]}
HALF_BITS = 32
HALF_MASK = 2**HALF_BITS - 1


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text with named parameters."""

    sql: str
    parameters: Mapping[str, int | float | str | None]


def bound_table(dialect: Dialect) -> str:
    """Return the statement that makes the temporary table of the goals of a group."""
    kind = 'TEXT COLLATE "C"' if dialect == "postgresql" else "TEXT"
    return (
        f"CREATE TEMPORARY TABLE IF NOT EXISTS _bound ({', '.join(f'{quote(name)} {kind}' for name in BOUND_COLUMNS)})"
    )


def group_predicate(
    group: Group, schema: Schema, context: Context, dialect: Dialect, *, sighted: bool = False
) -> Predicate:
    """Return the condition under which a record ``r`` counts for a goal ``g`` of the group.

    ``sighted``: only if the goal's manager may read it, as the ids kept tell.
    """
    found = compile_predicate(group.fetch, schema, context, alias="r", dialect=dialect, placeholders=PLACEHOLDERS)
    if not sighted:
        return found
    seen = (
        "EXISTS (SELECT 1 FROM _visible v WHERE v.name = :seen_table AND v.manager_id = g.manager "
        f"AND v.row_id = r.{quote(group.primary_id)})"
    )
    return Predicate(f"({found.sql}) AND {seen}", {**found.parameters, "seen_table": group.table})


def sum_statement(group: Group, predicate: Predicate) -> Statement:
    """Return the statement that gives, per goal with records: id, count, high half, low half, unpriced."""
    source = group.base or group.value
    if source is None:
        sums = "0, 0, 0"
    else:
        column = f"r.{quote(source.logical_name)}"
        sums = f"SUM({column} >> {HALF_BITS}), SUM({column} & {HALF_MASK}), {_unpriced(group)}"
    joined = f"_bound g JOIN {quote(group.table)} r ON {predicate.sql}"
    return Statement(f"SELECT g.goal_id, COUNT(*), {sums} FROM {joined} GROUP BY g.goal_id", predicate.parameters)


def touched_statements(group: Group, predicate: Predicate) -> tuple[Statement, Statement]:
    """Return the statements that give the goals whose records changed: as the rows are, and as they were."""
    parameters = {**predicate.parameters, "changed_table": group.table}
    key = quote(group.primary_id)
    now = (
        f"SELECT DISTINCT g.goal_id FROM _changed c JOIN {quote(group.table)} r ON r.{key} = c.row_id "
        f"JOIN _bound g ON {predicate.sql} WHERE c.name = :changed_table"
    )
    before = f"SELECT DISTINCT g.goal_id FROM {quote(BEFORE_PREFIX + group.table)} r JOIN _bound g ON {predicate.sql}"
    return Statement(now, parameters), Statement(before, predicate.parameters)


def own_part(group: Group, records: int, high: int | None, low: int | None, unpriced: int) -> OwnPart:
    """Join the halves of a sum; a group that counts has its number of records as amount."""
    if group.value is None:
        return OwnPart(records, records)
    total = (int(high or 0) << HALF_BITS) + int(low or 0)
    return OwnPart(records, _unscaled(group, total), int(unpriced or 0))


def index_columns(group: Group) -> tuple[str, ...]:
    """Return the columns of an index that covers the group: tests of equality, the date, what is summed."""
    tests = group.fetch.filter.conditions if group.fetch.filter else ()
    equal = [one.attribute for one in tests if one.operator == "eq"]
    ranged = [one.attribute for one in tests if one.operator != "eq"]
    summed = [column.logical_name for column in (group.base or group.value,) if column]
    return tuple(dict.fromkeys([*equal, *ranged, *summed]))


def _unpriced(group: Group) -> str:
    if group.base is None or group.value is None:
        return "0"
    value, base = (f"r.{quote(one.logical_name)}" for one in (group.value, group.base))
    return f"SUM(CASE WHEN {value} IS NOT NULL AND {base} IS NULL THEN 1 ELSE 0 END)"


def _unscaled(group: Group, total: int) -> Number:
    source = group.base or group.value
    if source is None or group.slot.data_type is DataType.INTEGER:
        return total
    return Decimal(total).scaleb(-scale_of(source), EXACT)


def named(columns: Iterable[str]) -> str:
    """Return a comma-separated list of quoted names."""
    return ", ".join(quote(column) for column in columns)
