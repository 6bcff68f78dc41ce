"""How pages are kept in the mirror: appended to a table just made, or put in place of what is there.

IO: SQL, through the mirror.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from d365sync.dataverse.decoding import StoredPage
from d365sync.errors import GuardError
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Applied, Mirror
from d365sync.mirror.tables import MirrorTable


class Keeping(Protocol):
    """Takes pages; ``last`` is the bookmark, given with the last one."""

    applied: Applied

    def take(self, page: StoredPage, last: Position | None) -> None:
        """Keep one page."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Refuses to believe that most rows of a table were deleted because a full read did not show them.

    Tables of less than ``rows`` rows are not guarded; ``percent`` is the greatest part that may be missing.
    """

    table: str
    rows: int
    percent: int

    def __call__(self, missing: int, known: int) -> None:
        """Let ``missing`` of ``known`` rows be removed.

        Raises:
            GuardError: too many are missing.
        """
        if known >= self.rows and missing * 100 > known * self.percent:
            raise GuardError(
                f"{self.table}: a full read showed {known - missing} of the {known} rows known; nothing was removed",
                hint="look whether the application user lost a privilege; if the rows are really gone, "
                "run `d365sync sync --full`, which makes the mirror again without asking",
            )


@dataclass(slots=True)
class Replaced:
    """Puts rows under their key. With ``load_number``, rows the load did not see are removed at its end."""

    mirror: Mirror
    table: MirrorTable
    load_number: int | None = None
    guard: Guard | None = None
    applied: Applied = field(default_factory=Applied)

    def take(self, page: StoredPage, last: Position | None) -> None:
        """Keep one page in one transaction."""
        one = self.mirror.put(
            self.table, page.rows, page.deleted, load_number=self.load_number, last=last, guard=self.guard
        )
        self.applied.changed += one.changed
        self.applied.deleted += one.deleted


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
