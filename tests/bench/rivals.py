"""The other ways to the same numbers: a bare scan, DuckDB twice, and a session with one query per goal.

Each way is a function without arguments that leaves its numbers with Python; what it needs to have ready (connections,
the goals in a table, DuckDB's own copy) is made before and not measured.
"""

from __future__ import annotations

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
from d365sync.core.fetchxml.compile import compile_predicate
from d365sync.mirror.sums import index_columns
from d365sync.mirror.tables import index_statement
from tests.bench.ours import Bench, Prepared, Sums

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
    indexes = dict.fromkeys((index_columns(one.group), summed_column(one)) for one in bench.prepared)
    with closing(sqlite3.connect(bench.file)) as connection:
        statements = [_scan(connection, columns, summed) for columns, summed in indexes]
        connection.commit()
    yield statements


def _scan(connection: sqlite3.Connection, columns: Sequence[str], summed: str | None) -> str:
    make = index_statement("opportunity", columns)
    name = re.findall(r'"(_ix_[^"]+)"', make)[0]
    connection.execute(make)
    amount = f'SUM("{summed}")' if summed else "0"
    statement = f'SELECT {amount}, COUNT("{columns[-1]}") FROM opportunity INDEXED BY "{name}"'
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchone()[3]
    assert plan == f"SCAN opportunity USING COVERING INDEX {name}", plan
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
            (goal_id, column): (records, int(amount or 0))
            for column, statement, values in statements
            for goal_id, records, amount in self.connection.execute(statement, values).fetchall()
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
        f'WITH days AS (SELECT {owner}"{date}", COUNT(*) AS n, {amount} AS amount FROM "opportunity" r '
        f"WHERE {where} GROUP BY ALL) "
        "SELECT g.goal_id, SUM(d.n)::BIGINT, SUM(d.amount) FROM bounds g JOIN days d ON "
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


def by_session(bench: Bench, goals: Sequence[tuple[Prepared, Mapping[str, str | None]]]) -> Sums:
    """Ask for each goal on its own."""
    found: Sums = {}
    engine = create_engine(f"sqlite:///{bench.file}")
    with Session(engine) as session:
        for one, bound in goals:
            records, amount = session.execute(_goal_query(one, bound)).one()
            if records:
                found[str(bound["goal_id"]), one.group.slot.column] = (records, int(amount or 0))
    engine.dispose()
    return found


def _goal_query(one: Prepared, bound: Mapping[str, str | None]) -> Any:
    summed = summed_column(one)
    amount = func.sum(getattr(Opportunity, summed)) if summed else func.count()
    query = select(func.count(), amount)
    if one.group.query is not None:
        return _text_query(one, bound, query)
    prefix = "estimated" if one.group.field.date_attribute == "estimatedclosedate" else "actual"
    date = getattr(Opportunity, f"{prefix}closedate")
    query = query.where(
        Opportunity.statecode == one.group.field.source_state, date >= bound["first_on"], date <= bound["last_on"]
    )
    return query.where(Opportunity.ownerid == bound["owner"]) if one.group.owned else query


def _text_query(one: Prepared, bound: Mapping[str, str | None], query: Any) -> Any:
    """With a rollup query a script has no choice but to write its conditions out."""
    where = re.sub(r'\bg\."(\w+)"', r":bound_\1", re.sub(r"\br\.", "opportunity.", one.predicate.sql))
    named = {f"bound_{name}": value for name, value in bound.items() if f":bound_{name}" in where}
    return query.select_from(Opportunity).where(text(where).bindparams(**one.predicate.parameters, **named))
