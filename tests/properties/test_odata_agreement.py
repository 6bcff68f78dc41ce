"""Query options never fail: every text gets an answer or a refusal by name. Filters mean what FetchXML means."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from tests.unit.emulating import ANN, BOB, USD, Org, made_id

CRM = "Microsoft.Dynamics.CRM."
NAMES = ("alpha", "Alpha", "BETA", "b%ta", "x_y", "[a]", "it's", "straße", "STRASSE", "a", "A b ")
ACCOUNTS = [made_id("7", number) for number in range(1, 4)]
_DAY = dt.date(2026, 4, 28)


def _org() -> Org:
    org, choose = Org(), random.Random(4)
    put = org.emulator.store.put
    for number, account in enumerate(ACCOUNTS):
        put("account", {"accountid": account, "name": NAMES[number], "statecode": 0})
    for number in range(60):
        row: dict[str, Any] = {
            "opportunityid": made_id("6", number),
            "statecode": choose.choice((0, 1, 2)),
            "name": choose.choice((None, *NAMES)),
            "estimatedvalue": choose.choice((None, Decimal("0.0000"), Decimal("1.5000"), Decimal("10.0000"))),
            "actualvalue": choose.choice((None, Decimal("1.5000"), Decimal("9.0000"))),
            "estimatedclosedate": choose.choice(
                (None, *(_DAY + dt.timedelta(choose.randrange(-40, 40)) for _ in "ab"))
            ),
            "createdon": dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC) - dt.timedelta(hours=choose.randrange(0, 200)),
            "parentaccountid": choose.choice((None, *ACCOUNTS)),
            "ownerid": choose.choice((ANN, BOB)),
            "owneridtype": "systemuser",
        }
        put("opportunity", row)
        for line in range(choose.randrange(0, 3)):
            key = made_id("5", number * 10 + line)
            quantity = choose.choice((None, Decimal("1.00000"), Decimal("3.00000")))
            put(
                "opportunityproduct",
                {"opportunityproductid": key, "opportunityid": row["opportunityid"], "quantity": quantity},
            )
    return org


ORG = _org()
VALUES: dict[str, tuple[str, ...]] = {
    "statecode": ("0", "1", "7"),
    "estimatedvalue": ("0", "1.5", "10", "-3"),
    "estimatedclosedate": ("2026-04-28", "2026-05-20"),
    "createdon": ("2026-04-29T12:00:00Z", "2026-05-01T00:00:00Z"),
    "parentaccountid": tuple(ACCOUNTS),
    "ownerid": (ANN, BOB, USD),
}
LOOKUPS = ("parentaccountid", "ownerid")
Both = tuple[str, str]
"""A condition as ``$filter`` text and as FetchXML."""


def _condition(column: str, operator: str, *values: str, entity: str = "") -> str:
    of = f" entityname={quoteattr(entity)}" if entity else ""
    inner = "".join(f"<value>{value.replace('&', '&amp;').replace('<', '&lt;')}</value>" for value in values)
    return f"<condition{of} attribute={quoteattr(column)} operator={quoteattr(operator)}>{inner}</condition>"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def comparisons(draw: st.DrawFn) -> Both:
    column = draw(st.sampled_from(sorted(VALUES)))
    words = ("eq", "ne") if column in LOOKUPS else ("eq", "ne", "gt", "ge", "lt", "le")
    word, value = draw(st.sampled_from(words)), draw(st.sampled_from(VALUES[column]))
    shown = f"_{column}_value" if column in LOOKUPS else column
    return f"{shown} {word} {value}", _condition(column, word, value)


@st.composite
def texts(draw: st.DrawFn) -> Both:
    value, word = draw(st.sampled_from(NAMES)), draw(st.sampled_from(("eq", "ne", "gt", "le")))
    function = draw(st.sampled_from(("contains", "startswith", "endswith", "")))
    if not function:
        return f"name {word} {_quoted(value)}", _condition("name", word, value)
    negated = draw(st.booleans())
    pattern = {"contains": f"%{value}%", "startswith": f"{value}%", "endswith": f"%{value}"}[function]
    text = f"{'not ' if negated else ''}{function}(name,{_quoted(value)})"
    return text, _condition("name", "not-like" if negated else "like", pattern)


@st.composite
def nulls(draw: st.DrawFn) -> Both:
    column, empty = draw(st.sampled_from(("name", "estimatedvalue", "estimatedclosedate"))), draw(st.booleans())
    return f"{column} {'eq' if empty else 'ne'} null", _condition(column, "null" if empty else "not-null")


@st.composite
def functions(draw: st.DrawFn) -> Both:
    name, operator, parameters, values = draw(
        st.sampled_from(
            [
                ("ThisMonth", "this-month", "", ()),
                ("LastXDays", "last-x-days", ",PropertyValue=3", ("3",)),
                ("NextXWeeks", "next-x-weeks", ",PropertyValue='2'", ("2",)),
                ("OlderThanXMonths", "olderthan-x-months", ",PropertyValue=1", ("1",)),
                ("OnOrAfter", "on-or-after", ",PropertyValue='2026-04-30'", ("2026-04-30",)),
                ("Between", "between", ",PropertyValues=['2026-04-20','2026-05-02']", ("2026-04-20", "2026-05-02")),
                ("InFiscalPeriod", "in-fiscal-period", ",PropertyValue=2", ("2",)),
                ("NotIn", "not-in", ",PropertyValues=['2026-04-28']", ("2026-04-28",)),
            ]
        )
    )
    column = draw(st.sampled_from(("estimatedclosedate", "createdon")))
    return f"{CRM}{name}(PropertyName='{column}'{parameters})", _condition(column, operator, *values)


@st.composite
def related(draw: st.DrawFn) -> Both:
    word, value = draw(st.sampled_from(("eq", "ne", "gt"))), draw(st.sampled_from(NAMES))
    return f"parentaccountid/name {word} {_quoted(value)}", _condition("name", word, value, entity="a")


@st.composite
def quantified(draw: st.DrawFn) -> Both:
    none, word = draw(st.booleans()), draw(st.sampled_from(("eq", "ne", "ge")))
    link = (
        f'<link-entity name="opportunityproduct" from="opportunityid" to="opportunityid" '
        f'link-type="{"not any" if none else "any"}"><filter>{_condition("quantity", word, "3")}</filter></link-entity>'
    )
    return f"{'not ' if none else ''}product_opportunities/any(p:p/quantity {word} 3)", link


@st.composite
def two_columns(draw: st.DrawFn) -> Both:
    word = draw(st.sampled_from(("eq", "ne", "gt", "le")))
    xml = f'<condition attribute="estimatedvalue" operator="{word}" valueof="actualvalue"/>'
    return f"estimatedvalue {word} actualvalue", xml


LEAVES = st.one_of(comparisons(), texts(), nulls(), functions(), related(), quantified(), two_columns())


def _joined(parts: list[Both], word: str) -> Both:
    filters = "".join(f"<filter>{xml}</filter>" for _, xml in parts)
    return f" {word} ".join(f"({text})" for text, _ in parts), f'<filter type="{word}">{filters}</filter>'


TREES = st.recursive(
    LEAVES,
    lambda inner: st.builds(_joined, st.lists(inner, min_size=2, max_size=3), st.sampled_from(("and", "or"))),
    max_leaves=6,
)


@settings(max_examples=examples(150), deadline=None)
@given(TREES)
def test_a_filter_means_what_the_same_fetchxml_means(condition: Both) -> None:
    text, xml = condition
    by_filter = ORG.get(f"opportunities?$select=opportunityid&$filter={quote(text)}")["value"]
    link = '<link-entity name="account" from="accountid" to="parentaccountid" link-type="outer" alias="a"/>'
    inside = f'<attribute name="opportunityid"/>{link}<filter>{xml}</filter>'
    document = f'<fetch><entity name="opportunity">{inside}</entity></fetch>'
    by_fetch = ORG.get(f"opportunities?fetchXml={quote(document)}")["value"]
    assert [row["opportunityid"] for row in by_filter] == [row["opportunityid"] for row in by_fetch], text


WORDS = [
    *("name", "statecode", "estimatedvalue", "_ownerid_value", "owninguser", "product_opportunities", "createdon"),
    *(
        "eq",
        "ne",
        "gt",
        "and",
        "or",
        "not",
        "null",
        "true",
        "any",
        "all",
        "contains",
        "startswith",
        "in",
        "has",
        "with",
    ),
    *("'x'", "'it''s'", "'%['", "1", "-1.5", "1e5", "1e999999", "9" * 300, "2026-05-01", "2026-02-30", "@p", ANN),
    *(
        "2026-05-01T00:00:00Z",
        "9999-99-99T99:99:99Z",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        ":",
        "/",
        "=",
        "*",
        "$select=",
        "'",
    ),
    *(f"{CRM}In", f"{CRM}Today", f"{CRM}LastXDays", "PropertyName", "PropertyValue", "PropertyValues", "$count", "$it"),
    *("filter", "groupby", "aggregate", "sum", "as", "desc", "asc", "$expand=", "$top=1", "ä", "\x00", "\n", "😀", "%"),
]
SHAPES = [
    "owninguser/fullname eq 'x'",
    "product_opportunities/any(p:p/quantity gt 1)",
    f"{CRM}LastXDays(PropertyName='createdon',PropertyValue=3)",
    "groupby((statecode),aggregate(estimatedvalue with sum as t))",
    "owninguser($select=fullname;$expand=businessunitid($filter=name eq 'x'))",
    "name desc,statecode",
]


@st.composite
def spoilt(draw: st.DrawFn) -> str:
    """A text of the right shape with something wrong in it."""
    text = draw(st.sampled_from(SHAPES))
    at, until = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    return text[:at] + draw(st.sampled_from(["", *WORDS])) + text[min(until, at + 3) :]


SOUP = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.lists(st.sampled_from(WORDS), max_size=8).map(
    "".join
)
ANYTHING = st.one_of(spoilt(), SOUP, st.text(max_size=30))


@pytest.mark.parametrize("option", ["$filter", "$select", "$expand", "$orderby", "$apply", "sql"])
@settings(max_examples=examples(120), deadline=None)
@given(text=ANYTHING)
def test_any_text_gets_an_answer_or_a_refusal_by_name(option: str, text: str) -> None:
    rest = "" if option in ("$apply", "sql") else "&$top=3"
    response = ORG.call("GET", f"opportunities?{quote(option)}={quote(text)}{rest}")
    assert response.status_code in (200, 400, 501), response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]
