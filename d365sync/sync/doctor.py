"""Checking everything a run needs, without changing anything.

Each check is one line: OK, WARN or FAIL, what was found, and what mends it. A check that others need stops them when it
fails.

IO: HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from d365sync.config import Config, is_literal_secret
from d365sync.core.counts import by_count, counted
from d365sync.core.goals.book import BOOK_COLUMNS, build_book
from d365sync.core.goals.callers import CALLER_TABLES
from d365sync.core.goals.goal import Goal, GoalBook
from d365sync.core.goals.needs import columns_needed, goals_to_compute, tables_named
from d365sync.core.goals.participation import group_goals
from d365sync.core.period import is_midnight
from d365sync.core.schema import Schema, Table
from d365sync.core.values import Row
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.metadata import read_schema
from d365sync.errors import AuthError, ConflictError, D365SyncError, RejectedError
from d365sync.sync.modes import COLUMNS, faults_of
from d365sync.sync.visibility import DISABLED, OBJECT_ID

T = TypeVar("T")
SKEW_WARN_S = 60
SKEW_FAIL_S = 300
NEVER_AN_ETAG = 'W/"0"'


class Verdict(StrEnum):
    """How a check ended."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; ``exit_code`` is what a FAIL makes the command exit with."""

    name: str
    verdict: Verdict
    found: str
    mend: str = ""
    exit_code: int = 0


class _Stop(Exception):  # noqa: N818 - ends the report, carries its last line
    def __init__(self, check: Check) -> None:
        super().__init__(check.name)
        self.check = check


def examine(config: Config, client: DataverseClient, now: Callable[[], dt.datetime]) -> Iterator[Check]:
    """Yield the checks as they are made, most basic first; ends at the first that the rest depend on."""
    yield from _configuration(config)
    try:
        yield from _identity(client, now)
        schema = _ask("tables that define goals", lambda: read_schema(client, BOOK_COLUMNS))
        yield from _goal_tables(schema)
        rows = {}
        for name, columns in BOOK_COLUMNS.items():
            table = schema.table(name)
            known = [column for column in columns if column in table.columns]
            rows[name] = _ask(f"read {name}", lambda table=table, known=known: _read_all(client, table, known))  # type: ignore[misc]
            yield Check(f"read {name}", Verdict.OK, f"{counted(len(rows[name]), 'row')}{_tracking(table)}")
        yield from _own_columns(config, schema.table("goal"))
        book = build_book(rows, config.rollup.zone, config.reading)
        yield from _sources(client, book, schema)
        yield from _impersonation(config, client, schema.table("systemuser"), book)
        yield from _bounds(book, config)
        yield from _writable(config, client, schema.table("goal"), book)
    except _Stop as stop:
        yield stop.check


def _configuration(config: Config) -> Iterator[Check]:
    yield Check("configuration", Verdict.OK, f"{config.path or 'environment'}, mode {config.writeback.mode}")
    if is_literal_secret(config.dataverse.client_secret):
        yield Check(
            "client secret",
            Verdict.WARN,
            "the secret itself stands in the configuration file",
            "use env:NAME or file:PATH, and create a new secret",
        )


def _identity(client: DataverseClient, now: Callable[[], dt.datetime]) -> Iterator[Check]:
    who, server_now = _ask("sign in and WhoAmI", client.who_am_i)
    yield Check(
        "sign in and WhoAmI", Verdict.OK, f"user {who.get('UserId')} of organization {who.get('OrganizationId')}"
    )
    if server_now is None:
        return
    skew_s = abs((now() - server_now).total_seconds())
    verdict = Verdict.OK if skew_s < SKEW_WARN_S else Verdict.WARN if skew_s < SKEW_FAIL_S else Verdict.FAIL
    mend = "" if verdict is Verdict.OK else "set this machine's clock by a time server"
    yield Check("clock", verdict, f"{skew_s:.0f} s from the server's", mend, int(verdict is Verdict.FAIL))


def _goal_tables(schema: Schema) -> Iterator[Check]:
    for name, columns in BOOK_COLUMNS.items():
        if name not in schema.tables:
            raise _Stop(Check(f"table {name}", Verdict.FAIL, "is not in this organization", exit_code=1))
        missing = [column for column in columns if column not in schema.table(name).columns]
        if missing:
            yield Check(f"table {name}", Verdict.FAIL, f"has no column {', '.join(missing)}", exit_code=1)


def _own_columns(config: Config, goals: Table) -> Iterator[Check]:
    """Check that the columns of the organization's own can take our numbers, where they are written."""
    if config.writeback.mode != COLUMNS:
        return
    faults = faults_of(config, goals)
    for fault in faults:
        mend = "change the column in Dataverse, or name another in writeback.columns"
        yield Check("columns to write", Verdict.FAIL, fault, mend, exit_code=2)
    if not faults:
        found = ", ".join(f"{target} ({source})" for source, target in config.writeback.columns.items())
        yield Check("columns to write", Verdict.OK, found)


