"""The other ways to the same numbers: a bare scan, DuckDB twice, and a session with one query per goal.

Each way is a function without arguments that leaves its numbers with Python; what it needs to have ready (connections,
the goals in a table, DuckDB's own copy) is made before and not measured.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlmodel import Field, SQLModel, func, select

from d365sync.core.fetchxml.ast import Condition, Filter, Placeholder
from d365sync.core.fetchxml.compile import Predicate, compile_predicate
from d365sync.core.goals.participation import Group, GroupKey
from tests.bench.ours import Bench, Bound, Prepared, Sums

Predicates = Mapping[GroupKey, Predicate]
EXTENSION = "duckdb_extension_sqlite_scanner"


def has_duckdb() -> bool:
    """Say whether DuckDB and its reader of SQLite files are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("duckdb", EXTENSION))


def summed_column(one: Prepared) -> str | None:
    """Return the column a group sums, None when it counts."""
    source = one.group.base or one.group.value
    return source.logical_name if source else None


# -- a scan of the covering indexes --------------------------------------------------------------------------------


@contextmanager
def scans(bench: Bench) -> Iterator[list[str]]:
    """Return, once per distinct index of the groups, the statement that SQLite answers by scanning all of it.

    Raises:
        AssertionError: SQLite answers one of them in another way.
    """
    with closing(sqlite3.connect(bench.file)) as connection:
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'opportunity' AND name LIKE '_ix%'"
        ).fetchall()
        whole = {name: re.findall(r'"(\w+)"', statement)[2:] for name, statement in found if " WHERE " not in statement}
        scanned = dict.fromkeys((_covering(one, whole), summed_column(one)) for one in bench.prepared)
        statements = [_scan(connection, name, summed) for name, summed in scanned]
    yield statements


def _covering(one: Prepared, indexes: Mapping[str, Sequence[str]]) -> str:
    """Return the index from which a group's statement is answered."""
    tests = one.group.fetch.filter.conditions if one.group.fetch.filter else ()
    first = {condition.attribute for condition in tests}
    return next(name for name, columns in indexes.items() if set(columns[: len(first)]) == first)


def _scan(connection: sqlite3.Connection, index: str, summed: str | None) -> str:
    amount = f'SUM("{summed}")' if summed else "0"
    statement = f'SELECT {amount}, COUNT("statecode") FROM opportunity INDEXED BY "{index}"'
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchone()[3]
    assert plan == f"SCAN opportunity USING COVERING INDEX {index}", plan
    return statement


def run_scans(connection: sqlite3.Connection, statements: Sequence[str]) -> list[tuple[int, int]]:
    """Run them."""
    return [connection.execute(one).fetchone() for one in statements]


