"""The goals of the benchmarks: trees of three levels, and what defines them, as typed rows.

Each of twelve months, four quarters and the year has a tree per metric: one root that rolls up only from its children,
teams whose goal counts the team leader's own records, and sellers below them. Beside the trees each period and metric
has one goal of the whole company, which counts everybody's records. The money metric sums actual and in-progress
revenue, the other counts won opportunities.
"""

from __future__ import annotations

import calendar
import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal

from d365sync.core.values import Value

Row = dict[str, Value]

YEAR = 2026
MONEY, WON = "money", "integer"
QUERIED = ("actualmoney", "inprogressmoney", "actualinteger")
SOURCES = ("actualvalue", "estimatedvalue")
COMPANY_STEP = 5
"""Each company goal of a run with rollup queries has the query this many further on."""


def guid(kind: str, *numbers: int) -> str:
    """Return the id of a thing: the same in every run, spread like a random one."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind} {numbers}"))


def users(teams: int, sellers: int) -> list[str]:
    """Return the team leaders, then the sellers."""
    return [guid("user", n) for n in range(teams + sellers)]


def periods() -> list[tuple[str, dt.date, dt.date]]:
    """Return name, first and last day of the months, quarters and the year."""
    spans = [(f"M{n:02}", n, n) for n in range(1, 13)]
    spans += [(f"Q{n // 3 + 1}", n, n + 2) for n in range(1, 13, 3)]
    spans += [("Y", 1, 12)]
    return [
        (name, dt.date(YEAR, first, 1), dt.date(YEAR, last, calendar.monthrange(YEAR, last)[1]))
        for name, first, last in spans
    ]


def goal_rows(teams: int, sellers: int, queries: int) -> Iterator[Row]:
    """Return every goal; with ``queries``, each owner's goals have one of that many rollup queries."""
    owners = users(teams, sellers)
    for metric in (MONEY, WON):
        for n, (period, first, last) in enumerate(periods()):
            common = _common(metric, first, last)
            root = guid("root", n, metric == WON)
            name = f"{metric} {period}"
            yield {**common, "goalid": root, "title": f"{name} root", "rolluponlyfromchildgoals": True}
            company = {"consideronlygoalownersrecords": False, **_queries(metric, n * COMPANY_STEP, queries)}
            yield {**common, "goalid": guid("all", n, metric == WON), "title": f"{name} company", **company}
            for place, owner in enumerate(owners):
                is_team = place < teams
                team = guid("team goal", n, metric == WON, place % teams)
                yield {
                    **common,
                    **_queries(metric, place, queries),
                    "goalid": team if is_team else guid("goal", n, metric == WON, place),
                    "title": f"{name} {'team' if is_team else 'seller'} {place}",
                    "goalownerid": owner,
                    "parentgoalid": root if is_team else team,
                }


def _common(metric: str, first: dt.date, last: dt.date) -> Row:
    midnight = dt.time(tzinfo=dt.UTC)
    return {
        "statecode": 0,
        "statuscode": 0,
        "metricid": guid(metric),
        "goalownerid": guid("user", 0),
        "goalowneridtype": "systemuser",
        "ownerid": guid("user", 0),
        "owneridtype": "systemuser",
        "isfiscalperiodgoal": False,
        "goalstartdate": dt.datetime.combine(first, midnight),
        "goalenddate": dt.datetime.combine(last, midnight),
        "rolluponlyfromchildgoals": False,
        "consideronlygoalownersrecords": True,
        f"target{metric}": Decimal(100_000) if metric == MONEY else 25,
    }


def _queries(metric: str, place: int, queries: int) -> Row:
    if not queries:
        return {}
    query = guid("query", place % queries)
    if metric == WON:
        return {"rollupqueryactualintegerid": query}
    return {"rollupqueryactualmoneyid": query, "rollupqueryinprogressmoneyid": query}


def defining_rows(queries: int) -> dict[str, list[Row]]:
    """Return the rows of metrics, rollup fields and rollup queries."""
    return {
        "metric": [
            {"metricid": guid(MONEY), "name": "Revenue", "isamount": True, "amountdatatype": 0, "statecode": 0},
            {"metricid": guid(WON), "name": "Won", "isamount": False, "amountdatatype": 2, "statecode": 0},
        ],
        "rollupfield": [
            _field(MONEY, "actualmoney", "actualvalue", 1, "actualclosedate"),
            _field(MONEY, "inprogressmoney", "estimatedvalue", 0, "estimatedclosedate"),
            _field(WON, "actualinteger", None, 1, "actualclosedate"),
        ],
        "goalrollupquery": [
            {
                "goalrollupqueryid": guid("query", n),
                "name": f"query {n}",
                "queryentitytype": "opportunity",
                "fetchxml": query_text(n),
                "statecode": 0,
            }
            for n in range(queries)
        ],
    }


def _field(metric: str, column: str, summed: str | None, state: int, date: str) -> Row:
    return {
        "rollupfieldid": guid("field", len(column), state, len(metric)),
        "metricid": guid(metric),
        "goalattribute": column,
        "sourceentity": "opportunity",
        "sourceattribute": summed,
        "sourcestate": state,
        "entityfordateattribute": "opportunity",
        "dateattribute": date,
        "isstateparententityattribute": False,
    }


def query_text(n: int) -> str:
    """Return the n-th rollup query: all differ, and each third one asks a linked account."""
    conditions = [
        f'<condition attribute="estimatedvalue" operator="gt" value="{100 + 37 * n}"/>',
        (
            '<filter type="or"><condition attribute="salesstage" operator="in"><value>1</value><value>2</value>'
            '</condition><condition attribute="actualvalue" operator="between">'
            f"<value>{n}</value><value>{900000 - n}</value>"
            "</condition></filter>"
        ),
        "",
        (
            f'<condition attribute="name" operator="like" value="%{n % 10}"/>'
            f'<condition attribute="estimatedvalue" operator="ge" value="{n}"/>'
        ),
        (
            f'<condition attribute="salesstage" operator="ne" value="{n % 4}"/>'
            f'<condition attribute="actualvalue" operator="lt" value="{800000 + n}"/>'
        ),
        f'<condition attribute="estimatedvalue" operator="lt" value="{990000 - n}"/>',
    ][n % 6]
    link = (
        '<link-entity name="account" from="accountid" to="parentaccountid" link-type="inner"><filter>'
        f'<condition attribute="industrycode" operator="ge" value="{n % 7}"/>'
        f'<condition attribute="name" operator="ne" value="Account {n}"/></filter></link-entity>'
    )
    return (
        '<fetch><entity name="opportunity"><attribute name="name"/>'
        f"<filter>{conditions}</filter>{link if n % 3 == 2 else ''}</entity></fetch>"
    )
