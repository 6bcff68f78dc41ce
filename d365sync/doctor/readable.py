"""Whether the tables that a run needs are there, with their columns, may be read, and tell their changes.

IO: HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator

from d365sync.core.counts import counted
from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.callers import CALLER_TABLES
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.needs import columns_needed, goals_to_compute, tables_named
from d365sync.core.goals.participation import group_goals
from d365sync.core.schema import Schema, Table
from d365sync.core.values import Row
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.metadata import read_schema
from d365sync.doctor.check import Check, Stop, Verdict, ask, failure
from d365sync.errors import AuthError, D365SyncError
from d365sync.sync.access import Held, lack_of, reading, shallow

NO_CHANGES = "changes cannot be tracked"
NOT_ALL = "what is beyond does not count"


def goal_tables(schema: Schema) -> Iterator[Check]:
    """Check that the tables that define goals are there, with every column that is read of them."""
    for name, columns in BOOK_COLUMNS.items():
        if name not in schema.tables:
            raise Stop(Check(f"table {name}", Verdict.FAIL, "is not in this organization", exit_code=1))
        missing = [column for column in columns if column not in schema.table(name).columns]
        if missing:
            yield Check(f"table {name}", Verdict.FAIL, f"has no column {', '.join(missing)}", exit_code=1)


def goal_rows(client: DataverseClient, schema: Schema, held: Held) -> Generator[Check, None, dict[str, list[Row]]]:
    """Read every table that defines goals, and name all that may not be read before giving up.

    Raises:
        Stop: one may not, or cannot, be read.
    """
    rows: dict[str, list[Row]] = {}
    for name, columns in BOOK_COLUMNS.items():
        table = schema.table(name)
        known = [column for column in columns if column in table.columns]
        try:
            rows[name] = read_all(client, table, known)
        except AuthError as error:
            yield failure(f"read {name}", error)
            continue
        except D365SyncError as error:
            raise Stop(failure(f"read {name}", error)) from None
        found = f"{counted(len(rows[name]), 'row')}{_tracking(table)}"
        yield _followed(client, table, known, held, found)
    if len(rows) < len(BOOK_COLUMNS):
        raise Stop(Check("goals", Verdict.WARN, "not checked: what defines them may not be read"))
    return rows


def sources(
    client: DataverseClient, book: GoalBook, schema: Schema, held: Held
) -> Generator[Check, None, tuple[str, ...]]:
    """Check every table that goals count records of, and every rollup field and query; return these tables' names."""
    names = tables_named(book) - set(schema.tables)
    more = ask("source tables", lambda: read_schema(client, names))
    schema = Schema.of([*schema.tables.values(), *more.tables.values()])
    grouping = group_goals(book, schema, goals_to_compute(book))
    columns_of = columns_needed(grouping.groups, schema, book.rules.hierarchy)
    for name, columns in sorted(columns_of.items()):
        if name in BOOK_COLUMNS:
            continue
        table = schema.table(name)
        try:
            next(iter(client.rows(table, columns)), None)
        except AuthError as error:
            yield failure(f"read {name}", error)
            continue
        except D365SyncError as error:
            raise Stop(failure(f"read {name}", error)) from None
        followed = table.change_tracking or name in CALLER_TABLES
        mend = "" if followed else "switch on change tracking for the table, so that each cycle reads only changes"
        yield _followed(client, table, columns, held, f"{counted(len(columns), 'column')}{_tracking(table)}", mend)
    told = Counter((problem.message, problem.hint) for problem in grouping.problems)
    for (message, hint), goals in told.items():
        yield Check("goal", Verdict.WARN, f"{message} ({counted(goals, 'goal')})", hint)
    return tuple(columns_of)


def read_all(client: DataverseClient, table: Table, columns: list[str]) -> list[Row]:
    """Return every row of a table.

    Raises:
        RemoteError, ProtocolError: as every read.
    """
    return [row for page in client.rows(table, columns) for row in page.rows]


def _followed(
    client: DataverseClient, table: Table, columns: Iterable[str], held: Held, found: str, mend: str = ""
) -> Check:
    """Return the check of a table that may be read: all of its rows must be, and its changes where they are tracked."""
    name = f"read {table.logical_name}"
    privilege = reading(table.logical_name)
    if table.change_tracking:
        try:
            next(iter(client.tracked_rows(table, columns)), None)
        except AuthError as error:
            return _not_tracked(name, error, held)
        except D365SyncError as error:
            return failure(name, error)
    short = shallow(privilege, held, NOT_ALL)
    if short is not None:
        return Check(name, Verdict.WARN, short.found, short.mend)
    return Check(name, Verdict.WARN if mend else Verdict.OK, found, mend)


def _not_tracked(name: str, error: AuthError, held: Held) -> Check:
    """Return the check of a table that may be read, but not its changes: the privilege is not deep enough.

    Source: Use change tracking (read at organization level).
    """
    lack = lack_of(error)
    if lack is None or not lack.privilege:
        return failure(name, error)
    short = shallow(lack.privilege, {lack.privilege.lower(): "less than Organization", **held}, NO_CHANGES)
    return (
        failure(name, error) if short is None else Check(name, Verdict.FAIL, short.found, short.mend, error.exit_code)
    )


def _tracking(table: Table) -> str:
    return ", tracks changes" if table.change_tracking else ", no change tracking"
