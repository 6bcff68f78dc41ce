"""Every setting for an open point decides something: with another value another result comes out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from d365sync.config import Config, RollupSection, parse
from d365sync.config_rules import FetchxmlSection, FiscalSection
from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.goals.book import build_book
from d365sync.core.goals.bounds import owner_span, stored_bounds
from d365sync.core.goals.callers import build_callers
from d365sync.core.goals.forest import build_forest
from d365sync.core.goals.goal import Category, DataType, Goal, GoalBook, RollupQuery, Slot
from d365sync.core.goals.participation import group_goals
from d365sync.core.goals.rollup import GoalTotals, OwnPart, roll_up
from d365sync.core.schema import Schema
from d365sync.core.values import Row
from d365sync.errors import ConfigError, FetchXmlError
from d365sync.sync.snapshot import query_context
from tests.unit.goals import book, goal
from tests.unit.schemas import SCHEMA, column, table

NOW = dt.datetime(2026, 11, 20, 9, 30, tzinfo=dt.UTC)
ACTUAL = Slot(Category.ACTUAL, DataType.MONEY)
REGIONS = replace(
    table("region", "regions", "name", column("parentid", "lookup", "region")), hierarchy_parent="parentid"
)
THINGS = table(
    "thing",
    "things",
    "name",
    column("at", "datetime:UserLocal"),
    column("day", "datetime:DateOnly"),
    column("other", "string"),
    column("many", "multiselectpicklist"),
    column("regionid", "lookup", "region"),
)
DATED = Schema.of([THINGS, REGIONS])
ROOT, FOREIGN = "11111111-0000-0000-0000-000000000001", "11111111-0000-0000-0000-000000000002"


def configured(section: str, key: str, value: object) -> Config:
    remote = {
        "url": "https://a.crm.dynamics.com",
        "tenant_id": "t",
        "client_id": "00000000-0000-0000-0000-000000000000",
        "client_secret": "env:X",
    }
    return parse({"dataverse": remote, section: {key: value}}, {}, folder=Path("/"))


def finds(conditions: str, *rows: Row, start: int = 0, links: str = "") -> Callable[[Config], object]:
    """Return what finds the rows a condition passes, under a configuration; ``refused`` when the query is."""
    fetch = parse_fetch(f'<fetch><entity name="thing"><filter>{conditions}</filter>{links}</entity></fetch>')
    things = [{"thingid": str(number), **row} for number, row in enumerate(rows)]
    regions: list[Row] = [{"regionid": ROOT}, {"regionid": FOREIGN}]

    def found(config: Config) -> object:
        organization = {"organizationid": "o", "weekstartdaycode": start}
        one = build_book({"organization": [organization]}, config.rollup.zone, config.reading)
        context = query_context(config, one, NOW)
        try:
            return [row["thingid"] for row in evaluate(fetch, {"thing": things, "region": regions}, DATED, context)]
        except FetchXmlError:
            return "refused"

    return found


def at(text: str) -> Row:
    return {"at": dt.datetime.fromisoformat(text)}


def period(code: int, **organization: object) -> Callable[[Config], object]:
    """Return what computes a fiscal period of 2026, under a configuration."""
    row = {"organizationid": "o", "fiscalcalendarstart": dt.date(2026, 7, 1), "fiscalperiodtype": 2002, **organization}

    def days(config: Config) -> object:
        one = build_book({"organization": [row]}, config.rollup.zone, config.reading)  # type: ignore[list-item]
        return one.organization.fiscal.period_bounds(2026, code)

    return days


def numbered(config: Config) -> object:
    """The organization's second period of 2026, which depends on the template."""
    row: Row = {"organizationid": "o", "fiscalperiodtype": 2002}
    return build_book({"organization": [row]}, config.rollup.zone, config.reading).organization.fiscal.numbered(2026, 2)


def totals(*goals: Goal, theirs: str = "", own: str = "425") -> Callable[[Config], object]:
    """Return what adds up goals of which ``leaf`` has records, under a configuration."""

    def of_root(config: Config) -> object:
        one = book(*goals)
        parts = {("leaf", "actualmoney"): OwnPart(1, Decimal(own))} if own else {}
        rollup = roll_up(
            one, build_forest(one.goals), parts, overridden_by_person=frozenset([theirs]), rules=config.rollup.rules
        )
        root: GoalTotals = rollup.totals["root"]
        return root.totals["actualmoney"], root.percentage

    return of_root


def bounds(config: Config) -> object:
    """The stored bounds of a fiscal goal whose dates are those of the quarter before, as midnights in Berlin."""
    midnights = {
        "starts_at": dt.datetime(2026, 6, 30, 22, tzinfo=dt.UTC),
        "ends_at": dt.datetime(2026, 9, 29, 22, tzinfo=dt.UTC),
    }
    one: Goal = goal("a", is_fiscal=True, fiscal_year=2026, fiscal_period=4, **midnights)
    holder: GoalBook = replace(book(one), rules=config.reading)
    return stored_bounds(owner_span(one, holder, config.rollup.zone), config.rollup.zone)


