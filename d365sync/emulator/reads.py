"""Reading rows: collections, counts, single rows, changes.

Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote

from werkzeug.wrappers import Response

from d365sync.emulator.calls import Call, empty_response, json_response
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.fetching import PARAMETER, answer_fetch
from d365sync.emulator.keys import RowKey
from d365sync.emulator.odata.apply import applied, parse_apply
from d365sync.emulator.odata.encode import RowEncoder, etag
from d365sync.emulator.odata.options import Options, every_expand, parse_options
from d365sync.emulator.odata.pages import COUNT_CAP, Page, count_rows, query_page
from d365sync.emulator.odata.predicates import Predicate, both
from d365sync.emulator.odata.tracking import check_tracking, count_changes, delta_page, tracked_page
from d365sync.emulator.refuse import bad_uri, not_implemented
from d365sync.emulator.shown import shown
from d365sync.emulator.sql import answer_sql
from d365sync.emulator.stored import StoredTables

SQL = "sql"
APPLY = "$apply"
TOTAL = "Microsoft.Dynamics.CRM.totalrecordcount"
LIMIT_EXCEEDED = "Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"
METADATA_VERSION = "Microsoft.Dynamics.CRM.globalmetadataversion"


def read_collection(call: Call, facts: TableFacts) -> Response:
    """Answer ``GET set``: a page of rows, of a tracked load, of changes, or of a FetchXML or SQL query."""
    call.need("Read", facts)
    if PARAMETER in call.arguments:
        document, total = answer_fetch(call, facts)
        return json_response({**document, **_totals(call, Page((), count=total)), "value": document["value"]})
    if SQL in call.arguments:
        selected, token = answer_sql(call, facts)
        if token is not None:
            selected["@odata.nextLink"] = _link(call, facts.table.entity_set_name, "$skiptoken", token)
        return json_response(selected)
    if APPLY in call.arguments:
        return _apply(call, facts)
    delta = "$deltatoken" in call.arguments
    tracked = delta or call.preferences.track_changes
    if tracked:
        check_tracking(call.store, facts, call.arguments)
        call.need_global("Read", facts)
    options = parse_options(call.arguments, facts, call.asking())
    _need_expanded(call, options)
    options = _seen(call, facts, options)
    answer = delta_page if delta else tracked_page if tracked else query_page
    page = answer(call.store, facts, options, call.preferences)
    return json_response(_envelope(call, facts, options, page, delta))


def read_members(call: Call, facts: TableFacts, belongs: Predicate, path: str) -> Response:
    """Answer ``GET set(key)/collection``: a page of the rows that belong to it; ``path`` is that address.

    Source: Retrieve related rows with a query.
    """
    call.need("Read", facts)
    options = parse_options(call.arguments, facts, call.asking())
    if options.delta_token is not None:
        raise bad_uri("The query parameter '$deltatoken' is not supported for related rows.")
    _need_expanded(call, options)
    options = _seen(call, facts, options)
    options = replace(options, filter=both(options.filter, belongs))
    page = query_page(call.store, facts, options, call.preferences)
    return json_response(_envelope(call, facts, options, page, delta=False, path=path))


def count_members(call: Call, facts: TableFacts, belongs: Predicate) -> Response:
    """Answer ``GET set(key)/collection/$count``: a number as text."""
    call.need("Read", facts)
    options = _seen(call, facts, parse_options(call.arguments, facts, call.asking()))
    number = count_rows(call.store, facts, replace(options, filter=both(options.filter, belongs)))
    return Response(str(number), content_type="text/plain")


def _apply(call: Call, facts: TableFacts) -> Response:
    """Answer ``$apply``. Assumed: it stands alone, other options beside it are refused."""
    if "$orderby" in call.arguments:
        raise bad_uri("The query node SingleValueOpenPropertyAccess is not supported")
    others = sorted(name for name in call.arguments if name.startswith("$") and name != APPLY)
    if others:
        raise not_implemented(f"'{others[0]}' beside $apply")
    asking = call.asking()
    aliases = {name: value for name, value in call.arguments.items() if name.startswith("@")}
    apply = parse_apply(call.arguments[APPLY], facts, aliases, asking)
    keep = both(apply.filter, call.access.test("Read", facts))
    rows = [row for row in StoredTables(call.store)[facts.name] if keep is None or keep(row)]
    context = f"{call.root}$metadata#{facts.table.entity_set_name}({','.join(apply.names(facts))})"
    return json_response({"@odata.context": context, "value": applied(apply, facts, rows, asking)})


def count_collection(call: Call, facts: TableFacts) -> Response:
    """Answer ``GET set/$count``: a number as text."""
    call.need("Read", facts)
    options = parse_options(call.arguments, facts, call.asking())
    if options.delta_token is not None:
        check_tracking(call.store, facts, call.arguments)
        call.need_global("Read", facts)
        return Response(str(count_changes(call.store, facts, options)), content_type="text/plain")
    return Response(str(count_rows(call.store, facts, _seen(call, facts, options))), content_type="text/plain")


def read_row(call: Call, key: RowKey) -> Response:
    """Answer ``GET set(key)``: the row, or 304 when its etag is the one the caller has.

    Source: Perform conditional operations (no 304 with ``$expand`` or annotations).
    """
    facts = key.facts
    call.need("Read", facts)
    options = parse_options(call.arguments, facts, call.asking())
    for name in ("$filter", "$orderby", "$top", "$count"):
        if name in call.arguments:
            raise bad_uri(f"The query option '{name}' cannot be applied to a single row.")
    _need_expanded(call, options)
    row = key.row(call.store)
    call.need_row("Read", facts, row)
    plain = not options.expand and not call.preferences.annotations
    if plain and call.request.headers.get("If-None-Match", "null") == etag(row):
        return empty_response(304, {"ETag": etag(row)})
    return row_response(call, facts, options, str(row[facts.key]))


def row_response(call: Call, facts: TableFacts, options: Options, row_id: str, status: int = 200) -> Response:
    """Return one row as the answer; the row exists."""
    options = _seen(call, facts, options)
    row = shown(call.store, facts.name, call.store.rows(facts.name)[row_id])
    context = f"{_context(call, facts, options)}/$entity"
    encoder = RowEncoder(call.store, facts, options, call.preferences, call.root)
    document = {"@odata.context": context, **encoder.encode(row)}
    return json_response(document, status=status, headers={"ETag": etag(row)})


def _seen(call: Call, facts: TableFacts, options: Options) -> Options:
    """Return the options with a filter, here and in what is expanded, that leaves the rows the caller may read."""
    expands = tuple(
        replace(one, options=_seen(call, call.store.catalogue.tables[one.table], one.options)) for one in options.expand
    )
    return replace(options, filter=both(options.filter, call.access.test("Read", facts)), expand=expands)


def _need_expanded(call: Call, options: Options) -> None:
    for expand in every_expand(options):
        call.need("Read", call.store.catalogue.tables[expand.table])


def _context(call: Call, facts: TableFacts, options: Options) -> str:
    inside = _selection(options)
    return f"{call.root}$metadata#{facts.table.entity_set_name}{inside and f'({inside})'}"


def _selection(options: Options) -> str:
    """Return what is selected and expanded, as ``@odata.context`` tells it. Source: Join tables using OData."""
    parts = [part.strip() for part in options.selected.split(",") if part.strip()]
    return ",".join([*parts, *(f"{expand.name}({_selection(expand.options)})" for expand in options.expand)])


def _envelope(
    call: Call, facts: TableFacts, options: Options, page: Page, delta: bool, path: str | None = None
) -> dict[str, Any]:
    path = path or facts.table.entity_set_name
    context = _context(call, facts, options)
    document: dict[str, Any] = {"@odata.context": f"{context}/$delta" if delta else context}
    document.update(_totals(call, page))
    if page.count is not None:
        document["@odata.count"] = min(page.count, COUNT_CAP)
    if page.next_token is not None:
        document["@odata.nextLink"] = _link(call, path, "$skiptoken", page.next_token)
    if page.delta_token is not None:
        document["@odata.deltaLink"] = _link(call, path, "$deltatoken", page.delta_token)
    encoder = RowEncoder(call.store, facts, options, call.preferences, call.root)
    deleted = f"{call.root}$metadata#{facts.table.entity_set_name}/$deletedEntity"
    document["value"] = [
        *map(encoder.encode, page.rows),
        *({"@odata.context": deleted, "id": row_id, "reason": "deleted"} for row_id in page.deleted),
    ]
    return document


def _totals(call: Call, page: Page) -> dict[str, Any]:
    total = -1 if page.count is None else min(page.count, COUNT_CAP)
    answers: dict[str, Any] = {
        TOTAL: total,
        LIMIT_EXCEEDED: page.count is not None and page.count > COUNT_CAP,
        METADATA_VERSION: "1",
    }
    return {f"@{name}": value for name, value in answers.items() if call.preferences.wants(name)}


def _link(call: Call, path: str, name: str, token: str) -> str:
    """Return the address of what comes next: the query as given, and the token (already percent-encoded)."""
    dropped = ("$skiptoken", "$deltatoken") if name == "$deltatoken" else ("$skiptoken",)
    kept = [
        part
        for part in call.request.query_string.decode("ascii", "replace").split("&")
        if part and unquote(part.partition("=")[0]) not in dropped
    ]
    query = [f"{_readable(part)}" for part in kept]
    return f"{call.root}{path}?{'&'.join([*query, f'{name}={token}'])}"


def _readable(part: str) -> str:
    name, mark, value = part.partition("=")
    return f"{quote(unquote(name), safe='$@')}{mark}{value.replace('%2C', ',').replace('+', '%20')}"
