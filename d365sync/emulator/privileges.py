"""Who may do what with which row: security roles, depths, teams and shares.

An organization without a single role knows no restrictions: everybody may do everything. Otherwise a right on a row
needs the privilege (``prvReadOpportunity``) from some role, and the row within that privilege's depth or shared.

Source: Security concepts in Microsoft Dataverse; PrivilegeDepth (masks 1 basic, 2 local, 4 deep, 8 global);
Impersonate another user (both users need the privilege; it must be assigned to the impersonator directly);
Security roles and privileges (member's privilege inheritance).

``Assumed:``

- basic depth covers rows of the user's teams as well as the user's own
- product lines are seen with their parent, also through a share of the parent
- a role of a team with "team privileges only" gives, at basic depth, the rows that team owns

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from d365sync.core.values import Row, Value
from d365sync.emulator.facts import Ownership, TableFacts
from d365sync.emulator.refuse import missing_privilege, no_such_user
from d365sync.emulator.store import Store

Test = Callable[[Row], bool]

SYSTEM_ADMINISTRATOR = "627090ff-40a3-4053-8790-584edc5be201"
"""Template of the role that has every privilege at global depth. Source: Security roles and privileges."""
ACT_ON_BEHALF = "prvActOnBehalfOfAnotherUser"
SHARED_RIGHTS = {"Read": 1, "Write": 2, "Delete": 65536}
"""Bits of ``accessrightsmask``. Source: AccessRights enumeration."""
TEAM_PRIVILEGES_ONLY = 0


class Depth(IntEnum):
    """How far a privilege reaches, as ``privilegedepthmask`` spells it."""

    NONE = 0
    BASIC = 1
    LOCAL = 2
    DEEP = 4
    GLOBAL = 8


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is made as; ``real_id`` is the user who impersonates, None when nobody does."""

    user_id: str
    real_id: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """One privilege from one role: its depth, the owners that basic depth covers, and the holder's business unit."""

    depth: Depth
    owners: frozenset[str]
    unit: Value


@dataclass(frozen=True, slots=True)
class _Held:
    """A role as one principal holds it."""

    role: Row
    owners: frozenset[str]
    unit: Value


