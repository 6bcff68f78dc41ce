"""Rows as JSON objects: properties, etag, annotations and expanded rows.

What to write for each column is settled once per request, so a page costs little more than its values.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from d365sync.core.values import Row, Value
from d365sync.emulator.facts import ColumnFacts, TableFacts
from d365sync.emulator.odata.formats import formatted, lookup_target
from d365sync.emulator.odata.options import Expand, Options
from d365sync.emulator.odata.ordering import ordered
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

    def __init__(self, store: Store, facts: TableFacts, options: Options, preferences: Preferences) -> None:
        self._store = store
        self._facts = facts
        self._plan = _plan(facts, options.select)
        self._formatted = preferences.wants(FORMATTED)
        self._lookup_annotations = [name for name in (NAVIGATION, LOGICAL_NAME) if preferences.wants(name)]
        self._annotated = bool(self._lookup_annotations) or self._formatted
        self._expands = [_Expander(store, expand, preferences) for expand in options.expand]

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
            document[expander.name] = expander.expand(self._facts, row)
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
    """Writes the row or rows one expanded navigation property leads to."""

    def __init__(self, store: Store, expand: Expand, preferences: Preferences) -> None:
        self.name = expand.name
        self._store = store
        self._expand = expand
        self._facts = store.catalogue.tables[expand.table]
        self._encoder = RowEncoder(store, self._facts, expand.options, preferences)

    def expand(self, facts: TableFacts, row: Row) -> Any:
        if self._expand.single:
            found = shown_row(self._store, self._expand.table, row.get(self._expand.lookup))
            keep = self._expand.options.filter
            return None if found is None or not (keep is None or keep(found)) else self._encoder.encode(found)
        return list(map(self._encoder.encode, self._children(str(row[facts.key]))))

    def _children(self, row_id: str) -> Iterable[Row]:
        """Source: Expand collections (at most 5,000 rows). Assumed: by key unless an order is given."""
        options = self._expand.options
        found = shown_referring(self._store, self._expand.table, self._expand.lookup, row_id)
        rows = [row for row in found if options.filter is None or options.filter(row)]
        rows.sort(key=lambda row: str(row[self._facts.key]))
        most = MAX_EXPANDED if options.top is None else min(options.top, MAX_EXPANDED)
        return ordered(rows, options.order)[:most]


def _plan(facts: TableFacts, select: tuple[str, ...] | None) -> list[Plan]:
    names = facts.columns if select is None else select
    return [
        (facts.columns[name].column.property_name, name, writer(facts.columns[name].column), facts.columns[name])
        for name in names
    ]
