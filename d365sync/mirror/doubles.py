"""The records that count for two goals at once: one set-based statement per pair of groups, and what was found kept.

Results are kept with a definition of both goals' queries, so that a cycle looks again only at pairs that can have
changed. A mark tells whether the last look came to its end.

IO: SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, text

from d365sync.core.fetchxml.compile import Predicate, compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.doubles import Shared
from d365sync.core.goals.goal import Number
from d365sync.core.goals.participation import Group
from d365sync.core.goals.slices import Slice
from d365sync.core.schema import Schema
from d365sync.mirror.given import Given, Kind, give
from d365sync.mirror.store import Mirror
from d365sync.mirror.sums import (
    HALF_BITS,
    HALF_MASK,
    LANE_KINDS,
    amount_of,
    joined,
    placeholders,
    seen_by_manager,
)
from d365sync.mirror.tables import Dialect, mark, marks, quote

Side = Literal["a", "b"]
SIDES: tuple[Side, Side] = ("a", "b")
PENDING = "pending"
LOOKED = "looked by "
"""Begins the note that a look came to its end; what it was made by follows: rules, and the goals as they were."""
COLUMNS = "first_goal, second_goal, goal_column, at_goal, definition, records, amount, sample"
SAMPLE = 5
"""Records named of each pair."""

PairKey = tuple[str, str, str]
"""First goal, second goal, column."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was found for a pair before: the goal whose total holds both, and the definition it was found for."""

    at: str
    definition: str
    shared: Shared


def side_predicate(
    group: Group, schema: Schema, context: Context, dialect: Dialect, side: Side, *, sighted: bool = False
) -> Predicate:
    """Return the condition under which a record ``r`` counts for the goal on one side (``a`` or ``b``) of a pair ``p``.

    ``sighted``: only if that goal's manager may read it.

    Raises:
        FetchXmlError: the group's query cannot be used.
    """
    found = compile_predicate(
        group.fetch,
        schema,
        context,
        alias="r",
        dialect=dialect,
        placeholders=placeholders("p", f"{side}_"),
        prefix=side,
    )
    return seen_by_manager(found, group, f"p.{quote(f'{side}_manager')}", f"{side}_") if sighted else found


def shared_records(
    mirror: Mirror,
    groups: tuple[Group, Group],
    predicates: tuple[Predicate, Predicate],
    bounds: Sequence[tuple[Slice, Slice]],
    name_column: str | None,
    *,
    most: int = SAMPLE,
) -> list[Shared]:
    """Return what the two goals of each pair share, in the order of ``bounds``; ``most`` records of each are named."""
    parameters = {**predicates[0].parameters, **predicates[1].parameters}
    counts = groups[0].value is None
    source = f"_pair p JOIN {quote(groups[0].table)} r ON {predicates[0].sql} AND {predicates[1].sql}"
    with mirror.connection() as connection:
        given = _pairs(connection, mirror.dialect, list(enumerate(bounds)))
        sums = text(f"{given.before}SELECT p.number, COUNT(*), {_sums(groups[0])} FROM {source} GROUP BY p.number")
        found = {
            row[0]: (int(row[1]), amount_of(groups[0], int(row[1]) if counts else joined(row[2], row[3])))
            for row in connection.execute(sums, {**parameters, **given.parameters})
        }
        given = _pairs(connection, mirror.dialect, [(number, bounds[number]) for number in sorted(found)])
        samples: dict[int, list[tuple[str, str]]] = {number: [] for number in found}
        if found:
            for row in connection.execute(
                text(given.before + _sampling(groups[0], source, name_column)),
                {**parameters, **given.parameters, "most": most},
            ):
                samples[row[0]].append((row[1], row[2] or ""))
    return [
        Shared(*found[number], tuple(samples[number])) if number in found else Shared(0, 0)
        for number in range(len(bounds))
    ]


def kept_pairs(mirror: Mirror, *, shared_only: bool = False) -> dict[PairKey, Kept]:
    """Return what is kept, by pair; with ``shared_only`` only the pairs that share records."""
    where = " WHERE records > 0" if shared_only else ""
    with mirror.connection() as connection:
        rows = connection.exec_driver_sql(f"SELECT {COLUMNS} FROM _double{where}").all()
    return dict(map(_kept, rows))


def unchecked_tops(mirror: Mirror) -> tuple[str, ...]:
    """Return the tops of the trees that the last look did not compare wholly."""
    with mirror.connection() as connection:
        rows = connection.exec_driver_sql("SELECT name FROM _double_note ORDER BY name").all()
    return tuple(row[0] for row in rows if row[0] != PENDING and not row[0].startswith(LOOKED))


def looked_by(mirror: Mirror) -> tuple[str, str] | None:
    """Return the rules and the goals by which the last look was made, None when there was none."""
    with mirror.connection() as connection:
        sql = text("SELECT name FROM _double_note WHERE name LIKE :pattern")
        note = connection.execute(sql, {"pattern": f"{LOOKED}%"}).scalar()
    if note is None:
        return None
    rules, _, goals = str(note).removeprefix(LOOKED).partition(" ")
    return rules, goals


