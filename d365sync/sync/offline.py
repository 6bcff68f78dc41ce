"""Reading back what the last cycle left in the mirror, without the remote: for lists, status and explanations.

IO: SQL, through the mirror.
"""

from __future__ import annotations

import datetime as dt

from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.needs import columns_needed, goals_to_compute
from d365sync.core.goals.participation import group_goals
from d365sync.core.goals.rollup import Rollup
from d365sync.core.goals.writes import WritePlan, overridden_by_person, plan_writes
from d365sync.errors import UsageError
from d365sync.sync.cycle import Line, Snapshot, load_book, recompute, roll_up_all, snapshot_of
from d365sync.sync.definitions import remembered
from d365sync.sync.pull import mirror_table


def mirrored(line: Line, now: dt.datetime) -> Snapshot:
    """Return the goals and tables as mirrored.

    Raises:
        UsageError: nothing was pulled yet.
    """
    if line.mirror.position("goal") is None:
        raise UsageError("nothing has been pulled yet", hint="run `d365sync sync` (it writes nothing in mode plan)")
    schema = remembered(line.mirror)
    tables = {name: mirror_table(schema.table(name), columns) for name, columns in BOOK_COLUMNS.items()}
    book = load_book(line, tables)
    groups = group_goals(book, schema, goals_to_compute(book)).groups
    for name, columns in columns_needed(groups, schema).items():
        tables[name] = mirror_table(schema.table(name), [*BOOK_COLUMNS.get(name, ()), *columns])
    pulled = {name: table for name, table in tables.items() if line.mirror.position(name) is not None}
    return snapshot_of(line, schema, pulled, now)


def computed(line: Line, snapshot: Snapshot) -> tuple[Rollup, WritePlan]:
    """Roll up what is mirrored, and compare it with the native values."""
    theirs = overridden_by_person(snapshot.book.goals.values(), line.journal.written_values())
    rollup = roll_up_all(line.config, snapshot, recompute(line, snapshot), theirs)
    return rollup, plan_writes(snapshot.book, rollup, theirs)
