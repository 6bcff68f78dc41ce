from __future__ import annotations

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Placeholder
from d365sync.core.fetchxml.check import check_fetch, columns_used
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.errors import FetchXmlError

_KEY = "00000000-0000-4000-8000-000000000001"


def _table(name: str, *columns: Column, parent: str | None = None, code: int | None = None) -> Table:
    key = Column(f"{name}id", ColumnType.UNIQUEIDENTIFIER, is_primary_id=True)
    found = {column.logical_name: column for column in (key, *columns)}
    return Table(name, f"{name}s", key.logical_name, "name", found, hierarchy_parent=parent, object_type_code=code)


SCHEMA = Schema.of(
    [
        _table(
            "account",
            Column("name", ColumnType.STRING),
            Column("parentaccountid", ColumnType.LOOKUP, targets=("account",)),
            parent="parentaccountid",
            code=1,
        ),
        _table("contact", Column("name", ColumnType.STRING), code=2),
        _table(
            "opportunity",
            Column("name", ColumnType.STRING),
            Column("count", ColumnType.INTEGER),
            Column("amount", ColumnType.MONEY, precision=2),
            Column("rate", ColumnType.DECIMAL, precision=2),
            Column("share", ColumnType.DECIMAL, precision=4),
            Column("score", ColumnType.DOUBLE),
            Column("flag", ColumnType.BOOLEAN),
            Column("picks", ColumnType.MULTISELECT),
            Column("due", ColumnType.DATETIME, DateBehavior.DATE_ONLY),
            Column("seen", ColumnType.DATETIME, DateBehavior.USER_LOCAL),
            Column("customerid", ColumnType.CUSTOMER, targets=("account", "contact")),
            Column("strangeid", ColumnType.LOOKUP, targets=("stranger",)),
        ),
    ]
)


def _with(inside: str, fetch: str = "") -> str:
    return f'<fetch {fetch}><entity name="opportunity">{inside}</entity></fetch>'


def _where(spelled: str) -> str:
    return _with(f"<filter><condition {spelled}/></filter>")


def _valued(spelled: str, *values: str) -> str:
    children = "".join(f"<value>{value}</value>" for value in values)
    return _with(f"<filter><condition {spelled}>{children}</condition></filter>")


def _link(inside: str = "", kind: str = "inner", to: str = "customerid", more: str = "") -> str:
    start = f'<link-entity name="account" from="accountid" to="{to}" alias="a" link-type="{kind}">'
    return _with(f"{start}{inside}</link-entity>{more}")


_ON_ALIAS = '<filter><condition entityname="a" attribute="name" operator="null"/></filter>'
_NESTED = '<link-entity name="contact" from="name" to="name" link-type="{}"/>'


