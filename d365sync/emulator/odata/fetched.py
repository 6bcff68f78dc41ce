"""Rows of a FetchXML answer as JSON objects: nulls absent, linked columns as ``alias.column``.

A lookup of the entity is ``_name_value`` unless it has an alias; a linked one keeps its key.
Source: Use FetchXML with the Web API. Assumed: how linked lookups are spelled, and their annotations.

Pure.
"""

from __future__ import annotations

from typing import Any

from d365sync.core.fetchxml.ast import Fetch
from d365sync.core.fetchxml.result import Result
from d365sync.core.schema import Column
from d365sync.core.values import Row, Value
from d365sync.emulator.facts import ColumnFacts, TableFacts
from d365sync.emulator.odata.encode import FORMATTED, LOGICAL_NAME, NAVIGATION, etag
from d365sync.emulator.odata.formats import formatted
from d365sync.emulator.odata.prefer import Preferences
from d365sync.emulator.store import VERSION, Store
from d365sync.emulator.wire import writer


class FetchedEncoder:
    """Writes the rows of one answer; ``selected`` are the properties a query names, empty for all."""

    def __init__(self, store: Store, facts: TableFacts, fetch: Fetch, result: Result, preferences: Preferences) -> None:
        self._store = store
        self._facts = facts
        self._fetch = fetch
        self._result = result
        self._preferences = preferences
        everything = fetch.all_attributes or not (fetch.attributes or fetch.no_attributes or fetch.aggregate)
        self.selected = () if everything else tuple(self._property(key) for key in result.columns)

    def encode(self, at: int) -> dict[str, Any]:
        """Return the JSON object of the row at a position of the page."""
        row = self._result.rows[at]
        document: dict[str, Any] = {}
        if not self._fetch.aggregate:
            source = self._result.combinations[at].row
            if self._facts.key in row and VERSION in source:
                document["@odata.etag"] = etag(source)
        for key, column in self._result.columns.items():
            if key in row:
                self._write(document, key, column, row, at)
        return document

    def _write(self, document: dict[str, Any], key: str, column: Column | None, row: Row, at: int) -> None:
        value, name = row[key], self._property(key)
        write = None if column is None else writer(column)
        document[name] = value if write is None else write(value)
        text = self._text(key, column, value, self._source(key, at), row)
        if text is not None and self._preferences.wants(FORMATTED):
            document[f"{name}@{FORMATTED}"] = text
        if column is None or not column.is_lookup:
            return
        table = str(row.get(f"{key}type") or next(iter(column.targets), ""))
        known = self._column_facts(key, column)
        answers = {NAVIGATION: known.navigation.get(table) if known else None, LOGICAL_NAME: table}
        document.update(
            {f"{name}@{asked}": one for asked, one in answers.items() if one and self._preferences.wants(asked)}
        )

    def _property(self, key: str) -> str:
        column = self._result.columns[key]
        own = self._result.origins.get(key) is None and column is not None and key == column.logical_name
        return column.property_name if own and column is not None else key

    def _source(self, key: str, at: int) -> Row:
        """The stored row a value comes from; empty for aggregates."""
        if self._fetch.aggregate:
            return {}
        return self._result.combinations[at].side(self._result.origins[key]) or {}

    def _column_facts(self, key: str, column: Column) -> ColumnFacts | None:
        link = self._result.origins.get(key)
        facts = self._facts if link is None else self._store.catalogue.tables[link.name]
        return facts.columns.get(column.logical_name)

    def _text(self, key: str, column: Column | None, value: Value, source: Row, row: Row) -> str | None:
        if column is None:
            return f"{value:,}" if isinstance(value, int) else None
        known = self._column_facts(key, column)
        if known is None:
            return None
        if column.is_polymorphic and f"{key}type" in row:
            source = {**source, column.type_name: row[f"{key}type"]}
        return formatted(known, value, source, self._store)