class Rights:
    """What one user or team may do, as the store's rows say now."""

    def __init__(self, store: Store, principal_id: str) -> None:
        self._store = store
        self.id = principal_id

    def holds(self, privilege: str, *, directly: bool = False) -> bool:
        """Say whether the principal has a privilege at any depth; ``directly``: not through a team."""
        return bool(self._grants(privilege, self._own_roles if directly else self._roles))

    def counts(self) -> tuple[int, int]:
        """Return the numbers of roles and of their privileges, as error texts tell them."""
        ids = {one.role["roleid"] for one in self._roles}
        return len(ids), sum(row.get("roleid") in ids for row in self._store.rows("roleprivileges").values())

    def held(self) -> dict[str, Depth]:
        """Return every privilege the principal has from a role, with its greatest depth."""
        names = [str(row.get("name")) for row in self._store.rows("privilege").values()]
        depths = {
            name: max((one.depth for one in self._grants(name, self._roles)), default=Depth.NONE) for name in names
        }
        return {name: depth for name, depth in depths.items() if depth is not Depth.NONE}

    def depth(self, verb: str, facts: TableFacts) -> Depth:
        """Return the greatest depth of ``prv<verb><table>``."""
        grants = self._grants(f"prv{verb}{facts.privilege}", self._roles)
        return max((grant.depth for grant in grants), default=Depth.NONE)

    def test(self, verb: str, facts: TableFacts) -> Test:
        """Return the test whether the principal may read, write or delete a row of a table."""
        grants = self._grants(f"prv{verb}{facts.privilege}", self._roles)
        depth = max((grant.depth for grant in grants), default=Depth.NONE)
        if depth is Depth.NONE:
            return _never
        if depth is Depth.GLOBAL or facts.ownership in (Ownership.ORGANIZATION, Ownership.NONE):
            return _always
        owners = frozenset(owner for grant in grants for owner in grant.owners)
        units = frozenset(unit for grant in grants for unit in self._units(grant))
        shared = self._shared(SHARED_RIGHTS.get(verb, 0))

        def within(row: Row) -> bool:
            home = _home(self._store, facts, row)
            return home is not None and (home.owner in owners or home.unit in units or home.id in shared)

        return within

    @cached_property
    def _teams(self) -> frozenset[str]:
        rows = self._store.referring("teammembership", "systemuserid", self.id)
        return frozenset(str(row["teamid"]) for row in rows)

    @cached_property
    def _principals(self) -> frozenset[str]:
        return self._teams | {self.id}

    @cached_property
    def _own_roles(self) -> tuple[_Held, ...]:
        held = [*self._assigned("systemuserroles", "systemuserid", self.id), *self._assigned_to_team(self.id)]
        return tuple(_Held(role, self._principals, _unit_of(self._store, self.id)) for role in held)

    @cached_property
    def _roles(self) -> tuple[_Held, ...]:
        through_teams = [
            _Held(role, self._owners_through(team, role), _unit_of(self._store, team))
            for team in sorted(self._teams)
            for role in self._assigned_to_team(team)
        ]
        return (*self._own_roles, *through_teams)

    def _owners_through(self, team: str, role: Row) -> frozenset[str]:
        return frozenset({team}) if role.get("isinherited") == TEAM_PRIVILEGES_ONLY else self._principals | {team}

    def _assigned_to_team(self, team: str) -> Iterator[Row]:
        return self._assigned("teamroles", "teamid", team)

    def _assigned(self, table: str, column: str, principal: str) -> Iterator[Row]:
        for row in self._store.referring(table, column, principal):
            role = self._store.get("role", row.get("roleid"))
            if role is not None:
                yield role

    def _grants(self, privilege: str, roles: tuple[_Held, ...]) -> list[Grant]:
        wanted = privilege.lower()
        found = ((_depth_in(self._store, one.role, wanted), one) for one in roles)
        return [Grant(depth, one.owners, one.unit) for depth, one in found if depth is not Depth.NONE]

    def _units(self, grant: Grant) -> frozenset[Value]:
        if grant.depth is Depth.LOCAL:
            return frozenset({grant.unit})
        return _below(self._store, grant.unit) if grant.depth is Depth.DEEP else frozenset()

    def _shared(self, right: int) -> frozenset[Value]:
        """Return the ids of rows shared with the user or the user's teams with a right."""
        rows = self._store.rows("principalobjectaccess").values()
        return frozenset(
            row.get("objectid")
            for row in rows
            if row.get("principalid") in self._principals and _mask(row, "accessrightsmask") & right
        )


@dataclass(frozen=True, slots=True)
class Access:
    """What all of some principals may do; none of them (an organization without roles) means everything."""

    parties: tuple[Rights, ...] = ()

    def lacking(self, privilege: str) -> Rights | None:
        """Return the first who lacks a privilege, None when all have it."""
        return next((one for one in self.parties if not one.holds(privilege)), None)

    def held(self) -> dict[str, Depth]:
        """Return the privileges of the first principal, none where nobody is restricted."""
        return self.parties[0].held() if self.parties else {}

    def short_of_global(self, verb: str, facts: TableFacts) -> Rights | None:
        """Return the first whose privilege on a table does not reach the whole organization, None when all do."""
        return next((one for one in self.parties if one.depth(verb, facts) is not Depth.GLOBAL), None)

    def test(self, verb: str, facts: TableFacts) -> Test | None:
        """Return the test whether all may read, write or delete a row; None when every row passes."""
        tests = [test for one in self.parties if (test := one.test(verb, facts)) is not _always]
        if not tests:
            return None
        return lambda row: all(test(row) for test in tests)


def access_of(store: Store, caller: Caller) -> Access:
    """Return what a caller may do; impersonating, both users need the right."""
    return _access(store, [caller.user_id, *([caller.real_id] if caller.real_id else [])])


def access_of_principal(store: Store, principal_id: str) -> Access:
    """Return what one user or team may do by itself."""
    return _access(store, [principal_id])


