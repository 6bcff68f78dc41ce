"""The store's rows as the FetchXML evaluator takes them: as they are shown, by table, each in key order.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from d365sync.core.values import Row
from d365sync.emulator.privileges import Test
from d365sync.emulator.shown import shown_rows
from d365sync.emulator.store import Store


class StoredTables(Mapping[str, Sequence[Row]]):
    """The store's rows by table, each in key order: what a query without an order goes by.

    ``tests`` say of some tables which rows may be read; None is every row.
    """

    def __init__(self, store: Store, tests: Mapping[str, Test | None] | None = None) -> None:
        self._store = store
        self._tests = tests or {}

    def __getitem__(self, table: str) -> Sequence[Row]:
        if table not in self._store.catalogue.tables:
            raise KeyError(table)
        rows, keep = self._store.rows(table), self._tests.get(table)
        visible = shown_rows(self._store, table)
        ids = self._store.ordered_ids(table)
        return [visible[row_id] for row_id in ids if keep is None or keep(rows[row_id])]

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.catalogue.tables)

    def __len__(self) -> int:
        return len(self._store.catalogue.tables)
