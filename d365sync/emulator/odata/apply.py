"""``$apply``: groups and their sums, read into the FetchXML aggregate they stand for.

``filter(…)/groupby((a,b),aggregate(x with sum as t,$count as n))``, each part alone too. Source: Aggregate data using
the Web API (no countdistinct, no grouping by dates, no order by an aggregate, at most 50,000 rows; money sums have
nine decimals). Assumed: so have averages, minima and maxima of money and decimals; groups come in ascending order.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from d365sync.core.fetchxml.ast import Attribute, Fetch
from d365sync.core.fetchxml.evaluate import evaluate_result
from d365sync.core.schema import ColumnType
from d365sync.core.values import Row, Value
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.asking import Asking
from d365sync.emulator.odata.filters import parse_filter
from d365sync.emulator.odata.names import named_column
from d365sync.emulator.odata.predicates import Predicate
from d365sync.emulator.odata.splitting import name_and_inside, split_outside
from d365sync.emulator.refuse import bad_query, bad_uri, not_implemented
from d365sync.emulator.wire import at_scale, writer
from d365sync.errors import FetchXmlError

METHODS = {"sum": "sum", "average": "avg", "min": "min", "max": "max"}
TRANSFORMATIONS = ("filter", "groupby", "aggregate")
DECIMALS = 9
_TERM = re.compile(r"(?:(?P<count>\$count)|(?P<column>\w+) with (?P<method>\w+)) as (?P<alias>[A-Za-z_]\w*)")
_NUMBERS = (ColumnType.MONEY, ColumnType.DECIMAL)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate: the column and method under the name it gets; method ``count`` counts rows."""

    column: str
    method: str
    alias: str


@dataclass(frozen=True, slots=True)
class Apply:
    """A whole ``$apply``: which rows, grouped by which columns, and the aggregates."""

    filter: Predicate | None = None
    groups: tuple[str, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()

    def names(self, facts: TableFacts) -> list[str]:
        """Return the properties of the answer's objects."""
        groups = [facts.columns[name].column.property_name for name in self.groups]
        return [*groups, *(one.alias for one in self.aggregates)]


def parse_apply(text: str, facts: TableFacts, aliases: Mapping[str, str], asking: Asking) -> Apply:
    """Read the text of ``$apply``.

    Raises:
        Refusal: it is malformed, or asks for what the platform or the emulator does not do.
    """
    steps = [name_and_inside(part) for part in split_outside(text, "/")]
    keep: Predicate | None = None
    if steps and steps[0][0] == "filter":
        keep = parse_filter(steps[0][1] or "", facts, aliases, asking)
        steps = steps[1:]
    if len(steps) != 1:
        raise not_implemented(f"the $apply '{text[:200]}': other than one groupby or aggregate, after one filter,")
    name, inside = steps[0]
    if name not in TRANSFORMATIONS[1:]:
        raise not_implemented(f"the transformation '{name}' in $apply")
    if name == "aggregate":
        return _checked(Apply(keep, (), _aggregates(inside or "", facts)), facts)
    groups, *rest = split_outside(inside or "", ",") or [""]
    if not groups.startswith("(") or not groups.endswith(")") or len(rest) > 1:
        raise bad_uri(f"Syntax error in $apply: 'groupby({inside})'.")
    aggregates: tuple[Aggregate, ...] = ()
    if rest:
        name, terms = name_and_inside(rest[0])
        if name != "aggregate":
            raise not_implemented(f"'{name}' inside groupby in $apply")
        aggregates = _aggregates(terms or "", facts)
    return _checked(Apply(keep, _groups(groups[1:-1], facts), aggregates), facts)


def _groups(text: str, facts: TableFacts) -> tuple[str, ...]:
    return tuple(_group(name, facts) for name in split_outside(text, ","))


def _group(name: str, facts: TableFacts) -> str:
    if "/" in name:
        raise not_implemented(f"grouping by '{name}', a column of another table,")
    column = named_column(name, facts)
    if facts.columns[column].column.type is ColumnType.DATETIME:
        raise bad_uri(f"Grouping by the date and time property '{name}' is not supported in $apply.")
    return column


def _aggregates(text: str, facts: TableFacts) -> tuple[Aggregate, ...]:
    return tuple(_aggregate(part, facts) for part in split_outside(text, ","))


def _aggregate(text: str, facts: TableFacts) -> Aggregate:
    match = _TERM.fullmatch(text)
    if match is None:
        raise not_implemented(f"the aggregate '{text[:100]}' in $apply")
    if match["count"]:
        return Aggregate(facts.key, "count", match["alias"])
    if match["method"] not in METHODS:
        raise not_implemented(f"the aggregation method '{match['method']}' in $apply")
    return Aggregate(named_column(match["column"], facts), METHODS[match["method"]], match["alias"])


def _checked(apply: Apply, facts: TableFacts) -> Apply:
    names = apply.names(facts)
    if not names:
        raise bad_uri("Syntax error: $apply neither groups nor aggregates.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise bad_uri(f"The property '{twice[0]}' stands twice in the answer of $apply.")
    return apply


def applied(apply: Apply, facts: TableFacts, rows: Sequence[Row], asking: Asking) -> list[dict[str, Any]]:
    """Return the objects of the answer.

    Raises:
        Refusal: there are too many rows, or an aggregate does not go with its column's type.
    """
    attributes = [Attribute(name, alias=f"g{at}", groupby=True) for at, name in enumerate(apply.groups)]
    attributes += [
        Attribute(one.column, alias=f"a{at}", aggregate=one.method) for at, one in enumerate(apply.aggregates)
    ]
    fetch = Fetch(facts.name, attributes=tuple(attributes), aggregate=True)
    try:
        result = evaluate_result(fetch, {facts.name: rows}, asking.catalogue.schema, asking.context)
    except FetchXmlError as error:
        raise bad_query(error) from error
    return [_document(apply, facts, row, asking) for row in result.rows]


def _document(apply: Apply, facts: TableFacts, row: Row, asking: Asking) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for at, name in enumerate(apply.groups):
        column, value = facts.columns[name].column, row.get(f"g{at}")
        write = writer(column)
        document[column.property_name] = value if value is None or write is None else write(value)
    for at, one in enumerate(apply.aggregates):
        document[one.alias] = _written(one, facts, row.get(f"a{at}"), asking)
    return document


def _written(one: Aggregate, facts: TableFacts, value: Value, asking: Asking) -> Any:
    column = facts.columns[one.column].column
    if isinstance(value, Decimal) and column.type in _NUMBERS:
        return at_scale(value, DECIMALS, asking.store.settings.rounding)
    write = writer(column) if one.method in ("min", "max") else None
    return value if value is None or write is None else write(value)
