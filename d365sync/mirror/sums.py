"""The statements that add up slices: one set-based statement for each group, exact to the last digit.

A slice ``s`` (see :mod:`d365sync.core.goals.slices`) is joined to the records ``r`` that count in it. SQLite is asked
by scalar subqueries, which it answers from the covering index alone; PostgreSQL likes a join. Sums of 64-bit integers
may not fit 64 bits: PostgreSQL widens them, SQLite says so, and is then asked for two halves, which cannot overflow
below four thousand million rows.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from d365sync.core.fetchxml.ast import Fetch
from d365sync.core.fetchxml.compile import LinksAs, Predicate, compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.bounds import BOUNDS
from d365sync.core.goals.goal import DataType, Number
from d365sync.core.goals.participation import PARENT_ALIAS, Group
from d365sync.core.schema import Schema
from d365sync.core.storage import EXACT, scale_of
from d365sync.mirror.given import Kind
from d365sync.mirror.tables import BEFORE_PREFIX, Dialect, quote

LANE_KINDS: Mapping[str, Kind] = {
    "owner": "TEXT",
    "manager": "TEXT",
    "seen": "BIGINT",
    "starts": "TEXT",
    "ends": "TEXT",
}
LANE_COLUMNS = tuple(LANE_KINDS)
SLICE_TABLE = "_slice"
WANTED_TABLE = "_wanted"
HALF_BITS = 32
HALF_MASK = 2**HALF_BITS - 1


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text with named parameters."""

    sql: str
    parameters: Mapping[str, int | float | str | None]


def placeholders(alias: str, prefix: str = "") -> Mapping[str, str]:
    """Return the SQL that stands for the placeholders of groups: the columns of a slice under ``alias``."""
    bounds = {
        bound.name: f"{alias}.{quote(prefix + side)}"
        for named in BOUNDS.values()
        for (_, bound), side in zip(named, ("starts", "ends"), strict=True)
    }
    return {"owner": f"{alias}.{quote(prefix + 'owner')}", **bounds}


def slice_tables(dialect: Dialect) -> tuple[str, ...]:
    """Return the statements that make the tables of groups and of their slices with their sums."""
    return (
        "CREATE TABLE IF NOT EXISTS _group (number INTEGER PRIMARY KEY, key TEXT NOT NULL, fingerprint TEXT NOT NULL)",
        f"CREATE TABLE IF NOT EXISTS {SLICE_TABLE} ({_slice_columns(dialect)})",
        f"CREATE INDEX IF NOT EXISTS _slice_lookup ON {SLICE_TABLE} (group_number, owner, starts)",
    )


def group_predicate(
    group: Group,
    schema: Schema,
    context: Context,
    dialect: Dialect,
    *,
    sighted: bool = False,
    links: LinksAs = "lookups",
) -> Predicate:
    """Return the condition under which a record ``r`` counts in a slice ``s`` of the group.

    ``sighted``: only if the manager of the slice may read it, as the ids kept tell.
    """
    found = compile_predicate(
        group.fetch, schema, context, alias="r", dialect=dialect, placeholders=placeholders("s"), links=links
    )
    return seen_by_manager(found, group, 's."manager"') if sighted else found


def seen_by_manager(predicate: Predicate, group: Group, manager: str, prefix: str = "") -> Predicate:
    """Add to a predicate over records ``r`` that a manager may read them; ``manager`` is SQL for the manager's id."""
    name = f"{prefix}seen_table"
    seen = (
        f"EXISTS (SELECT 1 FROM _visible v WHERE v.name = :{name} AND v.manager_id = {manager} "
        f"AND v.row_id = r.{quote(group.primary_id)})"
    )
    return Predicate(f"(({predicate.sql}) AND {seen})", {**predicate.parameters, name: group.table})


