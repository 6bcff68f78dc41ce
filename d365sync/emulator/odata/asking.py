"""Who asks, of which rows: what a query option may need besides its text.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from d365sync.core.fetchxml.context import Context
from d365sync.core.values import Row
from d365sync.emulator.callers import caller_context
from d365sync.emulator.facts import Catalogue, TableFacts
from d365sync.emulator.privileges import Access
from d365sync.emulator.shown import shown, shown_referring
from d365sync.emulator.store import Store


class Asking:
    """One caller before the store; ``need`` refuses a table the caller may not read at all."""

    def __init__(self, store: Store, user_id: str, access: Access, need: Callable[[str, TableFacts], None]) -> None:
        self.store = store
        self._user_id = user_id
        self._access = access
        self._need = need

    @property
    def catalogue(self) -> Catalogue:
        """The tables there are."""
        return self.store.catalogue

    @cached_property
    def context(self) -> Context:
        """The caller's zone, teams and calendar, as FetchXML means them."""
        return caller_context(self.store, self._user_id, self.store.clock.now())

    @property
    def ne_keeps_null(self) -> bool:
        """Whether ``ne`` keeps empty columns: the reading of FetchXML, which holds for filters too."""
        return bool(self.store.settings.fetch_readings.get("ne_keeps_null", True))

    def table(self, name: str) -> TableFacts:
        """Return a related table the query is about to look at.

        Raises:
            Refusal: the caller lacks the privilege to read it.
        """
        facts = self.store.catalogue.tables[name]
        self._need("Read", facts)
        return facts

    def related(self, facts: TableFacts, row_id: object) -> Row | None:
        """Return the row of a lookup, None when it is empty or the caller may not read it."""
        row = self.store.get(facts.name, str(row_id)) if row_id is not None else None
        test = self._access.test("Read", facts)
        if row is None or (test is not None and not test(row)):
            return None
        return shown(self.store, facts.name, row)

    def referring(self, facts: TableFacts, lookup: str, row_id: str) -> Iterator[Row]:
        """Yield the rows whose lookup names a row, as far as the caller may read them."""
        test = self._access.test("Read", facts)
        return (row for row in shown_referring(self.store, facts.name, lookup, row_id) if test is None or test(row))
