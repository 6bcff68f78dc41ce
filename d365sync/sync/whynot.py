"""Why one record counts for a goal, or does not: every test of every column, and the child goals it counts for.

IO: SQL, through the mirror.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from d365sync.core.counts import counted
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.why import Criterion, failures
from d365sync.core.values import Row, format_instant, plain
from d365sync.errors import FetchXmlError, UsageError
from d365sync.mirror.lookup import begins_with, named
from d365sync.sync.evidence import Part
from d365sync.sync.explain import Record, parts_of, record_of
from d365sync.sync.snapshot import Line, Snapshot

UNIQUE_PREFIX = 4
MOST_NAMED = 5
ID_LENGTH = 36
_GIVE = "give its id, the beginning of it, or its whole name; `d365sync sync` reads what is new"
_LINT = "`d365sync goals lint` says what is wrong with goals, and `d365sync goals list --all` which are closed"


@dataclass(frozen=True, slots=True)
class ColumnVerdict:
    """Whether a record counts for one column.

    ``summary`` is the answer in a sentence; ``tests`` all tests, held and failed; ``record`` the amounts, None when
    the record is not of the table that the column counts. ``counts_for_children`` are the titles of the goals below
    for which it counts.
    """

    column: str
    counts: bool
    summary: str
    tests: Sequence[Criterion] = ()
    record: Record | None = None
    counts_for_children: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one goal and record."""

    goal: Goal
    asked: str
    table: str
    record_id: str
    name: str
    columns: Sequence[ColumnVerdict]
    notes: Sequence[str]

    @property
    def counts(self) -> bool:
        """Whether the record counts for any column of the goal itself."""
        return any(column.counts for column in self.columns)


def why_not(line: Line, snapshot: Snapshot, goal: Goal, text: str) -> Answer:
    """Say for each column of a goal which tests admit or exclude a record, given by id, start of id or name.

    Raises:
        UsageError: no mirrored record fits, or several do; or no goal is computed, so that none can be looked for.
    """
    own = parts_of(line, snapshot, goal)
    below = [(child, parts_of(line, snapshot, child)) for child in _below(snapshot, goal)]
    carrier = next(iter(own.values()), None) or _any_part(line, snapshot)
    tables = _tables(snapshot, goal)
    if not tables:
        raise UsageError(f"'{goal.title}' has no goal metric that names a table", hint=_LINT)
    if carrier is None:
        raise UsageError("no goal is computed, so that no record can be looked for", hint=_LINT)
    found = _find(carrier, text, [name for name in tables if name in snapshot.tables])
    if found is None:
        raise UsageError(_not_found(line, tables, text), hint=_GIVE)
    table, row = found
    described = snapshot.schema.table(table)
    columns = [
        replace(verdict, counts_for_children=tuple(_counting(below, verdict.column, table, row)))
        for verdict in _columns(goal, own, below, table, row)
    ]
    name = str(row.get(described.primary_name or "") or "")
    notes = () if columns else (f"'{goal.title}' has no column that could be computed",)
    return Answer(goal, text, table, str(row[described.primary_id]), name, columns, notes)


def _columns(
    goal: Goal, own: dict[str, Part], below: Sequence[tuple[Goal, dict[str, Part]]], table: str, row: Row
) -> Iterator[ColumnVerdict]:
    for column, part in own.items():
        yield _verdict(column, part, table, row)
    if not own:
        for column in dict.fromkeys(column for _, parts in below for column in parts) or [""]:
            yield ColumnVerdict(column, False, _without_own_part(goal))


def _without_own_part(goal: Goal) -> str:
    if not goal.is_open:
        return "the goal is closed: its stored numbers are not computed again"
    if goal.only_from_children:
        return "the goal is rolled up only from its child goals"
    return "the goal has a problem: its own records cannot be told"


