"""The native rollup, test by test: which records count, what goals hold afterwards, and what stays as it was."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.values import Row, Value
from d365sync.emulator.clock import Clock
from d365sync.emulator.native import ERROR_CODE, recalculate
from d365sync.emulator.refuse import Refusal
from d365sync.emulator.schema.loader import build_catalogue, read_additions
from d365sync.emulator.settings import ClosedGoals, EmulatorSettings
from d365sync.emulator.store import Store

NOW = dt.datetime(2026, 11, 16, 9, 30, tzinfo=dt.UTC)
FIRST, LAST = dt.datetime(2026, 10, 1, tzinfo=dt.UTC), dt.datetime(2026, 12, 31, tzinfo=dt.UTC)
INSIDE = dt.date(2026, 11, 2)
CATALOGUE = build_catalogue(
    read_additions(b'{"phonecall": {"columns": {"promised": "datetime:timezoneindependent"}}}'), {}
)
TEHRAN = EmulatorSettings(rollup_time_zone=ZoneInfo("Asia/Tehran"))
CLOSED: Row = {"statecode": 1, "statuscode": 1}
UNITS: Row = {
    "goalattribute": "actualdecimal",
    "sourceentity": "opportunityproduct",
    "sourceattribute": "quantity",
    "sourcestate": 1,
    "isstateparententityattribute": True,
    "entityfordateattribute": "opportunity",
    "dateattribute": "actualclosedate",
}
CALLS: Row = {
    "goalattribute": "actualinteger",
    "sourceentity": "phonecall",
    "sourcestate": 1,
    "entityfordateattribute": "phonecall",
    "dateattribute": "actualend",
}


class Org:
    """A small organization; rows are named by short texts in place of guids."""

    def __init__(self, settings: EmulatorSettings | None = None) -> None:
        self.settings = settings or EmulatorSettings()
        self.store = Store(CATALOGUE, Clock(NOW), self.settings)
        self.put("organization", "org", fiscalcalendarstart=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        self.put("metric", "revenue", isamount=True, amountdatatype=0)
        self.put("metric", "units", isamount=True, amountdatatype=1)
        self.put("metric", "calls", isamount=False)
        self.field("won", "revenue", "actualmoney", "actualvalue", "actualclosedate", sourcestate=1)
        self.field("open", "revenue", "inprogressmoney", "estimatedvalue", "estimatedclosedate", sourcestate=0)
        self.put("rollupfield", "units", metricid="units", **UNITS)
        self.put("rollupfield", "calls", metricid="calls", **CALLS)

    def put(self, table: str, name: str, **columns: Value) -> None:
        self.store.put(table, {self.store.catalogue.tables[table].key: name, **columns})

    def field(self, name: str, metric: str, goal_column: str, amount: str, date: str, **columns: Value) -> None:
        standard: Row = {"sourceentity": "opportunity", "entityfordateattribute": "opportunity"}
        named: Row = {"goalattribute": goal_column, "sourceattribute": amount, "dateattribute": date}
        self.put("rollupfield", name, metricid=metric, **{**standard, **named, **columns})

    def goal(
        self, name: str, owner: str | None = "ann", metric: str = "revenue", more: Row | None = None, **columns: Value
    ) -> None:
        kind = {"revenue": 0, "units": 1, "calls": 2}[metric]
        period: Row = {"isfiscalperiodgoal": False, "goalstartdate": FIRST, "goalenddate": LAST}
        own: Row = {"goalownerid": owner, "metricid": metric, "amountdatatype": kind, "statecode": 0}
        self.put("goal", name, **{**period, **own, **(more or {}), **columns})

    def deal(self, name: str, amount: str | None, owner: str = "ann", **columns: Value) -> None:
        value = None if amount is None else Decimal(amount)
        won: Row = {"statecode": 1, "statuscode": 3, "actualclosedate": INSIDE, "ownerid": owner}
        self.put("opportunity", name, **{**won, "actualvalue": value, "actualvalue_base": value, **columns})

    def call(self, name: str, **columns: Value) -> None:
        self.put("phonecall", name, **{"statecode": 1, "statuscode": 2, "ownerid": "ann", **columns})

    def query(self, name: str, condition: str, entity: str = "opportunity") -> None:
        fetch = f'<fetch><entity name="{entity}"><filter>{condition}</filter></entity></fetch>'
        self.put("goalrollupquery", name, queryentitytype=entity, fetchxml=fetch)

    def rolled_up(self, name: str) -> Row:
        recalculate(self.store, name, self.settings, NOW)
        return self.held(name)

    def held(self, name: str) -> Row:
        found = self.store.get("goal", name)
        assert found is not None
        return found


def actual(org: Org, goal: str = "goal") -> Value:
    return org.rolled_up(goal).get("actualmoney")


@pytest.mark.parametrize(
    ("closed_on", "counts"),
    [
        (dt.date(2026, 9, 30), False),
        (dt.date(2026, 10, 1), True),
        (dt.date(2026, 12, 31), True),
        (dt.date(2027, 1, 1), False),
        (None, False),
    ],
)
def test_both_ends_of_the_period_count(closed_on: dt.date | None, counts: bool) -> None:
    org = Org()
    org.goal("goal")
    org.deal("deal", "100", actualclosedate=closed_on)
    assert actual(org) == (100 if counts else 0)


def test_bounds_are_days_of_the_rollup_zone() -> None:
    org = Org(TEHRAN)
    midnight = dt.datetime(2026, 9, 30, 20, 30, tzinfo=dt.UTC)
    org.goal("goal", goalstartdate=midnight, goalenddate=midnight)
    org.deal("before", "1", actualclosedate=dt.date(2026, 9, 30))
    org.deal("on", "10", actualclosedate=dt.date(2026, 10, 1))
    org.deal("after", "100", actualclosedate=dt.date(2026, 10, 2))
    assert actual(org) == 10


@pytest.mark.parametrize(
    ("ended_at", "counts"),
    [
        (dt.datetime(2026, 9, 30, 20, 29, 59, tzinfo=dt.UTC), False),
        (dt.datetime(2026, 9, 30, 20, 30, tzinfo=dt.UTC), True),
        (dt.datetime(2026, 12, 31, 20, 29, 59, tzinfo=dt.UTC), True),
        (dt.datetime(2026, 12, 31, 20, 30, tzinfo=dt.UTC), False),
    ],
)
def test_instants_count_from_the_first_to_the_last_local_midnight(ended_at: dt.datetime, counts: bool) -> None:
    org = Org(TEHRAN)
    org.goal("goal", metric="calls", goalstartdate=FIRST, goalenddate=LAST)
    org.call("call", actualend=ended_at)
    assert org.rolled_up("goal")["actualinteger"] == int(counts)


@pytest.mark.parametrize(("day", "counts"), [(1, True), (30, False)])
def test_wall_clock_times_count_by_their_own_date(day: int, counts: bool) -> None:
    org = Org(TEHRAN)
    org.put("rollupfield", "calls", metricid="calls", **{**CALLS, "dateattribute": "promised"})
    org.goal("goal", metric="calls")
    org.call("call", promised=dt.datetime(2026, 10 if day == 1 else 9, day, 23, 30, tzinfo=dt.UTC))
    assert org.rolled_up("goal")["actualinteger"] == int(counts)


def test_state_and_status_are_asked_where_the_field_names_them() -> None:
    org = Org()
    org.field("won", "revenue", "actualmoney", "actualvalue", "actualclosedate", sourcestate=1, sourcestatus=3)
    org.goal("goal")
    org.deal("won", "1")
    org.deal("other status", "10", statuscode=8)
    org.deal("lost", "100", statecode=2, statuscode=4)
    assert actual(org) == 1


def test_without_state_and_status_every_record_counts() -> None:
    org = Org()
    org.field("won", "revenue", "actualmoney", "actualvalue", "actualclosedate")
    org.goal("goal")
    org.deal("won", "1")
    org.deal("lost", "100", statecode=2, statuscode=4)
    assert actual(org) == 101


@pytest.mark.parametrize(
    ("owner", "only_owners", "expected"),
    [("ann", True, 1), ("ann", None, 1), ("ann", False, 11), (None, True, 0), (None, False, 11)],
)
def test_the_owner_test(owner: str | None, only_owners: bool | None, expected: int) -> None:
    org = Org()
    org.goal("goal", owner, consideronlygoalownersrecords=only_owners)
    org.deal("hers", "1")
    org.deal("his", "10", owner="bob")
    assert actual(org) == expected


def test_a_record_without_owner_is_not_that_of_a_goal_without_owner() -> None:
    org = Org()
    org.goal("goal", owner=None)
    org.deal("nobody's", "1", ownerid=None)
    assert actual(org) == 0


def test_money_is_summed_in_base_currency_and_empty_amounts_add_nothing() -> None:
    org = Org()
    org.goal("goal")
    org.deal("foreign", "1000", actualvalue_base=Decimal("0.0001"))
    org.deal("base", "922337203685.4775")
    org.deal("empty", None)
    held = org.rolled_up("goal")
    assert held["actualmoney"] == held["actualmoney_base"] == Decimal("922337203685.4776")
    assert str(held["inprogressmoney"]) == str(held["inprogressmoney_base"]) == "0.0000"


def test_a_field_on_a_base_column_sums_that_column() -> None:
    org = Org()
    org.field("won", "revenue", "actualmoney", "actualvalue_base", "actualclosedate", sourcestate=1)
    org.goal("goal")
    org.deal("deal", "1000", actualvalue_base=Decimal(7))
    assert actual(org) == 7


def test_product_lines_take_state_and_date_from_their_opportunity() -> None:
    org = Org()
    org.goal("goal", metric="units")
    org.deal("won", "1")
    org.deal("lost", "1", statecode=2)
    org.deal("late", "1", actualclosedate=dt.date(2027, 1, 1))
    for number, deal in enumerate(["won", "won", "lost", "late", "missing"]):
        quantity = Decimal(10) ** -number
        org.put("opportunityproduct", str(number), opportunityid=deal, ownerid="ann", quantity=quantity)
    assert str(org.rolled_up("goal")["actualdecimal"]) == "1.1000000000"


def test_a_field_may_ask_the_state_of_the_parent_and_the_date_of_the_line() -> None:
    org = Org()
    dated = {"entityfordateattribute": "opportunityproduct", "dateattribute": "createdon"}
    org.put("rollupfield", "units", metricid="units", **{**UNITS, **dated})
    org.goal("goal", metric="units")
    org.deal("won", "1", actualclosedate=None)
    line: Row = {"opportunityid": "won", "ownerid": "ann", "quantity": Decimal(2)}
    org.put("opportunityproduct", "inside", **line, createdon=LAST + dt.timedelta(hours=23))
    org.put("opportunityproduct", "outside", **line, createdon=LAST + dt.timedelta(hours=24))
    assert org.rolled_up("goal")["actualdecimal"] == 2


def test_totals_are_the_own_part_plus_the_children_and_nothing_is_deduplicated() -> None:
    org = Org()
    org.goal("root", "nina", rolluponlyfromchildgoals=True)
    org.goal("middle", "ann", parentgoalid="root", consideronlygoalownersrecords=False)
    org.goal("leaf", "ann", parentgoalid="middle")
    org.deal("hers", "1")
    org.deal("nina's", "10", owner="nina")
    recalculate(org.store, "middle", org.settings, NOW)
    assert [org.held(name)["actualmoney"] for name in ("leaf", "middle", "root")] == [1, 12, 12]


def test_other_trees_are_left_alone() -> None:
    org = Org()
    org.goal("goal")
    org.goal("elsewhere")
    before = org.held("elsewhere")
    org.rolled_up("goal")
    assert org.held("elsewhere") is before


def test_a_circle_and_an_unknown_goal_are_refused() -> None:
    org = Org()
    org.goal("a", parentgoalid="b")
    org.goal("b", parentgoalid="a")
    before = org.store.version
    with pytest.raises(Refusal, match="circle"):
        recalculate(org.store, "a", org.settings, NOW)
    with pytest.raises(Refusal, match="Does Not Exist"):
        recalculate(org.store, "none", org.settings, NOW)
    assert org.store.version == before


def test_a_query_narrows_its_own_column_only() -> None:
    org = Org()
    org.query("big", '<condition attribute="actualvalue" operator="gt" value="50"/>')
    org.goal("goal", rollupqueryactualmoneyid="big", rollupqueryactualdecimalid="big")
    org.deal("big", "100")
    org.deal("small", "10")
    org.deal("not hers", "1000", owner="bob")
    org.deal("open", None, statecode=0, estimatedclosedate=INSIDE, estimatedvalue_base=Decimal(3))
    held = org.rolled_up("goal")
    assert (held["actualmoney"], held["inprogressmoney"]) == (100, 3)


@pytest.mark.parametrize(("limit", "expected"), [(None, 111), (2, 11)])
def test_the_limit_caps_the_rows_of_a_query(limit: int | None, expected: int) -> None:
    org = Org(EmulatorSettings(rollup_query_limit=limit))
    org.query("any", '<condition attribute="actualvalue" operator="not-null"/>')
    org.goal("goal", rollupqueryactualmoneyid="any")
    for number in range(3):
        org.deal(str(number), str(10**number))
    assert actual(org) == expected


def test_relative_dates_of_a_query_follow_clock_zone_and_fiscal_calendar() -> None:
    org = Org()
    org.put(
        "organization",
        "org",
        fiscalcalendarstart=dt.datetime(2026, 2, 1, tzinfo=dt.UTC),
        fiscalperiodtype=2003,
    )
    org.query("now", '<condition attribute="actualclosedate" operator="this-fiscal-period"/>')
    org.goal("goal", rollupqueryactualmoneyid="now")
    org.deal("november", "1")
    org.deal("october", "10", actualclosedate=dt.date(2026, 10, 31))
    assert actual(org) == 1


@pytest.mark.parametrize("begins", [dt.timedelta(0), dt.timedelta(hours=5)])
def test_the_fiscal_start_is_a_midnight_of_the_zone_or_a_date_in_utc(begins: dt.timedelta) -> None:
    org = Org(EmulatorSettings(rollup_time_zone=ZoneInfo("America/New_York")))
    start = dt.datetime(2025, 11, 17, tzinfo=dt.UTC) + begins
    org.put("organization", "org", fiscalcalendarstart=start, fiscalperiodtype=2003)
    org.query("now", '<condition attribute="actualclosedate" operator="in-fiscal-period" value="1"/>')
    org.goal("goal", rollupqueryactualmoneyid="now")
    org.deal("before", "1", actualclosedate=dt.date(2026, 11, 16))
    org.deal("first", "10", actualclosedate=dt.date(2026, 11, 17))
    assert actual(org) == 10


@pytest.mark.parametrize(("code", "expected"), [(1, 10), (2, 1), (None, 10)])
def test_fiscal_years_are_named_as_the_organization_says(code: int | None, expected: int) -> None:
    org = Org()
    start = dt.datetime(2020, 4, 1, tzinfo=dt.UTC)
    org.put("organization", "org", fiscalcalendarstart=start, fiscalyeardisplaycode=code)
    org.deal("2025 to 2026", "1", actualclosedate=dt.date(2026, 3, 31))
    org.deal("2026 to 2027", "10", actualclosedate=dt.date(2026, 4, 1))
    org.query("year", '<condition attribute="actualclosedate" operator="in-fiscal-year" value="2026"/>')
    always = {"goalstartdate": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "goalenddate": LAST}
    org.goal("by query", rollupqueryactualmoneyid="year", **always)
    assert actual(org, "by query") == expected
    fiscal = {"isfiscalperiodgoal": True, "fiscalyear": 2026, "fiscalperiod": 301}
    org.goal("by period", **fiscal, goalstartdate=None, goalenddate=None)
    assert actual(org, "by period") == expected


@pytest.mark.parametrize(("monday_first", "expected"), [(False, 1), (True, 0)])
def test_weeks_of_a_query_begin_on_the_organizations_day(monday_first: bool, expected: int) -> None:
    org = Org()
    org.store.change("organization", "org", {"weekstartdaycode": int(monday_first)})
    org.query("week", '<condition attribute="actualclosedate" operator="this-week"/>')
    org.goal("goal", rollupqueryactualmoneyid="week")
    org.deal("sunday", "1", actualclosedate=dt.date(2026, 11, 15))
    assert actual(org) == expected


def test_columns_without_rollup_field_become_null() -> None:
    org = Org()
    stale: Row = {"customrollupfieldmoney": Decimal(5), "customrollupfieldmoney_base": Decimal(5), "actualinteger": 5}
    org.goal("goal", more=stale)
    assert not stale.keys() & org.rolled_up("goal").keys()


def test_where_nothing_takes_part_the_setting_decides_between_zero_and_null() -> None:
    org = Org(EmulatorSettings(empty_is_zero=False))
    org.goal("goal", targetmoney=Decimal(10), actualmoney=Decimal(5), percentage=Decimal(50))
    assert not {"actualmoney", "percentage"} & org.rolled_up("goal").keys()
    org.deal("without amount", None)
    assert actual(org) == 0


@pytest.mark.parametrize(
    ("target", "rounding", "expected"),
    [("1000", "ROUND_HALF_UP", 13), ("1000", "ROUND_HALF_EVEN", 12), ("0", "ROUND_HALF_UP", None), (None, "", None)],
)
def test_percentage_is_a_whole_number(target: str | None, rounding: str, expected: int | None) -> None:
    org = Org(EmulatorSettings(rounding=rounding or "ROUND_HALF_UP"))
    org.goal("goal", targetmoney=None if target is None else Decimal(target))
    org.deal("deal", "125")
    assert org.rolled_up("goal").get("percentage") == expected


@pytest.mark.parametrize(
    ("first", "last", "due", "share"),
    [
        (FIRST, LAST, "50.5495", 51),
        (FIRST, dt.datetime(2026, 11, 16, tzinfo=dt.UTC), "100", 100),
        (FIRST, dt.datetime(2026, 11, 1, tzinfo=dt.UTC), "100", 100),
        (dt.datetime(2026, 11, 16, tzinfo=dt.UTC), LAST, "0", 0),
        (dt.datetime(2026, 12, 1, tzinfo=dt.UTC), LAST, "0", 0),
        (NOW, NOW, "100", 100),
        (LAST, LAST, "0", 0),
    ],
)
def test_target_of_today(first: dt.datetime, last: dt.datetime, due: str, share: int) -> None:
    org = Org()
    org.goal("goal", goalstartdate=first, goalenddate=last, targetmoney=Decimal(100))
    held = org.rolled_up("goal")
    assert held["computedtargetasoftodaymoney"] == held["computedtargetasoftodaymoney_base"] == Decimal(due)
    assert held["computedtargetasoftodaypercentageachieved"] == share


def test_target_of_today_follows_the_goals_type() -> None:
    org = Org()
    org.goal("goal", metric="calls", targetinteger=10, computedtargetasoftodaymoney=Decimal(1))
    held = org.rolled_up("goal")
    assert held["computedtargetasoftodayinteger"] == 5
    assert isinstance(held["computedtargetasoftodayinteger"], int)
    assert "computedtargetasoftodaymoney" not in held


def test_today_is_a_day_of_the_rollup_zone() -> None:
    org = Org(TEHRAN)
    org.goal("goal", goalstartdate=FIRST, goalenddate=FIRST + dt.timedelta(days=100), targetmoney=Decimal(100))
    recalculate(org.store, "goal", org.settings, dt.datetime(2026, 10, 1, 20, 30, tzinfo=dt.UTC))
    assert org.held("goal")["computedtargetasoftodaymoney"] == 1


def test_a_fiscal_goal_without_bounds_takes_them_from_the_calendar() -> None:
    org = Org()
    org.put("organization", "org", fiscalcalendarstart=dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    fiscal: Row = {"isfiscalperiodgoal": True, "fiscalyear": 2026, "fiscalperiod": 3}
    org.goal("goal", more=fiscal, goalstartdate=None, goalenddate=None)
    org.deal("before", "1", actualclosedate=dt.date(2026, 7, 31))
    org.deal("first", "10", actualclosedate=dt.date(2026, 8, 1))
    org.deal("last", "100", actualclosedate=dt.date(2026, 10, 31))
    org.deal("after", "1000", actualclosedate=dt.date(2026, 11, 1))
    assert actual(org) == 110
    org.store.change("goal", "goal", {"goalenddate": LAST})
    assert actual(org) == 1110


@pytest.mark.parametrize(("feeds", "expected"), [(True, 70), (False, 5)])
def test_an_overridden_goal_keeps_its_columns(feeds: bool, expected: int) -> None:
    org = Org(EmulatorSettings(overridden_feed_parents=feeds))
    org.goal("root", "nina")
    typed: Row = {"actualmoney": Decimal(70), "inprogressmoney": None, "percentage": Decimal(1)}
    org.goal("typed", "ann", parentgoalid="root", isoverridden=True, targetmoney=Decimal(100), more=typed)
    org.deal("deal", "5")
    assert actual(org, "root") == expected
    held = org.held("typed")
    assert {name: held.get(name) for name in typed} == typed
    assert held["computedtargetasoftodaymoney"] == Decimal("50.5495")
    assert held["lastrolledupdate"] == NOW


@pytest.mark.parametrize(
    ("rule", "kept", "root"),
    [(ClosedGoals.STORED, 70, 70), (ClosedGoals.SKIP, 70, 0), (ClosedGoals.RECOMPUTE, 5, 5)],
)
def test_closed_goals(rule: ClosedGoals, kept: int, root: int) -> None:
    org = Org(EmulatorSettings(closed_goals=rule))
    org.goal("root", "nina")
    org.goal("closed", "ann", parentgoalid="root", actualmoney=Decimal(70), more=CLOSED)
    org.deal("deal", "5")
    before = org.held("closed")
    assert actual(org, "root") == root
    assert org.held("closed")["actualmoney"] == kept
    assert (org.held("closed") is before) == (rule is not ClosedGoals.RECOMPUTE)


def test_a_query_that_cannot_be_read_marks_its_goal_and_those_above() -> None:
    org = Org()
    org.query("bad", '<condition attribute="actualvalue" operator="resembles" value="1"/>')
    org.goal("root", "nina", actualmoney=Decimal(1))
    org.goal("middle", "nina", parentgoalid="root")
    org.goal("bad", "ann", parentgoalid="middle", rollupqueryactualmoneyid="bad", actualmoney=Decimal(2))
    org.goal("good", "ann", parentgoalid="root")
    org.deal("deal", "5")
    recalculate(org.store, "good", org.settings, NOW)
    for name in ("root", "middle", "bad"):
        held = org.held(name)
        assert (held["rolluperrorcode"], held["goalwitherrorid"]) == (ERROR_CODE, "bad"), name
    assert (org.held("root")["actualmoney"], org.held("bad")["actualmoney"]) == (1, 2)
    assert org.held("good")["actualmoney"] == 5
    assert "rolluperrorcode" not in org.held("good")


def test_the_error_goes_when_the_cause_does() -> None:
    org = Org()
    org.goal("goal", rollupqueryactualmoneyid="none")
    assert org.rolled_up("goal")["rolluperrorcode"] == ERROR_CODE
    org.store.change("goal", "goal", {"rollupqueryactualmoneyid": None})
    assert not {"rolluperrorcode", "goalwitherrorid"} & org.rolled_up("goal").keys()


@pytest.mark.parametrize(
    "fault",
    [
        {"sourceentity": "nothing"},
        {"sourceattribute": "nothing"},
        {"sourceattribute": None},
        {"sourceattribute": "closeprobability"},
        {"sourceattribute": "exchangerate"},
        {"dateattribute": "name"},
        {"dateattribute": None},
        {"entityfordateattribute": "phonecall", "dateattribute": "actualend"},
        {"goalattribute": "actualinteger"},
        {"goalattribute": "inprogressmoney"},
        {"goalattribute": "title"},
        {"isstateparententityattribute": True},
    ],
)
def test_a_rollup_field_that_cannot_be_used_is_named_not_approximated(fault: Row) -> None:
    org = Org()
    org.goal("goal", actualmoney=Decimal(3))
    org.store.change("rollupfield", "won", fault)
    org.deal("deal", "5")
    held = org.rolled_up("goal")
    assert (held.get("rolluperrorcode"), held["actualmoney"]) == (ERROR_CODE, 3)


def test_a_metric_of_decimals_does_not_sum_money() -> None:
    org = Org()
    org.store.change("rollupfield", "units", {"sourceattribute": "extendedamount"})
    org.goal("goal", metric="units")
    assert org.rolled_up("goal")["rolluperrorcode"] == ERROR_CODE


@pytest.mark.parametrize(
    "fault",
    [
        {"metricid": None},
        {"goalenddate": None},
        {"isfiscalperiodgoal": True, "goalenddate": None, "fiscalyear": 2026, "fiscalperiod": 999},
        {"goalenddate": dt.datetime(9999, 12, 31, tzinfo=dt.UTC)},
    ],
)
def test_a_goal_without_metric_or_period_is_an_error(fault: Row) -> None:
    org = Org()
    org.goal("goal", actualmoney=Decimal(3))
    org.store.change("goal", "goal", fault)
    assert org.rolled_up("goal")["rolluperrorcode"] == ERROR_CODE
    assert org.held("goal")["actualmoney"] == 3


def test_a_query_over_another_table_is_an_error() -> None:
    org = Org()
    org.query("calls", '<condition attribute="statecode" operator="eq" value="1"/>', "phonecall")
    org.goal("goal", rollupqueryactualmoneyid="calls")
    assert org.rolled_up("goal")["rolluperrorcode"] == ERROR_CODE


def test_a_total_its_column_cannot_hold_is_an_error() -> None:
    org = Org()
    org.goal("root", rolluponlyfromchildgoals=True, metric="calls")
    stored: Row = {"actualinteger": 2**31 - 1, "isoverridden": True}
    org.goal("large", metric="calls", parentgoalid="root", more=stored)
    assert org.rolled_up("root")["actualinteger"] == 2**31 - 1
    org.goal("another", metric="calls", parentgoalid="root", more=stored, actualinteger=1)
    held = org.rolled_up("root")
    assert (held["rolluperrorcode"], held["goalwitherrorid"]) == (ERROR_CODE, "root")


def test_a_rollup_repeated_changes_nothing_but_versions() -> None:
    org = Org()
    org.goal("root", "nina", targetmoney=Decimal(9))
    org.goal("leaf", "ann", parentgoalid="root")
    org.deal("deal", "5")
    first = {name: {**org.rolled_up(name), "versionnumber": 0} for name in ("root", "leaf")}
    assert {name: {**org.rolled_up(name), "versionnumber": 0} for name in first} == first
