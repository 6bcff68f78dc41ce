"""``?fetchXml=``: shape of rows, annotations, pages and cookies, limits, and who asks."""

from __future__ import annotations

import datetime as dt
import html
from typing import Any
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

import pytest
from defusedxml.ElementTree import fromstring

from d365sync.core.fetchxml.evaluate import evaluate
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.emulator.callers import caller_context
from d365sync.emulator.timezones import ZONE_NAMES, zone_of
from d365sync.errors import FetchXmlError
from tests.unit.emulating import ANN, BOB, DESK, NOW, Org, code, made_id

COOKIE = "@Microsoft.Dynamics.CRM.fetchxmlpagingcookie"
MORE = "@Microsoft.Dynamics.CRM.morerecords"
TOTAL = "@Microsoft.Dynamics.CRM.totalrecordcount"
EXCEEDED = "@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"
ALL = 'odata.include-annotations="*"'


@pytest.fixture(scope="module")
def org() -> Org:
    return Org()


def fetched(org: Org, inside: str, fetch: str = "", prefer: str = "", entity: str = "opportunity") -> Any:
    text = f'<fetch {fetch}><entity name="{entity}">{inside}</entity></fetch>'
    entity_set = {"opportunity": "opportunities"}.get(entity, f"{entity}s")
    return org.get(f"{entity_set}?fetchXml={quote(text)}", prefer)


def test_rows_have_etag_key_and_the_columns_asked_for_without_nulls(org: Org) -> None:
    answer = fetched(org, '<attribute name="name"/><attribute name="ownerid"/><attribute name="estimatedvalue"/>')
    assert next(iter(answer)) == "@odata.context"
    assert answer["@odata.context"].endswith("#opportunities(name,_ownerid_value,estimatedvalue,opportunityid)")
    by_name = {row["name"]: row for row in answer["value"]}
    version = org.emulator.store.rows("opportunity")[made_id("e", 1)]["versionnumber"]
    assert by_name["Alpha"] == {
        "@odata.etag": f'W/"{version}"',
        "name": "Alpha",
        "_ownerid_value": ANN,
        "opportunityid": made_id("e", 1),
    }
    assert "estimatedvalue" in by_name["beta"]
    assert MORE not in answer
    assert COOKIE not in answer


def test_annotations_come_when_they_are_asked_for(org: Org) -> None:
    inside = '<attribute name="ownerid"/><attribute name="statecode"/><attribute name="estimatedvalue"/>'
    row = fetched(org, inside + '<filter><condition attribute="name" operator="eq" value="beta"/></filter>', "", ALL)
    beta = row["value"][0]
    assert beta["_ownerid_value@OData.Community.Display.V1.FormattedValue"] == "Bob Ray"
    assert beta["_ownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"] == "systemuser"
    assert beta["_ownerid_value@Microsoft.Dynamics.CRM.associatednavigationproperty"] == "ownerid"
    assert beta["statecode@OData.Community.Display.V1.FormattedValue"] == "Open"
    assert "$" in beta["estimatedvalue@OData.Community.Display.V1.FormattedValue"]
    assert row[TOTAL] == -1


def test_linked_columns_are_named_by_alias_or_by_table_and_number(org: Org) -> None:
    link = (
        '<link-entity name="systemuser" from="systemuserid" to="ownerid" {}><attribute name="fullname"/></link-entity>'
    )
    where = '<attribute name="name"/><filter><condition attribute="name" operator="eq" value="beta"/></filter>'
    assert fetched(org, where + link.format('alias="o"'))["value"][0]["o.fullname"] == "Bob Ray"
    assert fetched(org, where + link.format(""))["value"][0]["systemuser1.fullname"] == "Bob Ray"
    lookup = link.format('alias="o"').replace("fullname", "businessunitid")
    beta = fetched(org, where + lookup, "", ALL)["value"][0]
    assert beta["o.businessunitid@Microsoft.Dynamics.CRM.lookuplogicalname"] == "businessunit"


def test_aggregates_are_named_by_alias_and_have_no_etag(org: Org) -> None:
    inside = (
        '<attribute name="statecode" alias="state" groupby="true"/><attribute name="name" alias="n" aggregate="count"/>'
    )
    rows = fetched(org, inside, 'aggregate="true"', ALL)["value"]
    formatted = "OData.Community.Display.V1.FormattedValue"
    assert rows == [
        {"state": 0, f"state@{formatted}": "Open", "n": 3, f"n@{formatted}": "3"},
        {"state": 1, f"state@{formatted}": "Won", "n": 2, f"n@{formatted}": "2"},
    ]


