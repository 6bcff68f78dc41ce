"""Reading: filters, order, pages, annotations, expands, single rows."""

from __future__ import annotations

import re
from decimal import Decimal
from urllib.parse import unquote

import msgspec
import pytest

from tests.unit.emulating import ANN, BOB, COMPANY, DESK, ORIGIN, REVENUE, Org, code, deal, made_id


@pytest.fixture(scope="module")
def org() -> Org:
    return Org()


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("statecode eq 1", ["Alpha", "Gamma"]),
        ("statecode ne 1", ["beta", "alpha two", "50% off"]),
        ("name eq 'ALPHA'", ["Alpha"]),
        ("startswith(name,'alpha')", ["Alpha", "alpha two"]),
        ("endswith(name,'TWO')", ["alpha two"]),
        ("contains(name,'a_ph')", ["Alpha", "alpha two"]),
        ("contains(name,'[%]')", ["50% off"]),
        ("not contains(name,'alpha')", ["beta", "Gamma", "50% off"]),
        (f"_ownerid_value eq {BOB}", ["beta", "alpha two", "50% off"]),
        ("estimatedvalue eq null", ["Alpha", "Gamma", "50% off"]),
        ("estimatedvalue ne 10", ["Alpha", "Gamma", "alpha two", "50% off"]),
        ("not (estimatedvalue gt 1)", ["alpha two"]),
        ("estimatedvalue gt 1.5 or actualvalue lt 150", ["Alpha", "beta"]),
        ("statecode eq 1 and (name eq 'beta' or actualvalue ge 200)", ["Gamma"]),
        ("not (statecode eq 1 or name eq 'beta')", ["alpha two", "50% off"]),
        ("actualclosedate ge 2026-04-01", ["Gamma"]),
        ("estimatedvalue_base lt estimatedvalue", ["beta"]),
        ("10 gt estimatedvalue", ["alpha two"]),
        ("createdon ge 2026-05-01T14:00:00%2B02:00", ["Alpha", "beta", "Gamma", "alpha two", "50% off"]),
        ("name eq @p1&@p1='Gamma'", ["Gamma"]),
        ("Microsoft.Dynamics.CRM.In(PropertyName='statecode',PropertyValues=['1','2'])", ["Alpha", "Gamma"]),
    ],
)
def test_a_filter_keeps_the_rows_it_means(org: Org, filter_text: str, expected: list[str]) -> None:
    assert org.names(f"opportunities?$select=name&$filter={filter_text}") == expected


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("$filter=nosuch eq 1", 400, "'nosuch'"),
        ("$filter=name eq 1", 400, "incompatible types"),
        ("$filter=actualclosedate ge 2026-04-01T00:00:00Z", 400, "incompatible types"),
        ("$filter=year(createdon) eq 2026", 501, "'year'"),
        ("$filter=statecode in (1,2)", 501, "'in'"),
        ("$filter=name eq 'x", 400, "Syntax error"),
        ("$filter=(name eq 'x'", 400, "Syntax error"),
        (f"$filter={'(' * 500}name eq 'x'{')' * 500}", 400, "node count"),
        ("$select=nosuch", 400, "'nosuch'"),
        ("$orderby=name sideways", 400, "$orderby"),
        ("$skip=5", 400, "Skip Clause is not supported in CRM"),
        ("$top=-1", 400, "$top"),
        (f"$top={'9' * 5000}", 400, "$top"),
        ("$count=maybe", 400, "$count"),
        ("$nonsense=1", 400, "$nonsense"),
        ("fetchXml=<fetch/>", 400, "entity"),
        ("$expand=nosuch", 400, "'nosuch'"),
        ("$expand=ownerid", 501, "ownerid"),
        ("$skiptoken=garbage", 400, "skip token"),
        ("$select=name&$select=name", 400, "more than once"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(org: Org, query: str, status: int, says: str) -> None:
    response = org.call("GET", f"opportunities?{query}")
    assert response.status_code == status
    assert says in response.json()["error"]["message"]


def test_a_page_size_with_too_many_digits_is_refused_by_name(org: Org) -> None:
    headers = {"Prefer": f"odata.maxpagesize={'9' * 5000}"}
    for path in ("opportunities", "WhoAmI"):
        response = org.call("GET", path, headers=headers)
        assert code(response) == (400, "0x80060888")
        assert "odata.maxpagesize" in response.json()["error"]["message"]


def test_an_address_that_is_too_long_is_refused(org: Org) -> None:
    response = org.call("GET", f"opportunities?$filter=name eq '{'x' * 33_000}'")
    assert code(response) == (400, "0x80060888")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("name", ["50% off", "Alpha", "alpha two", "beta", "Gamma"]),
        ("statecode desc,name desc", ["Gamma", "Alpha", "beta", "alpha two", "50% off"]),
        ("actualvalue,name", ["50% off", "alpha two", "beta", "Alpha", "Gamma"]),
        ("actualclosedate desc", ["Gamma", "Alpha", "beta", "alpha two", "50% off"]),
        ("estimatedvalue desc,actualvalue", ["beta", "alpha two", "50% off", "Alpha", "Gamma"]),
        ("opportunityid", ["Alpha", "beta", "Gamma", "alpha two", "50% off"]),
        ("opportunityid desc", ["50% off", "alpha two", "Gamma", "beta", "Alpha"]),
        ("statecode desc,opportunityid desc,name", ["Gamma", "Alpha", "50% off", "alpha two", "beta"]),
        ("statecode,statecode desc,name", ["50% off", "alpha two", "beta", "Alpha", "Gamma"]),
    ],
)
@pytest.mark.parametrize("page_size", [1, 2, 5])
def test_pages_follow_one_another_in_any_order(org: Org, order: str, expected: list[str], page_size: int) -> None:
    found: list[str] = []
    link = f"opportunities?$select=name&$orderby={order}"
    while link:
        page = org.get(link, f"odata.maxpagesize={page_size}")
        assert len(page["value"]) <= page_size
        found += [row["name"] for row in page["value"]]
        link = page.get("@odata.nextLink", "")
    assert found == expected


