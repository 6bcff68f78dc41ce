"""How long a rollup query takes from its text to SQL: parse, check and compile."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.check import check_fetch
from d365sync.core.fetchxml.compile import compile_predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.parse import parse_fetch
from tests.bench import data
from tests.bench.goals import query_text
from tests.bench.report import measured, milliseconds

LIMIT_S = 0.005
VALUES, CONDITIONS = 100, 40


def compile_times(part: str, rounds: int) -> list[object]:
    """Measure each kind of query of the benchmark, and one far larger than people write."""
    schema = data.schema()
    context = Context(now=data.NOW, time_zone=ZoneInfo("UTC"))
    texts = {f"query of kind {n}, {len(query_text(n))} characters": query_text(n) for n in range(6)}
    texts[f"query of {CONDITIONS} conditions and {VALUES} values in a list"] = long_query()

    def compiled(text: str) -> None:
        fetch = parse_fetch(text)
        check_fetch(fetch, schema)
        compile_predicate(fetch, schema, context, alias="r", dialect="sqlite")

    ways = {name: (lambda text=text: compiled(text)) for name, text in texts.items()}
    return [
        f"| {part} | {name} | {milliseconds(seconds)} | | | | under 5 ms: {'yes' if seconds < LIMIT_S else 'no'} |"
        for name, seconds in measured(ways, rounds * 5 if rounds > 1 else 1).items()
    ]


def long_query() -> str:
    """Return a query with many conditions, a long list of values, and two links, one inside the other."""
    conditions = "".join(
        f'<condition attribute="estimatedvalue" operator="ne" value="{n}"/>' for n in range(CONDITIONS)
    )
    values = "".join(f"<value>{n}</value>" for n in range(VALUES))
    return (
        '<fetch><entity name="opportunity">'
        f'<filter>{conditions}<condition attribute="salesstage" operator="in">{values}</condition></filter>'
        '<link-entity name="account" from="accountid" to="parentaccountid">'
        '<filter><condition attribute="name" operator="like" value="%a%"/></filter>'
        '<link-entity name="systemuser" from="systemuserid" to="ownerid">'
        '<filter><condition attribute="fullname" operator="like" value="User%"/></filter>'
        "</link-entity></link-entity></entity></fetch>"
    )