def follow(org: Org, inside: str, count: int, prefer: str) -> list[list[str]]:
    """Read all pages as a client does: the cookie decoded twice and escaped into the next query."""
    pages: list[list[str]] = []
    more = f'count="{count}"'
    while True:
        answer = fetched(org, inside, more, prefer)
        pages.append([row["name"] for row in answer["value"]])
        if COOKIE not in answer:
            assert MORE not in answer
            return pages
        assert answer[MORE] is True
        cookie = fromstring(answer[COOKIE])
        assert cookie.get("istracking") == "False"
        assert cookie.get("pagingcookie", "").startswith("%253ccookie%2520page%253d%2522")
        inner = unquote(unquote(cookie.get("pagingcookie", "")))
        assert inner.startswith(f'<cookie page="{len(pages)}">')
        number = cookie.get("pagenumber")
        more = f'count="{count}" page="{number}" paging-cookie="{html.escape(inner)}"'


def test_pages_follow_their_cookie(org: Org) -> None:
    inside = '<attribute name="name"/><order attribute="name" descending="true"/>'
    assert follow(org, inside, 2, ALL) == [["Gamma", "beta"], ["alpha two", "Alpha"], ["50% off"]]


def test_the_cookie_names_the_order_and_the_key_of_the_last_row(org: Org) -> None:
    answer = fetched(org, '<attribute name="name"/><order attribute="name"/>', 'count="2"', ALL)
    inner = fromstring(unquote(unquote(fromstring(answer[COOKIE]).get("pagingcookie", ""))))
    assert [(one.tag, one.get("last")) for one in inner] == [
        ("name", "Alpha"),
        ("opportunityid", "{" + made_id("e", 1).upper() + "}"),
    ]


@pytest.mark.parametrize("named", [["opportunityid"], ["name", "name", "opportunityid"]])
def test_the_cookie_names_every_column_once_and_the_key_last(org: Org, named: list[str]) -> None:
    orders = "".join(f'<order attribute="{name}"/>' for name in named)
    answer = fetched(org, f'<attribute name="name"/>{orders}', 'count="2"', ALL)
    inner = fromstring(unquote(unquote(fromstring(answer[COOKIE]).get("pagingcookie", ""))))
    assert [one.tag for one in inner] == list(dict.fromkeys(named))
    assert inner[-1].get("last", "").startswith("{")


def test_a_page_size_of_the_request_lowers_the_count(org: Org) -> None:
    inside = '<attribute name="name"/>'
    assert len(fetched(org, inside, 'count="4"', "odata.maxpagesize=3")["value"]) == 3
    assert len(fetched(Org(page_size=2), inside, 'count="4"')["value"]) == 2


@pytest.mark.parametrize(
    ("inside", "fetch"),
    [
        ('<attribute name="name"/>', 'distinct="true"'),
        (
            '<link-entity name="systemuser" to="owninguser"><order attribute="fullname"/></link-entity>',
            "",
        ),
        ('<attribute name="name" alias="n" groupby="true"/>', 'aggregate="true"'),
    ],
)
def test_without_a_place_to_name_there_is_no_cookie(org: Org, inside: str, fetch: str) -> None:
    answer = fetched(org, inside, f'{fetch} count="1"', ALL)
    assert answer[MORE] is True
    assert COOKIE not in answer


def test_the_total_comes_with_the_query_and_the_annotation(org: Org) -> None:
    inside = '<attribute name="name"/>'
    answer = fetched(org, inside, 'count="2" returntotalrecordcount="true"', ALL)
    assert (answer[TOTAL], answer[EXCEEDED]) == (5, False)
    assert TOTAL not in fetched(org, inside, 'count="2" returntotalrecordcount="true"')


def test_the_total_stops_at_five_thousand_and_aggregates_at_fifty_thousand() -> None:
    org = Org()
    store = org.emulator.store
    for number in range(5001):
        store.put("account", {"accountid": f"11111111-0000-4000-8000-{number:012}"})
    answer = fetched(org, "", 'returntotalrecordcount="true"', ALL, "account")
    assert (answer[TOTAL], answer[EXCEEDED], len(answer["value"]), answer[MORE]) == (5000, True, 5000, True)
    for number in range(5001, 50_001):
        store.put("account", {"accountid": f"11111111-0000-4000-8000-{number:012}"})
    count = '<attribute name="accountid" alias="n" aggregate="count"/>'
    assert refused(org, count, 'aggregate="true"', "account") == (400, "0x8004E023")
    assert refused(org, "", 'page="11"', "account") == (400, "0x8004430A")


def refused(org: Org, inside: str, fetch: str = "", entity: str = "opportunity") -> tuple[int, str]:
    text = f'<fetch {fetch}><entity name="{entity}">{inside}</entity></fetch>'
    entity_set = {"opportunity": "opportunities"}.get(entity, f"{entity}s")
    return code(org.call("GET", f"{entity_set}?fetchXml={quote(text)}"))