def touched_pairs(mirror: Mirror, goals: Iterable[str]) -> dict[PairKey, Kept]:
    """Return the pairs kept of which one goal is among ``goals``."""
    among = "IN (SELECT goal_id FROM _looked)"
    with mirror.connection() as connection:
        given = give(connection, mirror.dialect, "_looked", {"goal_id": "TEXT"}, [(goal_id,) for goal_id in goals])
        where = f"first_goal {among} OR second_goal {among}"
        sql = text(f"{given.before}SELECT {COLUMNS} FROM _double WHERE {where}")
        rows = connection.execute(sql, dict(given.parameters)).all()
    return dict(map(_kept, rows))


def keep_pairs(
    mirror: Mirror,
    gone: Iterable[PairKey],
    fresh: Mapping[PairKey, Kept],
    unchecked: Iterable[str],
    made_by: tuple[str, str],
) -> None:
    """Forget pairs, keep others in their place, and mark that the look came to its end.

    ``made_by`` are its rules and goals, each a word.
    """
    entries = [
        (*key, one.at, one.definition, one.shared.records, str(one.shared.amount), json.dumps(one.shared.sample))
        for key, one in fresh.items()
    ]
    notes = [(LOOKED + " ".join(made_by),), *((top,) for top in unchecked)]
    one_mark = mark(mirror.dialect)
    where = f"first_goal = {one_mark} AND second_goal = {one_mark} AND goal_column = {one_mark}"
    with mirror.connection(writes=True) as connection:
        _execute(connection, f"DELETE FROM _double WHERE {where}", sorted({*gone, *fresh}))
        if entries:
            _execute(connection, f"INSERT INTO _double ({COLUMNS}) VALUES {marks(mirror.dialect, entries[0])}", entries)
        connection.exec_driver_sql("DELETE FROM _double_note")
        _execute(connection, f"INSERT INTO _double_note (name) VALUES ({one_mark})", notes)


def begin_look(mirror: Mirror) -> bool:
    """Mark that a look has begun; say whether the one before came to its end, so that what is kept can be trusted."""
    with mirror.connection(writes=True) as connection:
        sql = text("SELECT 1 FROM _double_note WHERE name = :name")
        pending = connection.execute(sql, {"name": PENDING}).first() is not None
        if not pending:
            connection.execute(text("INSERT INTO _double_note (name) VALUES (:name)"), {"name": PENDING})
    return not pending


def end_look(mirror: Mirror) -> None:
    """Mark that a look came to its end and found nothing new."""
    with mirror.connection(writes=True) as connection:
        connection.execute(text("DELETE FROM _double_note WHERE name = :name"), {"name": PENDING})


def forget_pairs(mirror: Mirror) -> None:
    """Forget everything that is kept about pairs."""
    with mirror.connection(writes=True) as connection:
        connection.exec_driver_sql("DELETE FROM _double")
        connection.exec_driver_sql("DELETE FROM _double_note")


def _execute(connection: Connection, sql: str, entries: Sequence[tuple[object, ...]]) -> None:
    if entries:
        connection.exec_driver_sql(sql, list(entries))


def _pairs(connection: Connection, dialect: Dialect, pairs: Sequence[tuple[int, tuple[Slice, Slice]]]) -> Given:
    """Give a statement pairs of slices by number, as the table ``_pair``."""
    columns: dict[str, Kind] = {"number": "BIGINT"}
    columns |= {f"{side}_{name}": kind for side in SIDES for name, kind in LANE_KINDS.items()}
    return give(connection, dialect, "_pair", columns, [(number, *first, *second) for number, (first, second) in pairs])


def _sums(group: Group) -> str:
    """The halves of the sum of the group's column, which cannot overflow; see :mod:`d365sync.mirror.sums`."""
    source = group.base or group.value
    if source is None:
        return "0, 0"
    column = f"r.{quote(source.logical_name)}"
    return f"SUM({column} >> {HALF_BITS}), SUM({column} & {HALF_MASK})"


def _sampling(group: Group, source: str, name_column: str | None) -> str:
    key = f"r.{quote(group.primary_id)}"
    name = f"r.{quote(name_column)}" if name_column else "''"
    rank = f"ROW_NUMBER() OVER (PARTITION BY p.number ORDER BY {key}) AS n"
    numbered = f"SELECT p.number, {key} AS id, {name} AS name, {rank} FROM {source}"
    return f"SELECT number, id, name FROM ({numbered}) AS found WHERE n <= :most ORDER BY number, n"


def _kept(row: Sequence[Any]) -> tuple[PairKey, Kept]:
    sample = tuple((key, name) for key, name in json.loads(row[7]))
    return (row[0], row[1], row[2]), Kept(row[3], row[4], Shared(row[5], _number(row[6]), sample))


def _number(stored: str) -> Number:
    return Decimal(stored) if "." in stored or "E" in stored else int(stored)
