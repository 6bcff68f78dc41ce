"""Pull: bring the mirror up to date with the remote, several tables at once.

How a table is followed is decided at run time from its metadata and its bookmark:

=============================  ==============================================================================
the table                      is read
=============================  ==============================================================================
has no bookmark                in full; appended, by several ranges at once when it is large
tracks changes                 by its delta link; in full again when the link is not honoured any more
does not, and is small         in full: one request, which also shows deletions and silent edits
does not, and is large         by ``modifiedon`` with an overlap; deletions by a sweep of ids now and then
may not be read (403)          not at all: its rows stay as they are, and the result says so
=============================  ==============================================================================

Pages are fetched in threads; here they are decoded and stored, one after the other, while the next are on their way.
Delivery is at least once: rows are put under their key, and the bookmark is saved with the last page only.

IO: HTTP and SQL, through the client and the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import structlog

from d365sync.config import PullSection
from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.guards import GuardRules, Losses, judge_losses
from d365sync.core.goals.participation import read_back_only
from d365sync.core.schema import Table
from d365sync.core.values import parse_instant
from d365sync.dataverse.ahead import FetchedPage
from d365sync.dataverse.decoding import PageDecoder, StoredPage
from d365sync.errors import FORBIDDEN, AuthError, BookmarkExpiredError, MisfitError, ProtocolError, RejectedError
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Applied, Guard, Mirror, Withheld
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.allocating import give_back_large_blocks
from d365sync.sync.keeping import Appended, Keeping, Replaced
from d365sync.sync.partitions import PartitionedLoad, TokenNotSharedError
from d365sync.sync.streams import side_by_side

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient

log = structlog.get_logger(__name__)

MODIFIED_ON = "modifiedon"
NOT_TRACKED = "0x80072491"
"""Source: change tracking is not enabled for the entity."""
UNKNOWN_COLUMN = ("0x80060888", "0x80041103")
"""Source: web service error codes (a property or attribute that is not there)."""
MOST_TOLD = 20
"""Damaged values of a table that a result names; the log has them all."""
Pages = Callable[[], Iterator[FetchedPage]]


class Way(StrEnum):
    """How a table was read in a cycle."""

    FULL = "full"
    DELTA = "delta"
    POLL = "poll"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class TablePull:
    """What reading one table brought; ``reason`` and ``mend`` when it may not be read.

    ``damaged`` says which values were left out, and why: the first of them.
    """

    name: str
    way: Way
    rows: int = 0
    changed: int = 0
    deleted: int = 0
    bytes: int = 0
    reason: str = ""
    mend: str = ""
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watcher:
    """Told as rows arrive: table, rows so far."""

    on_rows: Callable[[str, int], None] = field(default=lambda _name, _rows: None)
    on_table: Callable[[TablePull], None] = field(default=lambda _pull: None)


@dataclass(slots=True)
class Reading:
    """One table being read: where its pages come from, and where they are kept; ``known`` is the last bookmark."""

    table: MirrorTable
    way: Way
    pages: Pages
    keeping: Keeping
    known: Position | None = None
    rows: int = 0
    bytes: int = 0
    watermark: str = ""
    damaged: list[str] = field(default_factory=list)

    def take(self, fetched: FetchedPage, now: dt.datetime, *, keep_damaged: bool = False) -> None:
        """Decode and keep one page.

        Raises:
            MisfitError: a value is damaged: one that defines goals, or any without ``keep_damaged``.
        """
        page = fetched.decoded()
        if page.damaged and not (keep_damaged and self.table.name not in BOOK_COLUMNS):
            raise MisfitError(page.damaged[0])
        for reason in page.damaged:
            log.warning("value.damaged", table=self.table.name, reason=reason)
        new = [reason for reason in dict.fromkeys(page.damaged) if reason not in self.damaged]
        self.damaged += new[: MOST_TOLD - len(self.damaged)]
        self.rows += len(page.rows)
        self.bytes += page.size_bytes
        at = self.table.rows.places.get(MODIFIED_ON)
        if at is not None and not self.table.table.change_tracking:
            self.watermark = max([self.watermark, *(str(row[at]) for row in page.rows if row[at] is not None)])
        self.keeping.take(page, self._position(page, now) if page.next_link is None else None)

    def _position(self, page: StoredPage, now: dt.datetime) -> Position:
        known = self.known.watermark if self.known else None
        seen = [parse_instant(self.watermark)] if self.watermark else []
        watermark = max([*seen, *([known] if known else [])], default=None)
        swept_at = now if self.way is Way.FULL else (self.known.swept_at if self.known else None)
        if self.way is Way.FULL and watermark is not None:
            watermark = min(watermark, now)
        return Position(now, delta_link=page.delta_link, watermark=watermark, swept_at=swept_at)


@dataclass(frozen=True, slots=True)
class Puller:
    """Everything one pull needs; ``now`` is the start of the cycle.

    ``definitions_are_fresh`` tells that a column the remote does not know is not the definitions' fault,
    ``keep_damaged`` that a value which is not of its column's type is not, and is to be left out. ``withheld`` are, by
    table, the rows that a guard kept from being removed; such a table's bookmark stays.
    """

    client: DataverseClient
    mirror: Mirror
    rules: PullSection
    now: dt.datetime
    watcher: Watcher = field(default_factory=Watcher)
    definitions_are_fresh: bool = False
    keep_damaged: bool = False
    guards: GuardRules = field(default_factory=GuardRules)
    withheld: dict[str, tuple[MirrorTable, Withheld]] = field(default_factory=dict)

    def pull(self, tables: Sequence[MirrorTable]) -> list[TablePull]:
        """Bring tables up to date, several at once; return what each brought, in the order given.

        Raises:
            RemoteError, ProtocolError: the remote; what was applied before stays, the bookmark does not move.
            MirrorError: the mirror.
        """
        give_back_large_blocks()
        done: dict[str, TablePull] = {}
        waiting = self._together([self._reading(table) for table in tables])
        while waiting:
            again: list[Reading] = []
            sources = [reading.pages for reading in waiting]
            with closing(side_by_side(sources, workers=self.rules.tables)) as events:  # type: ignore[type-var]
                for event in events:
                    reading = waiting[event.source]
                    if event.error is not None:
                        other = self._other_way(reading, event.error)
                        if isinstance(other, TablePull):
                            done[other.name] = self._told(other)
                        else:
                            again.append(other)
                    elif event.item is None:
                        done[reading.table.name] = self._told(self._finished(reading))
                    else:
                        reading.take(event.item, self.now, keep_damaged=self.keep_damaged)
                        self.watcher.on_rows(reading.table.name, reading.rows)
            waiting = again
        return [done[table.name] for table in tables]

    def _told(self, result: TablePull) -> TablePull:
        self.watcher.on_table(result)
        log.info(
            "table.pulled",
            table=result.name,
            way=str(result.way),
            rows=result.rows,
            changed=result.changed,
            deleted=result.deleted,
        )
        return result

    def _reading(self, table: MirrorTable) -> Reading:
        empty = self.mirror.ensure(table)
        position = None if empty else self.mirror.position(table.name)
        if position is None:
            return self._load(table, empty=empty)
        if position.delta_link is not None and table.table.change_tracking and self._is_ours(position.delta_link):
            return self._follow(table, position, position.delta_link)
        if table.table.change_tracking or not self._is_polled(table, position):
            whole = self._load(table)
            whole.known = None if table.table.change_tracking else position
            return whole
        return self._poll(table, position)

    def _is_polled(self, table: MirrorTable, position: Position) -> bool:
        return position.watermark is not None and self.mirror.count(table.name) > self.rules.reread_up_to

    def _load(
        self, table: MirrorTable, *, empty: bool = False, tracked: bool = True, by_ranges: bool = True
    ) -> Reading:
        """Read the whole table; rows not seen are removed with the last page."""
        decoder = PageDecoder(table.rows)
        tracked = tracked and table.table.change_tracking
        number = self.mirror.begin_load(table.name)
        pages: Pages = lambda: self.client.fetched_rows(decoder, tracked=tracked)  # noqa: E731
        if not empty:
            return Reading(table, Way.FULL, pages, Replaced(self.mirror, table, number, self._guard(table)))
        if by_ranges and self.rules.partitions > 1 and tracked is table.table.change_tracking:
            link = self._other_link() if tracked else ""
            if link is not None:
                pages = PartitionedLoad(self.client, decoder, self.rules.partitions, link).pages
        return Reading(table, Way.FULL, pages, Appended(self.mirror, table, number))

    def _together(self, readings: list[Reading]) -> list[Reading]:
        """Let the small tables that are read whole again be read with one request."""
        from d365sync.dataverse.together import RowsTogether

        small = [one for one in readings if one.way is Way.FULL and one.known is not None]
        rows = RowsTogether(self.client, [PageDecoder(one.table.rows) for one in small])
        for at, one in enumerate(small):
            one.pages = partial(rows.pages, at)
        return readings

    def _is_ours(self, link: str) -> bool:
        """Say whether a kept link leads to the API as it is configured now; its address may have changed."""
        from d365sync.dataverse.wire import check_link

        try:
            check_link(link, self.client.api_root)
        except ProtocolError:
            return False
        return True

    def _other_link(self) -> str | None:
        """Return the newest delta link of any table, None when there is none or its token must not be shared."""
        if not self.rules.shared_token:
            return None
        known = self.mirror.bookmarks().values()
        found = [one for one in known if one.delta_link and self._is_ours(one.delta_link)]
        return max(found, key=lambda one: one.pulled_at).delta_link if found else None

    def _follow(self, table: MirrorTable, position: Position, link: str) -> Reading:
        decoder = PageDecoder(table.rows)
        keeping = Replaced(self.mirror, table, guard=self._guard(table))
        return Reading(table, Way.DELTA, lambda: self.client.fetched_changes(decoder, link), keeping, position)

    def _poll(self, table: MirrorTable, position: Position) -> Reading:
        """Read rows modified since the watermark less an overlap."""
        watermark = position.watermark or self.now
        from d365sync.dataverse.client import modified_since

        where = modified_since(MODIFIED_ON, watermark - dt.timedelta(seconds=self.rules.overlap))
        order = f"{MODIFIED_ON} asc,{table.table.primary_id} asc"
        decoder = PageDecoder(table.rows)
        pages: Pages = lambda: self.client.fetched_rows(decoder, where=where, order=order)  # noqa: E731
        return Reading(table, Way.POLL, pages, Replaced(self.mirror, table), position)

    def _other_way(self, reading: Reading, error: BaseException) -> Reading | TablePull:
        """Return how to go on after a reading failed.

        Raises:
            BaseException: the error, when there is no other way.
        """
        table = reading.table
        if isinstance(error, AuthError) and error.status == FORBIDDEN and table.name not in BOOK_COLUMNS:
            log.info("table.unreadable", table=table.name, reason=str(error))
            self.mirror.note_unreadable(table.name, str(error), error.hint)
            return TablePull(table.name, Way.UNREADABLE, reason=str(error), mend=error.hint)
        if isinstance(error, TokenNotSharedError):
            log.warning("token.not_shared", table=table.name, reason=str(error))
            return self._load(table, empty=self.mirror.ensure(table), by_ranges=False)
        if isinstance(error, RejectedError) and error.code == NOT_TRACKED and table.table.change_tracking:
            log.warning("tracking.off", table=table.name)
            self.mirror.forget_definitions()
            return self._load(table, empty=self.mirror.ensure(table), tracked=False)
        if reading.way is Way.DELTA and self._is_refused_link(error):
            log.warning("bookmark.expired", table=table.name, reason=str(error))
            return self._load(table)
        raise error

    def _is_refused_link(self, error: BaseException) -> bool:
        if isinstance(error, BookmarkExpiredError):
            return True
        return isinstance(error, RejectedError) and (self.definitions_are_fresh or error.code not in UNKNOWN_COLUMN)

    def _finished(self, reading: Reading) -> TablePull:
        kept = reading.keeping.applied
        deleted, withheld = kept.deleted, kept.withheld
        if reading.way is Way.POLL and self._is_sweep_due(reading.known):
            swept = self._sweep(reading.table)
            deleted, withheld = swept.deleted, swept.withheld
        self.withheld.pop(reading.table.name, None)
        if withheld is not None:
            self.withheld[reading.table.name] = (reading.table, withheld)
        damaged = tuple(reading.damaged)
        return TablePull(
            reading.table.name, reading.way, reading.rows, kept.changed, deleted, reading.bytes, damaged=damaged
        )

    def _is_sweep_due(self, known: Position | None) -> bool:
        swept_at = known.swept_at if known else None
        return swept_at is None or (self.now - swept_at).total_seconds() >= self.rules.sweep_every

    def _sweep(self, table: MirrorTable) -> Applied:
        """Remove the rows whose id the remote no longer has."""
        key = table.table.primary_id
        present = ([str(row[key]) for row in page.rows] for page in self.client.rows(table.table, [key]))
        position = self.mirror.position(table.name) or Position(self.now)
        last = Position(position.pulled_at, position.delta_link, position.watermark, swept_at=self.now)
        return self.mirror.remove_missing(table, present, last, guard=self._guard(table))

    def _guard(self, table: MirrorTable) -> Guard:
        return lambda missing, known: not judge_losses([Losses(table.name, missing, known)], self.guards)


def mirror_table(table: Table, wanted: Iterable[str]) -> MirrorTable:
    """Return the table as it is mirrored: columns that exist, and ``modifiedon`` where changes are not tracked."""
    extra = set() if table.change_tracking else {MODIFIED_ON}
    columns = frozenset((set(wanted) | extra) & set(table.columns))
    return MirrorTable(table, columns, as_text=columns & read_back_only(table))
