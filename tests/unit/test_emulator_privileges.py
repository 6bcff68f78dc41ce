"""Who may see which rows: depth by depth, through roles, teams and shares, alone and impersonating."""

from __future__ import annotations

import datetime as dt

import pytest

from d365sync.core.values import Value
from d365sync.emulator.clock import Clock
from d365sync.emulator.privileges import (
    SYSTEM_ADMINISTRATOR,
    Access,
    Caller,
    Depth,
    access_of,
    access_of_principal,
    caller_of,
    visible_rows,
)
from d365sync.emulator.refuse import Refusal
from d365sync.emulator.schema.loader import build_catalogue
from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.store import Store

CATALOGUE = build_catalogue({}, {})
NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
OWNERS = {"ann": "north", "bob": "north", "eve": "south", "kim": "west", "desk": "south"}


class Org:
    """Company above north and south, west below north; Ann, Bob and Eve own one deal each, and so does a team."""

    def __init__(self, settings: EmulatorSettings | None = None) -> None:
        self.store = Store(CATALOGUE, Clock(NOW), settings or EmulatorSettings())
        self.put("businessunit", "company")
        for unit, parent in {"north": "company", "south": "company", "west": "north"}.items():
            self.put("businessunit", unit, parentbusinessunitid=parent)
        for name, unit in OWNERS.items():
            table = "team" if name == "desk" else "systemuser"
            self.put(table, name, businessunitid=unit)
            self.put(
                "opportunity", f"{name}'s", ownerid=name, owneridtype=table, owningbusinessunit=unit, name=f"{name}'s"
            )
        self.put("opportunityproduct", "line", opportunityid="bob's")

    def put(self, table: str, row_id: str, /, **columns: Value) -> None:
        self.store.put(table, {self.store.catalogue.tables[table].key: row_id, **columns})

    def role(self, name: str, depth: Depth, *privileges: str, **columns: Value) -> None:
        self.put("role", name, **columns)
        for privilege in privileges or ("prvReadOpportunity",):
            self.put("privilege", privilege, name=privilege)
            ids: dict[str, Value] = {"roleid": name, "privilegeid": privilege}
            self.put("roleprivileges", f"{name} {privilege}", **ids, privilegedepthmask=int(depth))

    def give(self, role: str, user: str) -> None:
        self.put("systemuserroles", f"{role} {user}", systemuserid=user, roleid=role)

    def give_team(self, role: str, team: str) -> None:
        self.put("teamroles", f"{role} {team}", teamid=team, roleid=role)

    def join(self, user: str, team: str) -> None:
        self.put("teammembership", f"{user} {team}", systemuserid=user, teamid=team)

    def share(self, row: str, principal: str, mask: int) -> None:
        self.put(
            "principalobjectaccess", f"{row} {principal}", objectid=row, principalid=principal, accessrightsmask=mask
        )

    def seen(self, user: str, table: str = "opportunity") -> set[str]:
        key = self.store.catalogue.tables[table].key
        return {str(row[key]) for row in visible_rows(self.store, Caller(user), table)}


@pytest.mark.parametrize(
    ("depth", "seen"),
    [
        (Depth.NONE, set()),
        (Depth.BASIC, {"ann's"}),
        (Depth.LOCAL, {"ann's", "bob's"}),
        (Depth.DEEP, {"ann's", "bob's", "kim's"}),
        (Depth.GLOBAL, {"ann's", "bob's", "kim's", "eve's", "desk's"}),
    ],
)
def test_how_far_a_depth_reaches(depth: Depth, seen: set[str]) -> None:
    org = Org()
    org.role("seller", depth)
    org.give("seller", "ann")
    assert org.seen("ann") == seen


def test_without_roles_everybody_sees_everything() -> None:
    org = Org()
    assert len(org.seen("ann")) == len(OWNERS)
    assert access_of(org.store, Caller("ann")) == Access()


def test_with_roles_somebody_without_one_sees_nothing() -> None:
    org = Org()
    org.role("seller", Depth.GLOBAL)
    assert org.seen("ann") == set()


def test_the_wider_of_two_roles_decides() -> None:
    org = Org()
    org.role("seller", Depth.BASIC)
    org.role("lead", Depth.LOCAL)
    org.give("seller", "ann")
    org.give("lead", "ann")
    assert org.seen("ann") == {"ann's", "bob's"}


def test_basic_depth_covers_the_rows_of_ones_teams() -> None:
    org = Org()
    org.role("seller", Depth.BASIC)
    org.give("seller", "ann")
    org.join("ann", "desk")
    assert org.seen("ann") == {"ann's", "desk's"}


def test_a_teams_role_reaches_from_the_teams_unit() -> None:
    org = Org()
    org.role("local", Depth.LOCAL)
    org.give_team("local", "desk")
    org.join("ann", "desk")
    assert org.seen("ann") == {"ann's", "eve's", "desk's"}


