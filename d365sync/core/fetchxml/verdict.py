"""Why a row is among those of a query, or is not: the evaluator's tests, with the answer of each.

The walk is :mod:`~d365sync.core.fetchxml.joining`'s own, for one row; nothing is decided here a second time.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Link
from d365sync.core.fetchxml.joining import Joiner, Scope
from d365sync.core.fetchxml.names import split_reference
from d365sync.core.values import Row, Value

Node: TypeAlias = Fetch | Filter | Condition | Link


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one node of a query says about one row; ``parts`` are the verdicts of the nodes inside it.

    ``holds`` None means the node has no say: an empty filter, or a condition on a linked row that is not there.
    ``table`` is the table the node tests. For a condition, ``value`` is what the row has and ``other`` what
    ``valueof`` compares it with. For a link, ``related`` is the number of rows that its key leads to; its parts speak
    of the one that comes closest.
    """

    node: Node
    holds: bool | None
    table: str
    value: Value = None
    other: Value = None
    related: int = 0
    parts: tuple[Verdict, ...] = ()


def verdict_of(fetch: Fetch, row: Row, joiner: Joiner) -> Verdict:
    """Judge one row of the entity; the query has passed :func:`~d365sync.core.fetchxml.check.check_fetch`.

    Of several combinations with linked rows the one that passes is shown, or else the one that comes closest. The
    joiner's tables hold the linked rows; the entity's own table matters only where the query links to it again.
    """
    links = tuple(_link(link, row, joiner) for link in fetch.links)
    combinations = joiner.joined(row, fetch.links)
    if combinations:
        scopes: Iterable[Scope] = (joiner.scope(fetch, row, linked) for linked in combinations)
    else:
        scopes = [joiner.scope(fetch, row, {})]
    found = None if fetch.filter is None else _closest(_filter(fetch.filter, scope, joiner) for scope in scopes)
    holds = bool(combinations) and (found is None or found.holds is not False)
    return Verdict(fetch, holds, fetch.entity, parts=(*([found] if found else []), *links))


def _filter(node: Filter, scope: Scope, joiner: Joiner) -> Verdict:
    parts = [_condition(condition, scope, joiner) for condition in node.conditions]
    parts += [_filter(inner, scope, joiner) for inner in node.filters]
    parts += [_quantified(link, scope.row, joiner) for link in node.links]
    said = [part.holds for part in parts if part.holds is not None]
    holds = None if not said else all(said) if node.type == "and" else any(said)
    return Verdict(node, holds, scope.table.logical_name, parts=tuple(parts))


def _condition(node: Condition, scope: Scope, joiner: Joiner) -> Verdict:
    labels = [node.entityname, *([split_reference(node.valueof)[0]] if node.valueof else [])]
    table = scope.table if scope.is_own(node.entityname) else scope.joined[node.entityname or ""][0]
    if not all(scope.reaches(label) for label in labels):
        return Verdict(node, None, table.logical_name)
    return Verdict(
        node,
        joiner.holds(node, scope),
        table.logical_name,
        value=scope.value(node.entityname, node.attribute),
        other=None if node.valueof is None else scope.value(*split_reference(node.valueof)),
    )


def _link(node: Link, row: Row | None, joiner: Joiner) -> Verdict:
    related = joiner.related(row, node)
    parts = _closest_row(node, related, joiner)
    return Verdict(node, bool(joiner.expand(row, node)), node.name, related=len(related), parts=parts)


def _quantified(node: Link, row: Row | None, joiner: Joiner) -> Verdict:
    related = joiner.related(row, node)
    parts = _closest_row(node, related, joiner)
    return Verdict(node, joiner.quantified(row, node), node.name, related=len(related), parts=parts)


def _closest_row(node: Link, related: Iterable[Row], joiner: Joiner) -> tuple[Verdict, ...]:
    """Return what the link asks of the linked row that comes closest: its filter, then its own links."""
    candidates = [Verdict(node, None, node.name, parts=tuple(_asked(node, row, joiner))) for row in related]
    return max(candidates, key=_score).parts if candidates else ()


def _asked(node: Link, row: Row, joiner: Joiner) -> Iterable[Verdict]:
    if node.filter is not None:
        yield _filter(node.filter, joiner.own_scope(row, node), joiner)
    for link in node.links:
        yield _link(link, row, joiner)


def _closest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the first verdict that does not fail, else the one of which most conditions hold."""
    found: list[Verdict] = []
    for verdict in verdicts:
        if verdict.holds is not False:
            return verdict
        found.append(verdict)
    return max(found, key=_score)


def _score(verdict: Verdict) -> tuple[bool, int]:
    fails = any(part.holds is False for part in verdict.parts)
    return not fails, _holding(verdict)


def _holding(verdict: Verdict) -> int:
    if isinstance(verdict.node, Condition):
        return int(verdict.holds is True)
    return sum(map(_holding, verdict.parts))
