"""Any address, query, header and body of a message gets an answer or a refusal by name, within a bounded effort."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder, run_wsgi_app

from d365sync.emulator.settings import UNLIMITED
from tests.effort import SAME_EACH_RUN, examples
from tests.unit.emulating import ANN, ANNS, BOB, COMPANY, ORIGIN, REVENUE, Org

CRM = "Microsoft.Dynamics.CRM."
ORG = Org(limits=UNLIMITED)
NASTY = [
    "'",
    "''",
    '"',
    "(",
    ")",
    ",",
    ";",
    "=",
    "/",
    "\\",
    "%",
    "%25",
    "&",
    "#",
    "\x00",
    "😀",
    "\ud800",
    " ",
    "9" * 400,
]
COOKIE = '<cookie pagenumber="2" pagingcookie="%3ccookie%20page%3d%221%22%3e%3c" istracking="False" />'
WORDS: dict[str, tuple[str, ...]] = {
    "$filter": (
        *("name", "statecode", "eq", "ne", "and", "or", "not", "contains(", "ownerid", "null", "true", "1.5", "in"),
        *(
            f"{CRM}LastXDays(PropertyName='createdon',PropertyValue=3)",
            "product_opportunities/any(x:",
            "@p",
            "x/quantity",
        ),
    ),
    "$expand": (
        "parentaccountid",
        "product_opportunities",
        "($select=name",
        "$top=1",
        "$expand=",
        "$ref",
        "$orderby=name",
    ),
    "$select": ("name", "*", "_ownerid_value", "nosuch"),
    "$orderby": ("name", "desc", "asc", "createdon", "nosuch"),
    "$apply": (
        *("filter(", "groupby((", "aggregate(", "actualvalue", "with", "sum", "as", "t", "$count", "statecode"),
        "groupby((statecode),aggregate(actualvalue with sum as t))",
    ),
    "$skiptoken": (COOKIE, "<cookie", 'pagenumber="2"', "<opportunityid", 'last="x"', "/>", "2"),
    "$deltatoken": ("919042!08/22/2017 08:10:44", "919042", "!", "13/45/2017"),
    "$top": ("0", "1", "-1"),
    "$count": ("true", "false"),
    "sql": (
        *("SELECT", "TOP", "1", "name", "FROM", "opportunity", "WHERE", "NOT", "IN", "LIKE", "BETWEEN", "AND", "OR"),
        *("IS", "NULL", "ORDER", "BY", "'x'", "<>", "statecode", "SELECT name FROM opportunity WHERE"),
    ),
    "fetchXml": (
        *("<fetch>", "</fetch>", '<fetch aggregate="true">', '<entity name="opportunity">', "</entity>", "<filter>"),
        *('<attribute name="name"/>', '<condition attribute="name" operator="like" value="x"/>', "</filter>"),
        *('<order attribute="name"/>', "<link-entity", 'paging-cookie="&lt;cookie"', "&x;", "<!DOCTYPE f>", "<!--"),
    ),
}
WHOLE = st.sampled_from([*WORDS, "annotations", "@p", "$skip", "$search", "$format", "x"])
PATHS = st.sampled_from(
    [
        *(
            "opportunities",
            "goals",
            "accounts",
            COMPANY,
            f"metrics({REVENUE})/metric_goal",
            f"systemusers({ANN})",
            "teams",
        ),
        *(
            "EntityDefinitions",
            "EntityDefinitions(LogicalName='goal')/Attributes",
            "RelationshipDefinitions",
            "$metadata",
        ),
        *("WhoAmI", "RetrieveTotalRecordCount(EntityNames=@p)", "RetrieveCurrentOrganization(AccessType=@p)", "nosuch"),
        *("opportunities/$count", f"{ANNS}/metricid", f"{ANNS}/parentgoalid/$ref", f"{ANNS}/title/$value", ""),
    ]
)
PREFER = (
    "odata.maxpagesize=",
    "odata.include-annotations=",
    '"*"',
    "odata.track-changes",
    "return=representation",
    "2",
)


def joined(words: Sequence[str], separator: str = " ") -> st.SearchStrategy[str]:
    piece = st.sampled_from([*words, *words, *words, *NASTY]) | st.text(max_size=4)
    return st.lists(piece, max_size=7).map(separator.join)


@st.composite
def queries(draw: st.DrawFn) -> list[tuple[str, str]]:
    names = draw(st.lists(WHOLE, max_size=3, unique=True))
    return [(name, draw(joined(WORDS.get(name, ("x",)), draw(st.sampled_from(["", " ", ","]))))) for name in names]


def sent(method: str, path: str, query: str = "", headers: dict[str, str] | None = None, body: Any = None) -> int:
    """Send a request past the client, which would refuse some; return its status, after a look at its refusal."""
    builder = EnvironBuilder(method=method, base_url=ORIGIN, path="/", data=body, headers=headers)
    environ = builder.get_environ()
    environ["PATH_INFO"] = f"/api/data/v9.2/{path}".encode("utf-8", "surrogatepass").decode("latin-1")
    environ["QUERY_STRING"] = query
    environ["HTTP_AUTHORIZATION"] = ORG.session.headers["Authorization"]
    chunks, status, _ = run_wsgi_app(ORG.emulator.app, environ)
    text = b"".join(chunks)
    if int(status[:3]) >= 400:
        assert json.loads(text)["error"]["message"]
    return int(status[:3])


def encoded(query: Sequence[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'), safe='$()')}" for name, value in query)


@settings(max_examples=examples(200), deadline=None, derandomize=SAME_EACH_RUN)
@given(path=PATHS, query=queries(), prefer=joined(PREFER, ","))
def test_any_query_is_answered_or_refused_by_name(path: str, query: list[tuple[str, str]], prefer: str) -> None:
    heading = prefer.encode("utf-8", "replace").decode("latin-1").replace("\r", "").replace("\n", "")
    status = sent("GET", path, encoded(query), {"Prefer": heading})
    assert status in (200, 204, 400, 404, 405, 501)


@settings(max_examples=examples(100), deadline=None, derandomize=SAME_EACH_RUN)
@given(path=joined(("goals", "$metadata", "WhoAmI", f"({ANN})", "title", "$batch", "EntityDefinitions", CRM), ""))
def test_any_address_is_answered_or_refused_by_name(path: str) -> None:
    for method in ("GET", "OPTIONS", "PUT"):
        assert sent(method, path) in (200, 204, 400, 404, 405, 501)


NAMES = [
    *("QuerySet", "JobName", "StartDateTime", "RunNow", "EntityName", "Criteria", "FilterOperator", "Conditions"),
    *("Filters", "AttributeName", "Operator", "Values", "Value", "Type", "Query", "ColumnSet", "@odata.type", "x"),
    *("OpportunityClose", "Status", "opportunityid@odata.bind", "opportunityid", "actualrevenue", "actualend"),
    *("Entities", "SchemaName", "Attributes", "OwnershipType", "IsPrimaryName", "Members", "systemuserid", "ownerid"),
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([*NASTY[:-1], ANN, "And", "Or", "In", "opportunity", "2026-01-01T00:00:00Z", f"/{COMPANY}"])
    | st.sampled_from([f"#{CRM}QueryExpression", f"{CRM}FetchExpression", f"{CRM}ComplexStringAttributeMetadata"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)
MESSAGES = [
    *("BulkDelete", "WinOpportunity", "LoseOpportunity", "CreateEntities", "EntityDefinitions", f"teams({BOB})/{CRM}x"),
    *(f"goals({ANN})/{CRM}Recalculate", "EntityDefinitions(LogicalName='goal')/Attributes", "WhoAmI"),
]


@settings(max_examples=examples(150), deadline=None, derandomize=SAME_EACH_RUN)
@given(path=st.sampled_from(MESSAGES), body=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_any_message_is_answered_or_refused_by_name(path: str, body: dict[str, Any]) -> None:
    store, catalogue = ORG.emulator.store, ORG.emulator.store.catalogue
    with store.transaction() as transaction:
        status = sent("POST", path, body=json.dumps(body), headers={"Content-Type": "application/json"})
        assert status in (200, 204, 400, 404, 405, 501)
        transaction.roll_back()
    store.redefine(catalogue)


@pytest.mark.parametrize(
    ("path", "query", "prefer"),
    [
        ("goals", "", "a" * 60_000 + "!"),
        ("goals", "", "a=" + "b" * 60_000 + '"'),
        ("goals", "", "a" + " " * 60_000 + "!"),
        ("goals", "", 'a="' * 20_000),
        (f"RetrieveTotalRecordCount({'a' * 30_000}!)", "", ""),
        (f"RetrieveTotalRecordCount({'a=[,' * 7_000})", "", ""),
        ("EntityDefinitions", "$expand=" + "a" * 30_000 + "!", ""),
        ("EntityDefinitions", "$filter=" + "a" * 30_000, ""),
        ("opportunities", "$apply=aggregate(" + "a" * 30_000 + ")", ""),
        ("opportunities", "$skiptoken=" + "%3Ccookie " * 3_000, ""),
        ("opportunities", "sql=" + "NOT " * 7_000, ""),
        ("opportunities", "$filter=contains(name,'" + "%25a" * 7_000 + "')", ""),
    ],
)
def test_long_texts_are_read_in_one_go(path: str, query: str, prefer: str) -> None:
    """What is read again from every letter on would take minutes here."""
    assert sent("GET", path, query, {"Prefer": prefer}) in (200, 400, 404, 501)
