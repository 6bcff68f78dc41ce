"""Checking everything a run needs, without changing anything.

Each check is one line: OK, WARN or FAIL, what was found, and what mends it. A check that others need stops them when it
fails.

IO: HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Generator, Iterator

from d365sync.config import Config
from d365sync.core.counts import by_count, counted
from d365sync.core.goals.book import BOOK_COLUMNS, build_book
from d365sync.core.goals.goal import Goal, GoalBook
from d365sync.core.goals.modes import COLUMNS, PLAN
from d365sync.core.goals.needs import goals_to_compute
from d365sync.core.period import is_midnight
from d365sync.core.schema import Table
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.metadata import read_schema
from d365sync.errors import AuthError, ConflictError, D365SyncError, RejectedError
from d365sync.sync.access import Held, excess, lacking, shallow
from d365sync.sync.check import Check, Stop, Verdict, ask, failure
from d365sync.sync.kept import certificate_lasts, secrets_kept
from d365sync.sync.modes import faults_of
from d365sync.sync.readable import goal_rows, goal_tables, read_all, sources
from d365sync.sync.visibility import DISABLED, OBJECT_ID

SKEW_WARN_S = 120
SKEW_FAIL_S = 300
"""Assumed: a clock that is wrong by more is not forgiven where times of signatures are checked."""
REFUSED = 401
PRIVILEGE_TO_WRITE = "prvWriteGoal"
NEVER_AN_ETAG = 'W/"0"'


def examine(
    config: Config,
    client: DataverseClient,
    now: Callable[[], dt.datetime],
    *,
    certificate_until: dt.datetime | None = None,
) -> Iterator[Check]:
    """Yield the checks as they are made, most basic first; ends at the first that the rest depend on.

    ``certificate_until`` is the end of the certificate that signs in, None without one.
    """
    yield Check("configuration", Verdict.OK, f"{config.path or 'environment'}, mode {config.writeback.mode}")
    yield from secrets_kept(config)
    if certificate_until is not None:
        yield certificate_lasts(certificate_until, now())
    try:
        tenant = yield from _reach(client, now)
        user_id = yield from _identity(config, client, tenant)
        held = _held(client, user_id)
        schema = ask("tables that define goals", lambda: read_schema(client, BOOK_COLUMNS))
        yield from goal_tables(schema)
        rows = yield from goal_rows(client, schema, held)
        yield from _own_columns(config, schema.table("goal"))
        book = build_book(rows, config.rollup.zone, config.reading)
        yield from sources(client, book, schema, held)
        yield from _impersonation(config, client, schema.table("systemuser"), book)
        yield from _bounds(book, config)
        yield from _writable(config, client, schema.table("goal"), book, held)
        yield from _excess(config, held)
    except Stop as stop:
        yield stop.check


def _reach(client: DataverseClient, now: Callable[[], dt.datetime]) -> Generator[Check, None, str]:
    """Ask without a token: whether there is a way to the server, what time it has there, and whose tenant it is.

    Returns the tenant, empty when the server does not name it.
    """
    tenant, server_now = ask("reach", client.greet)
    yield Check("reach", Verdict.OK, f"the server answers{f', of tenant {tenant}' if tenant else ''}")
    if server_now is not None:
        yield _clock((now() - server_now).total_seconds())
    return tenant


def _clock(ahead_s: float) -> Check:
    skew_s = abs(ahead_s)
    verdict = Verdict.OK if skew_s <= SKEW_WARN_S else Verdict.WARN if skew_s <= SKEW_FAIL_S else Verdict.FAIL
    if verdict is Verdict.OK:
        return Check("clock", verdict, f"{skew_s:.0f} s from the server's")
    found = f"this machine's clock is {skew_s:,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"
    return Check("clock", verdict, found, "set this machine's clock by a time server", int(verdict is Verdict.FAIL))


def _identity(config: Config, client: DataverseClient, tenant: str) -> Generator[Check, None, str]:
    """Sign in, then ask who that is: what fails in the first is the identity, in the second its place in Dataverse."""
    try:
        client.sign_in()
    except D365SyncError as error:
        raise Stop(failure("sign in", error, _of_another_tenant(config, tenant))) from None
    yield Check("sign in", Verdict.OK, f"by {config.dataverse.auth.replace('_', ' ')}")
    try:
        who, _ = client.who_am_i()
    except AuthError as error:
        mend = _of_another_tenant(config, tenant) if error.status == REFUSED else ""
        raise Stop(failure("WhoAmI", error, mend)) from None
    except D365SyncError as error:
        raise Stop(failure("WhoAmI", error)) from None
    yield Check("WhoAmI", Verdict.OK, f"user {who.get('UserId')} of organization {who.get('OrganizationId')}")
    return str(who.get("UserId"))


def _of_another_tenant(config: Config, tenant: str) -> str:
    """Say which tenant the organization belongs to, where it is another than the configured one and tells."""
    asked = config.dataverse.tenant_id.lower()
    if not tenant or not asked or tenant == asked or "." in asked:
        return ""
    return f"the organization belongs to the tenant {tenant}: set dataverse.tenant_id to it"


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


def _impersonation(config: Config, client: DataverseClient, users: Table, book: GoalBook) -> Iterator[Check]:
    """Act for one goal manager, where what managers may read counts."""
    if config.rollup.visibility != "manager":
        return
    name = "act for goal managers"
    known = [column for column in (OBJECT_ID, DISABLED) if column in users.columns]
    rows = {str(row[users.primary_id]): row for row in ask(name, lambda: read_all(client, users, known))}
    managers = sorted({goal.manager_id or "" for goal in goals_to_compute(book)})
    able = [one for one in managers if one in rows and rows[one].get(OBJECT_ID) and rows[one].get(DISABLED) is not True]
    if not able:
        mend = "goals need managers that are enabled users with an Entra object id"
        yield Check(name, Verdict.WARN, "there is no open goal whose manager it could be tried for", mend)
        return
    who, _ = ask(name, lambda: client.who_am_i(on_behalf_of=str(rows[able[0]][OBJECT_ID])))
    if str(who.get("UserId")).lower() != able[0]:
        raise Stop(Check(name, Verdict.FAIL, f"Dataverse took {able[0]} for {who.get('UserId')}", exit_code=1))
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


def _writable(config: Config, client: DataverseClient, table: Table, book: GoalBook, held: Held) -> Iterator[Check]:
    """Look for the privilege, or, where privileges are not told, ask for an update that cannot happen.

    With a row version no goal has only privileges are tested. Assumed: the platform checks the privilege before the row
    version.
    """
    if config.writeback.mode == PLAN:
        yield Check("write goals", Verdict.OK, f"not needed in mode {config.writeback.mode}")
        return
    if held and PRIVILEGE_TO_WRITE.lower() not in held:
        lack = lacking(PRIVILEGE_TO_WRITE)
        yield Check("write goals", Verdict.FAIL, lack.found, lack.mend, AuthError.exit_code)
        return
    short = shallow(PRIVILEGE_TO_WRITE, held, "other goals cannot be written")
    if short is not None:
        yield Check("write goals", Verdict.WARN, short.found, short.mend)
        return
    goal: Goal | None = next((goal for goal in book.goals.values() if goal.is_open), None)
    if goal is None:
        yield Check("write goals", Verdict.WARN, "there is no open goal to try it on")
        return
    try:
        client.update(table, goal.id, {"title": goal.title}, if_match=NEVER_AN_ETAG, columns=())
    except ConflictError:
        yield Check("write goals", Verdict.OK, "goals may be updated")
    except RejectedError as error:
        yield Check("write goals", Verdict.WARN, f"could not be tried: {error}")
    except D365SyncError as error:
        yield failure("write goals", error)


def _held(client: DataverseClient, user_id: str) -> Held:
    """Return the user's privileges with their depths, none where they are not told."""
    try:
        return client.privileges_of(user_id)
    except D365SyncError:
        return {}


def _excess(config: Config, held: Held) -> Iterator[Check]:
    """Tell what the user could do beyond reading, where the mode writes nothing; nothing is tried."""
    if config.writeback.mode != PLAN:
        return
    more = excess(held, impersonates=config.rollup.visibility == "manager")
    if more is not None:
        yield Check("least privilege", Verdict.WARN, more.found, more.mend)
