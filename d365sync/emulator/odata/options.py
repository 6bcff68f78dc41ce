"""The query options of a request, read and checked against the table.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from d365sync.core.schema import ColumnType
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.asking import Asking
from d365sync.emulator.odata.filters import parse_filter
from d365sync.emulator.odata.literals import MAX_DIGITS
from d365sync.emulator.odata.names import named_column
from d365sync.emulator.odata.predicates import Predicate
from d365sync.emulator.odata.splitting import name_and_inside, split_outside
from d365sync.emulator.refuse import bad_uri, no_property, not_implemented

OPTIONS = ("$select", "$filter", "$orderby", "$top", "$count", "$expand", "$skiptoken", "$deltatoken")
REFUSED = {"$skip": "Skip Clause is not supported in CRM", "$search": "Search is not supported in CRM"}
UNDONE = ("$format", "fetchXml", "sql", "savedQuery", "userQuery", "$compute")
EXPANDED = ("$select", "$filter", "$orderby", "$top", "$expand")
MAX_EXPANDS = 15
ONLY_SELECT_AND_FILTER = (
    "Only $select and $filter clause can be provided while doing $expand on many-to-one relationship or nested "
    "one-to-many relationship."
)
READABLE = "$(),;=/'@*:!"
"""What stands in a query as such, besides letters, digits and ``-._~``."""


@dataclass(frozen=True, slots=True)
class Order:
    """One term of ``$orderby``."""

    column: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Expand:
    """One expanded navigation property; ``options`` are its own, over the other table, ``asked`` them as a query."""

    name: str
    table: str
    lookup: str
    single: bool
    options: Options
    asked: str = ""


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


def parse_options(arguments: Mapping[str, str], facts: TableFacts, asking: Asking) -> Options:
    """Read decoded query arguments.

    Raises:
        Refusal: an option is unknown, refused by the platform, not implemented, or malformed.
    """
    for name in arguments:
        _check_option(name)
    aliases = {name: value for name, value in arguments.items() if name.startswith("@")}
    options = _table_options(arguments, facts, aliases, asking)
    if "$expand" in arguments:
        options = replace(options, expand=_expands(arguments["$expand"], facts, asking))
        if sum(1 for _ in every_expand(options)) > MAX_EXPANDS:
            raise bad_uri("The number of $expand clauses exceeds the limit of 15.")
        _check_nested(options.expand)
    return replace(
        options,
        skip_token=arguments.get("$skiptoken"),
        delta_token=arguments.get("$deltatoken"),
        count=_boolean(arguments.get("$count", "false")),
    )


def _check_option(name: str) -> None:
    if name in UNDONE:
        raise not_implemented(f"the query option '{name}'")
    if name in REFUSED:
        raise bad_uri(REFUSED[name])
    if name.startswith("$") and name not in OPTIONS:
        raise bad_uri(f"The query parameter '{name}' is not supported.")


def every_expand(options: Options) -> Iterable[Expand]:
    """Yield the expanded properties of a request, nested ones after those they stand in."""
    for expand in options.expand:
        yield expand
        yield from every_expand(expand.options)


def nests(expands: Iterable[Expand]) -> bool:
    """Say whether one of the expanded properties expands further ones."""
    return any(expand.options.expand for expand in expands)


def _table_options(
    arguments: Mapping[str, str], facts: TableFacts, aliases: Mapping[str, str], asking: Asking
) -> Options:
    text = arguments.get("$filter")
    select = arguments.get("$select", "")
    return Options(
        select=_select(select, facts) if select else None,
        selected=select,
        filter=None if text is None else parse_filter(text, facts, aliases, asking),
        order=_order(arguments.get("$orderby", ""), facts),
        top=_top(arguments.get("$top")),
    )


def _select(text: str, facts: TableFacts) -> tuple[str, ...] | None:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if "*" in names:
        return None
    chosen = [named_column(name, facts) for name in names]
    if any(facts.columns[name].column.type is ColumnType.MONEY for name in chosen):
        chosen += [name for name in ("transactioncurrencyid",) if name in facts.columns]
    return tuple(dict.fromkeys([*chosen, facts.key]))


def _order(text: str, facts: TableFacts) -> tuple[Order, ...]:
    return tuple(_order_term(part, facts) for part in text.split(",") if part.strip())


def _order_term(text: str, facts: TableFacts) -> Order:
    name, *direction = text.split()
    if direction not in ([], ["asc"], ["desc"]):
        raise bad_uri(f"Syntax error in '$orderby': '{text.strip()}'.")
    return Order(named_column(name, facts), direction == ["desc"])


def _top(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise bad_uri(f"Invalid value '{text[:40]}' for $top query option found. It must be a non-negative integer.")
    return int(text)


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise bad_uri(f"Invalid value '{text}' for $count query option found. Valid values are 'true' and 'false'.")
    return text == "true"


def _expands(text: str, facts: TableFacts, asking: Asking, depth: int = 0) -> tuple[Expand, ...]:
    if depth > MAX_EXPANDS:
        raise bad_uri("The number of $expand clauses exceeds the limit of 15.")
    return tuple(_expand(part, facts, asking, depth) for part in split_outside(text, ","))


def _expand(part: str, facts: TableFacts, asking: Asking, depth: int) -> Expand:
    name, inside = name_and_inside(part)
    if name.endswith(("/$ref", "/$count")):
        raise not_implemented(f"'{name}' in $expand")
    if name in facts.navigation:
        lookup, targets = facts.navigation[name]
        if len(targets) != 1 or targets[0] not in asking.catalogue.tables:
            raise not_implemented(f"$expand of '{name}', which may point to several tables,")
        table, single = targets[0], True
    elif name in facts.collections:
        (table, lookup), single = facts.collections[name], False
    else:
        raise no_property(name, facts.name)
    arguments = _inner_arguments(inside or "")
    other = asking.catalogue.tables[table]
    options = _table_options(arguments, other, {}, asking)
    if "$expand" in arguments:
        options = replace(options, expand=_expands(arguments["$expand"], other, asking, depth + 1))
    _check_single(options, single=single)
    asked = "&".join(f"{option}={quote(value, safe=READABLE)}" for option, value in arguments.items())
    return Expand(name, table, lookup, single, options, asked)


def _inner_arguments(text: str) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for part in split_outside(text, ";"):
        name, mark, value = part.partition("=")
        if not mark:
            raise bad_uri(f"Syntax error in $expand: '{part}'.")
        if name not in EXPANDED:
            raise bad_uri(f"Only $select and $filter clause can be provided while doing $expand, not '{name}'.")
        if name in arguments:
            raise bad_uri(f"Query option '{name}' was specified more than once, but it must be specified at most once.")
        arguments[name] = value
    return arguments


def _check_single(options: Options, *, single: bool) -> None:
    """Refuse order and top for a lookup. Source: Join tables using OData."""
    if single and (options.order or options.top is not None):
        raise bad_uri(ONLY_SELECT_AND_FILTER)


def _check_nested(expands: Iterable[Expand]) -> None:
    """Refuse order and top in a query that nests expands anywhere. Source: Join tables using OData."""
    if nests(expands):
        for expand in expands:
            _refuse_order_below(expand)


def _refuse_order_below(expand: Expand) -> None:
    if expand.options.order or expand.options.top is not None:
        raise bad_uri(ONLY_SELECT_AND_FILTER)
    for one in expand.options.expand:
        _refuse_order_below(one)