def predicate_through_parent(
    group: Group, schema: Schema, context: Context, dialect: Dialect, *, sighted: bool = False
) -> Predicate | None:
    """Return the same condition with the parent record joined as ``q``; None where a record's own date decides.

    Where the parent's date decides, every record would be looked at once for each slice of its owner. From the record
    to its one parent, and from the parent's date to the slice, it is looked at once.
    """
    if group.field.date_entity == group.table:
        return None
    (parent,) = (link for link in group.fetch.links if link.alias == PARENT_ALIAS)
    others = tuple(link for link in group.fetch.links if link is not parent)
    slices = placeholders("s")
    own = compile_predicate(
        replace(group.fetch, links=others), schema, context, alias="r", dialect=dialect, placeholders=slices
    )
    above = Fetch(entity=parent.name, filter=parent.filter, links=parent.links)
    theirs = compile_predicate(above, schema, context, alias="q", dialect=dialect, placeholders=slices, prefix="q")
    joined_by = f"q.{quote(parent.from_)} = r.{quote(parent.to)}"
    both = Predicate(f"({joined_by} AND {own.sql} AND {theirs.sql})", {**own.parameters, **theirs.parameters})
    return seen_by_manager(both, group, 's."manager"') if sighted else both


def sum_through_parent(group: Group, predicate: Predicate, *, halves: bool, unpriced: bool) -> Statement:
    """Return the statement that gives the sums of the wanted slices by :func:`predicate_through_parent`.

    Its rows are id, number of records, sum, unpriced, as :func:`sum_statement` describes them.
    """
    values = ", ".join(["COUNT(*)", *_sums(group, halves=halves), *([_unpriced(group)] if unpriced else [])])
    tables = f"{quote(group.table)} r CROSS JOIN {quote(group.field.date_entity)} q CROSS JOIN {WANTED_TABLE} s"
    return Statement(f"SELECT s.id, {values} FROM {tables} WHERE {predicate.sql} GROUP BY s.id", predicate.parameters)


def sum_statement(
    group: Group, predicate: Predicate, source: str, dialect: Dialect, *, halves: bool, unpriced: bool
) -> Statement:
    """Return the statement that gives, for each slice of ``source``: id, number of records, sum, unpriced.

    ``source`` is an SQL table expression with the columns of a slice. The sum is one number, or a high and a low half;
    there is none where records are counted. ``unpriced`` False leaves out the number of records without a base
    amount, where the table is known to have none. SQLite gives all after the id as one text, separated by blanks.
    Slices without records may be missing.
    """
    values = ["COUNT(*)", *_sums(group, halves=halves), *([_unpriced(group)] if unpriced else [])]
    records = f"{quote(group.table)} r"
    if dialect == "sqlite":
        packed = " || ' ' || ".join(f"COALESCE({one}, 0)" for one in values)
        column = f"(SELECT {packed} FROM {records} WHERE {predicate.sql})"
        return Statement(f"SELECT s.id, {column} FROM {source} s ORDER BY s.id", predicate.parameters)
    return Statement(
        f"SELECT s.id, {', '.join(values)} FROM {source} s JOIN {records} ON {predicate.sql} GROUP BY s.id",
        predicate.parameters,
    )


def kept_slices(first: int, last: int) -> str:
    """Return the table expression of the kept slices with these ids, both included."""
    return f"(SELECT * FROM {SLICE_TABLE} WHERE id BETWEEN {first:d} AND {last:d})"


def change_statements(group: Group, predicate: Predicate, number: int) -> tuple[Statement, Statement]:
    """Return the statements that give, for the kept slices of a group, what changed records give now, and gave before.

    Each row is id, number of records, high half, low half, unpriced, over the changed records of one slice.
    """
    sums = ", ".join(["COUNT(*)", *(_sums(group, halves=True) or ["0", "0"]), _unpriced(group)])
    table, key = quote(group.table), quote(group.primary_id)
    among = f"CROSS JOIN {SLICE_TABLE} s WHERE s.group_number = {number:d} AND {predicate.sql} GROUP BY s.id"
    changed = f"(SELECT row_id FROM _changed WHERE name = :changed_table) c CROSS JOIN {table} r"
    parameters = {**predicate.parameters, "changed_table": group.table}
    return (
        Statement(
            f"SELECT s.id, {sums} FROM {changed} {among.replace('WHERE', f'WHERE r.{key} = c.row_id AND', 1)}",
            parameters,
        ),
        Statement(f"SELECT s.id, {sums} FROM {quote(BEFORE_PREFIX + group.table)} r {among}", predicate.parameters),
    )