# -- DuckDB --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ducks:
    """A DuckDB connection with one statement per group and way: on the attached mirror, and on its own tables."""

    connection: Any
    attached: list[tuple[str, str, Mapping[str, Any]]]
    own: list[tuple[str, str, Mapping[str, Any]]]

    def sums(self, statements: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Sums:
        """Run the statements of one way."""
        return {
            (goal_id, column): int(amount)
            for column, statement, values in statements
            for goal_id, amount in self.connection.execute(statement, values).fetchall()
            if amount
        }


@contextmanager
def ducks(bench: Bench) -> Iterator[Ducks]:
    """Open DuckDB on a copy of the mirror, and copy goals and records into tables of its own.

    A copy, because two SQLite libraries in one process must not have the same file open.
    """
    import duckdb

    connection = duckdb.connect()
    with tempfile.TemporaryDirectory(dir=bench.file.parent) as folder:
        file = Path(folder) / "attached.db"
        _copy_with_bounds(bench, file)
        package = Path(str(importlib.util.find_spec(EXTENSION).origin)).parent  # type: ignore[union-attr]
        connection.load_extension(str(next(package.rglob("*.duckdb_extension"))))
        connection.execute(f"ATTACH '{file}' AS mirror (TYPE sqlite, READ_ONLY)")
        for statement in OWN_TABLES:
            connection.execute(statement)
        own = [_duck_statement(bench, n, one) for n, one in enumerate(bench.prepared)]
        attached = [(column, _on_mirror(statement), values) for column, statement, values in own]
        yield Ducks(connection, attached, own)
        connection.close()


OWN_TABLES = (
    "CREATE TABLE text_bounds AS SELECT * FROM mirror._bench_bound",
    (
        'CREATE TABLE bounds AS SELECT group_number, goal_id, "owner"::UUID AS "owner", first_on::DATE AS first_on, '
        "last_on::DATE AS last_on FROM text_bounds"
    ),
    "CREATE TABLE account AS SELECT * FROM mirror.account",
    (
        "CREATE TABLE opportunity AS SELECT * REPLACE (ownerid::UUID AS ownerid, "
        "actualclosedate::DATE AS actualclosedate, estimatedclosedate::DATE AS estimatedclosedate) "
        "FROM mirror.opportunity ORDER BY statecode, ownerid"
    ),
)
"""DuckDB's own tables, in the types it is fastest with."""


def _duck_statement(bench: Bench, n: int, one: Prepared) -> tuple[str, str, Mapping[str, Any]]:
    """Return the best found of three: records to days first, then days to goals.

    The others were joining records to goals at once, and differences of running sums found by ASOF joins. DuckDB
    understands the predicate as PostgreSQL does; its sums of whole numbers are 128 bits wide.
    """
    tests = one.group.fetch.filter.conditions if one.group.fetch.filter else ()
    free = replace(one.group.fetch, filter=replace(one.group.fetch.filter or Filter(), conditions=_fixed(tests)))
    snapshot = bench.snapshot
    predicate = compile_predicate(free, snapshot.schema, snapshot.context, alias="r", dialect="postgresql")
    summed, date = summed_column(one), one.group.field.date_attribute
    amount = f'SUM(r."{summed}")' if summed else "COUNT(*)"
    owner = '"ownerid", ' if one.group.owned else ""
    where = re.sub(r":(p[0-9]+)", r"$\1", predicate.sql)
    same_owner = 'd."ownerid" = g."owner" AND ' if owner else ""
    statement = (
        f'WITH days AS (SELECT {owner}"{date}", {amount} AS amount FROM "opportunity" r '
        f"WHERE {where} GROUP BY ALL) "
        "SELECT g.goal_id, SUM(d.amount) FROM bounds g JOIN days d ON "
        f'{same_owner}d."{date}" >= g.first_on AND d."{date}" <= g.last_on '
        f"WHERE g.group_number = {n} GROUP BY g.goal_id"
    )
    return one.group.slot.column, statement, dict(predicate.parameters)


def _fixed(tests: Sequence[Condition]) -> tuple[Condition, ...]:
    """Leave out the tests of the goal's owner and bounds."""
    return tuple(one for one in tests if not any(isinstance(value, Placeholder) for value in one.values))


def _on_mirror(statement: str) -> str:
    attached = re.sub(r'"(opportunity|account)"(?= )', r'mirror."\1"', statement)
    return attached.replace("FROM bounds g", "FROM text_bounds g")


def _copy_with_bounds(bench: Bench, file: Path) -> None:
    """Copy the mirror, and add a table of the goals and bounds of all groups."""
    names = ("goal_id", "owner", "first_on", "last_on")
    with closing(sqlite3.connect(bench.file)) as source, closing(sqlite3.connect(file)) as copy:
        source.backup(copy)
        copy.execute(
            "CREATE TABLE _bench_bound (group_number BIGINT, goal_id TEXT, owner TEXT, first_on TEXT, last_on TEXT)"
        )
        for n, one in enumerate(bench.prepared):
            rows = [(n, *(bound[name] for name in names)) for bound in one.bounds]
            copy.executemany("INSERT INTO _bench_bound VALUES (?, ?, ?, ?, ?)", rows)
        copy.commit()


# -- one query per goal --------------------------------------------------------------------------------------------


class Opportunity(SQLModel, table=True):
    """The model a script would write, over the same table and indexes."""

    __tablename__ = "opportunity"

    opportunityid: str = Field(primary_key=True)
    statecode: int
    ownerid: str
    actualclosedate: str | None
    actualvalue_base: int | None
    estimatedclosedate: str | None
    estimatedvalue_base: int | None


def by_session(bench: Bench, goals: Sequence[tuple[Prepared, Bound]]) -> Sums:
    """Ask for each goal on its own."""
    found: Sums = {}
    predicates = {one.group.key: _written_out(bench, one.group) for one, _ in goals if one.group.query is not None}
    engine = create_engine(f"sqlite:///{bench.file}")
    with Session(engine) as session:
        for one, bound in goals:
            amount = session.execute(_goal_query(one, bound, predicates)).scalar_one()
            if amount:
                found[bound["goal_id"], one.group.slot.column] = int(amount)
    engine.dispose()
    return found


def _written_out(bench: Bench, group: Group) -> Predicate:
    placeholders = {name: f":{name}" for name in ("owner", "from_on", "until_on")}
    snapshot = bench.snapshot
    return compile_predicate(
        group.fetch, snapshot.schema, snapshot.context, alias="opportunity", dialect="sqlite", placeholders=placeholders
    )


def _goal_query(one: Prepared, bound: Bound, predicates: Predicates) -> Any:
    summed = summed_column(one)
    query = select(func.sum(getattr(Opportunity, summed)) if summed else func.count())
    if one.group.query is not None:
        return _text_query(one, bound, query, predicates)
    prefix = "estimated" if one.group.field.date_attribute == "estimatedclosedate" else "actual"
    date = getattr(Opportunity, f"{prefix}closedate")
    query = query.where(
        Opportunity.statecode == one.group.field.source_state, date >= bound["first_on"], date <= bound["last_on"]
    )
    return query.where(Opportunity.ownerid == bound["owner"]) if one.group.owned else query


def _text_query(one: Prepared, bound: Bound, query: Any, predicates: Predicates) -> Any:
    """With a rollup query a script has no choice but to write its conditions out."""
    predicate = predicates[one.group.key]
    until = dt.date.fromisoformat(bound["last_on"]) + dt.timedelta(days=1)
    values = {"owner": bound["owner"], "from_on": bound["first_on"], "until_on": until.isoformat()}
    named = {name: value for name, value in values.items() if f":{name}" in predicate.sql}
    return query.select_from(Opportunity).where(text(predicate.sql).bindparams(**predicate.parameters, **named))
