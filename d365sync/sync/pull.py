"""Pull: bring the mirror up to date with the remote, table by table.

How a table is followed is decided at run time from its metadata and its bookmark:

=============================  ==============================================================================
the table                      is read
=============================  ==============================================================================
has no bookmark                in full; rows that the load does not see are removed
tracks changes                 by its delta link; in full again when the link has expired
does not, and is small         in full: one request, which also shows deletions and silent edits
does not, and is large         by ``modifiedon`` with an overlap; deletions by a sweep of ids now and then
=============================  ==============================================================================

Delivery is at least once: rows are put under their key, and the bookmark is saved with the last page only.

IO: HTTP and SQL, through the client and the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

import structlog

from d365sync.config import PullSection
from d365sync.core.goals.participation import read_back_only
from d365sync.core.schema import Table
from d365sync.core.values import Row
from d365sync.dataverse.client import DataverseClient, modified_since
from d365sync.dataverse.wire import Page
from d365sync.errors import BookmarkExpiredError, RejectedError
from d365sync.mirror.store import Mirror, Position
from d365sync.mirror.tables import MirrorTable

log = structlog.get_logger(__name__)

MODIFIED_ON = "modifiedon"
NOT_TRACKED = "0x80072491"
"""Source: change tracking is not enabled for the entity."""


class Way(StrEnum):
    """How a table was read in a cycle."""

    FULL = "full"
    DELTA = "delta"
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class TablePull:
    """What reading one table brought."""

    name: str
    way: Way
    rows: int = 0
    changed: int = 0
    deleted: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Watcher:
    """Told as rows arrive: table, rows so far."""

    on_rows: Callable[[str, int], None] = field(default=lambda _name, _rows: None)
    on_table: Callable[[TablePull], None] = field(default=lambda _pull: None)


@dataclass(frozen=True, slots=True)
class Puller:
    """Everything one pull needs; ``now`` is the start of the cycle."""

    client: DataverseClient
    mirror: Mirror
    rules: PullSection
    now: dt.datetime
    watcher: Watcher = field(default_factory=Watcher)

    def pull(self, table: MirrorTable) -> TablePull:
        """Bring one table up to date.

        Raises:
            RemoteError, ProtocolError: the remote; what was applied before stays, the bookmark does not move.
            MirrorError: the mirror.
        """
        result = self._pull(table)
        self.watcher.on_table(result)
        log.info(
            "table.pulled",
            table=table.name,
            way=str(result.way),
            rows=result.rows,
            changed=result.changed,
            deleted=result.deleted,
        )
        return result

    def _pull(self, table: MirrorTable) -> TablePull:
        empty = self.mirror.ensure(table)
        position = None if empty else self.mirror.position(table.name)
        if position is None:
            return self._load(table)
        if position.delta_link is not None and table.table.change_tracking:
            try:
                return self._follow(table, position, position.delta_link)
            except BookmarkExpiredError as error:
                log.warning("bookmark.expired", table=table.name, reason=str(error))
                return self._load(table)
        if table.table.change_tracking or not self._is_polled(table, position):
            return self._load(table)
        return self._poll(table, position)

    def _is_polled(self, table: MirrorTable, position: Position) -> bool:
        return position.watermark is not None and self.mirror.count(table.name) > self.rules.reread_up_to

    def _load(self, table: MirrorTable) -> TablePull:
        """Read the whole table; rows not seen are removed with the last page."""
        if table.table.change_tracking:
            try:
                return self._apply(
                    table, Way.FULL, self.client.tracked_rows(table.table, table.column_names), full=True
                )
            except RejectedError as error:
                if error.code != NOT_TRACKED:
                    raise
                log.warning("tracking.off", table=table.name)
        return self._apply(table, Way.FULL, self.client.rows(table.table, table.column_names), full=True)

    def _follow(self, table: MirrorTable, position: Position, link: str) -> TablePull:
        pages = self.client.changes(table.table, table.column_names, link)
        return self._apply(table, Way.DELTA, pages, known=position)

    def _poll(self, table: MirrorTable, position: Position) -> TablePull:
        """Read rows modified since the watermark less an overlap, then sweep ids when that is due."""
        watermark = position.watermark or self.now
        where = modified_since(MODIFIED_ON, watermark - dt.timedelta(seconds=self.rules.overlap))
        order = f"{MODIFIED_ON} asc,{table.table.primary_id} asc"
        pages = self.client.rows(table.table, table.column_names, where=where, order=order)
        pull = self._apply(table, Way.POLL, pages, known=position)
        swept_at = position.swept_at
        if swept_at is not None and (self.now - swept_at).total_seconds() < self.rules.sweep_every:
            return pull
        return replace(pull, deleted=self._sweep(table))

    def _sweep(self, table: MirrorTable) -> int:
        """Remove the rows whose id the remote no longer has."""
        key = table.table.primary_id
        present = [str(row[key]) for page in self.client.rows(table.table, [key]) for row in page.rows]
        position = self.mirror.position(table.name) or Position(self.now)
        return self.mirror.remove_missing(table, present, replace(position, swept_at=self.now))

    def _apply(
        self, table: MirrorTable, way: Way, pages: Iterator[Page], *, full: bool = False, known: Position | None = None
    ) -> TablePull:
        number = self.mirror.begin_load(table.name) if full else None
        total = TablePull(table.name, way)
        watermark = known.watermark if known else None
        for page in pages:
            watermark = _latest(watermark, page.rows)
            last = self._position(page, known, watermark, full=full) if page.next_link is None else None
            applied = self.mirror.apply(table, page.rows, page.deleted, load_number=number, last=last)
            total = replace(
                total,
                rows=total.rows + len(page.rows),
                changed=total.changed + applied.changed,
                deleted=total.deleted + applied.deleted,
                bytes=total.bytes + page.size_bytes,
            )
            self.watcher.on_rows(table.name, total.rows)
        return total

    def _position(self, page: Page, known: Position | None, watermark: dt.datetime | None, *, full: bool) -> Position:
        swept_at = self.now if full else (known.swept_at if known else None)
        return Position(self.now, delta_link=page.delta_link, watermark=watermark, swept_at=swept_at)


def mirror_table(table: Table, wanted: Iterable[str]) -> MirrorTable:
    """Return the table as it is mirrored: columns that exist, and ``modifiedon`` where changes are not tracked."""
    extra = set() if table.change_tracking else {MODIFIED_ON}
    columns = frozenset((set(wanted) | extra) & set(table.columns))
    return MirrorTable(table, columns, as_text=columns & read_back_only(table))


def _latest(watermark: dt.datetime | None, rows: Iterable[Row]) -> dt.datetime | None:
    instants = [value for row in rows if isinstance(value := row.get(MODIFIED_ON), dt.datetime)]
    return max([*instants, *([watermark] if watermark else [])], default=None)
