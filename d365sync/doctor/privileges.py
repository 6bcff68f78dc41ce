"""Which privileges the user has: those that are missing, and those that nothing here needs.

IO: HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from d365sync.core.counts import counted
from d365sync.core.goals.modes import PLAN
from d365sync.doctor.case import Case
from d365sync.doctor.check import Check, Verdict
from d365sync.errors import AuthError, D365SyncError
from d365sync.sync.access import ADMIN_CENTER, Held, lacking
from d365sync.sync.role import MODES, Excess, beyond, missing, needed

SHOWN = 8
"""Names of privileges that one line spells out."""
SPELLED = {name.lower(): name for mode in MODES for name in needed(mode, impersonates=True)}
VERBS = {verb.lower(): verb for verb in ("Read", "Write", "Create", "Delete", "AppendTo", "Append", "Assign", "Share")}


def held(case: Case) -> Iterator[Check]:
    """Ask which privileges the user has, and name what is missing of what every run reads."""
    try:
        case.held = case.client.privileges_of(case.user_id)
    except D365SyncError as error:
        why = f"not told ({error}); what the tables answer is judged instead"
        yield Check("privileges", Verdict.WARN, why, error.hint)
        return
    yield privileges_told(case.held)


def privileges_told(privileges: Held) -> Check:
    """Return what is said of the privileges held; where they are not told nothing is missing for certain.

    A depth that is not enough is a matter of the table that it is about.
    """
    if not privileges:
        return Check("privileges", Verdict.OK, "none are told; what the tables answer is judged instead")
    lack = [one.privilege for one in missing(privileges, needed(PLAN, ())) if not one.depth]
    if not lack:
        said = f"{counted(len(privileges), 'privilege')} held; those to read what defines goals are there"
        return Check("privileges", Verdict.OK, said)
    one = lacking(lack[0])
    few = len(lack) == 1
    found = one.found if few else f"the user's roles lack {', '.join(lack)}"
    mend = one.mend if few else f"{ADMIN_CENTER}, Security roles, the user's role: set each to Organization"
    return Check("privileges", Verdict.FAIL, found, mend, AuthError.exit_code)


def excess(case: Case) -> Iterator[Check]:
    """Say which privileges the user has that this configuration does not need; nothing is tried."""
    mode = case.config.writeback.mode
    wanted = needed(mode, case.tables, impersonates=case.config.rollup.visibility == "manager")
    if case.held:
        yield excess_told(beyond(case.held, wanted), mode)


def excess_told(extra: Sequence[Excess], mode: str) -> Check:
    """Return the line about privileges that a mode does not need."""
    if not extra:
        return Check("least privilege", Verdict.OK, f"nothing beyond reading is held that mode {mode} does not need")
    named = ", ".join(_spelled(one.privilege) for one in extra[:SHOWN])
    more = f" and {len(extra) - SHOWN:,} more" if len(extra) > SHOWN else ""
    found = f"the user has {counted(len(extra), 'privilege')} that mode {mode} does not need: {named}{more}"
    mend = "give it a role of its own, with what config/role-privileges.json lists and nothing else"
    return Check("least privilege", Verdict.WARN, found, mend)


def _spelled(name: str) -> str:
    """Return a privilege's name as people know it; it is told in lower case."""
    if name in SPELLED:
        return SPELLED[name]
    rest = name.removeprefix("prv")
    verb = next((one for one in VERBS if rest.startswith(one)), "")
    noun = rest.removeprefix(verb)
    return f"prv{VERBS.get(verb, '')}{noun[:1].upper()}{noun[1:]}"
