from __future__ import annotations

import time

import pytest

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Link, Placeholder
from d365sync.core.fetchxml.parse import Limits, parse_fetch
from d365sync.core.fetchxml.write import write_fetch
from d365sync.errors import FetchXmlError

_HUGE = 10**9
_OPEN = Limits(characters=_HUGE, elements=_HUGE)


def _entity(inside: str) -> str:
    return f'<fetch><entity name="opportunity">{inside}</entity></fetch>'


def _condition(spelled: str) -> str:
    return _entity(f"<filter><condition {spelled}</filter>")


def test_a_document_becomes_a_tree() -> None:
    fetch = parse_fetch(
        _entity(
            '<filter type="or"><condition attribute="name" operator="in"><value>a</value><value> b </value></condition>'
            '<link-entity name="quote" from="opportunityid" to="opportunityid" link-type="not any"/></filter>'
            '<link-entity name="account" from="accountid" to="customerid" alias="a" link-type="outer"/>'
        )
    )
    assert fetch == Fetch(
        "opportunity",
        Filter(
            "or",
            (Condition("name", "in", ("a", " b ")),),
            links=(Link("quote", "opportunityid", "opportunityid", link_type="not any"),),
        ),
        (Link("account", "accountid", "customerid", "a", "outer"),),
    )


def test_sibling_filters_must_all_hold() -> None:
    fetch = parse_fetch(_entity('<filter type="or"/><filter/>'))
    assert fetch.filter == Filter("and", filters=(Filter("or"), Filter("and")))


def test_an_empty_value_beside_value_elements_is_ignored() -> None:
    fetch = parse_fetch(_condition('attribute="name" operator="in" value=""><value>x</value></condition>'))
    assert fetch.filter is not None
    assert fetch.filter.conditions[0].values == ("x",)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("<query/>", "/query"),
        ("<fetch/>", "/fetch"),
        (_entity("<having/>"), "/fetch/entity/having[1]"),
        (_entity("<filter/><filter colour='red'/>"), "/fetch/entity/filter[2]"),
        (_entity("<filter type='xor'/>"), "/fetch/entity/filter[1]"),
        (_entity("<link-entity name='a' from='x' to='y' link-type='full'/>"), "/fetch/entity/link-entity[1]"),
        (_entity("<link-entity name='a' from='x' to='y' link-type='any'/>"), "/fetch/entity/link-entity[1]"),
        (_entity("<link-entity name='a' from='y'/>"), "/fetch/entity/link-entity[1]"),
        (_entity("<filter>stray</filter>"), "/fetch/entity/filter[1]"),
        (_entity("<filter><filter/>stray</filter>"), "/fetch/entity/filter[1]"),
        (_condition('operator="eq"/>'), "/fetch/entity/filter[1]/condition[1]"),
        (_condition('attribute="a" operator="eq" value="1"><value>2</value></condition>'), "condition[1]"),
        (_condition('attribute="a" operator="eq" value="1" valueof="b"/>'), "condition[1]"),
        (_condition('attribute="a" operator="eq" aggregate="sum" value="1"/>'), "condition[1]"),
        ("<fetch top='5' page='2'><entity name='a'/></fetch>", "/fetch"),
        ("<fetch top='0'><entity name='a'/></fetch>", "/fetch"),
        ("<fetch distinct='yes'><entity name='a'/></fetch>", "/fetch"),
        ("<fetch datasource='retained'><entity name='a'/></fetch>", "/fetch"),
        ("<fetch><entity name='a'>", "/"),
        ("", "/"),
        ("<fetch>\ud800</fetch>", "/"),
    ],
)
def test_what_the_language_does_not_have_is_refused_with_its_path(text: str, path: str) -> None:
    with pytest.raises(FetchXmlError) as refused:
        parse_fetch(text)
    assert refused.value.path.endswith(path)


_LAUGHS = "<!DOCTYPE lolz [<!ENTITY a 'ha'>{}]><fetch><entity name='&z;'/></fetch>".format(
    "".join(f"<!ENTITY {new} '{f'&{old};' * 10}'>" for old, new in zip("abcdefg", "bcdefgz", strict=True))
)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (_LAUGHS, Limits()),
        ("<!DOCTYPE fetch SYSTEM 'file:///etc/passwd'>" + _entity(""), Limits()),
        (_entity("&unknown;"), Limits()),
        (_entity("<filter>" * 100_000), _OPEN),
        (_entity("<filter>" + "<condition attribute='a' operator='null'/>" * 1_000_000 + "</filter>"), _OPEN),
        (_entity("<filter>" + "<condition attribute='a' operator='null'/>" * 1_000_000 + "</filter>"), Limits()),
        (_entity("<attribute name='a'/>" * 100_000), Limits(characters=_HUGE)),
        (_entity("<filter>" + "x<!---->" * 200_000 + "</filter>"), Limits()),
    ],
    ids=["laughs", "external", "entity", "depth", "conditions", "characters", "elements", "pieces"],
)
def test_a_hostile_document_is_refused_soon(text: str, limits: Limits) -> None:
    started = time.perf_counter()
    with pytest.raises(FetchXmlError):
        parse_fetch(text, limits=limits)
    assert time.perf_counter() - started < 2


def test_the_platforms_limits_carry_its_codes() -> None:
    link = "<link-entity name='a' from='x' to='y'/>"
    with pytest.raises(FetchXmlError) as refused:
        parse_fetch(_entity(link * 16))
    assert refused.value.code == "0x8004430D"
    with pytest.raises(FetchXmlError) as refused:
        parse_fetch(_entity("<filter>" + "<condition attribute='a' operator='null'/>" * 501 + "</filter>"))
    assert refused.value.code == "0x8004430C"
    assert parse_fetch(_entity("<filter>" + "<condition attribute='a' operator='null'/>" * 500 + "</filter>"))


@pytest.mark.parametrize("value", ["", " ", "a\nb", "\r\n\t", "<&>\"'", "x" * 999, "é %[_]", "\u202e"])
def test_a_value_survives_writing(value: str) -> None:
    conditions = (Condition("a", "eq", (value,)), Condition("b", "in", (value, "z")), Condition("c", "in", (value,)))
    fetch = Fetch("account", Filter(conditions=conditions))
    assert parse_fetch(write_fetch(fetch)) == fetch


def test_a_whole_query_survives_writing() -> None:
    text = (
        '<fetch distinct="true" count="10" page="2" paging-cookie="&lt;c/&gt;" returntotalrecordcount="true"'
        ' useraworderby="1"><entity name="a"><no-attrs/><order entityname="l" attribute="x" descending="1"/>'
        '<link-entity name="b" from="x" to="y" alias="l"><all-attributes/><attribute name="n" alias="m"'
        ' usertimezone="0"/><order attribute="z"/></link-entity></entity></fetch>'
    )
    fetch = parse_fetch(text)
    assert parse_fetch(write_fetch(fetch)) == fetch
    assert fetch.links[0].attributes[0].usertimezone is False
    assert fetch.orders[0].descending


def test_writing_is_indented() -> None:
    text = write_fetch(Fetch("a", Filter("or", (Condition("b", "null"),))))
    assert text.splitlines()[2:4] == [
        '    <filter type="or">',
        '      <condition attribute="b" operator="null"/>',
    ]


def test_a_placeholder_cannot_be_written() -> None:
    with pytest.raises(FetchXmlError):
        write_fetch(Fetch("a", Filter(conditions=(Condition("b", "eq", (Placeholder("owner"),)),))))
