"""Reading back what the last cycle left in the mirror, without the remote: for lists, status and explanations.

IO: SQL, through the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace

from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.doubles import double_problems
from d365sync.core.goals.needs import columns_needed, goals_to_compute
from d365sync.core.goals.participation import group_goals
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.writes import WritePlan, overridden_by_person
from d365sync.core.schema import Schema
from d365sync.errors import UsageError
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.collecting import uncollected
from d365sync.sync.cycle import known_visibility, plan_of, recompute, roll_up_all
from d365sync.sync.definitions import remembered
from d365sync.sync.doubles import kept_doubles
from d365sync.sync.modes import own_columns
from d365sync.sync.pull import mirror_table
from d365sync.sync.pulling import LATE_TABLES
from d365sync.sync.snapshot import Line, Snapshot, load_book, snapshot_of


def mirrored(line: Line, now: dt.datetime) -> Snapshot:
    """Return the goals and tables as mirrored.

    Raises:
        UsageError: nothing was pulled yet, or the last pull did not come to its end.
    """
    if line.mirror.position("goal") is None:
        raise UsageError("nothing has been pulled yet", hint="run `d365sync sync` (it writes nothing in mode plan)")
    schema = remembered(line.mirror)
    own = {"goal": own_columns(line.config)}
    tables = {
        name: _table(schema, name, [*columns, *line.mirror.columns_of(name), *own.get(name, ())])
        for name, columns in BOOK_COLUMNS.items()
    }
    _check(line, (table for name, table in tables.items() if name not in LATE_TABLES))
    book = load_book(line, tables)
    groups = group_goals(book, schema, goals_to_compute(book)).groups
    for name, columns in columns_needed(groups, schema, book.rules.hierarchy).items():
        tables[name] = _table(schema, name, [*(tables[name].wanted if name in tables else ()), *columns])
    _check(line, tables.values())
    return snapshot_of(line, schema, tables, now)


def computed(line: Line, snapshot: Snapshot) -> tuple[Rollup, WritePlan]:
    """Roll up what is mirrored, and compare it with the native values."""
    theirs = overridden_by_person(snapshot.book.goals.values(), line.journal.written_values(snapshot.book.goals))
    with uncollected():
        recomputed = recompute(line, snapshot, settle=False, visibility=known_visibility(line, snapshot))
        rollup = roll_up_all(line.config, snapshot, recomputed, theirs)
        doubled = double_problems(snapshot.book, kept_doubles(line, snapshot))
        rollup = replace(rollup, problems=(*rollup.problems, *doubled))
        return rollup, plan_of(line, snapshot, rollup, theirs)


def _table(schema: Schema, name: str, columns: Iterable[str]) -> MirrorTable:
    if name not in schema.tables:
        raise _unfinished(name)
    return mirror_table(schema.table(name), columns)


def _check(line: Line, tables: Iterable[MirrorTable]) -> None:
    for table in tables:
        if not line.mirror.is_pulled(table):
            raise _unfinished(table.name)


def _unfinished(name: str) -> UsageError:
    return UsageError(
        f"the table '{name}' has not been pulled as the goals need it: the last sync did not come to its end",
        hint="run `d365sync sync` again",
    )
