"""Rows as JSON objects: properties, etag, annotations and expanded rows.

What to write for each column is settled once per request, so a page costs little more than its values.

An expanded collection comes with a next link. In a query without nested expands it is the address of the whole
collection, which is not paged; with one, collections are paged and it leads to what comes after. Source: Join tables
using OData. ``Assumed:`` in a query with nested expands

- a page that is not full has no next link (the documented one is full and has one, though no row follows)
- without odata.maxpagesize a page is the largest there is

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from d365sync.core.values import Row, Value
from d365sync.emulator.facts import ColumnFacts, TableFacts
from d365sync.emulator.odata.formats import formatted, lookup_target
from d365sync.emulator.odata.options import Expand, Options, nests
from d365sync.emulator.odata.ordering import ordered
from d365sync.emulator.odata.pages import next_token, page_size
from d365sync.emulator.odata.prefer import Preferences
from d365sync.emulator.shown import shown_referring, shown_row
from d365sync.emulator.store import VERSION, Store
from d365sync.emulator.wire import writer

FORMATTED = "OData.Community.Display.V1.FormattedValue"
NAVIGATION = "Microsoft.Dynamics.CRM.associatednavigationproperty"
LOGICAL_NAME = "Microsoft.Dynamics.CRM.lookuplogicalname"

MAX_EXPANDED = 5000
Plan = tuple[str, str, Callable[[Any], Any] | None, ColumnFacts]


def etag(row: Row) -> str:
    """Return the row's etag: its version as a weak tag."""
    return f'W/"{row[VERSION]}"'


class RowEncoder:
    """Writes rows of one table, as they are shown, as one request asked for them."""

    def __init__(
        self,
        store: Store,
        facts: TableFacts,
        options: Options,
        preferences: Preferences,
        root: str,
        nested: bool | None = None,
    ) -> None:
        """Take what was asked for; ``root`` is that of the service, ``nested`` None for the query's own rows."""
        self._store = store
        self._facts = facts
        self._plan = _plan(facts, options.select)
        self._formatted = preferences.wants(FORMATTED)
        self._lookup_annotations = [name for name in (NAVIGATION, LOGICAL_NAME) if preferences.wants(name)]
        self._annotated = bool(self._lookup_annotations) or self._formatted
        paged = nests(options.expand) if nested is None else nested
        self._expands = [_Expander(store, expand, preferences, root, paged) for expand in options.expand]

    def encode(self, row: Row) -> dict[str, Any]:
        """Return the JSON object of a row; columns without a value are null."""
        document: dict[str, Any] = {"@odata.etag": etag(row)}
        get = row.get
        for name, column, write, facts in self._plan:
            value = get(column)
            if value is None:
                document[name] = None
                continue
            if self._annotated:
                self._annotate(document, name, facts, value, row)
            document[name] = value if write is None else write(value)
        for expander in self._expands:
            document.update(expander.expand(self._facts, row))
        return document

    def _annotate(self, document: dict[str, Any], name: str, facts: ColumnFacts, value: Value, row: Row) -> None:
        if self._formatted:
            text = formatted(facts, value, row, self._store)
            if text is not None:
                document[f"{name}@{FORMATTED}"] = text
        if facts.column.is_lookup and self._lookup_annotations:
            target = lookup_target(facts, row)
            answers = {NAVIGATION: facts.navigation.get(target, facts.name), LOGICAL_NAME: target}
            document.update((f"{name}@{asked}", answers[asked]) for asked in self._lookup_annotations)


class _Expander:
    """Writes the row or rows one expanded navigation property leads to; ``paged`` as in queries that nest expands."""

    def __init__(self, store: Store, expand: Expand, preferences: Preferences, root: str, paged: bool) -> None:
        self._store = store
        self._expand = expand
        self._facts = store.catalogue.tables[expand.table]
        self._encoder = RowEncoder(store, self._facts, expand.options, preferences, root, paged)
        self._root = root
        self._page_size = page_size(preferences, store) if paged else None

    def expand(self, facts: TableFacts, row: Row) -> dict[str, Any]:
        """Return the property of a row, and the next link of a collection."""
        name = self._expand.name
        if self._expand.single:
            found = shown_row(self._store, self._expand.table, row.get(self._expand.lookup))
            keep = self._expand.options.filter
            if found is None or not (keep is None or keep(found)):
                return {name: None}
            return {name: self._encoder.encode(found)}
        row_id = str(row[facts.key])
        rows = self._children(row_id)
        document: dict[str, Any] = {name: list(map(self._encoder.encode, rows))}
        if self._page_size is None or len(rows) == self._page_size:
            document[f"{name}@odata.nextLink"] = self._link(facts, row_id, rows)
        return document

    def _children(self, row_id: str) -> Sequence[Row]:
        """Source: Join tables using OData (at most 5,000 rows). Assumed: by key unless an order is given."""
        options = self._expand.options
        found = shown_referring(self._store, self._expand.table, self._expand.lookup, row_id)
        rows = [row for row in found if options.filter is None or options.filter(row)]
        rows.sort(key=lambda row: str(row[self._facts.key]))
        most = min(self._page_size or MAX_EXPANDED, MAX_EXPANDED if options.top is None else options.top)
        return ordered(rows, options.order)[:most]

    def _link(self, facts: TableFacts, row_id: str, rows: Sequence[Row]) -> str:
        query = [self._expand.asked] if self._expand.asked else []
        if self._page_size is not None:
            query.append(f"$skiptoken={next_token(self._facts, self._expand.options, rows)}")
        address = f"{self._root}{facts.table.entity_set_name}({row_id})/{self._expand.name}"
        return f"{address}?{'&'.join(query)}" if query else address


def _plan(facts: TableFacts, select: tuple[str, ...] | None) -> list[Plan]:
    names = facts.columns if select is None else select
    return [
        (facts.columns[name].column.property_name, name, writer(facts.columns[name].column), facts.columns[name])
        for name in names
    ]