def _verdict(column: str, part: Part, table: str, row: Row) -> ColumnVerdict:
    if part.group.table != table:
        return ColumnVerdict(column, False, f"{column} counts '{part.group.table}' records; this is one of '{table}'")
    try:
        (tests,) = part.criteria([row])
    except FetchXmlError as error:
        return ColumnVerdict(column, False, f"the rollup query cannot be answered: {error}")
    record = record_of(part, row, tests)
    failed = failures(tests)
    return ColumnVerdict(column, not failed, "; ".join(failed) if failed else _counts(part, record, row), tests, record)


def _counts(part: Part, record: Record, row: Row) -> str:
    value, base = part.group.value, part.group.base
    if value is None:
        return "counts as 1"
    if record.amount is None:
        return f"counts, but its {value.logical_name} is empty: it adds 0"
    if base is not None and row.get(base.logical_name) is None:
        return f"counts, but it has no amount in base currency ({base.logical_name}): the goal cannot be computed"
    return f"counts for {plain(Decimal(record.counts_for))} {record.base_currency}".rstrip()


def _counting(below: Sequence[tuple[Goal, dict[str, Part]]], column: str, table: str, row: Row) -> Iterator[str]:
    for child, parts in below:
        part = parts.get(column)
        if part is not None and _verdict(column, part, table, row).counts:
            yield child.title


def _below(snapshot: Snapshot, goal: Goal) -> Iterator[Goal]:
    """Yield the goals below a goal, to any depth."""
    pending, seen = list(snapshot.forest.children[goal.id]), {goal.id}
    while pending:
        child = pending.pop(0)
        if child not in seen:
            seen.add(child)
            yield snapshot.book.goals[child]
            pending.extend(snapshot.forest.children[child])


def _tables(snapshot: Snapshot, goal: Goal) -> list[str]:
    """Return the tables whose records the goal's metric counts; a tree has one metric."""
    metric = snapshot.book.metric_of(goal)
    return list(dict.fromkeys(field.source_entity for field in metric.fields)) if metric else []


def _any_part(line: Line, snapshot: Snapshot) -> Part | None:
    """Return any goal's part: through it the mirror can be asked for rows."""
    goals = (snapshot.book.goals[goal_id] for group in snapshot.grouping.groups for goal_id in group.goal_ids)
    return next((part for goal in goals for part in parts_of(line, snapshot, goal).values()), None)


def _find(carrier: Part, text: str, tables: Sequence[str]) -> tuple[str, Row] | None:
    """Return the record: first among the tables that the goal counts, by name or id; then, by id, in any other.

    Raises:
        UsageError: several records fit.
    """
    wanted = text.strip()
    for name in tables:
        table = carrier.snapshot.schema.table(name)
        found = carrier.rows_where(name, named(table, wanted))
        if not found and len(wanted) >= UNIQUE_PREFIX:
            found = carrier.rows_where(name, begins_with(table, wanted))
        if len(found) > 1:
            ids = ", ".join(str(row[table.primary_id]) for row in found[:MOST_NAMED])
            raise UsageError(f"{len(found)} records of '{name}' fit '{wanted}'", hint=f"give the id: {ids}")
        if found:
            return name, found[0]
    for name in sorted(set(carrier.snapshot.tables) - set(tables)):
        table = carrier.snapshot.schema.table(name)
        found = carrier.rows_where(name, begins_with(table, wanted)) if len(wanted) == ID_LENGTH else []
        if found:
            return name, found[0]
    return None


def _not_found(line: Line, tables: Sequence[str], text: str) -> str:
    """Say what it means that a record is not in the mirror."""
    positions = line.mirror.positions()
    where = [
        f"the {counted(rows, 'row')} of '{name}' mirrored at {format_instant(position.pulled_at)}"
        for name, (position, rows) in positions.items()
        if name in tables
    ]
    parts = [f"no record '{text}'"]
    if where:
        parts.append(f" among {' and '.join(where)}: deleted, never there, or not readable by the application user")
    parts += [f"; the table '{name}', whose records count, is not mirrored" for name in tables if name not in positions]
    return "".join(parts)