def visible_rows(store: Store, caller: Caller, table: str) -> list[Row]:
    """Return the rows of a table that a caller may read, in the store's order."""
    test = access_of(store, caller).test("Read", store.catalogue.tables[table])
    return [row for row in store.rows(table).values() if test is None or test(row)]


def caller_of(store: Store, user_id: str, *, object_id: str | None = None, system_user_id: str | None = None) -> Caller:
    """Return who a call is made as, when a user asks to act for the user with an Entra object id or a user id.

    The object id wins when both are given (Assumed:). Whoever names oneself does not impersonate.
    Source: Impersonate another user using the Web API.

    Raises:
        Refusal: there is no such user, or prvActOnBehalfOfAnotherUser is missing.
    """
    if object_id is None and system_user_id is None:
        return Caller(user_id)
    column, wanted = ("azureactivedirectoryobjectid", object_id) if object_id else ("systemuserid", system_user_id)
    text = str(wanted).strip().strip("{}").lower()
    found = next((row for row in store.rows("systemuser").values() if row.get(column) == text), None)
    if found is not None and found["systemuserid"] == user_id:
        return Caller(user_id)
    _check_impersonator(store, user_id)
    if found is None or found.get("isdisabled") is True:
        raise no_such_user(text, disabled=found is not None)
    return Caller(str(found["systemuserid"]), user_id)


def _check_impersonator(store: Store, user_id: str) -> None:
    named = {one.lower() for one in store.settings.missing_privileges}
    restricted = _access(store, [user_id]).parties
    if ACT_ON_BEHALF.lower() in named or any(not one.holds(ACT_ON_BEHALF, directly=True) for one in restricted):
        counts = Rights(store, user_id).counts()
        raise missing_privilege(ACT_ON_BEHALF, "systemuser", 8, user_id, counts)


def _access(store: Store, principal_ids: list[str]) -> Access:
    return Access(tuple(Rights(store, one) for one in principal_ids) if store.rows("role") else ())


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a row belongs: the row that shares are about, its owner and its business unit."""

    id: str
    owner: Value
    unit: Value


def _home(store: Store, facts: TableFacts, row: Row) -> _Home | None:
    """Return where a row belongs; None when it belongs to a parent that is not there."""
    if facts.ownership is Ownership.PARENT:
        parent = store.get("opportunity", row.get("opportunityid"))
        return None if parent is None else _home(store, store.catalogue.tables["opportunity"], parent)
    row_id = str(row[facts.key])
    if facts.ownership is Ownership.BUSINESS_UNIT:
        return _Home(row_id, row_id, row_id if facts.name == "businessunit" else row.get("businessunitid"))
    owner = row.get("ownerid")
    return _Home(row_id, owner, row.get("owningbusinessunit") or _unit_of(store, owner))


def _unit_of(store: Store, principal_id: Value) -> Value:
    principal = store.get("systemuser", principal_id) or store.get("team", principal_id) or {}
    return principal.get("businessunitid")


def _below(store: Store, unit: Value) -> frozenset[Value]:
    """Return a business unit and all below it."""
    found: set[Value] = set()
    pending = [unit]
    while pending:
        one = pending.pop()
        if one is not None and one not in found:
            found.add(one)
            pending += [
                row["businessunitid"] for row in store.referring("businessunit", "parentbusinessunitid", str(one))
            ]
    return frozenset(found)


def _depth_in(store: Store, role: Row, privilege: str) -> Depth:
    if role.get("roletemplateid") == SYSTEM_ADMINISTRATOR:
        return Depth.GLOBAL
    masks = [
        _mask(row, "privilegedepthmask")
        for row in store.referring("roleprivileges", "roleid", str(role["roleid"]))
        if str((store.get("privilege", row.get("privilegeid")) or {}).get("name")).lower() == privilege
    ]
    return max((depth for depth in Depth for mask in masks if mask & depth), default=Depth.NONE)


def _mask(row: Row, column: str) -> int:
    mask = row.get(column)
    return mask if isinstance(mask, int) else 0


def _always(_row: Row) -> bool:
    return True


def _never(_row: Row) -> bool:
    return False