def unpriced_statement(group: Group) -> str | None:
    """Return the statement that finds a record with an amount and no base amount; None where there is no such thing."""
    missing = _missing_base(group)
    return None if missing is None else f"SELECT 1 FROM {quote(group.table)} r WHERE {missing} LIMIT 1"


def joined(high: object, low: object) -> int:
    """Join the halves of a sum; None is nothing."""
    return (int(str(high or 0)) << HALF_BITS) + int(str(low or 0))


def amount_of(group: Group, total: int) -> Number:
    """Return a sum in the unit of the goal column; sums are kept in the integer scale of the source column."""
    source = group.base or group.value
    if source is None or group.slot.data_type is DataType.INTEGER:
        return total
    return Decimal(total).scaleb(-scale_of(source), EXACT)


@dataclass(frozen=True, slots=True, order=True)
class Index:
    """An index of a mirrored table; ``where`` makes it partial."""

    table: str
    columns: tuple[str, ...]
    where: str = ""


def indexes_of(groups: Iterable[Group], used: Mapping[str, Sequence[str]]) -> frozenset[Index]:
    """Return the indexes that cover the statements of the groups: tests of equality, the date, then all they read.

    Groups with the same tests share one index. ``used`` gives, by table, the stored columns that rollup queries test
    and that an index may hold.
    """
    covered: dict[tuple[str, tuple[str, ...]], set[str]] = {}
    partial: set[Index] = set()
    for group in groups:
        tests = group.fetch.filter.conditions if group.fetch.filter else ()
        equal = [one.attribute for one in tests if one.operator == "eq"]
        ranged = [one.attribute for one in tests if one.operator != "eq"]
        first = tuple(dict.fromkeys([*equal, *ranged]))
        read = covered.setdefault((group.table, first), set())
        read.update(column.logical_name for column in (group.base or group.value,) if column)
        if group.query is not None:
            read.update(used.get(group.table, ()))
        missing = _missing_base(group, alias="")
        if missing is not None:
            partial.add(Index(group.table, (group.base.logical_name if group.base else group.primary_id,), missing))
    whole = {
        Index(table, (*first, *sorted(read - set(first)))) for (table, first), read in covered.items() if first or read
    }
    return frozenset(whole | partial)


def _sums(group: Group, *, halves: bool) -> list[str]:
    source = group.base or group.value
    if source is None:
        return []
    column = f"r.{quote(source.logical_name)}"
    return [f"SUM({column} >> {HALF_BITS})", f"SUM({column} & {HALF_MASK})"] if halves else [f"SUM({column})"]


def _unpriced(group: Group) -> str:
    missing = _missing_base(group)
    return "0" if missing is None else f"COALESCE(SUM(CASE WHEN {missing} THEN 1 ELSE 0 END), 0)"


def _missing_base(group: Group, alias: str = "r.") -> str | None:
    if group.base is None or group.value is None or group.base == group.value:
        return None
    value, base = (f"{alias}{quote(one.logical_name)}" for one in (group.value, group.base))
    return f"{value} IS NOT NULL AND {base} IS NULL"


def _slice_columns(dialect: Dialect) -> str:
    kinds = {"TEXT": 'TEXT COLLATE "C"' if dialect == "postgresql" else "TEXT", "BIGINT": "BIGINT"}
    lane = [f"{quote(name)} {kinds[kind]}" for name, kind in LANE_KINDS.items()]
    named = [*lane, "group_number INTEGER", "total TEXT", "records BIGINT", "unpriced BIGINT"]
    key = "BIGINT" if dialect == "postgresql" else "INTEGER"
    return ", ".join([f"id {key} PRIMARY KEY", *(f"{one} NOT NULL" for one in named)])


def named(columns: Iterable[str]) -> str:
    """Return a comma-separated list of quoted names."""
    return ", ".join(quote(column) for column in columns)