def test_a_next_link_has_the_documented_cookie(org: Org) -> None:
    link = org.get("opportunities?%24select=name", "odata.maxpagesize=2")["@odata.nextLink"]
    query, _, token = link.partition("&$skiptoken=")
    assert query == f"{ORIGIN}/api/data/v9.2/opportunities?$select=name"
    first, last = (made_id("e", number).upper() for number in (1, 2))
    assert token.startswith(
        "%3Ccookie%20pagenumber=%222%22%20pagingcookie=%22%253ccookie%2520page%253d%25221%2522%253e"
    )
    assert unquote(unquote(token)) == (
        f'<cookie pagenumber="2" pagingcookie="<cookie page="1"><opportunityid last="{{{last}}}" '
        f'first="{{{first}}}" /></cookie>" istracking="False" />'
    )


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ("opportunityid", ["opportunityid"]),
        ("name desc,opportunityid desc,statecode", ["name", "opportunityid"]),
        ("name,statecode,name desc", ["name", "statecode", "opportunityid"]),
    ],
)
def test_a_cookie_names_every_column_once_and_the_key_last(org: Org, order: str, named: list[str]) -> None:
    link = org.get(f"opportunities?$select=name&$orderby={order}", "odata.maxpagesize=2")["@odata.nextLink"]
    assert re.findall(r"<(\w+) last=", unquote(unquote(link.partition("&$skiptoken=")[2]))) == named


def test_a_cookie_of_another_order_is_refused(org: Org) -> None:
    link = org.get("opportunities?$select=name&$orderby=name", "odata.maxpagesize=2")["@odata.nextLink"]
    assert code(org.call("GET", link.replace("$orderby=name", "$orderby=statecode")))[0] == 400


def test_top_limits_and_gives_no_next_link_but_is_ignored_beside_a_page_size(org: Org) -> None:
    assert "@odata.nextLink" not in org.get("opportunities?$top=2")
    assert len(org.get("opportunities?$top=2")["value"]) == 2
    assert len(org.get("opportunities?$top=1", "odata.maxpagesize=3")["value"]) == 3


def test_count_stands_beside_the_page_and_alone(org: Org) -> None:
    page = org.get(
        "opportunities?$count=true&$filter=statecode eq 0", 'odata.maxpagesize=1,odata.include-annotations="*"'
    )
    assert page["@odata.count"] == 3
    assert page["@Microsoft.Dynamics.CRM.totalrecordcount"] == 3
    assert page["@Microsoft.Dynamics.CRM.totalrecordcountlimitexceeded"] is False
    assert org.call("GET", "opportunities/$count?$filter=statecode eq 0").text == "3"


def test_money_keeps_its_scale_and_brings_its_currency(org: Org) -> None:
    text = org.call("GET", f"{deal(2)}?$select=estimatedvalue").content
    assert b'"estimatedvalue":10.0000,' in text
    row = msgspec.json.Decoder(float_hook=Decimal).decode(text)
    assert row["_transactioncurrencyid_value"] == made_id("c", 2)
    assert row["@odata.etag"].startswith('W/"')


def test_decimals_have_the_precision_of_their_column(org: Org) -> None:
    text = org.call("GET", "opportunityproducts?$select=quantity,exchangerate").text
    assert '"quantity":2.50000,' in text
    assert '"exchangerate":1.250000000000,' in text


def test_annotations_come_only_when_asked_for(org: Org) -> None:
    name = "_goalownerid_value"
    plain = org.get(f"{COMPANY}?$select=targetmoney,{name}")
    assert not [key for key in plain if "@" in key.lstrip("@")]
    wanted = org.get(
        f"goals?$select=title,targetmoney,goalenddate,isoverridden,statuscode,{name}", 'odata.include-annotations="*"'
    )["value"]
    company, desk = wanted[0], wanted[2]
    formatted = "@OData.Community.Display.V1.FormattedValue"
    assert company[f"targetmoney{formatted}"] == "€1,000.00"
    assert company[f"goalenddate{formatted}"] == "12/31/2026"
    assert company[f"isoverridden{formatted}"] == "No"
    assert company[f"statuscode{formatted}"] == "Open"
    assert company[f"{name}{formatted}"] == "Ann Lee"
    assert company[f"{name}@Microsoft.Dynamics.CRM.lookuplogicalname"] == "systemuser"
    assert desk[f"{name}@Microsoft.Dynamics.CRM.lookuplogicalname"] == "team"
    assert desk[f"{name}@Microsoft.Dynamics.CRM.associatednavigationproperty"] == "goalownerid_team"
    assert desk[name] == DESK


