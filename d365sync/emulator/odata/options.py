"""The query options of a request, read and checked against the table.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from d365sync.core.schema import ColumnType
from d365sync.emulator.facts import Catalogue, TableFacts
from d365sync.emulator.odata.filters import Predicate, parse_filter
from d365sync.emulator.refuse import Refusal, bad_uri, no_property, not_implemented

_KNOWN = ("$select", "$filter", "$orderby", "$top", "$count", "$expand", "$skiptoken", "$deltatoken")
_REFUSED = {"$skip": "Skip Clause is not supported in CRM", "$search": "Search is not supported in CRM"}
_UNDONE = ("$apply", "$format", "fetchXml", "sql", "savedQuery", "userQuery", "$compute")
_EXPAND = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(((?:[^()]|\([^()]*\))*)\))?\s*(?:,|$)")
MAX_EXPANDS = 15


@dataclass(frozen=True, slots=True)
class Order:
    """One term of ``$orderby``."""

    column: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Expand:
    """One expanded navigation property; ``options`` are its own, over the other table."""

    name: str
    table: str
    lookup: str
    single: bool
    options: Options


@dataclass(frozen=True, slots=True)
class Options:
    """What a request asks of a table.

    ``select`` None means every column; ``selected`` is its text as given, for ``@odata.context``;
    ``filter`` None keeps every row; ``top`` None is no limit.
    """

    select: tuple[str, ...] | None = None
    selected: str = ""
    filter: Predicate | None = None
    order: tuple[Order, ...] = ()
    top: int | None = None
    count: bool = False
    expand: tuple[Expand, ...] = ()
    skip_token: str | None = None
    delta_token: str | None = None


def parse_options(arguments: Mapping[str, str], facts: TableFacts, catalogue: Catalogue) -> Options:
    """Read decoded query arguments.

    Raises:
        Refusal: an option is unknown, refused by the platform, not implemented, or malformed.
    """
    for name in arguments:
        _check_option(name)
    aliases = {name: value for name, value in arguments.items() if name.startswith("@")}
    options = _table_options(arguments, facts, aliases)
    if "$expand" in arguments:
        options = replace(options, expand=_expands(arguments["$expand"], facts, catalogue))
    return replace(
        options,
        skip_token=arguments.get("$skiptoken"),
        delta_token=arguments.get("$deltatoken"),
        count=_boolean(arguments.get("$count", "false")),
    )


def _check_option(name: str) -> None:
    if name in _UNDONE:
        raise not_implemented(f"the query option '{name}'")
    if name in _REFUSED:
        raise bad_uri(_REFUSED[name])
    if name.startswith("$") and name not in _KNOWN:
        raise bad_uri(f"The query parameter '{name}' is not supported.")


def _table_options(arguments: Mapping[str, str], facts: TableFacts, aliases: Mapping[str, str]) -> Options:
    text = arguments.get("$filter")
    select = arguments.get("$select", "")
    return Options(
        select=_select(select, facts) if select else None,
        selected=select,
        filter=None if text is None else parse_filter(text, facts, aliases),
        order=_order(arguments.get("$orderby", ""), facts),
        top=_top(arguments.get("$top")),
    )


def _select(text: str, facts: TableFacts) -> tuple[str, ...] | None:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if "*" in names:
        return None
    chosen = [_column(name, facts) for name in names]
    if any(facts.columns[name].column.type is ColumnType.MONEY for name in chosen):
        chosen += [name for name in ("transactioncurrencyid",) if name in facts.columns]
    return tuple(dict.fromkeys([*chosen, facts.key]))


def _column(name: str, facts: TableFacts) -> str:
    logical = facts.properties.get(name)
    if logical is None:
        raise no_property(name, facts.name)
    return logical


def _order(text: str, facts: TableFacts) -> tuple[Order, ...]:
    return tuple(_order_term(part, facts) for part in text.split(",") if part.strip())


def _order_term(text: str, facts: TableFacts) -> Order:
    name, *direction = text.split()
    if direction not in ([], ["asc"], ["desc"]):
        raise bad_uri(f"Syntax error in '$orderby': '{text.strip()}'.")
    return Order(_column(name, facts), direction == ["desc"])


def _top(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise bad_uri(f"Invalid value '{text}' for $top query option found. It must be a non-negative integer.")
    return int(text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise bad_uri(f"Invalid value '{text}' for $count query option found. Valid values are 'true' and 'false'.")
    return text == "true"


def _expands(text: str, facts: TableFacts, catalogue: Catalogue) -> tuple[Expand, ...]:
    found: list[Expand] = []
    position = 0
    while position < len(text):
        match = _EXPAND.match(text, position)
        if match is None:
            raise bad_uri(f"Syntax error at position {position} in '{text}'.")
        found.append(_expand(match[1], match[2] or "", facts, catalogue))
        position = match.end()
    if len(found) > MAX_EXPANDS:
        raise bad_uri("The number of $expand clauses exceeds the limit of 15.")
    return tuple(found)


def _expand(name: str, inside: str, facts: TableFacts, catalogue: Catalogue) -> Expand:
    if name in facts.navigation:
        lookup, targets = facts.navigation[name]
        if len(targets) != 1 or targets[0] not in catalogue.tables:
            raise not_implemented(f"$expand of '{name}', which may point to several tables,")
        table, single = targets[0], True
    elif name in facts.collections:
        (table, lookup), single = facts.collections[name], False
    else:
        raise no_property(name, facts.name)
    return Expand(name, table, lookup, single, _inner_options(inside, catalogue.tables[table]))


def _inner_options(text: str, facts: TableFacts) -> Options:
    arguments: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, mark, value = part.partition("=")
        if not mark:
            raise bad_uri(f"Syntax error in $expand: '{part}'.")
        if name not in ("$select", "$filter"):
            raise _inner_refusal(name)
        arguments[name] = value
    return _table_options(arguments, facts, {})


def _inner_refusal(name: str) -> Refusal:
    if name in ("$top", "$orderby", "$expand"):
        return not_implemented(f"the option '{name}' inside $expand")
    return bad_uri(f"Only $select and $filter clause can be provided while doing $expand, not '{name}'.")
