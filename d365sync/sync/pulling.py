"""What a cycle pulls, and in which order: what was pulled the last time, then what the goals need besides.

IO: HTTP and SQL, through the client and the mirror.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace

import structlog

from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.needs import columns_needed, goals_to_compute, labels_tested, tables_named, tables_referred
from d365sync.core.goals.participation import group_goals
from d365sync.core.schema import Schema, Table
from d365sync.errors import MisfitError, RejectedError, SchemaError
from d365sync.mirror.store import Mirror
from d365sync.mirror.tables import MirrorTable
from d365sync.sync.definitions import definitions, labelled, oldest_definition
from d365sync.sync.guarding import Warden
from d365sync.sync.modes import faults_of, own_columns
from d365sync.sync.pull import UNKNOWN_COLUMN, Puller, TablePull, mirror_table
from d365sync.sync.snapshot import Line, Snapshot, Widen, as_it_is, load_book, snapshot_of
from d365sync.sync.visibility import MANAGER_COLUMNS

log = structlog.get_logger(__name__)

LATE_TABLES = ("systemuser", "team")
"""Book tables that rollup queries often link to: pulled after it is known which columns they need."""


TRUSTED = dt.timedelta(minutes=10)
"""Age up to which remembered definitions are not doubted when a rollup field or query does not fit them."""
UNFIT = ("rollup-query-unusable", "rollup-field-unusable")


def pull_fitting(
    line: Line, now: dt.datetime, warden: Warden | None = None, widen: Widen = as_it_is
) -> tuple[tuple[TablePull, ...], Snapshot]:
    """Pull as of :func:`pull_all`; if something does not fit the remembered definitions, read those and pull again.

    What still does not fit then, or fits definitions just read as little, is the record's own fault.
    """
    remembered = oldest_definition(line.mirror)
    old = remembered is not None and now - remembered > TRUSTED
    try:
        recent = remembered is not None and not old
        pulls, snapshot = pull_all(line, now, warden, widen, keep_damaged=recent)
    except (MisfitError, RejectedError) as error:
        if isinstance(error, RejectedError) and (remembered is None or error.code not in UNKNOWN_COLUMN):
            raise
        log.warning("definitions.stale", reason=str(error))
    else:
        unfit = old and any(problem.code in UNFIT for problem in snapshot.grouping.problems)
        changed = remembered is not None and faults_of(line.config, snapshot.schema.table("goal"))
        if not unfit and not changed:
            return pulls, snapshot
    line.mirror.forget_definitions()
    return pull_all(line, now, warden, widen, fresh=True, keep_damaged=True)


def pull_all(
    line: Line,
    now: dt.datetime,
    warden: Warden | None = None,
    widen: Widen = as_it_is,
    *,
    fresh: bool = False,
    keep_damaged: bool = False,
) -> tuple[tuple[TablePull, ...], Snapshot]:
    """Pull what was pulled the last time, all at once; then what the goals need besides. ``fresh`` are the definitions.

    ``keep_damaged``: see :class:`Puller`. ``widen`` gives the book whose open goals are to be computed, from the one
    that was read.

    The first time, the tables that define goals come first: they name the others.

    Raises:
        GuardError: rows are gone from a table that are not believed to be, nor accepted by the ``warden``.
    """
    puller = Puller(
        client=line.client,
        mirror=line.mirror,
        rules=line.config.pull,
        now=now,
        watcher=line.watcher,
        definitions_are_fresh=fresh,
        keep_damaged=keep_damaged,
        guards=line.config.guards.rules,
    )
    before = set(line.mirror.bookmarks())
    schema = definitions(line.client, line.mirror, {*BOOK_COLUMNS, *before}, now)
    own = {"goal": own_columns(line.config)}
    extra = {name: (*line.mirror.columns_of(name), *own.get(name, ())) for name in BOOK_COLUMNS}
    tables = {name: _book_table(schema, name, extra[name]) for name in BOOK_COLUMNS}
    first = {name: table for name, table in tables.items() if name in before or name not in LATE_TABLES}
    others = sorted(before & schema.tables.keys() - tables.keys())
    first |= {name: mirror_table(schema.table(name), line.mirror.columns_of(name)) for name in others}
    pulls = puller.pull(list(first.values()))
    schema, needed = _needs(line, schema, widen(load_book(line, tables)), now)
    for name in [*LATE_TABLES, *sorted(set(needed) - set(LATE_TABLES))]:
        known = tables[name].wanted if name in tables else frozenset()
        tables[name] = _merged(schema, name, known | needed.get(name, frozenset()))
    late = [table for name, table in tables.items() if name not in first or table.shape != first[name].shape]
    for some in _rounds(line.mirror, late):
        pulls += puller.pull(some)
    line.mirror.forget_positions(first.keys() - tables.keys())
    last = {pull.name: pull for pull in pulls if pull.name in tables}
    withheld = {name: one for name, one in puller.withheld.items() if name in tables}
    removed = (warden or Warden(line, "")).remove(withheld)
    last |= {name: replace(last[name], deleted=last[name].deleted + count) for name, count in removed.items()}
    return tuple(last.values()), snapshot_of(line, schema, tables, now, widen)


def _needs(line: Line, schema: Schema, book: GoalBook, now: dt.datetime) -> tuple[Schema, Mapping[str, frozenset[str]]]:
    """Return the definitions of all that the goals name, and the columns they need by table."""
    schema = Schema.of([*schema.tables.values(), *_more(line, schema, tables_named(book), now)])
    schema = Schema.of([*schema.tables.values(), *_more(line, schema, tables_referred(book, schema), now)])
    schema = labelled(line.client, line.mirror, schema, labels_tested(book, schema), now)
    grouping = group_goals(book, schema, goals_to_compute(book))
    needed = columns_needed(grouping.groups, schema, book.rules.hierarchy)
    if line.config.rollup.visibility == "manager":
        needed = {**needed, **{name: needed.get(name, frozenset()) | more for name, more in MANAGER_COLUMNS.items()}}
    return schema, needed


def _rounds(mirror: Mirror, tables: list[MirrorTable]) -> list[list[MirrorTable]]:
    """Return the tables to pull together; before a first load the small ones, whose delta tokens may serve it."""
    rest = [table for table in tables if table.name not in LATE_TABLES]
    if all(mirror.position(table.name) for table in rest):
        return [tables]
    return [[table for table in tables if table.name in LATE_TABLES], rest]


def _more(line: Line, schema: Schema, names: Iterable[str], now: dt.datetime) -> Iterable[Table]:
    return definitions(line.client, line.mirror, set(names) - set(schema.tables), now).tables.values()


def _book_table(schema: Schema, name: str, extra: Iterable[str]) -> MirrorTable:
    if name not in schema.tables:
        raise SchemaError(f"this organization has no table '{name}', which goals need", table=name)
    return mirror_table(schema.table(name), [*BOOK_COLUMNS[name], *extra])


def _merged(schema: Schema, name: str, needed: Iterable[str]) -> MirrorTable:
    return mirror_table(schema.table(name), [*BOOK_COLUMNS.get(name, ()), *needed])
