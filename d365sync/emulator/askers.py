"""Whom rollup queries mean by the calling user, and what the platform knows of that user.

Source: Roll up goal totals (the rollup switches to each goal's own manager).

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from d365sync.core.fetchxml.context import Context
from d365sync.core.values import Row, Value
from d365sync.emulator.settings import AskingUser, HierarchyModel
from d365sync.emulator.store import Store

_SIGNS = ("-user", "-businessid")


def asks_for_user(fetchxml: str) -> bool:
    """Say whether a query's text may hold an operator that means the calling user; too often is no harm."""
    return any(f"{verb}{sign}" in fetchxml for verb in ("eq", "ne") for sign in _SIGNS)


def asker(store: Store, goal: Row) -> str | None:
    """Return the id of the user a goal's queries mean; None for nobody, and for a team."""
    rule = store.settings.asking_user
    if rule is AskingUser.NOBODY:
        return None
    user = store.get("systemuser", goal.get("ownerid" if rule is AskingUser.MANAGER else "goalownerid"))
    return None if user is None else str(user["systemuserid"])


def as_user(store: Store, context: Context, user_id: str) -> Context:
    """Return the context of one user. Assumed: a language of 0 in the user's settings means none is known."""
    user = store.rows("systemuser")[user_id]
    unit = user.get("businessunitid")
    language = (store.get("usersettings", user_id) or {}).get("uilanguageid")
    members: defaultdict[str, list[str]] = defaultdict(list)
    for row in store.rows("teammembership").values():
        members[str(row.get("teamid"))].append(str(row.get("systemuserid")))
    return replace(
        context,
        user_id=user_id,
        business_unit_id=unit if isinstance(unit, str) else None,
        user_team_ids=tuple(team for team, users in members.items() if user_id in users),
        user_language=language if isinstance(language, int) and language else None,
        user_hierarchy=_reports(store),
        team_members={team: tuple(users) for team, users in members.items()},
    )


def _reports(store: Store) -> Mapping[str, tuple[str, ...]]:
    """Return the users below each user, however far below."""
    users = store.rows("systemuser")
    by_position = store.settings.hierarchy_model is HierarchyModel.POSITION
    found: defaultdict[str, list[str]] = defaultdict(list)
    for user_id, user in users.items():
        for above in _positions_above(store, user) if by_position else [user.get("parentsystemuserid")]:
            key = "positionid" if by_position else "systemuserid"
            for boss in [other for other, row in users.items() if above is not None and row.get(key) == above]:
                found[boss].append(user_id)
    return {boss: tuple(reports) for boss, reports in found.items()}


def _positions_above(store: Store, user: Row) -> list[Value]:
    above: list[Value] = []
    position = store.get("position", user.get("positionid"))
    while position is not None and position.get("parentpositionid") not in (None, *above):
        above.append(position["parentpositionid"])
        position = store.get("position", position["parentpositionid"])
    return above
