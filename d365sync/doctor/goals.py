"""Whether the goals can be read, computed and written: tables, columns, managers, time zone.

IO: HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from d365sync.core.counts import by_count, counted
from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.goal import Goal
from d365sync.core.goals.modes import COLUMNS, PLAN
from d365sync.core.goals.needs import goals_to_compute
from d365sync.core.period import is_midnight
from d365sync.dataverse.metadata import read_schema
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Stop, Verdict, ask, failure
from d365sync.doctor.readable import goal_rows, goal_tables, read_all, sources
from d365sync.errors import AuthError, ConflictError, D365SyncError, RejectedError
from d365sync.sync.access import lacking, shallow
from d365sync.sync.modes import faults_of
from d365sync.sync.visibility import DISABLED, OBJECT_ID

PRIVILEGE_TO_WRITE = "prvWriteGoal"
NEVER_AN_ETAG = 'W/"0"'


def definitions(case: Case) -> Iterator[Check]:
    """Read the definitions of the tables that define goals; a line for each thing that is not there.

    Raises:
        Stop: they cannot be read, or a table is missing.
    """
    case.schema = ask("tables that define goals", lambda: read_schema(case.client, BOOK_COLUMNS))
    yield from goal_tables(case.schema)
    yield Check("tables that define goals", Verdict.OK, f"{counted(len(BOOK_COLUMNS), 'table')} are there")


def defining(case: Case) -> Iterator[Check]:
    """Read every row of the tables that define goals.

    Raises:
        Stop: one may not be read.
    """
    case.rows = yield from goal_rows(case.client, case.schema, case.held)


def counted_tables(case: Case) -> Iterator[Check]:
    """Read one page of every table that goals count records of."""
    case.tables = yield from sources(case.client, case.book, case.schema, case.held)


def writes_columns(case: Case) -> bool:
    """Say whether columns of the organization's own are written."""
    return case.config.writeback.mode == COLUMNS


def own_columns(case: Case) -> Iterator[Check]:
    """Check that the columns of the organization's own can take our numbers."""
    config = case.config
    faults = faults_of(config, case.schema.table("goal"))
    for fault in faults:
        mend = "change the column in Dataverse, or name another in writeback.columns"
        yield Check("columns to write", Verdict.FAIL, fault, mend, exit_code=2)
    if not faults:
        found = ", ".join(f"{target} ({source})" for source, target in config.writeback.columns.items())
        yield Check("columns to write", Verdict.OK, found)


def asks_for_managers(case: Case) -> bool:
    """Say whether what goal managers may read counts."""
    return case.config.rollup.visibility == "manager"


def managers(case: Case) -> Iterator[Check]:
    """Act for one goal manager.

    Raises:
        Stop: it cannot be done.
    """
    name, client, users = "act for goal managers", case.client, case.schema.table("systemuser")
    known = [column for column in (OBJECT_ID, DISABLED) if column in users.columns]
    rows = {str(row[users.primary_id]): row for row in ask(name, lambda: read_all(client, users, known))}
    named = sorted({goal.manager_id or "" for goal in goals_to_compute(case.book)})
    able = [one for one in named if one in rows and rows[one].get(OBJECT_ID) and rows[one].get(DISABLED) is not True]
    if not able:
        mend = "goals need managers that are enabled users with an Entra object id"
        yield Check(name, Verdict.WARN, "there is no open goal whose manager it could be tried for", mend)
        return
    who, _ = ask(name, lambda: client.who_am_i(on_behalf_of=str(rows[able[0]][OBJECT_ID])))
    if str(who.get("UserId")).lower() != able[0]:
        raise Stop(Check(name, Verdict.FAIL, f"Dataverse took {able[0]} for {who.get('UserId')}", exit_code=1))
    few = len(able) < len(named)
    who_can = by_count(len(able), "is an enabled user", "are enabled users")
    found = f"possible; {len(able)} of {counted(len(named), 'manager')} {who_can} with an Entra object id"
    mend = (
        'the goals of the others cannot be computed: change them, or set rollup.visibility = "service"' if few else ""
    )
    yield Check(name, Verdict.WARN if few else Verdict.OK, found, mend)


def bounds(case: Case) -> Iterator[Check]:
    """Warn when stored goal dates are no midnights in the configured zone: their days would be read wrongly."""
    config, book = case.config, case.book
    zone = config.reading.bounds_zone or config.rollup.zone
    stored = [bound for goal in book.goals.values() for bound in (goal.starts_at, goal.ends_at)]
    instants = [bound for bound in stored if isinstance(bound, dt.datetime)]
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


def writable(case: Case) -> Iterator[Check]:
    """Look for the privilege, or, where privileges are not told, ask for an update that cannot happen.

    With a row version no goal has only privileges are tested. Assumed: the platform checks the privilege before the row
    version.
    """
    if case.config.writeback.mode == PLAN:
        yield Check("write goals", Verdict.OK, f"not needed in mode {PLAN}")
        return
    if case.held and PRIVILEGE_TO_WRITE.lower() not in case.held:
        lack = lacking(PRIVILEGE_TO_WRITE)
        yield Check("write goals", Verdict.FAIL, lack.found, lack.mend, AuthError.exit_code)
        return
    short = shallow(PRIVILEGE_TO_WRITE, case.held, "other goals cannot be written")
    if short is not None:
        yield Check("write goals", Verdict.WARN, short.found, short.mend)
        return
    goal = next((goal for goal in case.book.goals.values() if goal.is_open), None) if case.rows else None
    yield _tried(case, goal) if goal else Check("write goals", Verdict.WARN, "there is no open goal to try it on")


def _tried(case: Case, goal: Goal) -> Check:
    try:
        case.client.update(
            case.schema.table("goal"), goal.id, {"title": goal.title}, if_match=NEVER_AN_ETAG, columns=()
        )
    except ConflictError:
        return Check("write goals", Verdict.OK, "goals may be updated")
    except RejectedError as error:
        return Check("write goals", Verdict.WARN, f"could not be tried: {error}")
    except D365SyncError as error:
        return failure("write goals", error)
    return Check("write goals", Verdict.WARN, "an update that could not happen was answered as done")
