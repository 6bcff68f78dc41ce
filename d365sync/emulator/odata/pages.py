"""Answers a query one page at a time.

Without ``$orderby`` rows come by primary key. There is no snapshot: a row changed between pages may be skipped or
repeated, as on the platform. Source: Page results using OData.

Pure.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice

from d365sync.core.schema import CHOICE_TYPES, Column, ColumnType
from d365sync.core.values import Row, Value, parse_guid
from d365sync.emulator.facts import TableFacts
from d365sync.emulator.odata.cookie import Cookie, read_cookie, write_cookie
from d365sync.emulator.odata.options import Options, Order
from d365sync.emulator.odata.ordering import ordered, sort_key
from d365sync.emulator.odata.prefer import Preferences
from d365sync.emulator.refuse import bad_uri
from d365sync.emulator.shown import shown_rows
from d365sync.emulator.store import Store
from d365sync.emulator.wire import WireError, read_value, writer

COUNT_CAP = 5000
_WHOLE = CHOICE_TYPES | {ColumnType.INTEGER, ColumnType.BIGINT}


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page; ``next_token`` is the encoded ``$skiptoken`` of the next, None on the last.

    ``count`` is the number of matching rows, not capped; None when it was not asked for. ``deleted`` and
    ``delta_token`` belong to change tracking: ids gone, and the encoded token of the last page.
    """

    rows: Sequence[Row]
    next_token: str | None = None
    count: int | None = None
    deleted: Sequence[str] = ()
    delta_token: str | None = None


def page_size(preferences: Preferences, store: Store) -> int:
    """Return how many rows a page holds. Assumed: a wish above the maximum is cut to it."""
    return min(preferences.max_page_size or store.settings.max_page_size, store.settings.max_page_size)


def query_page(store: Store, facts: TableFacts, options: Options, preferences: Preferences) -> Page:
    """Return the page a request asks for."""
    cookie = read_cookie(options.skip_token) if options.skip_token is not None else None
    size, last_page = _limits(options, preferences, store)
    found = list(islice(_rows_after(store, facts, options, cookie), size + 1))
    rows = found[:size]
    token = next_token(facts, options, rows, cookie) if len(found) > size and not last_page else None
    count = sum(1 for _ in _matching(store, facts, options)) if options.count else None
    return Page(rows, token, count)


def count_rows(store: Store, facts: TableFacts, options: Options) -> int:
    """Return the number of matching rows, at most 5,000. Source: Count number of rows."""
    return min(COUNT_CAP, sum(1 for _ in _matching(store, facts, options)))


def _limits(options: Options, preferences: Preferences, store: Store) -> tuple[int, bool]:
    paging = preferences.max_page_size is not None and store.settings.top_ignored_when_paging
    size = page_size(preferences, store)
    if options.top is None or paging:
        return size, False
    return min(options.top, store.settings.max_page_size), True


def _matching(store: Store, facts: TableFacts, options: Options) -> Iterator[Row]:
    rows = shown_rows(store, facts.name)
    keep = options.filter
    for row_id in store.ordered_ids(facts.name):
        if keep is None or keep(rows[row_id]):
            yield rows[row_id]


def _rows_after(store: Store, facts: TableFacts, options: Options, cookie: Cookie | None) -> Iterator[Row]:
    if options.order:
        return _ordered_after(store, facts, options, cookie)
    return _keyed_after(store, facts, options, cookie)


def _keyed_after(store: Store, facts: TableFacts, options: Options, cookie: Cookie | None) -> Iterator[Row]:
    rows, ids, keep = shown_rows(store, facts.name), store.ordered_ids(facts.name), options.filter
    start = 0 if cookie is None else bisect.bisect_right(ids, _key_of(cookie))
    for index in range(start, len(ids)):
        row = rows[ids[index]]
        if keep is None or keep(row):
            yield row


def _ordered_after(store: Store, facts: TableFacts, options: Options, cookie: Cookie | None) -> Iterator[Row]:
    rows = ordered(list(_matching(store, facts, options)), options.order)
    if cookie is None:
        return iter(rows)
    deciding, key_descends = _deciding(options.order, facts.key)
    if [name for name, _ in cookie.last] != [*(term.column for term in deciding), facts.key]:
        raise bad_uri("The skip token in the request URI does not belong to this query.")
    edge = [_read_text(facts, name, text) for name, text in cookie.last[:-1]]
    last = Order(facts.key, key_descends)
    terms = list(zip((*deciding, last), (*edge, _key_of(cookie)), strict=True))
    return (row for row in rows if _is_after(row, terms))


def _deciding(order: Sequence[Order], key: str) -> tuple[list[Order], bool]:
    """Return the terms that decide before the key does, each column once, and whether keys descend.

    No two rows share a key, so that what stands after it decides nothing.
    """
    deciding: dict[str, Order] = {}
    for term in order:
        if term.column == key:
            return list(deciding.values()), term.descending
        deciding.setdefault(term.column, term)
    return list(deciding.values()), False


def _is_after(row: Row, edge: Iterable[tuple[Order, Value]]) -> bool:
    for term, value in edge:
        mine, last = sort_key(row.get(term.column)), sort_key(value)
        if mine != last:
            return (mine > last) is not term.descending
    return False


def _key_of(cookie: Cookie) -> str:
    try:
        return parse_guid(cookie.last[-1][1] or "")
    except ValueError:
        raise bad_uri("The skip token in the request URI is malformed.") from None


def next_token(facts: TableFacts, options: Options, rows: Sequence[Row], cookie: Cookie | None = None) -> str:
    """Return the encoded ``$skiptoken`` of what comes after a page; ``cookie`` is what led to it."""
    names = [term.column for term in _deciding(options.order, facts.key)[0]]
    first, last = (
        [*(wire_text(facts, row, name) for name in names), braced_key(facts, row)] for row in (rows[0], rows[-1])
    )
    page = 2 if cookie is None else cookie.page + 1
    return write_cookie(Cookie(page, tuple(zip([*names, facts.key], last, strict=True))), first)


def braced_key(facts: TableFacts, row: Row) -> str:
    """Return a row's key as cookies spell it: in upper case with braces."""
    return "{" + str(row[facts.key]).upper() + "}"


def wire_text(facts: TableFacts, row: Row, name: str) -> str | None:
    """Return a column's value as cookies spell it; None for a null."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, Decimal):
        return format(value, "f")
    write = writer(facts.columns[name].column)
    return str(value if write is None else write(value))


def _read_text(facts: TableFacts, name: str, text: str | None) -> Value:
    facts_of = facts.columns.get(name)
    if text is None or facts_of is None:
        return None
    try:
        return read_value(facts_of.column, _raw(facts_of.column, text))
    except (WireError, ArithmeticError, ValueError):
        raise bad_uri("The skip token in the request URI is malformed.") from None


def _raw(column: Column, text: str) -> object:
    if column.type in _WHOLE:
        return int(text)
    if column.type is ColumnType.BOOLEAN:
        return text == "True"
    if column.type in (ColumnType.MONEY, ColumnType.DECIMAL, ColumnType.DOUBLE):
        return Decimal(text)
    return text
