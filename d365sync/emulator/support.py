"""What the emulator supports and what it refuses, as a document made of its own tables: ``docs/emulator-support.md``.

Pure; run as a program it prints the document.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from d365sync.core.fetchxml.operators import OPERATORS as FETCH_OPERATORS
from d365sync.emulator.actions import ACTIONS, BOUND_ACTIONS, ELSEWHERE
from d365sync.emulator.bulk import BULK, ELASTIC_ONLY
from d365sync.emulator.calls import empty_response, finish
from d365sync.emulator.choices import LIMITS as SETTABLE_LIMITS
from d365sync.emulator.deep import MAX_DEPTH
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.functions import BOUND_FUNCTIONS, FUNCTIONS, UNDONE_FUNCTIONS
from d365sync.emulator.jobs import RUNNERS
from d365sync.emulator.metadata.made import MADE
from d365sync.emulator.metadata.reads import KINDS, KNOWN, RELATIONSHIPS
from d365sync.emulator.odata.apply import DECIMALS, METHODS, TRANSFORMATIONS
from d365sync.emulator.odata.filters import QUANTIFIERS
from d365sync.emulator.odata.functions import QUERY_FUNCTIONS, Takes
from d365sync.emulator.odata.options import EXPANDED, MAX_EXPANDS, OPTIONS, REFUSED, UNDONE
from d365sync.emulator.odata.predicates import OPERATORS, TEXT_FUNCTIONS
from d365sync.emulator.protection import (
    REQUESTS_LEFT,
    SECONDS_LEFT,
    TOO_LONG,
    TOO_MANY,
    TOO_MANY_AT_ONCE,
    limit_message,
)
from d365sync.emulator.queryexpression import PLAIN
from d365sync.emulator.queryexpression import UNDONE as NO_QUERY
from d365sync.emulator.routes import UNDONE as UNDONE_ADDRESSES
from d365sync.emulator.routes import UNDONE_CHANGES
from d365sync.emulator.rowpaths import ADDRESSES
from d365sync.emulator.schema.loader import build_catalogue
from d365sync.emulator.settings import ServiceLimits
from d365sync.emulator.sql import COMPARISONS

_HEAD = """\
# What the emulator supports

