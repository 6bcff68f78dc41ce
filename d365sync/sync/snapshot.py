"""What the parts of a cycle share: the line that joins them, and the goals with what is behind them at one moment.

IO: SQL, through the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from zoneinfo import ZoneInfo

from d365sync.config import Config
from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.book import BOOK_COLUMNS, build_book
from d365sync.core.goals.callers import CALLER_TABLES, Callers, build_callers
from d365sync.core.goals.forest import Forest, build_forest
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.needs import (
    goals_to_compute,
)
from d365sync.core.goals.participation import Group, Grouping, asking_queries, group_goals
from d365sync.core.goals.writes import GoalWrite, WritePlan
from d365sync.core.schema import Schema
from d365sync.journal.store import Journal
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.modes import own_columns
from d365sync.sync.pull import Watcher

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient


@dataclass(frozen=True, slots=True)
class Line:
    """The parts a cycle joins."""

    config: Config
    client: DataverseClient
    mirror: Mirror
    journal: Journal
    clock: Callable[[], dt.datetime]
    watcher: Watcher = field(default_factory=Watcher)
    on_write: Callable[[GoalWrite], None] = field(default=lambda _write: None)
    on_plan: Callable[[WritePlan], None] = field(default=lambda _plan: None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The goals and the tables behind them, as mirrored at one moment."""

    book: GoalBook
    schema: Schema
    tables: Mapping[str, MirrorTable]
    grouping: Grouping
    forest: Forest
    context: Context
    zone: ZoneInfo
    callers: Callers = field(default_factory=Callers)

    def context_of(self, group: Group) -> Context:
        """Return the context a group's query is read in: that of the user it asks for, if it asks for one."""
        return self.callers.context_for(self.context, group.caller_id)


Widen: TypeAlias = Callable[[GoalBook], GoalBook]
"""Gives the book whose open goals are to be computed, from the one that was read."""


def as_it_is(book: GoalBook) -> GoalBook:
    """Compute the goals that are open, and no others."""
    return book


def snapshot_of(
    line: Line, schema: Schema, tables: Mapping[str, MirrorTable], now: dt.datetime, widen: Widen = as_it_is
) -> Snapshot:
    """Read the goals from the mirror and arrange them."""
    zone = line.config.rollup.zone
    book = widen(load_book(line, tables))
    return Snapshot(
        book=book,
        schema=schema,
        tables=tables,
        grouping=group_goals(book, schema, goals_to_compute(book)),
        forest=build_forest(book.goals),
        context=query_context(line.config, book, now),
        zone=zone,
        callers=load_callers(line, tables, book),
    )


def query_context(config: Config, book: GoalBook, now: dt.datetime) -> Context:
    """Return what rollup queries mean beyond their text, for no user in particular."""
    return Context(
        now=now,
        time_zone=config.fetchxml.zone(config.rollup.zone),
        week_start=config.fetchxml.first_day_of_week(book.organization.week_start),
        fiscal=book.organization.fiscal,
        **config.fetchxml.settings(),
    )


def load_callers(line: Line, tables: Mapping[str, MirrorTable], book: GoalBook) -> Callers:
    """Read the users on whose behalf rollup queries ask; nobody when no query asks for its caller."""
    if not asking_queries(book):
        return Callers()
    pulled = {name: tables[name] for name in CALLER_TABLES if name in tables and line.mirror.is_pulled(tables[name])}
    return build_callers({name: line.mirror.rows(table) for name, table in pulled.items()}, book.rules.hierarchy)


def load_book(line: Line, tables: Mapping[str, MirrorTable]) -> GoalBook:
    """Read one immutable snapshot of the goals from the mirror; a table not pulled yet is empty."""
    pulled = {name: tables[name] for name in BOOK_COLUMNS if line.mirror.is_pulled(tables[name])}
    rows = {name: line.mirror.rows(table) for name, table in pulled.items()}
    return build_book(rows, line.config.rollup.zone, line.config.reading, own_columns(line.config))
