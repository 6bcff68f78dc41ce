"""Documents that are meant to do harm: refused or read within bounds that memory shows, not the clock."""

from __future__ import annotations

import datetime as dt
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.check import check_fetch
from d365sync.core.fetchxml.compile import compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.schema import Column, ColumnType, Schema, Table
from d365sync.errors import FetchXmlError

_KEY = Column("aid", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True)
_COLUMNS = {"aid": _KEY, "name": Column("name", ColumnType.STRING), "size": Column("size", ColumnType.INTEGER)}
_SCHEMA = Schema.of([Table("a", "as", "aid", "name", _COLUMNS)])
_CONTEXT = Context(dt.datetime(2024, 1, 1, tzinfo=dt.UTC), ZoneInfo("UTC"))


def _entity(inside: str) -> str:
    return f'<fetch><entity name="a">{inside}</entity></fetch>'


def _condition(spelled: str, inside: str = "") -> str:
    return _entity(f"<filter><condition {spelled}>{inside}</condition></filter>")


@contextmanager
def _at_most(megabytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 1_000_000


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'<!DOCTYPE f [<!ENTITY l0 "ha">{_LAUGHS}]><fetch>&l9;</fetch>', "document type or an entity"),
        ('<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/hostname">]><fetch>&x;</fetch>', "document type or an entity"),
        ('<!DOCTYPE f SYSTEM "http://example.invalid/f.dtd"><fetch/>', "document type or an entity"),
        ('<!DOCTYPE f [<!ENTITY % x "y"> %x;]><fetch/>', "document type or an entity"),
        ("<fetch>&undeclared;</fetch>", "not well-formed"),
        ("<fetch>" * 100_000, "nested deeper"),
        (_entity("<filter>" * 100_000 + "</filter>" * 100_000), "nested deeper"),
        (_entity('<link-entity name="a" from="aid" to="aid">' * 16), "more than 15 link-entity"),
        (_entity("<filter>" + '<condition attribute="a" operator="null"/>' * 501 + "</filter>"), "more than 500"),
        (_entity("<filter>" + '<condition attribute="a" operator="null"/>' * 1_000_000), "42"),
        (_condition(f'attribute="{"a" * 10_000_000}" operator="null"'), "characters"),
        (_entity(f"<filter {' '.join(f'a{n}=' + chr(34) * 2 for n in range(1_000_000))}/>"), "characters"),
        (_entity(f"<filter {' '.join(f'a{n}=' + chr(34) * 2 for n in range(150_000))}/>"), "no attribute 'a0'"),
        (_entity("<attribute name='x'/>" * 20_001), "more than 20000 elements"),
        (f"<{'f' * 1_900_000}/>", "begins with"),
        (_entity(f"<{'x' * 1_000_000}/>"), "not allowed inside"),
        ('<fetch xmlns="urn:x"/>', "begins with"),
        ('<fetch xmlns:x="urn:x" x:top="1"><entity name="a"/></fetch>', "no attribute"),
        (_entity('<x:filter xmlns:x="urn:x"/>'), "not allowed"),
        ("<fetch>\x00</fetch>", "not well-formed"),
        (_condition('attribute="name" operator="eq" value="&#0;"'), "not well-formed"),
    ],
    ids=range(21),
)
def test_a_hostile_document_is_refused_in_few_words(text: str, says: str) -> None:
    with _at_most(60), pytest.raises(FetchXmlError) as refused:
        parse_fetch(text)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 1_000
    assert len(refused.value.snippet) <= 200


@pytest.mark.parametrize("noise", ["<!--x-->" * 200_000, "<?x y?>" * 200_000])
def test_comments_and_instructions_cost_nothing_and_say_nothing(noise: str) -> None:
    with _at_most(10):
        assert parse_fetch(_entity(noise)) == parse_fetch(_entity(""))


def test_a_value_in_many_pieces_is_one_value() -> None:
    with _at_most(10):
        fetch = parse_fetch(_condition('attribute="name" operator="eq"', f"<value>{'<![CDATA[<]]>' * 100_000}</value>"))
    assert fetch.filter is not None
    assert fetch.filter.conditions[0].values == ("<" * 100_000,)


@pytest.mark.parametrize("operator", ["like", "begins-with", "not-end-with"])
def test_a_pattern_has_a_longest_length(operator: str) -> None:
    fetch = parse_fetch(_condition(f'attribute="name" operator="{operator}" value="{"%" * 1_000_000}"'))
    with _at_most(10), pytest.raises(FetchXmlError, match="4000"):
        check_fetch(fetch, _SCHEMA)


def test_names_and_values_of_a_million_characters_are_refused_in_few_words() -> None:
    for spelled in (
        f'attribute="{"n" * 1_000_000}" operator="null"',
        f'attribute="size" operator="eq" value="{"9" * 1_000_000}"',
    ):
        with _at_most(10), pytest.raises(FetchXmlError) as refused:
            check_fetch(parse_fetch(_condition(spelled)), _SCHEMA)
        assert len(str(refused.value)) < 1_000


def test_ten_thousand_values_are_ten_thousand_parameters_and_a_statement_has_a_limit() -> None:
    values = "".join(f"<value>{number}</value>" for number in range(10_000))
    inside = f'<condition attribute="size" operator="in">{values}</condition>'
    fetch = parse_fetch(_entity(f"<filter>{inside}</filter>"))
    with _at_most(30):
        predicate = compile_predicate(fetch, _SCHEMA, _CONTEXT, alias="r", dialect="sqlite")
    assert len(predicate.parameters) == 10_000
    assert len(predicate.sql) < 200_000
    periods = '<condition attribute="size" operator="in">' + "<value>1</value>" * 15_500 + "</condition>"
    twice = parse_fetch(_entity(f"<filter>{periods}</filter>"))
    assert len(compile_predicate(twice, _SCHEMA, _CONTEXT, alias="r", dialect="sqlite").parameters) == 15_500