def caller(config: Config) -> object:
    condition = '<condition attribute="ownerid" operator="eq-userid"/>'
    query = f'<fetch><entity name="opportunity"><filter>{condition}</filter></entity></fetch>'
    one = goal("a", owner_id="owner", manager_id="manager", queries={ACTUAL: "q"})
    asked = replace(book(one, queries=[RollupQuery("q", "Q", "opportunity", query)]), rules=config.reading)
    return [group.caller_id for group in group_goals(asked, SCHEMA, [one]).groups]


def reports(config: Config) -> object:
    users: list[Row] = [
        {"systemuserid": "a", "parentsystemuserid": "b", "positionid": "high"},
        {"systemuserid": "b", "positionid": "low"},
    ]
    positions: list[Row] = [{"positionid": "low", "parentpositionid": "high"}]
    return build_callers({"systemuser": users, "position": positions}, config.rollup.hierarchy).reports


LEAF = goal("leaf", "root")
HELD = {"actualmoney": Decimal(70)}
DECIDES: dict[str, tuple[object, object, Callable[[Config], object]]] = {
    "rollup.time_zone": ("UTC", "Europe/Berlin", bounds),
    "rollup.bounds_zone": ("", "Europe/Berlin", bounds),
    "rollup.bounds": ("stored", "computed", bounds),
    "rollup.end_of_day": (True, False, bounds),
    "rollup.closed_child": (
        "stored",
        "excluded",
        totals(goal("root"), goal("leaf", "root", is_open=False, native=HELD)),
    ),
    "rollup.overridden_child": (
        "stored",
        "recomputed",
        totals(goal("root"), goal("leaf", "root", is_overridden=True, native=HELD), theirs="leaf"),
    ),
    "rollup.percentage_rounding": ("half_up", "half_even", totals(goal("root"), LEAF)),
    "rollup.percentage_without_target": ("null", "zero", totals(goal("root", targets={}), LEAF)),
    "rollup.empty_category": ("zero", "null", totals(goal("root"), LEAF, own="")),
    "rollup.caller": ("manager", "owner", caller),
    "rollup.hierarchy": ("manager", "position", reports),
    "fetchxml.time_zone": (
        "",
        "Asia/Tehran",
        finds('<condition attribute="at" operator="today"/>', at("2026-11-19T21:00:00+00:00")),
    ),
    "fetchxml.week_start": (
        "organization",
        "monday",
        finds('<condition attribute="at" operator="this-week"/>', at("2026-11-15T12:00:00+00:00")),
    ),
    "fetchxml.next_x_hours_whole": (
        True,
        False,
        finds('<condition attribute="at" operator="next-x-hours" value="1"/>', at("2026-11-20T10:45:00+00:00")),
    ),
    "fetchxml.now_is_past": (
        False,
        True,
        finds('<condition attribute="at" operator="last-x-hours" value="1"/>', at("2026-11-20T09:30:00+00:00")),
    ),
    "fetchxml.ne_keeps_null": (True, False, finds('<condition attribute="other" operator="ne" value="x"/>', {})),
    "fetchxml.not_contain_keeps_null": (
        True,
        False,
        finds('<condition attribute="many" operator="not-contain-values"><value>1</value></condition>', {}),
    ),
    "fetchxml.not_under_keeps_anchor": (
        True,
        False,
        finds(f'<condition attribute="regionid" operator="not-under" value="{ROOT}"/>', {"regionid": ROOT}),
    ),
    "fetchxml.accents_count": (
        True,
        False,
        finds('<condition attribute="other" operator="eq" value="resume"/>', {"other": "Résumé"}),
    ),
    "fetchxml.trailing_blanks_count": (
        True,
        False,
        finds('<condition attribute="other" operator="eq" value="x"/>', {"other": "x "}),
    ),
    "fetchxml.between_to_end_of_day": (
        False,
        True,
        finds(
            '<condition attribute="at" operator="between"><value>2026-11-01</value>'
            "<value>2026-11-15</value></condition>",
            at("2026-11-15T12:00:00+00:00"),
        ),
    ),
    "fetchxml.literals_follow_zone": (
        False,
        True,
        finds(
            '<condition attribute="day" operator="eq" value="2026-11-15T23:30:00-05:00"/>',
            {"day": dt.date(2026, 11, 15)},
        ),
    ),
    "fetchxml.missing_period_refused": (
        False,
        True,
        finds('<condition attribute="at" operator="in-fiscal-period" value="9"/>', {}),
    ),
    "fetchxml.all_means_every": (
        False,
        True,
        finds(
            '<link-entity name="region" from="regionid" to="regionid" link-type="all"><filter>'
            f'<condition attribute="regionid" operator="eq" value="{ROOT}"/></filter></link-entity>',
            {"regionid": ROOT},
        ),
    ),
    "fetchxml.matchfirst_keeps_unmatched": (
        False,
        True,
        finds(
            "",
            {},
            links='<link-entity name="region" from="regionid" to="regionid" link-type="matchfirstrowusingcrossapply"/>',
        ),
    ),
    "fetchxml.inner_under_outer": (
        "refused",
        "flat",
        finds(
            "",
            {},
            links='<link-entity name="region" from="regionid" to="regionid" link-type="outer">'
            '<link-entity name="region" from="regionid" to="parentid" alias="above"/></link-entity>',
        ),
    ),
    "fetchxml.not_in_keeps_null": (
        False,
        True,
        finds('<condition attribute="other" operator="not-in"><value>x</value></condition>', {}),
    ),
    "fetchxml.not_begin_keeps_null": (
        True,
        False,
        finds('<condition attribute="other" operator="not-begin-with" value="x"/>', {}),
    ),
    "fetchxml.not_under_keeps_null": (
        False,
        True,
        finds(f'<condition attribute="regionid" operator="not-under" value="{ROOT}"/>', {}, {"regionid": FOREIGN}),
    ),
    "fetchxml.valueof_ne_keeps_both_null": (
        False,
        True,
        finds('<condition attribute="name" operator="ne" valueof="other"/>', {}),
    ),
    "fetchxml.fiscal_years": (
        [1900, 2100],
        [2000, 2010],
        finds('<condition attribute="at" operator="in-fiscal-period" value="4"/>', at("2026-11-20T09:00:00+00:00")),
    ),
    "fiscal.year_named_by": ("start", "end", period(1)),
    "fiscal.leftover_days": ("own_period", "last_period", period(413)),
    "fiscal.month_codes": ("by_name", "by_position", period(101)),
    "fiscal.template": ("organization", "monthly", numbered),
    "fiscal.start": ("organization", "04-01", period(1)),
}
ELSEWHERE = {"rollup.double_counting", "rollup.visibility", "rollup.visibility_refresh"}
"""What is reported beside the numbers, and whose eyes count: tested with the reports, and with visibility."""


