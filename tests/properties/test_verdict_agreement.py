"""A verdict's answer is the evaluator's, and every part of it agrees with the part it explains."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.joining import Joiner
from d365sync.core.fetchxml.verdict import Verdict, verdict_of
from d365sync.core.values import Row
from tests.effort import SAME_EACH_RUN, examples
from tests.properties.test_fetchxml_agreement import _SCHEMA, _queries


@settings(max_examples=examples(250), deadline=None, derandomize=SAME_EACH_RUN, suppress_health_check=list(HealthCheck))
@given(_queries)
def test_a_verdict_is_membership(query: tuple[dict[str, list[Row]], Fetch, Context]) -> None:
    tables, fetch, context = query
    found = {str(row["itemid"]) for row in evaluate(fetch, tables, _SCHEMA, context)}
    for row in tables["item"]:
        verdict = verdict_of(fetch, row, Joiner(tables, _SCHEMA, context))
        assert verdict.holds is (row["itemid"] in found)
        assert not verdict.holds or all(part.holds is not False for part in verdict.parts), "nothing fails that counts"
        assert verdict.holds or any(part.holds is False for part in verdict.parts), "something fails that does not"
        assert_adds_up(verdict)


def assert_adds_up(verdict: Verdict) -> None:
    """A filter's answer follows from its parts, to any depth."""
    if isinstance(verdict.node, Filter):
        said = [part.holds for part in verdict.parts if part.holds is not None]
        assert verdict.holds is (None if not said else all(said) if verdict.node.type == "and" else any(said))
        assert len(verdict.parts) == len([*verdict.node.conditions, *verdict.node.filters, *verdict.node.links])
    if isinstance(verdict.node, Condition):
        assert verdict.parts == ()
    for part in verdict.parts:
        assert_adds_up(part)
