"""Who asks a query, read from the organization's own rows: the user, the teams, the zone, the fiscal calendar.

Source: systemuser, teammembership, usersettings and organization table references; FetchXML operators reference.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from typing import Literal
from zoneinfo import ZoneInfo

from d365sync.core.fetchxml.context import Context
from d365sync.core.fiscal import PERIOD_TYPE_CODES, FiscalCalendar, FiscalTemplate
from d365sync.core.values import Row
from d365sync.emulator.fiscalperiods import are_named_by_end, fiscal_start
from d365sync.emulator.refuse import invalid
from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.store import Store
from d365sync.emulator.timezones import zone_of


def caller_context(store: Store, user_id: str | None, now: dt.datetime) -> Context:
    """Return the context of a query that a user asks at an aware instant; None is nobody.

    Without a user, operators that ask for one are refused when the query is read. Zone and language are those of
    the user's settings, otherwise the emulator's; an unknown language is refused the same way.

    Raises:
        Refusal: the organization's week or fiscal settings are none the platform has.
    """
    settings = store.settings
    user = store.get("systemuser", user_id) if user_id is not None else None
    own = store.get("usersettings", user_id) or {} if user_id is not None else {}
    zone = zone_of(own.get("timezonecode")) or settings.user_time_zone
    language = own.get("uilanguageid") or settings.user_language
    unit = None if user is None else user.get("businessunitid")
    members = _members(store)
    organization = store.only("organization")
    week_start = organization.get("weekstartdaycode")
    try:
        return Context(
            now=now,
            time_zone=zone,
            week_start=week_start if isinstance(week_start, int) else 0,
            fiscal=fiscal_calendar(organization, zone, settings),
            user_id=user_id,
            business_unit_id=None if unit is None else str(unit),
            user_team_ids=tuple(team for team, users in members.items() if user_id in users),
            user_language=language if isinstance(language, int) else None,
            user_hierarchy=_reports(store),
            team_members=members,
            **settings.fetch_readings,
        )
    except ValueError as error:
        raise invalid(str(error)) from error


def fiscal_calendar(organization: Row, zone: ZoneInfo, settings: EmulatorSettings) -> FiscalCalendar:
    """Return the organization's fiscal calendar; without settings, quarters from 1 January.

    Raises:
        ValueError: there is no such fiscal period type.
    """
    code = organization.get("fiscalperiodtype")
    template = (
        FiscalTemplate.QUARTERLY if code is None else PERIOD_TYPE_CODES.get(code) if isinstance(code, int) else None
    )
    if template is None:
        raise ValueError(f"there is no fiscal period type {code}")
    day = fiscal_start(organization, zone)
    named_by: Literal["start", "end"] = "end" if are_named_by_end(organization, settings) else "start"
    return FiscalCalendar(day.month, day.day, template, named_by=named_by)


def _members(store: Store) -> dict[str, tuple[str, ...]]:
    members: defaultdict[str, list[str]] = defaultdict(list)
    for row in store.rows("teammembership").values():
        members[str(row.get("teamid"))].append(str(row.get("systemuserid")))
    return {team: tuple(users) for team, users in members.items()}


def _reports(store: Store) -> dict[str, tuple[str, ...]]:
    """Direct reports by manager. Assumed: the hierarchy is that of managers, not that of positions."""
    reports: defaultdict[str, list[str]] = defaultdict(list)
    for user_id, row in store.rows("systemuser").items():
        if row.get("parentsystemuserid") is not None:
            reports[str(row["parentsystemuserid"])].append(user_id)
    return {manager: tuple(users) for manager, users in reports.items()}
