from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Link, Placeholder
from d365sync.core.fetchxml.compile import compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.operators import USER_OPERATORS
from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.storage import fold
from d365sync.core.values import Row
from d365sync.errors import FetchXmlError

NOW = dt.datetime(2024, 5, 15, 10, 30, tzinfo=dt.UTC)
CONTEXT = Context(now=NOW, time_zone=ZoneInfo("UTC"))
_COLUMNS = [
    Column("dealid", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True),
    Column("name", ColumnType.STRING),
    Column("amount", ColumnType.MONEY),
    Column("seen", ColumnType.DATETIME, DateBehavior.USER_LOCAL),
    Column("ownerid", ColumnType.OWNER, targets=("systemuser", "team")),
    Column("parentid", ColumnType.LOOKUP, targets=("deal",)),
    Column("lcid", ColumnType.INTEGER),
]
SCHEMA = Schema.of(
    [Table("deal", "deals", "dealid", "name", {c.logical_name: c for c in _COLUMNS}, hierarchy_parent="parentid")]
)


def _where(*conditions: Condition) -> Fetch:
    return Fetch("deal", Filter(conditions=conditions))


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute(
        'CREATE TABLE deal (dealid TEXT PRIMARY KEY, name TEXT, "name__fold" TEXT, amount BIGINT, seen TEXT,'
        " ownerid TEXT, owneridtype TEXT, parentid TEXT, lcid BIGINT)"
    )
    yield connection
    connection.close()


def _add(database: sqlite3.Connection, key: str, name: str | None = None, **values: object) -> None:
    row = {"dealid": key, "name": name, "name__fold": None if name is None else fold(name), **values}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    database.execute(f"INSERT INTO deal ({names}) VALUES ({marks})", list(row.values()))


def _ids(database: sqlite3.Connection, fetch: Fetch, context: Context = CONTEXT) -> list[str]:
    predicate = compile_predicate(fetch, SCHEMA, context, alias="d", dialect="sqlite")
    statement = f"SELECT d.dealid FROM deal d WHERE {predicate.sql} ORDER BY 1"
    return [row[0] for row in database.execute(statement, dict(predicate.parameters))]


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        (Condition("name", "eq", ("Big deal",)), "name__fold=?"),
        (Condition("ownerid", "eq-userid"), "ownerid=?"),
        (Condition("seen", "last-x-days", ("30",)), "seen>? AND seen<?"),
        (Condition("seen", "on", ("2024-05-15",)), "seen>? AND seen<?"),
        (Condition("amount", "between", ("1", "2")), "amount>? AND amount<?"),
    ],
)
def test_an_index_serves_a_flat_predicate(database: sqlite3.Connection, condition: Condition, index: str) -> None:
    for column in ("name__fold", "ownerid", "seen", "amount"):
        database.execute(f"CREATE INDEX by_{column} ON deal ({column})")
    context = Context(now=NOW, time_zone=ZoneInfo("UTC"), user_id="u")
    predicate = compile_predicate(_where(condition), SCHEMA, context, alias="d", dialect="sqlite")
    statement = f"EXPLAIN QUERY PLAN SELECT 1 FROM deal d WHERE {predicate.sql}"
    assert f"({index})" in str(database.execute(statement, dict(predicate.parameters)).fetchall())


def test_a_query_without_conditions_is_always_true(database: sqlite3.Connection) -> None:
    _add(database, "1")
    assert _ids(database, Fetch("deal", Filter("or", filters=(Filter("and"),)))) == ["1"]


def test_values_are_parameters_and_never_text() -> None:
    hostile = "'); DROP TABLE deal; --"
    predicate = compile_predicate(
        _where(Condition("name", "eq", (hostile,)), Condition("name", "like", (hostile,))),
        SCHEMA,
        CONTEXT,
        alias="d",
        dialect="postgresql",
        prefix="q",
    )
    assert "drop" not in predicate.sql.lower()
    assert list(predicate.parameters) == ["q1", "q2"]
    assert predicate.parameters["q1"] == hostile.casefold()


def test_a_placeholder_becomes_the_given_expression(database: sqlite3.Connection) -> None:
    _add(database, "1", ownerid="a")
    _add(database, "2", ownerid="b")
    _add(database, "3")
    fetch = _where(Condition("ownerid", "eq", (Placeholder("owner"),)))
    predicate = compile_predicate(
        fetch, SCHEMA, CONTEXT, alias="d", dialect="sqlite", placeholders={"owner": "g.owner"}
    )
    goals = "WITH g(goal, owner) AS (VALUES ('x', 'b'), ('y', 'a'), ('z', NULL))"
    statement = f"{goals} SELECT g.goal, d.dealid FROM g JOIN deal d ON {predicate.sql} ORDER BY 1"
    assert database.execute(statement, dict(predicate.parameters)).fetchall() == [("x", "2"), ("y", "1")]
    rows = [{"dealid": "1", "ownerid": "a"}, {"dealid": "2", "ownerid": "b"}]
    assert evaluate(fetch, {"deal": rows}, SCHEMA, CONTEXT, placeholders={"owner": "b"}) == [rows[1]]


