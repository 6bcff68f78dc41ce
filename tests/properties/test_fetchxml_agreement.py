"""The evaluator and the compiled SQL agree on random rows and random queries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.core.fetchxml.ast import JOIN_TYPES, QUANTIFIERS, Condition, Fetch, Filter, Link
from d365sync.core.fetchxml.compile import Predicate, compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.names import comparable, find_column
from d365sync.core.fetchxml.operators import (
    DATE_OPERATORS,
    HIERARCHY_OPERATORS,
    OPERATORS,
    Arity,
    Operator,
    ValueKind,
)
from d365sync.core.fetchxml.parse import Limits, parse_fetch
from d365sync.core.fetchxml.write import write_fetch
from d365sync.core.fiscal import FiscalCalendar, FiscalTemplate
from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.core.storage import FOLD_SUFFIX, StoredAs, encode, fold, has_fold, stored_as
from d365sync.core.values import Row, Value
from tests.effort import SAME_EACH_RUN, examples
from tests.fetchcases import sqlite_in_memory

_KEYS = [f"00000000-0000-4000-8000-{n:012x}" for n in range(1, 8)]
_INSTANTS = [
    dt.datetime(2024, 3, 9, 23, 59, 59, tzinfo=dt.UTC),
    dt.datetime(2024, 3, 10, 5, 0, tzinfo=dt.UTC),
    dt.datetime(2024, 3, 11, 3, 59, 59, tzinfo=dt.UTC),
    dt.datetime(2024, 3, 11, 12, 0, tzinfo=dt.UTC),
    dt.datetime(2023, 11, 5, 6, 30, tzinfo=dt.UTC),
    dt.datetime(2022, 12, 31, 23, 0, tzinfo=dt.UTC),
    dt.datetime(2025, 4, 1, 0, 0, tzinfo=dt.UTC),
]
_TEXTS = [
    "",
    "abc",
    "abc ",
    "ABC",
    "Straße",
    "a-c",
    "^x",
    "[b]",
    "100%",
    "a_c",
    "*?",
    "É",
    "e",
    "e\u0301 ",
    "z\\'\"",
    "bx",
]
_PATTERNS = [
    *_TEXTS,
    "%",
    "_%",
    "[a-c]%",
    "[^a-c]%",
    "%[%]",
    "%[_]%",
    "[^]%",
    "[-a]%",
    "[a^-z]_",
    "[z-a]",
    "[",
    "%\\%",
    "%e%",
    "[z-a^-b]x",
]
_RAW: Mapping[ColumnType, tuple[Sequence[Value], Sequence[str]]] = {
    ColumnType.STRING: (_TEXTS, _TEXTS),
    ColumnType.INTEGER: ([-1, 0, 2, 1033], ["-1", "0", "2", "1033"]),
    ColumnType.MONEY: (
        [Decimal("0.0001"), Decimal(5), Decimal("-5.5"), Decimal(0)],
        ["0.00005", "5", "-5.50", "0.0001", "7"],
    ),
    ColumnType.DECIMAL: ([Decimal("0.01"), Decimal(3)], ["0.01", "0.011", "3.00", "-1"]),
    ColumnType.DOUBLE: ([0.1, 2.0], ["0.1", "2", "1e-1"]),
    ColumnType.BOOLEAN: ([True, False], ["1", "0", "true", "false"]),
    ColumnType.PICKLIST: ([1, 2, 3], ["1", "2", "3"]),
    ColumnType.MULTISELECT: ([frozenset(), frozenset({1}), frozenset({1, 11}), frozenset({2})], ["1", "11", "2"]),
    ColumnType.ENTITYNAME: (["systemuser", "team"], ["systemuser", "Team", "8"]),
    ColumnType.UNIQUEIDENTIFIER: (_KEYS, [*_KEYS[:4], "{" + _KEYS[4].upper() + "}"]),
}
_DATE_TEXTS = ["2024-03-10", "2024-03-11T08:00:00", "2024-03-11T12:00:00Z", "2024-03-11T12:00:00.5Z", "2022-12-31"]


def _table(name: str, columns: Sequence[Column], parent: str | None = None, code: int | None = None) -> Table:
    key = Column(f"{name}id", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True)
    found = {column.logical_name: column for column in [key, *columns]}
    return Table(name, f"{name}s", f"{name}id", "name", found, hierarchy_parent=parent, object_type_code=code)


_COLUMNS = [
    Column("name", ColumnType.STRING),
    Column("nick", ColumnType.STRING),
    Column("size", ColumnType.INTEGER),
    Column("amount", ColumnType.MONEY, precision=2),
    Column("other", ColumnType.MONEY, precision=2),
    Column("rate", ColumnType.DECIMAL, precision=2),
    Column("score", ColumnType.DOUBLE),
    Column("flag", ColumnType.BOOLEAN),
    Column("choice", ColumnType.PICKLIST),
    Column("picks", ColumnType.MULTISELECT),
    Column("due", ColumnType.DATETIME, DateBehavior.DATE_ONLY),
    Column("seen", ColumnType.DATETIME, DateBehavior.USER_LOCAL),
    Column("wall", ColumnType.DATETIME, DateBehavior.TIME_ZONE_INDEPENDENT),
    Column("ownerid", ColumnType.OWNER, targets=("systemuser", "team")),
    Column("parentid", ColumnType.LOOKUP, targets=("item",)),
]
_SCHEMA = Schema.of(
    [
        _table("item", _COLUMNS, parent="parentid"),
        _table(
            "line",
            [
                Column("name", ColumnType.STRING),
                Column("size", ColumnType.INTEGER),
                Column("itemid", ColumnType.LOOKUP, targets=("item",)),
            ],
        ),
        _table("systemuser", [Column("name", ColumnType.STRING)], code=8),
        _table("team", [Column("name", ColumnType.STRING)], code=9),
    ]
)
_JOINS = {
    "item": [("line", "itemid", "itemid"), ("item", "itemid", "parentid"), ("line", "name", "name")],
    "line": [("item", "itemid", "itemid"), ("line", "size", "size")],
}


_COMPANIONS = {
    "item": ("owneridtype", "owneridname", "parentidname", "choicename", "flagname"),
    "line": ("itemidname",),
}
_LABELS = {"item.choice": {1: "Abc", 2: "a_c"}, "flag": {0: "bx", 1: "100%"}}


def _known(table: Table, name: str) -> Column:
    column = find_column(table, name)
    assert column is not None
    return column


def _testable(table: Table) -> list[Column]:
    """The columns conditions may name: those of the table and their companions."""
    return [*table.columns.values(), *(_known(table, name) for name in _COMPANIONS[table.logical_name])]


def _row_values(column: Column) -> Sequence[Value]:
    if column.type is ColumnType.DATETIME:
        return [at.date() for at in _INSTANTS] if column.date_behavior is DateBehavior.DATE_ONLY else _INSTANTS
    return _RAW[column.type if column.type in _RAW else ColumnType.UNIQUEIDENTIFIER][0]


def _texts(column: Column, operator: Operator, kind: ValueKind) -> Sequence[str]:
    if kind is ValueKind.PATTERN:
        return _PATTERNS
    if kind is ValueKind.COUNT:
        return ["1", "2", "17"]
    if kind is ValueKind.YEAR:
        return ["2023", "2024"]
    if kind is ValueKind.NUMBER:
        return ["1", "2", "4", "13"]
    if kind is ValueKind.KEY:
        return _KEYS[:4]
    if column.type is ColumnType.DATETIME:
        return _DATE_TEXTS
    return _RAW[column.type if column.type in _RAW else ColumnType.UNIQUEIDENTIFIER][1]


def _fits(operator: Operator, column: Column, table: Table) -> bool:
    if operator.name in HIERARCHY_OPERATORS:
        return table.logical_name == "item" and column.logical_name in ("itemid", "parentid")
    if operator.hours and column.date_behavior is DateBehavior.DATE_ONLY:
        return False
    return column.type in operator.types


@st.composite
def _conditions(draw: st.DrawFn, table: Table, labels: Mapping[str, str]) -> Condition:
    label = draw(st.sampled_from([None, *labels])) if labels else None
    own, table = table, table if label is None else _SCHEMA.table(labels[label])
    column = draw(st.sampled_from(_testable(table)))
    fitting = [one for one in OPERATORS.values() if _fits(one, column, table)]
    # The date operators outnumber all others; without a choice of family the plain ones would hardly come up.
    dated = draw(st.booleans()) and column.type is ColumnType.DATETIME
    operator = draw(st.sampled_from([one for one in fitting if (one.name in DATE_OPERATORS) is dated]))
    if operator.valueof and draw(st.booleans()):
        sides = {None: own, **{name: _SCHEMA.table(labels[name]) for name in labels}}
        twins = [
            one.logical_name if side is None else f"{side}.{one.logical_name}"
            for side, other in sides.items()
            for one in _testable(other)
            if comparable(one, column) and one.type not in (ColumnType.ENTITYNAME, ColumnType.MULTISELECT)
        ]
        if twins:
            return Condition(column.logical_name, operator.name, (), label, draw(st.sampled_from(twins)))
    values = tuple(
        draw(st.sampled_from(_texts(column, operator, operator.kind(n)))) for n in range(draw(_counts(operator)))
    )
    return Condition(column.logical_name, operator.name, values, label)


def _counts(operator: Operator) -> st.SearchStrategy[int]:
    if operator.arity is Arity.LIST:
        return st.integers(1, 3)
    return st.just({Arity.NONE: 0, Arity.ONE: 1, Arity.TWO: 2}[operator.arity])


@st.composite
def _filters(draw: st.DrawFn, table: Table, labels: Mapping[str, str], depth: int) -> Filter:
    filters: list[Filter] = []
    links: list[Link] = []
    if depth:
        filters = draw(st.lists(_filters(table, labels, depth - 1), max_size=2))
        links = draw(st.lists(_links(table, QUANTIFIERS, depth - 1), max_size=1))
    conditions = draw(st.lists(_conditions(table, labels), max_size=2))
    kind = draw(st.sampled_from(["and", "or"]))
    return Filter("or" if kind == "or" else "and", tuple(conditions), tuple(filters), tuple(links))


@st.composite
def _links(draw: st.DrawFn, parent: Table, kinds: Sequence[str], depth: int) -> Link:
    name, from_, to = draw(st.sampled_from(_JOINS[parent.logical_name]))
    kind = draw(st.sampled_from(kinds))
    table = _SCHEMA.table(name)
    nested: list[Link] = []
    if depth:
        nested = draw(st.lists(_links(table, JOIN_TYPES, depth - 1), max_size=1))
    condition = draw(st.none() | _filters(table, {}, min(depth, 1)))
    return Link(name, from_, to, None, kind, condition, tuple(nested))


@st.composite
def _fetches(draw: st.DrawFn) -> Fetch:
    links = _labelled(draw(st.lists(_links(_SCHEMA.table("item"), JOIN_TYPES, 2), max_size=2)), "l")
    labels = dict(_exposed(links))
    return Fetch("item", draw(st.none() | _filters(_SCHEMA.table("item"), labels, 2)), links)


def _labelled(links: Sequence[Link], prefix: str) -> tuple[Link, ...]:
    return tuple(
        Link(
            one.name,
            one.from_,
            one.to,
            f"{prefix}{n}",
            one.link_type,
            one.filter,
            _labelled(one.links, f"{prefix}{n}_"),
        )
        for n, one in enumerate(links)
    )


def _exposed(links: Sequence[Link]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for link in links:
        if link.link_type not in ("exists", "in"):
            found.append((link.label, link.name))
        if link.link_type in ("inner", "natural", "outer"):
            found += _exposed(link.links)
    return found


def _rows(table: Table) -> st.SearchStrategy[list[Row]]:
    columns = [column for column in table.columns.values() if not column.is_primary_id]
    columns += [Column(one.type_name, ColumnType.ENTITYNAME) for one in columns if one.is_polymorphic]
    one = st.fixed_dictionaries(
        {column.logical_name: st.none() | st.sampled_from(_row_values(column)) for column in columns}
    )
    return st.lists(one, max_size=5).map(
        lambda rows: [{table.primary_id: key, **row} for key, row in zip(_KEYS, rows, strict=False)]
    )


_contexts = st.builds(
    Context,
    now=st.sampled_from(_INSTANTS),
    time_zone=st.sampled_from([ZoneInfo("UTC"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Tehran")]),
    week_start=st.sampled_from([0, 6]),
    fiscal=st.builds(
        FiscalCalendar,
        start_month=st.sampled_from([1, 4]),
        template=st.sampled_from(list(FiscalTemplate)),
        named_by=st.sampled_from(["start", "end"]),
    ),
    user_id=st.just(_KEYS[0]),
    business_unit_id=st.just(_KEYS[1]),
    user_team_ids=st.just((_KEYS[2],)),
    user_language=st.just(1033),
    user_hierarchy=st.just({_KEYS[0]: (_KEYS[3],)}),
    team_members=st.just({_KEYS[4]: (_KEYS[3],)}),
    next_x_hours_whole=st.booleans(),
    now_is_past=st.booleans(),
    option_labels=st.just(_LABELS),
    ne_keeps_null=st.booleans(),
    not_in_keeps_null=st.booleans(),
    not_begin_keeps_null=st.booleans(),
    not_contain_keeps_null=st.booleans(),
    not_under_keeps_null=st.booleans(),
    not_under_keeps_anchor=st.booleans(),
    valueof_ne_keeps_both_null=st.booleans(),
    accents_count=st.booleans(),
    trailing_blanks_count=st.booleans(),
    between_to_end_of_day=st.booleans(),
    literals_follow_zone=st.booleans(),
    all_means_every=st.booleans(),
    matchfirst_keeps_unmatched=st.booleans(),
    inner_under_outer=st.sampled_from(["flat", "nested"]),
    fiscal_years=st.just((2022, 2025)),
)


Execute = Callable[[str, Mapping[str, Any]], list[Any]]


def _load(execute: Execute, tables: Mapping[str, Sequence[Row]], text: str) -> None:
    for table in _SCHEMA.tables.values():
        columns = list(table.columns.values())
        kinds = {c.logical_name: text if stored_as(c) is StoredAs.TEXT else stored_as(c).value for c in columns}
        kinds |= {c.logical_name + FOLD_SUFFIX: text for c in columns if has_fold(c)}
        kinds |= {c.type_name: text for c in columns if c.is_polymorphic}
        execute(f'DROP TABLE IF EXISTS "{table.logical_name}"', {})
        spelled = ", ".join(f'"{name}" {kind}' for name, kind in kinds.items())
        execute(f'CREATE TABLE "{table.logical_name}" ({spelled})', {})
        for row in tables[table.logical_name]:
            stored: dict[str, Any] = {c.logical_name: encode(c, row.get(c.logical_name)) for c in columns}
            for column in filter(has_fold, columns):
                value = row.get(column.logical_name)
                stored[column.logical_name + FOLD_SUFFIX] = None if value is None else fold(str(value))
            stored |= {c.type_name: row.get(c.type_name) for c in columns if c.is_polymorphic}
            names, marks = ", ".join(f'"{n}"' for n in stored), ", ".join(f":v{n}" for n in range(len(stored)))
            values = {f"v{n}": value for n, value in enumerate(stored.values())}
            execute(f'INSERT INTO "{table.logical_name}" ({names}) VALUES ({marks})', values)


def _selected(execute: Execute, predicate: Predicate) -> set[str]:
    statement = f'SELECT r."itemid" FROM "item" AS r WHERE {predicate.sql}'
    return {row[0] for row in execute(statement, dict(predicate.parameters))}


_queries = st.tuples(
    st.fixed_dictionaries({name: _rows(table) for name, table in _SCHEMA.tables.items()}), _fetches(), _contexts
)


@settings(max_examples=examples(250), deadline=None, derandomize=SAME_EACH_RUN, suppress_health_check=list(HealthCheck))
@given(_queries)
def test_both_readings_agree_on_sqlite(query: tuple[dict[str, list[Row]], Fetch, Context]) -> None:
    tables, fetch, context = query
    database = sqlite_in_memory()

    def execute(statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        return database.execute(statement, dict(parameters)).fetchall()

    try:
        _load(execute, tables, "TEXT")
        compiled = _selected(execute, compile_predicate(fetch, _SCHEMA, context, alias="r", dialect="sqlite"))
    finally:
        database.close()
    assert compiled == {row["itemid"] for row in evaluate(fetch, tables, _SCHEMA, context)}


@pytest.mark.postgresql
@settings(max_examples=examples(100), deadline=None, derandomize=SAME_EACH_RUN, suppress_health_check=list(HealthCheck))
@given(_queries)
def test_both_readings_agree_on_postgresql(
    postgresql_server: str, query: tuple[dict[str, list[Row]], Fetch, Context]
) -> None:
    tables, fetch, context = query
    engine = sqlalchemy.create_engine(postgresql_server, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:

        def execute(statement: str, parameters: Mapping[str, Any]) -> list[Any]:
            result = connection.execute(sqlalchemy.text(statement), dict(parameters))
            return list(result) if result.returns_rows else []

        execute("CREATE SCHEMA fetchxml_agreement", {})  # rolled back with everything else
        execute("SET LOCAL search_path TO fetchxml_agreement", {})
        _load(execute, tables, 'TEXT COLLATE "C"')
        predicate = compile_predicate(fetch, _SCHEMA, context, alias="r", dialect="postgresql")
        compiled = _selected(execute, predicate)
    assert compiled == {row["itemid"] for row in evaluate(fetch, tables, _SCHEMA, context)}


@settings(max_examples=examples(100), deadline=None, derandomize=SAME_EACH_RUN, suppress_health_check=list(HealthCheck))
@given(_fetches())
def test_writing_and_parsing_gives_the_same_tree(fetch: Fetch) -> None:
    assert parse_fetch(write_fetch(fetch), limits=Limits(links=200)) == fetch


_PATTERN_TEXT = st.text(alphabet="ab^-[]%_*?!", max_size=6)


@settings(max_examples=examples(300), deadline=None, derandomize=SAME_EACH_RUN)
@given(st.lists(st.text(alphabet="ab^-[]%_*?!", min_size=1, max_size=4), max_size=5), _PATTERN_TEXT)
def test_like_means_the_same_to_both_readings(texts: list[str], pattern: str) -> None:
    fetch = Fetch("item", Filter(conditions=(Condition("name", "like", (pattern,)),)))
    tables: dict[str, list[Row]] = {"item": [{"itemid": k, "name": t} for k, t in zip(_KEYS, texts, strict=False)]}
    context = Context(now=_INSTANTS[0], time_zone=ZoneInfo("UTC"))
    predicate = compile_predicate(fetch, _SCHEMA, context, alias="r", dialect="sqlite")
    database = sqlite_in_memory()
    try:
        database.execute('CREATE TABLE item (itemid TEXT, "name__fold" TEXT)')
        rows = [(row["itemid"], fold(str(row["name"]))) for row in tables["item"]]
        database.executemany("INSERT INTO item VALUES (?, ?)", rows)
        found = database.execute(f"SELECT itemid FROM item AS r WHERE {predicate.sql}", dict(predicate.parameters))
        compiled = {row[0] for row in found}
    finally:
        database.close()
    assert compiled == {row["itemid"] for row in evaluate(fetch, tables, _SCHEMA, context)}


_ITEM = _SCHEMA.table("item")


def _varied(number: int) -> Row:
    """A row that pairs values of different columns differently from its neighbours; the last row is empty."""
    row: dict[str, Value] = {"itemid": f"00000000-0000-4000-8000-{number + 1:012x}"}
    for at, column in enumerate(_COLUMNS if number < 30 else ()):
        values = _row_values(column)
        pick = number + number // len(values) * (at + 1)
        row[column.logical_name] = None if (number + at) % 9 == 0 else values[pick % len(values)]
    row["owneridtype"] = [None, "systemuser", "team"][number % 3]
    return row


_VARIED: dict[str, list[Row]] = {
    "item": [_varied(number) for number in range(31)],
    "line": [],
    "systemuser": [{"systemuserid": key, "name": name} for key, name in zip(_KEYS, _TEXTS[1:4], strict=False)],
    "team": [{"teamid": key, "name": name} for key, name in zip(_KEYS[2:], _TEXTS[4:7], strict=False)],
}
_USUAL = Context(
    now=_INSTANTS[3],
    time_zone=ZoneInfo("America/New_York"),
    user_id=_KEYS[0],
    business_unit_id=_KEYS[1],
    user_team_ids=(_KEYS[2],),
    user_language=1033,
    user_hierarchy={_KEYS[0]: (_KEYS[3],)},
    team_members={_KEYS[4]: (_KEYS[3],)},
    option_labels=_LABELS,
    fiscal_years=(2022, 2025),
)
_UNUSUAL = replace(
    _USUAL,
    next_x_hours_whole=False,
    now_is_past=True,
    ne_keeps_null=False,
    not_in_keeps_null=True,
    not_begin_keeps_null=False,
    not_contain_keeps_null=False,
    not_under_keeps_null=True,
    not_under_keeps_anchor=False,
    valueof_ne_keeps_both_null=True,
    accents_count=False,
    trailing_blanks_count=False,
    between_to_end_of_day=True,
    literals_follow_zone=True,
)


def _every_condition(operator: Operator, column: Column) -> Iterator[Condition]:
    name = column.logical_name
    if operator.valueof:
        for other in _COLUMNS:
            if comparable(column, other):
                yield Condition(name, operator.name, valueof=other.logical_name)
    texts = [_texts(column, operator, operator.kind(n)) for n in range(2)]
    if operator.arity is Arity.NONE:
        yield Condition(name, operator.name)
    if operator.arity in (Arity.ONE, Arity.LIST):
        yield from (Condition(name, operator.name, (text,)) for text in texts[0])
    if operator.arity in (Arity.TWO, Arity.LIST):
        yield from (Condition(name, operator.name, pair) for pair in product(*texts))


@pytest.mark.parametrize("context", [_USUAL, _UNUSUAL], ids=["usual", "unusual"])
@pytest.mark.parametrize("operator", [OPERATORS[name] for name in sorted(OPERATORS)], ids=sorted(OPERATORS))
def test_every_operator_means_the_same_on_every_column(operator: Operator, context: Context) -> None:
    columns = [column for column in _testable(_ITEM) if _fits(operator, column, _ITEM)]
    assert columns
    database = sqlite_in_memory()

    def execute(statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        return database.execute(statement, dict(parameters)).fetchall()

    try:
        _load(execute, _VARIED, "TEXT")
        for column in columns:
            for condition in _every_condition(operator, column):
                fetch = Fetch("item", Filter(conditions=(condition,)))
                predicate = compile_predicate(fetch, _SCHEMA, context, alias="r", dialect="sqlite")
                evaluated = {row["itemid"] for row in evaluate(fetch, _VARIED, _SCHEMA, context)}
                assert _selected(execute, predicate) == evaluated, condition
    finally:
        database.close()
