"""The store's rows as the FetchXML evaluator takes them: by table, each in key order.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from d365sync.core.values import Row
from d365sync.emulator.privileges import Test
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
        rows = self._store.rows(table)
        found = [rows[row_id] for row_id in self._store.ordered_ids(table)]
        keep = self._tests.get(table)
        return found if keep is None else [row for row in found if keep(row)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.catalogue.tables)

    def __len__(self) -> int:
        return len(self._store.catalogue.tables)