@pytest.mark.parametrize(
    ("inside", "fetch", "expected"),
    [
        ('<attribute name="nosuch"/>', "", "0x80041103"),
        ('<filter><condition attribute="name" operator="equals" value="x"/></filter>', "", "0x80041120"),
        ('<link-entity name="nosuch" from="a" to="name"/>', "", "0x80041102"),
        ('<attribute name="opportunityid" alias="n" rowaggregate="CountChildren"/>', "", "0x80047020"),
        (f'<filter><condition attribute="opportunityid" operator="under" value="{ANN}"/></filter>', "", "0x80047020"),
        ("", 'page="999999999"', "0x8004430A"),
        ("", 'page="51" count="1000"', "0x8004430A"),
        (
            '<attribute name="opportunityid" alias="n" aggregate="count"/>',
            'aggregate="true" aggregatelimit="4"',
            "0x8004E023",
        ),
        ("", 'paging-cookie="nonsense" page="2"', "0x80040203"),
        ("", 'top="1" page="2"', "0x80040203"),
        ("<", "", "0x80040303"),
    ],
)
def test_a_refused_query_is_an_error_with_the_code_of_the_platform(
    org: Org, inside: str, fetch: str, expected: str
) -> None:
    assert refused(org, inside, fetch) == (400, expected)


def test_a_query_stands_alone_and_over_the_table_of_its_address(org: Org) -> None:
    text = quote('<fetch><entity name="account"/></fetch>')
    assert code(org.call("GET", f"opportunities?fetchXml={text}"))[0] == 400
    assert code(org.call("GET", f"accounts?$select=name&fetchXml={text}"))[0] == 400


def test_linked_tables_need_the_privilege_to_read_them() -> None:
    org = Org(missing_privileges=frozenset({"prvReadAccount"}))
    any_account = '<link-entity name="account" from="accountid" to="parentaccountid" link-type="any"/>'
    assert refused(org, f"<filter>{any_account}</filter>")[0] == 403


def _names(org: Org, user: str | None, condition: str) -> set[str]:
    context = caller_context(org.emulator.store, user, NOW)
    fetch = parse_fetch(f'<fetch><entity name="opportunity"><filter>{condition}</filter></entity></fetch>')
    store = org.emulator.store
    tables = {name: list(store.rows(name).values()) for name in store.catalogue.tables}
    return {str(row["name"]) for row in evaluate(fetch, tables, store.catalogue.schema, context)}


def test_the_caller_is_read_from_the_rows_of_the_organization() -> None:
    org = Org()
    store = org.emulator.store
    store.change("systemuser", BOB, {"parentsystemuserid": ANN})
    store.put("teammembership", {"teammembershipid": made_id("f", 1), "teamid": DESK, "systemuserid": BOB})
    store.put("usersettings", {"systemuserid": ANN, "timezonecode": 35, "uilanguageid": 1031})
    organization = store.only("organization")
    changes = {"weekstartdaycode": 1, "fiscalperiodtype": 2003, "fiscalyeardisplaycode": 2}
    start = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
    store.change("organization", str(organization["organizationid"]), {**changes, "fiscalcalendarstart": start})
    context = caller_context(store, ANN, NOW)
    assert (context.user_id, context.user_language, context.time_zone) == (ANN, 1031, ZoneInfo("America/New_York"))
    assert context.business_unit_id == store.rows("systemuser")[ANN]["businessunitid"]
    assert (context.user_hierarchy, context.team_members) == ({ANN: (BOB,)}, {DESK: (BOB,)})
    assert (context.user_team_ids, caller_context(store, BOB, NOW).user_team_ids) == ((), (DESK,))
    fiscal = context.fiscal
    assert (context.week_start, fiscal.start_month, fiscal.start_day) == (1, 7, 1)
    assert (fiscal.periods_per_year, fiscal.named_by) == (12, "end")
    mine = '<condition attribute="ownerid" operator="eq-userid"/>'
    assert _names(org, BOB, mine) == {"beta", "alpha two", "50% off"}
    everybody = '<condition attribute="ownerid" operator="eq-useroruserhierarchyandteams"/>'
    assert _names(org, ANN, everybody) >= _names(org, BOB, mine)


def test_nobody_is_no_user_and_an_unknown_language_is_none(org: Org) -> None:
    with pytest.raises(FetchXmlError, match="calling user"):
        _names(org, None, '<condition attribute="ownerid" operator="eq-userid"/>')
    assert caller_context(org.emulator.store, BOB, NOW).user_language is None


def test_every_time_zone_code_is_a_zone() -> None:
    assert [code for code in ZONE_NAMES if zone_of(code) is None] == []
    assert zone_of(7) is None
    assert zone_of(None) is None


def test_what_the_query_reads_is_the_readings_setting() -> None:
    query = '<attribute name="name"/><filter><condition attribute="name" operator="ne" value="beta"/></filter>'
    org = Org(fetch_readings={"ne_keeps_null": False})
    org.emulator.store.change("opportunity", made_id("e", 1), {"name": None})
    assert len(fetched(org, query)["value"]) == 3
    assert len(fetched(Org(), query)["value"]) == 4