def test_an_unbound_placeholder_is_refused() -> None:
    fetch = _where(Condition("ownerid", "eq", (Placeholder("owner"),)))
    with pytest.raises(FetchXmlError, match="owner"):
        compile_predicate(fetch, SCHEMA, CONTEXT, alias="d", dialect="sqlite")
    with pytest.raises(FetchXmlError, match="owner"):
        evaluate(fetch, {"deal": [{"dealid": "1"}]}, SCHEMA, CONTEXT)


def test_not_under_leaves_out_empty_lookups_even_where_nothing_is_below(database: sqlite3.Connection) -> None:
    _add(database, "1")
    _add(database, "2", parentid="1")
    key = "00000000-0000-4000-8000-000000000009"
    assert _ids(database, _where(Condition("parentid", "not-under", (key,)))) == ["2"]
    keeping = Context(now=NOW, time_zone=ZoneInfo("UTC"), not_under_keeps_null=True)
    assert _ids(database, _where(Condition("parentid", "not-under", (key,))), keeping) == ["1", "2"]


def test_a_circle_in_a_hierarchy_ends(database: sqlite3.Connection) -> None:
    keys = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(3)]
    rows = [{"dealid": key, "parentid": keys[n - 1]} for n, key in enumerate(keys)]
    for row in rows:
        _add(database, row["dealid"], parentid=row["parentid"])
    for operator, expected in [("under", keys[1:]), ("above", keys[1:]), ("not-under", keys[:1])]:
        fetch = _where(Condition("dealid", operator, (keys[0],)))
        assert _ids(database, fetch) == expected
        assert [row["dealid"] for row in evaluate(fetch, {"deal": rows}, SCHEMA, CONTEXT)] == expected


def test_hundreds_of_alternatives_stay_within_the_databases_depth(database: sqlite3.Connection) -> None:
    _add(database, "1", seen="2024-05-15T00:00:00Z")
    context = Context(now=NOW, time_zone=ZoneInfo("UTC"), fiscal_years=(1800, 3200))
    assert _ids(database, _where(Condition("seen", "in-fiscal-period", ("2",))), context) == ["1"]


def test_more_values_than_a_statement_takes_are_refused() -> None:
    values = tuple(str(n) for n in range(30_001))
    with pytest.raises(FetchXmlError, match="30000 values"):
        compile_predicate(_where(Condition("amount", "in", values)), SCHEMA, CONTEXT, alias="d", dialect="sqlite")


@pytest.mark.parametrize("operator", sorted(USER_OPERATORS | {"eq-userlanguage"}))
def test_a_query_about_the_caller_needs_one(operator: str) -> None:
    fetch = _where(Condition("lcid" if operator == "eq-userlanguage" else "ownerid", operator))
    with pytest.raises(FetchXmlError, match="not known"):
        compile_predicate(fetch, SCHEMA, CONTEXT, alias="d", dialect="sqlite")
    with pytest.raises(FetchXmlError, match="not known"):
        evaluate(fetch, {"deal": [{"dealid": "1"}]}, SCHEMA, CONTEXT)


def test_an_outer_link_nobody_speaks_of_costs_nothing() -> None:
    plain = compile_predicate(_where(Condition("amount", "null")), SCHEMA, CONTEXT, alias="d", dialect="sqlite")
    link = Link("deal", "dealid", "parentid", link_type="outer")
    fetch = Fetch("deal", Filter(conditions=(Condition("amount", "null"),)), (link,))
    assert compile_predicate(fetch, SCHEMA, CONTEXT, alias="d", dialect="sqlite") == plain


@pytest.mark.parametrize(("name", "expected"), [("first", ["1"]), ("second", [])])
def test_only_the_first_row_of_a_link_is_asked(database: sqlite3.Connection, name: str, expected: list[str]) -> None:
    children = [("1", None, None), ("3", "second", "1"), ("2", "first", "1")]
    rows: list[Row] = [{"dealid": key, "name": called, "parentid": parent} for key, called, parent in children]
    for key, called, parent in children:
        _add(database, key, called, parentid=parent)
    link = Link("deal", "parentid", "dealid", "child", "matchfirstrowusingcrossapply")
    fetch = Fetch("deal", Filter(conditions=(Condition("name", "eq", (name,), "child"),)), (link,))
    assert _ids(database, fetch) == expected
    assert [row["dealid"] for row in evaluate(fetch, {"deal": rows}, SCHEMA, CONTEXT)] == expected


def test_conditions_of_the_entity_stay_outside_the_join(database: sqlite3.Connection) -> None:
    database.execute("CREATE INDEX by_seen ON deal (seen)")
    link = Link("deal", "dealid", "parentid", "up")
    conditions = (Condition("seen", "today"), Condition("amount", "gt", valueof="up.amount"))
    predicate = compile_predicate(
        Fetch("deal", Filter(conditions=conditions), (link,)), SCHEMA, CONTEXT, alias="d", dialect="sqlite"
    )
    statement = f"EXPLAIN QUERY PLAN SELECT 1 FROM deal d WHERE {predicate.sql}"
    assert "by_seen (seen>? AND seen<?)" in str(database.execute(statement, dict(predicate.parameters)).fetchall())


def test_up_to_the_last_day_of_all_means_any_date(database: sqlite3.Connection) -> None:
    _add(database, "seen", seen="2024-05-15T10:30:00Z")
    _add(database, "never")
    assert _ids(database, _where(Condition("seen", "on-or-before", ("9999-12-31",)))) == ["seen"]