def test_a_list_of_annotations_brings_only_those_and_is_echoed(org: Org) -> None:
    prefer = 'odata.maxpagesize=2,odata.include-annotations="Microsoft.Dynamics.CRM.lookuplogicalname"'
    response = org.call("GET", "goals?$select=_goalownerid_value", headers={"Prefer": prefer})
    assert response.headers["Preference-Applied"] == prefer
    keys = response.json()["value"][0].keys()
    assert [key for key in keys if "@" in key.lstrip("@")] == [
        "_goalownerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"
    ]


def test_expands_bring_the_parent_and_the_children(org: Org) -> None:
    goal = org.get("goals?$select=title&$expand=metricid($select=name),parentgoalid($select=title)")["value"][1]
    assert goal["metricid"]["name"] == "Revenue"
    assert goal["parentgoalid"]["title"] == "Company"
    metric = org.get(f"metrics({REVENUE})?$select=name&$expand=metric_rollupfield($select=goalattribute)")
    assert [field["goalattribute"] for field in metric["metric_rollupfield"]] == ["actualmoney"]


def test_a_single_row_can_be_asked_for_only_if_it_changed(org: Org) -> None:
    response = org.call("GET", f"{COMPANY}?$select=title", headers={"If-None-Match": "null"})
    tag = response.headers["ETag"]
    assert response.json()["@odata.etag"] == tag
    again = org.call("GET", COMPANY, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert code(org.call("GET", f"goals({ANN})")) == (404, "0x80040217")


@pytest.mark.parametrize("path", ["nosuch", "goals(x)", "goals/nosuch", "nosuch()", "goals(title='x')"])
def test_no_such_address(org: Org, path: str) -> None:
    assert org.call("GET", path).status_code in (400, 404, 501)


def test_who_am_i_is_the_application_user(org: Org) -> None:
    me = org.get("WhoAmI()")
    assert me == org.get("WhoAmI")
    user = org.get(f"systemusers({me['UserId']})")
    assert user["applicationid"] == org.emulator.credentials.client_id
    assert user["_businessunitid_value"] == me["BusinessUnitId"]


def test_a_missing_privilege_is_named() -> None:
    org = Org(missing_privileges=frozenset({"prvReadGoal"}))
    response = org.call("GET", "goals")
    assert code(response) == (403, "0x80040220")
    text = response.json()["error"]["message"]
    assert "is missing prvReadGoal privilege (Id=55295613-92ec-435e-bcc4-a265b031cfd4) on OTC=9600" in text
    assert org.call("GET", "metrics").status_code == 200
    assert org.call("GET", "metrics?$expand=metric_goal").status_code == 403


def test_a_client_without_a_user_is_no_member() -> None:
    response = Org(application_user=False).call("GET", "WhoAmI")
    assert code(response) == (403, "0x80072560")


CDS = "@Microsoft.PowerApps.CDS."
HELP, INNER = f"{CDS}HelpLink", f"{CDS}InnerError.Message"
CATEGORY, STATUS = f"{CDS}ErrorDetails.ApiExceptionCategory", f"{CDS}ErrorDetails.ApiExceptionHttpStatusCode"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("*", {CATEGORY, STATUS, HELP, INNER}),
        ("Microsoft.PowerApps.CDS.ErrorDetails*", {CATEGORY, STATUS}),
        ("Microsoft.PowerApps.CDS.ErrorDetails.*", {CATEGORY, STATUS}),
        ("OData.Community.Display.V1.FormattedValue,Microsoft.PowerApps.CDS.HelpLink", {HELP}),
        ("OData.Community.Display.V1.FormattedValue", set()),
        ("", set()),
    ],
)
def test_errors_have_the_details_that_are_asked_for(org: Org, wanted: str, expected: set[str]) -> None:
    headers = {"Prefer": f'odata.include-annotations="{wanted}"'}
    response = org.call("GET", f"goals({ANN})", headers=headers)
    error = response.json()["error"]
    assert error.keys() == {"code", "message", *expected}
    told = {
        CATEGORY: "ClientError",
        STATUS: "404",
        HELP: "http://go.microsoft.com/fwlink/?LinkID=398563&error=Microsoft.Crm.CrmException%3a80040217&client=platform",
        INNER: error["message"],
    }
    assert {name: error[name] for name in expected} == {name: told[name] for name in expected}
    assert "Preference-Applied" not in response.headers


def test_what_is_not_done_has_no_link_to_help(org: Org) -> None:
    headers = {"Prefer": 'odata.include-annotations="*"'}
    error = org.call("GET", "opportunities?$compute=x", headers=headers).json()["error"]
    assert (error[CATEGORY], HELP in error) == ("SystemFailure", False)