@pytest.mark.parametrize(
    "text",
    [
        _valued('attribute="amount" operator="between"', "1", "2.5"),
        _where('attribute="flag" operator="eq" value="true"'),
        _where('attribute="name" operator="eq" value=""'),
        _valued('attribute="picks" operator="eq"', "1", "2"),
        _where(f'attribute="customerid" operator="eq" value="{{{_KEY.upper()}}}"'),
        _where('attribute="customeridtype" operator="eq" value="account"'),
        _where('attribute="customeridtype" operator="eq" value="2"'),
        _where(f'attribute="customerid" operator="under" value="{_KEY}"'),
        _where('attribute="due" operator="last-x-days" value="1"'),
        _where('attribute="seen" operator="ge" value="2024-01-31T10:00:00+02:00"'),
        _where('attribute="name" operator="ge" valueof="name"'),
        _where('attribute="customeridname" operator="like" value="x%"'),
        _where('attribute="flagname" operator="eq" valueof="name"'),
        _with('<link-entity name="account" to="customerid"/>'),
        _link(more=_ON_ALIAS),
        _link(_NESTED.format("outer"), "outer"),
        _link(_NESTED.format("outer"), "inner"),
        _link('<filter><condition entityname="a" attribute="name" operator="null"/></filter>'),
    ],
)
def test_what_has_a_meaning_passes(text: str) -> None:
    check_fetch(parse_fetch(text), SCHEMA)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (_with("").replace("opportunity", "nosuch"), "0x80041102"),
        (_where('attribute="nosuch" operator="null"'), "0x80041103"),
        (_where('attribute="name" operator="equals" value="x"'), "0x80041120"),
        (_where('attribute="due" operator="this-x-days" value="1"'), "0x80041120"),
        (_where('attribute="name" entityname="b" operator="null"'), "0x8004110A"),
        (_where('attribute="countname" operator="eq" value="x"'), "0x80041103"),
        (_where('attribute="strangeidname" operator="eq" value="x"'), ""),
        (_where('attribute="flagname" operator="gt" value="1" valueof="x"').replace(' value="1"', ""), "0x80041103"),
        (_with('<link-entity name="account" from="name" to="customeridname"/>'), ""),
        (_with('<link-entity name="contact"/>'), "0x80041111"),
        (_where(f'attribute="opportunityid" operator="under" value="{_KEY}"'), "0x80047020"),
        (_where('attribute="name" operator="eq"'), ""),
        (_where('attribute="name" operator="in"'), ""),
        (_where('attribute="name" operator="null" value="1"'), ""),
        (_where('attribute="amount" operator="between" value="1"'), ""),
        (_where('attribute="amount" operator="eq" value="1,000"'), ""),
        (_where('attribute="amount" operator="eq" value="1e3"'), ""),
        (_where('attribute="amount" operator="gt" value="922337203685477.5808"'), ""),
        (_where('attribute="score" operator="eq" value="nan"'), ""),
        (_where('attribute="score" operator="eq" value="1e999"'), ""),
        (_where('attribute="count" operator="eq" value="1.0"'), ""),
        (_where('attribute="count" operator="eq" value="\u0661"'), ""),
        (_where('attribute="count" operator="eq" value="9999999999999999999"'), ""),
        (_where('attribute="flag" operator="eq" value="yes"'), ""),
        (_where('attribute="flag" operator="gt" value="1"'), ""),
        (_where('attribute="customerid" operator="eq" value="Fabrikam"'), ""),
        (_where(f'attribute="customerid" operator="gt" value="{_KEY}"'), ""),
        (_where('attribute="customeridtype" operator="eq" value="99"'), ""),
        (_where('attribute="count" operator="like" value="1%"'), ""),
        (_where(f'attribute="name" operator="like" value="{"x" * 4001}"'), ""),
        (_where('attribute="name" operator="today"'), ""),
        (_where('attribute="due" operator="last-x-hours" value="1"'), ""),
        (_where('attribute="due" operator="last-x-days" value="0"'), ""),
        (_where('attribute="due" operator="last-x-days" value="1.5"'), ""),
        (_where('attribute="due" operator="in-fiscal-year" value="24"'), ""),
        (_where('attribute="due" operator="on" value="31/01/2024"'), ""),
        (_where('attribute="due" operator="on" value="2024-02-30"'), ""),
        (_where('attribute="due" operator="on" value="1752-12-31"'), ""),
        (_where('attribute="picks" operator="gt" value="1"'), ""),
        (_where('attribute="name" operator="like" valueof="name"'), ""),
        (_where('attribute="amount" operator="eq" valueof="rate"'), ""),
        (_where('attribute="rate" operator="eq" valueof="share"'), ""),
        (_where('attribute="due" operator="eq" valueof="seen"'), ""),
        (_link(to="name"), ""),
        (_link(to="picks"), ""),
        (_link(kind="exists", more=_ON_ALIAS), "0x8004110A"),
        (_link(more='<link-entity name="contact" from="contactid" to="customerid" alias="a"/>'), "0x80041130"),
        (_with('<order attribute="nosuch"/>'), "0x80041103"),
        (_with('<order alias="name"/>'), "0x80041132"),
        (_with('<attribute name="amount" aggregate="sum" alias="x"/>'), ""),
        (_with('<attribute name="amount" aggregate="sum"/>', 'aggregate="1"'), ""),
        (_with('<attribute name="name" aggregate="sum" alias="x"/>', 'aggregate="1"'), "0x8004112F"),
        (_with('<attribute name="seen" groupby="1" alias="x"/>', 'aggregate="1"'), "0x80041135"),
        (_with('<attribute name="seen" groupby="1" dategrouping="hour" alias="x"/>', 'aggregate="1"'), "0x80041135"),
        (_with('<attribute name="name" groupby="1" alias="x"/><order attribute="x"/>', 'aggregate="1"'), "0x80041133"),
        (_with('<attribute name="name" alias="x"/><attribute name="count" alias="x"/>'), "0x80041130"),
        (_with("<all-attributes/>", 'aggregate="1"'), ""),
        (_with("<no-attrs/>", 'distinct="1"'), "0x8004112C"),
        (_with("", 'top="5001"'), ""),
    ],
)
def test_what_has_no_meaning_is_refused(text: str, code: str) -> None:
    with pytest.raises(FetchXmlError) as refused:
        check_fetch(parse_fetch(text), SCHEMA)
    assert refused.value.path.startswith("/fetch")
    assert refused.value.code == code