@pytest.mark.parametrize("key", DECIDES)
def test_every_setting_decides_something(key: str) -> None:
    one, other, result = DECIDES[key]
    section, _, name = key.partition(".")
    assert result(configured(section, name, one)) != result(configured(section, name, other))


def test_the_default_of_every_setting_is_the_first_value() -> None:
    plain = configured("rollup", "time_zone", "UTC")
    for key, (default, _, _) in DECIDES.items():
        section, _, name = key.partition(".")
        configuredly = configured(section, name, default)
        assert getattr(getattr(plain, section), name) == getattr(getattr(configuredly, section), name), key


def test_no_setting_is_left_out() -> None:
    sections = {"rollup": RollupSection, "fetchxml": FetchxmlSection, "fiscal": FiscalSection}
    keys = {f"{section}.{name}" for section, model in sections.items() for name in model.model_fields}
    assert keys - ELSEWHERE == set(DECIDES)


@pytest.mark.parametrize(("code", "year"), [(1, 2026), (2, 2025)])
def test_the_organization_may_say_what_names_a_year(code: int, year: int) -> None:
    days = period(1, fiscalyeardisplaycode=code)(configured("fiscal", "year_named_by", "organization"))
    assert days == (dt.date(year, 7, 1), dt.date(year, 9, 30))


@pytest.mark.parametrize(
    ("organization", "key", "value"),
    [
        ({"fiscalperiodtype": 7}, "template", "organization"),
        ({"fiscalyeardisplaycode": 9}, "year_named_by", "organization"),
    ],
)
def test_an_unknown_code_of_the_organization_is_refused(organization: dict[str, object], key: str, value: str) -> None:
    with pytest.raises(ValueError, match="is not known"):
        period(1, **organization)(configured("fiscal", key, value))


@pytest.mark.parametrize("start", ["13-01", "02-30", "7-1", "tomorrow"])
def test_a_start_that_is_no_day_is_a_fault(start: str) -> None:
    with pytest.raises(ConfigError, match="month and a day"):
        configured("fiscal", "start", start)


def test_a_zone_that_is_none_is_a_fault() -> None:
    with pytest.raises(ConfigError, match="IANA"):
        configured("rollup", "bounds_zone", "Mars/Base")
    assert configured("rollup", "bounds_zone", "").reading.bounds_zone is None
    assert configured("rollup", "bounds_zone", "Asia/Tehran").reading.bounds_zone == ZoneInfo("Asia/Tehran")