@pytest.mark.parametrize(("inherited", "seen"), [(1, {"ann's", "desk's"}), (0, {"desk's"})])
def test_a_teams_basic_role_covers_ones_own_rows_only_if_inherited(inherited: int, seen: set[str]) -> None:
    org = Org()
    org.role("member", Depth.BASIC, isinherited=inherited)
    org.give_team("member", "desk")
    org.join("ann", "desk")
    assert org.seen("ann") == seen


def test_a_share_adds_a_row_to_who_has_the_privilege() -> None:
    org = Org()
    org.share("eve's", "ann", 1)
    org.share("kim's", "desk", 1)
    org.share("bob's", "ann", 2)
    org.join("ann", "desk")
    org.role("other", Depth.GLOBAL, "prvReadGoal")
    org.give("other", "ann")
    assert org.seen("ann") == set()
    org.role("seller", Depth.BASIC)
    org.give("seller", "ann")
    assert org.seen("ann") == {"ann's", "desk's", "eve's", "kim's"}


def test_lines_are_seen_with_their_parent() -> None:
    org = Org()
    org.role("seller", Depth.BASIC)
    for user in ("ann", "bob"):
        org.give("seller", user)
    assert org.seen("bob", "opportunityproduct") == {"line"}
    assert org.seen("ann", "opportunityproduct") == set()
    org.share("bob's", "ann", 1)
    assert org.seen("ann", "opportunityproduct") == {"line"}


def test_users_and_units_belong_to_business_units() -> None:
    org = Org()
    org.role("reader", Depth.LOCAL, "prvReadUser", "prvReadBusinessUnit")
    org.give("reader", "ann")
    assert org.seen("ann", "systemuser") == {"ann", "bob"}
    assert org.seen("ann", "businessunit") == {"north"}


def test_tables_of_the_organization_need_the_privilege_at_any_depth() -> None:
    org = Org()
    org.put("metric", "revenue")
    org.role("seller", Depth.BASIC)
    org.give("seller", "ann")
    assert org.seen("ann", "metric") == set()
    org.role("reader", Depth.BASIC, "prvReadMetric")
    org.give("reader", "ann")
    assert org.seen("ann", "metric") == {"revenue"}


def test_a_system_administrator_needs_no_privileges_listed() -> None:
    org = Org()
    org.role("admin", Depth.NONE, roletemplateid=SYSTEM_ADMINISTRATOR)
    org.give("admin", "ann")
    assert len(org.seen("ann")) == len(OWNERS)


def test_a_team_by_itself_sees_by_its_own_roles() -> None:
    org = Org()
    org.role("member", Depth.BASIC)
    org.give_team("member", "desk")
    test = access_of_principal(org.store, "desk").test("Read", CATALOGUE.tables["opportunity"])
    assert test is not None
    assert [row["name"] for row in org.store.rows("opportunity").values() if test(row)] == ["desk's"]


def test_impersonating_both_must_be_allowed() -> None:
    org = Org()
    org.role("north", Depth.LOCAL, "prvReadOpportunity", "prvActOnBehalfOfAnotherUser")
    org.role("all", Depth.GLOBAL)
    org.give("north", "ann")
    org.give("all", "eve")
    caller = caller_of(org.store, "ann", system_user_id="eve")
    assert caller == Caller("eve", "ann")
    assert {row["name"] for row in visible_rows(org.store, caller, "opportunity")} == {"ann's", "bob's"}


def test_naming_oneself_is_no_impersonation() -> None:
    org = Org()
    org.role("seller", Depth.BASIC)
    org.give("seller", "ann")
    assert caller_of(org.store, "ann", system_user_id="{ANN}") == Caller("ann")


def test_an_object_id_names_the_user() -> None:
    org = Org()
    org.store.change("systemuser", "eve", {"azureactivedirectoryobjectid": "0b1e"})
    assert caller_of(org.store, "ann", object_id="0B1E", system_user_id="bob") == Caller("eve", "ann")


@pytest.mark.parametrize("through", ["no role", "a team", "the settings"])
def test_acting_for_another_needs_the_privilege_directly(through: str) -> None:
    named = frozenset({"PRVACTONBEHALFOFANOTHERUSER"}) if through == "the settings" else frozenset[str]()
    org = Org(EmulatorSettings(missing_privileges=named))
    if through != "the settings":
        org.role("delegate", Depth.GLOBAL, "prvActOnBehalfOfAnotherUser")
    if through == "a team":
        org.give_team("delegate", "desk")
        org.join("ann", "desk")
    with pytest.raises(Refusal, match="missing prvActOnBehalfOfAnotherUser") as refused:
        caller_of(org.store, "ann", system_user_id="eve")
    assert (refused.value.status, refused.value.code) == (403, "0x80040220")


@pytest.mark.parametrize("user", ["nobody", "bob"])
def test_a_user_who_is_unknown_or_disabled_cannot_be_impersonated(user: str) -> None:
    org = Org()
    org.store.change("systemuser", "bob", {"isdisabled": True})
    with pytest.raises(Refusal, match=f"The user {user} is") as refused:
        caller_of(org.store, "ann", system_user_id=user)
    assert refused.value.status == 403