_CONTACT = '<link-entity name="contact" from="contactid" to="customerid"{}/>'


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (
            _with(_CONTACT.format(' alias="a"') * 3),
            "/fetch/entity/link-entity[2]",
            "the alias 'a' is used twice",
        ),
        (
            _link('<link-entity name="contact" from="name" to="name" alias="a"/>'),
            "/fetch/entity/link-entity[1]/link-entity[1]",
            "the alias 'a' is used twice",
        ),
        (
            _with(_CONTACT.format("") + _CONTACT.format(' alias="contact"')),
            "/fetch/entity/link-entity[2]",
            "the alias 'contact' is used twice",
        ),
        (
            _with('<attribute name="seen" groupby="1" alias="x"/>', 'aggregate="1"'),
            "/fetch/entity/attribute[1]",
            "'seen' is a date and needs a dategrouping to be grouped by",
        ),
        (
            _with('<attribute name="seen" groupby="1" dategrouping="hour" alias="x"/>', 'aggregate="1"'),
            "/fetch/entity/attribute[1]",
            "'hour' is no date grouping",
        ),
        (_with("", 'page="12345678901"'), "/fetch", "page is '12345678901', more than 999999999"),
        (_with("", f'page="{"9" * 5000}"'), "/fetch", "page is '999999999999999999999999999999…', more than 999999999"),
        (_with("", 'page="0"'), "/fetch", "page is '0', not a whole number of at least 1"),
        (_with("", 'top="5001"'), "/fetch", "top is 5001, more than 5000"),
        (
            _where('attribute="due" operator="on" value="2024-02-30"'),
            "/fetch/entity/filter[1]/condition[1]",
            "'2024-02-30' is no date: day is out of range for month",
        ),
    ],
)
def test_a_refusal_says_in_one_sentence_what_is_wrong_where(text: str, path: str, says: str) -> None:
    with pytest.raises(FetchXmlError) as refused:
        check_fetch(parse_fetch(text), SCHEMA)
    assert (refused.value.path, str(refused.value)) == (path, f"{says} (at {path})")


@pytest.mark.parametrize("kind", ["inner", "exists", "matchfirstrowusingcrossapply"])
def test_a_link_that_drops_rows_inside_an_outer_one_is_refused_unless_a_setting_reads_it(kind: str) -> None:
    fetch = parse_fetch(_link(_NESTED.format(kind), "outer"))
    context = Context(dt.datetime(2024, 1, 1, tzinfo=dt.UTC), ZoneInfo("UTC"))
    with pytest.raises(FetchXmlError, match="inner_under_outer") as refused:
        check_fetch(fetch, SCHEMA, context)
    assert refused.value.path == "/fetch/entity/link-entity[1]/link-entity[1]"
    check_fetch(fetch, SCHEMA, replace(context, inner_under_outer="flat"))


def test_a_link_without_from_joins_by_the_linked_key() -> None:
    fetch = check_fetch(parse_fetch(_with('<link-entity name="account" to="customerid"/>')), SCHEMA)
    assert (fetch.links[0].from_, fetch.links[0].to) == ("accountid", "customerid")


def test_a_virtual_name_needs_the_names_of_the_tables_it_may_point_to() -> None:
    fetch = parse_fetch(_where('attribute="customeridname" operator="eq" value="x"'))
    assert columns_used(fetch, SCHEMA) == {
        "opportunity": {"opportunityid", "customerid"},
        "account": {"accountid", "name"},
        "contact": {"contactid", "name"},
    }


def test_a_placeholder_stands_for_a_value_of_the_column_only() -> None:
    owner = Placeholder("owner")
    check_fetch(Fetch("opportunity", Filter(conditions=(Condition("customerid", "eq", (owner,)),))), SCHEMA)
    for attribute, operator in [("due", "on"), ("name", "like"), ("due", "last-x-days"), ("picks", "eq")]:
        with pytest.raises(FetchXmlError, match="placeholder"):
            check_fetch(Fetch("opportunity", Filter(conditions=(Condition(attribute, operator, (owner,)),))), SCHEMA)


def test_the_columns_used_decide_what_is_pulled() -> None:
    fetch = parse_fetch(
        _with(
            '<attribute name="score"/><order attribute="rate"/>'
            '<filter><condition attribute="customeridtype" operator="eq" value="account"/>'
            '<condition attribute="amount" operator="gt" valueof="amount"/>'
            f'<condition attribute="customerid" operator="under" value="{_KEY}"/>'
            '<condition entityname="c" attribute="name" operator="null"/>'
            '<filter><link-entity name="contact" from="name" to="name" link-type="any"/></filter></filter>'
            '<link-entity name="contact" from="contactid" to="customerid" alias="c"/>'
        )
    )
    assert columns_used(fetch, SCHEMA) == {
        "opportunity": {"opportunityid", "customerid", "amount", "name"},
        "account": {"accountid", "parentaccountid"},
        "contact": {"contactid", "name"},
    }
