"""How pages are kept in the mirror: appended to a table just made, or put in place of what is there.

IO: SQL, through the mirror.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from d365sync.dataverse.decoding import StoredPage
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Applied, Guard, Mirror
from d365sync.mirror.tables import MirrorTable


class Keeping(Protocol):
    """Takes pages; ``last`` is the bookmark, given with the last one."""

    applied: Applied

    def take(self, page: StoredPage, last: Position | None) -> None:
        """Keep one page."""


@dataclass(slots=True)
class Replaced:
    """Puts rows under their key, and removes those that are gone at the end: if the guard lets it.

    With ``load_number``, rows the load did not see are gone.
    """

    mirror: Mirror
    table: MirrorTable
    load_number: int | None = None
    guard: Guard | None = None
    applied: Applied = field(default_factory=Applied)
    _gone: dict[str, None] = field(default_factory=dict)

    def take(self, page: StoredPage, last: Position | None) -> None:
        """Keep one page in one transaction."""
        for row in page.rows if self._gone else ():
            self._gone.pop(str(row[0]), None)
        self._gone.update(dict.fromkeys(page.deleted))
        gone = () if last is None else tuple(self._gone)
        one = self.mirror.put(self.table, page.rows, gone, load_number=self.load_number, last=last, guard=self.guard)
        self.applied.changed += one.changed
        self.applied.deleted += one.deleted
        self.applied.withheld = one.withheld


@dataclass(slots=True)
class Appended:
    """Adds rows to a table just made; its indexes are made, and rows seen twice removed, at the end."""

    mirror: Mirror
    table: MirrorTable
    load_number: int
    applied: Applied = field(default_factory=Applied)
    _deleted: list[str] = field(default_factory=list)

    def take(self, page: StoredPage, last: Position | None) -> None:
        """Keep one page in one transaction."""
        self._deleted += page.deleted
        self.mirror.append(self.table, page.rows, self.load_number)
        if last is not None:
            self.applied = self.mirror.fill(self.table, last, self._deleted)