def _sources(client: DataverseClient, book: GoalBook, schema: Schema) -> Iterator[Check]:
    """Check every table that goals count records of, and every rollup field and query."""
    names = tables_named(book) - set(schema.tables)
    more = _ask("source tables", lambda: read_schema(client, names))
    schema = Schema.of([*schema.tables.values(), *more.tables.values()])
    grouping = group_goals(book, schema, goals_to_compute(book))
    for name, columns in sorted(columns_needed(grouping.groups, schema, book.rules.hierarchy).items()):
        if name in BOOK_COLUMNS:
            continue
        table = schema.table(name)
        followed = table.change_tracking or name in CALLER_TABLES
        _ask(f"read {name}", lambda table=table, columns=columns: _read_one(client, table, columns))  # type: ignore[misc]
        yield Check(
            f"read {name}",
            Verdict.OK if followed else Verdict.WARN,
            f"{counted(len(columns), 'column')}{_tracking(table)}",
            "" if followed else "switch on change tracking for the table, so that each cycle reads only changes",
        )
    for problem in grouping.problems:
        yield Check("goal", Verdict.WARN, problem.message, problem.hint)


def _impersonation(config: Config, client: DataverseClient, users: Table, book: GoalBook) -> Iterator[Check]:
    """Act for one goal manager, where what managers may read counts."""
    if config.rollup.visibility != "manager":
        return
    name = "act for goal managers"
    known = [column for column in (OBJECT_ID, DISABLED) if column in users.columns]
    rows = {str(row[users.primary_id]): row for row in _ask(name, lambda: _read_all(client, users, known))}
    managers = sorted({goal.manager_id or "" for goal in goals_to_compute(book)})
    able = [one for one in managers if one in rows and rows[one].get(OBJECT_ID) and rows[one].get(DISABLED) is not True]
    if not able:
        mend = "goals need managers that are enabled users with an Entra object id"
        yield Check(name, Verdict.WARN, "there is no open goal whose manager it could be tried for", mend)
        return
    who, _ = _ask(name, lambda: client.who_am_i(on_behalf_of=str(rows[able[0]][OBJECT_ID])))
    if str(who.get("UserId")).lower() != able[0]:
        raise _Stop(Check(name, Verdict.FAIL, f"Dataverse took {able[0]} for {who.get('UserId')}", exit_code=1))
    few = len(able) < len(managers)
    who_can = by_count(len(able), "is an enabled user", "are enabled users")
    found = f"possible; {len(able)} of {counted(len(managers), 'manager')} {who_can} with an Entra object id"
    mend = (
        'the goals of the others cannot be computed: change them, or set rollup.visibility = "service"' if few else ""
    )
    yield Check(name, Verdict.WARN if few else Verdict.OK, found, mend)


def _bounds(book: GoalBook, config: Config) -> Iterator[Check]:
    """Warn when stored goal dates are no midnights in the configured zone: their days would be read wrongly."""
    zone = config.reading.bounds_zone or config.rollup.zone
    bounds = [bound for goal in book.goals.values() for bound in (goal.starts_at, goal.ends_at)]
    instants = [bound for bound in bounds if isinstance(bound, dt.datetime)]
    off = sum(not is_midnight(instant, zone) for instant in instants)
    if off:
        yield Check(
            "time zone",
            Verdict.WARN,
            f"{off} of {counted(len(instants), 'goal date')} {by_count(off, 'is', 'are')} not midnight in {zone.key}",
            "set rollup.time_zone to the zone of those who made the goals",
        )
    elif instants:
        found = "the goal date is" if len(instants) == 1 else f"all {len(instants):,} goal dates are"
        yield Check("time zone", Verdict.OK, f"{found} midnight in {zone.key}")


def _writable(config: Config, client: DataverseClient, table: Table, book: GoalBook) -> Iterator[Check]:
    """Ask for an update that cannot happen: with a row version no goal has, only privileges are tested.

    Assumed: the platform checks the privilege before the row version.
    """
    if config.writeback.mode == "plan":
        yield Check("write goals", Verdict.OK, f"not needed in mode {config.writeback.mode}")
        return
    goal: Goal | None = next((goal for goal in book.goals.values() if goal.is_open), None)
    if goal is None:
        yield Check("write goals", Verdict.WARN, "there is no open goal to try it on")
        return
    try:
        client.update(table, goal.id, {"title": goal.title}, if_match=NEVER_AN_ETAG, columns=())
    except ConflictError:
        yield Check("write goals", Verdict.OK, "goals may be updated")
    except AuthError as error:
        yield _failure("write goals", error)
    except RejectedError as error:
        yield Check("write goals", Verdict.WARN, f"could not be tried: {error}")


def _ask(name: str, question: Callable[[], T]) -> T:
    try:
        return question()
    except D365SyncError as error:
        raise _Stop(_failure(name, error)) from None


def _failure(name: str, error: D365SyncError) -> Check:
    return Check(name, Verdict.FAIL, str(error), error.hint, exit_code=error.exit_code)


def _read_all(client: DataverseClient, table: Table, columns: list[str]) -> list[Row]:
    return [row for page in client.rows(table, columns) for row in page.rows]


def _read_one(client: DataverseClient, table: Table, columns: frozenset[str]) -> Mapping[str, object] | None:
    page = next(iter(client.rows(table, columns)), None)
    return page.rows[0] if page is not None and page.rows else None


def _tracking(table: Table) -> str:
    return ", tracks changes" if table.change_tracking else ", no change tracking"
