"""The users on whose behalf rollup queries are read: unit, teams, language and reports of each.

Source: Roll up goal totals (the rollup switches to each goal's own manager); FetchXML condition operators reference.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from d365sync.core.fetchxml.caller import LANGUAGE_OPERATOR
from d365sync.core.fetchxml.context import Context
from d365sync.core.goals.rules import Hierarchy
from d365sync.core.values import Row

UNIT_OPERATORS = frozenset({"eq-businessid", "ne-businessid"})
TEAM_OPERATORS = frozenset({"eq-userteams", "eq-useroruserteams", "eq-useroruserhierarchyandteams"})
HIERARCHY_OPERATORS = frozenset({"eq-useroruserhierarchy", "eq-useroruserhierarchyandteams"})

CALLER_TABLES = ("systemuser", "teammembership", "position", "usersettings")

Members = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Caller:
    """One user; ``language`` is a language code (1033), None when the user has not chosen one."""

    business_unit_id: str | None = None
    team_ids: tuple[str, ...] = ()
    language: int | None = None


@dataclass(frozen=True, slots=True)
class Callers:
    """Every user by id, who reports to whom, and who is in which team; all in id order."""

    users: Mapping[str, Caller] = field(default_factory=dict)
    reports: Members = field(default_factory=dict)
    team_members: Members = field(default_factory=dict)

    def context_for(self, base: Context, user_id: str | None) -> Context:
        """Return the context in which a user asks; the same one for None (a query that asks for nobody).

        For a user who is not there nobody is known, so that operators which need one are refused.
        """
        caller = self.users.get(user_id) if user_id is not None else None
        if user_id is None or caller is None:
            return base
        return replace(
            base,
            user_id=user_id,
            business_unit_id=caller.business_unit_id,
            user_team_ids=caller.team_ids,
            user_language=caller.language,
            user_hierarchy=self.reports,
            team_members=self.team_members,
        )


def caller_columns(operators: Iterable[str], hierarchy: Hierarchy) -> Mapping[str, frozenset[str]]:
    """Return the columns, by table, that the operators need mirrored beside the keys of users and teams."""
    asked = frozenset(operators)
    needed: dict[str, set[str]] = defaultdict(set)
    if asked & UNIT_OPERATORS:
        needed["systemuser"].add("businessunitid")
    if asked & TEAM_OPERATORS:
        needed["teammembership"] |= {"systemuserid", "teamid"}
    if asked & HIERARCHY_OPERATORS and hierarchy is Hierarchy.MANAGER:
        needed["systemuser"].add("parentsystemuserid")
    if asked & HIERARCHY_OPERATORS and hierarchy is Hierarchy.POSITION:
        needed["systemuser"].add("positionid")
        needed["position"].add("parentpositionid")
    if LANGUAGE_OPERATOR in asked:
        needed["usersettings"].add("uilanguageid")
    return {table: frozenset(columns) for table, columns in needed.items()}


def build_callers(rows: Mapping[str, Iterable[Row]], hierarchy: Hierarchy) -> Callers:
    """Read the rows of the tables of :func:`caller_columns`, keyed by logical name; missing tables are empty.

    Assumed: every kind of team counts as one of the user's teams; language 0 in the settings is no choice.
    """
    users = {str(row["systemuserid"]): row for row in rows.get("systemuser", ())}
    memberships = [(str(row.get("teamid")), str(row.get("systemuserid"))) for row in rows.get("teammembership", ())]
    teams = _grouped((user, team) for team, user in memberships)
    languages = {str(row["systemuserid"]): row.get("uilanguageid") for row in rows.get("usersettings", ())}
    by_position = hierarchy is Hierarchy.POSITION
    return Callers(
        users={
            user_id: Caller(_text(row, "businessunitid"), teams.get(user_id, ()), _language(languages.get(user_id)))
            for user_id, row in users.items()
        },
        reports=_below_positions(users, rows.get("position", ())) if by_position else _below_managers(users),
        team_members=_grouped(memberships),
    )


def _below_managers(users: Mapping[str, Row]) -> Members:
    found = ((_text(row, "parentsystemuserid"), user_id) for user_id, row in users.items())
    return _grouped((manager, user_id) for manager, user_id in found if manager)


def _below_positions(users: Mapping[str, Row], positions: Iterable[Row]) -> Members:
    """Return, per user, the users at the positions next below; a vacant position gives those below it."""
    held = _grouped((position, user) for user, row in users.items() if (position := _text(row, "positionid")))
    parents = {str(row["positionid"]): _text(row, "parentpositionid") for row in positions}
    below = _grouped((parent, position) for position, parent in parents.items() if parent)
    reports: dict[str, tuple[str, ...]] = {}
    for position, holders in held.items():
        found = tuple(sorted(_holders_below(position, below, held)))
        reports.update(dict.fromkeys(holders, found) if found else {})
    return reports


def _holders_below(position: str, below: Members, held: Members) -> set[str]:
    found: set[str] = set()
    seen = {position}
    pending = list(below.get(position, ()))
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        found.update(held.get(one, ()))
        if one not in held:
            pending.extend(below.get(one, ()))
    return found


def _grouped(pairs: Iterable[tuple[str, str]]) -> Members:
    grouped: dict[str, set[str]] = defaultdict(set)
    for key, value in pairs:
        grouped[key].add(value)
    return {key: tuple(sorted(values)) for key, values in grouped.items()}


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) and value else None


def _language(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