Written by `make docs` from the emulator's own tables; what is not named here is refused: with the platform's error
where it has one, otherwise with HTTP 501 and its name. How to use it: [the emulator](emulator.md).
"""


def support_document() -> str:
    """Return the document."""
    parts = (_queries(), _functions(), _writes(), _operations(), _definitions(), _jobs(), _limits(), _tables())
    return "\n".join([_HEAD, *(line for part in parts for line in part)])


def _queries() -> list[str]:
    inner_refused = sorted(set(OPTIONS) - set(EXPANDED) - {"$skiptoken", "$deltatoken"})
    left_out = set(UNDONE) - {"fetchXml", "sql"}
    return [
        "## Queries\n",
        _bullet("Options:", _code([*OPTIONS, "$apply", "fetchXml", "sql"]), "and parameter aliases (`@name`)."),
        _bullet("Refused as the platform does:", _code(REFUSED) + ".", "Not implemented:", _code(left_out) + "."),
        _bullet("`$filter`:", _code(OPERATORS) + ", `and`, `or`, `not`, brackets;", _code(TEXT_FUNCTIONS), "with the"),
        _more("wildcards `%`, `_`, `[]`;", _code(QUANTIFIERS), "over collections of the row; columns of rows that"),
        _more("lookups lead to; a column with another of the same row; the query functions below."),
        _bullet(f"`$expand` of lookups and collections, nested, at most {MAX_EXPANDS}, with", _code(EXPANDED) + ";"),
        _more("`$orderby` and `$top` only for collections, in queries that nest no expands. Where expands nest,"),
        _more("collections are paged; each comes with its next link. Refused:", _code(inner_refused) + "."),
        _bullet("`$apply`:", _code(TRANSFORMATIONS) + ", aggregates", _code(METHODS), "and `$count`;"),
        _more(f"amounts have {DECIMALS} decimals."),
        _bullet(f"`fetchXml`: the whole language, {len(FETCH_OPERATORS)} operators."),
        _bullet("`sql`: one table, `SELECT [TOP n]` columns `WHERE` … `ORDER BY`, with", _code(COMPARISONS) + ","),
        _more("`LIKE`, `IN`, `BETWEEN`, `IS NULL`, `AND`, `OR`, `NOT`.\n"),
    ]


def _functions() -> list[str]:
    lines = [
        "## Query functions\n",
        "| function | parameters besides `PropertyName` | FetchXML operator |",
        "|---|---|---|",
    ]
    for one in sorted(QUERY_FUNCTIONS.values(), key=lambda function: function.name):
        shown = "" if one.takes is Takes.NOTHING else _code(one.takes.value)
        lines.append(f"| `{one.name}` | {shown} | `{one.operator}` |")
    return [*lines, ""]


def _writes() -> list[str]:
    return [
        "## Rows, values and references\n",
        "| address | methods |",
        "|---|---|",
        *(f"| `{address}` | {', '.join(methods)} |" for address, methods in ADDRESSES.items()),
        "",
        _bullet(
            "A key is an id, or the columns of an alternate key (`accountnumber='A1'`, `_parentaccountid_value=…`,"
        ),
        _more("values also as parameters), in addresses, `@odata.bind` and `@odata.id`. Users have the key"),
        _more("`azureactivedirectoryobjectid`, teams that and `membershiptype`. `If-Match`, `If-None-Match`,"),
        _more("`return=representation`; PATCH without `If-Match` is an upsert."),
        _bullet("POST and an upsert that creates take nested rows of lookups and collections, and `@odata.bind` of"),
        _more(f"either, at most {MAX_DEPTH} levels. Not implemented: nested rows in other writes, paths of several"),
        _more("properties, many-to-many relationships."),
        _bullet("Bulk messages:", _code(BULK) + ", of the tables below and of custom ones;", f"`{ELASTIC_ONLY}` is"),
        _more("refused as on standard tables. `sdkmessages` and `sdkmessagefilters` say which tables have them."),
        *(_bullet(f"Collections of `{name}`:", _code(facts.collections) + ".") for name, facts in _collecting()),
        _bullet("All of it also in `$batch` and in change sets.\n"),
    ]


def _collecting() -> list[tuple[str, TableFacts]]:
    found = build_catalogue({}, {}).sets
    return [(name, found[name]) for name in sorted(found) if found[name].collections]


def _operations() -> list[str]:
    return [
        "## Functions and actions\n",
        f"- Functions: {_code(FUNCTIONS)}.",
        f"- Functions of a row: {_code(f'{table}: {name}' for table, name in BOUND_FUNCTIONS)}.",
        f"- Actions: {_code([*ACTIONS, '$batch'])}.",
        f"- Actions of a row: {_code(f'{table}: {name}' for table, name in BOUND_ACTIONS)}.",
        _bullet(
            "Not implemented:", _code([*UNDONE_FUNCTIONS, *ELSEWHERE]) + ", any other function or action of rows.\n"
        ),
    ]


def _definitions() -> list[str]:
    casts = sorted(one.removesuffix("AttributeMetadata") for one in KINDS)
    made = sorted([*MADE, "Decimal", "DateTime"])
    unchanged = [
        f"{method} {name}{'(…)' if one else ''}" for (name, one), by in UNDONE_CHANGES.items() for method in by
    ]
    return [
        "## Definitions\n",
        _bullet("`$metadata` (`?annotations=true`), `EntityDefinitions` with `Attributes`, `Keys`,"),
        _more(_code(RELATIONSHIPS) + ", `RelationshipDefinitions`; options", _code(KNOWN) + ";"),
        _more("filters are `eq` and `ne` joined by `and` and `or`."),
        _bullet("Casts of `Attributes` to `…AttributeMetadata`:", _code(casts) + "."),
        _bullet("Tables, columns and alternate keys can be made and removed (`--state` does not keep them); types"),
        _more(_code(made) + "."),
        _bullet("Not implemented:", _code(UNDONE_ADDRESSES) + ";", _code(unchanged), "and what is below them.\n"),
    ]


def _jobs() -> list[str]:
    kinds = {kind: label for kind, label in _operation_types().items() if kind in RUNNERS}
    return [
        "## System jobs\n",
        _bullet("Rows of `asyncoperations`:", ", ".join(f"{label} (`{kind}`)" for kind, label in kinds.items()) + "."),
        _bullet(
            "Queries of a bulk deletion: one table, conditions and filters; not implemented:", _code(NO_QUERY) + ";"
        ),
        _more("operators", _code(sorted(PLAIN)) + " and the query functions above.\n"),
    ]


def _operation_types() -> Mapping[int, str]:
    return build_catalogue({}, {}).tables["asyncoperation"].columns["operationtype"].options


def _limits() -> list[str]:
    limits = ServiceLimits()
    headers = [*finish(empty_response(204)).headers.keys(), "x-ms-dop-hint"]
    return [
        "## Limits and headers\n",
        _bullet("Each of these answers 429 with `Retry-After`; settings:", _code(SETTABLE_LIMITS) + "."),
        *(f"  - `{code}`: {limit_message(code, limits)}" for code in (TOO_MANY, TOO_LONG, TOO_MANY_AT_ONCE)),
        _bullet("Headers that tell what is left:", _code([REQUESTS_LEFT, SECONDS_LEFT]) + "."),
        _bullet("Headers of every answer:", _code(headers) + ".\n"),
    ]


def _tables() -> list[str]:
    lines = ["## Tables\n", "| entity set | change tracking | bulk messages | columns |", "|---|---|---|---|"]
    for name, facts in sorted(build_catalogue({}, {}).sets.items()):
        able = ["yes" if one else "no" for one in (facts.table.change_tracking, facts.bulk)]
        lines.append(f"| `{name}` | {' | '.join(able)} | {len(facts.columns)} |")
    return [*lines, ""]


def _bullet(*parts: str) -> str:
    return "- " + " ".join(parts)


def _more(*parts: str) -> str:
    return "  " + " ".join(parts)


def _code(names: Iterable[str]) -> str:
    ordered = sorted(names) if isinstance(names, set | frozenset) else list(names)
    return ", ".join(f"`{name}`" for name in ordered)


if __name__ == "__main__":
    sys.stdout.write(support_document())
