"""Filters beyond the row itself, query functions, nested expands, groups and counts."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from d365sync.core.fetchxml.operators import OPERATORS
from d365sync.emulator.odata.functions import QUERY_FUNCTIONS
from tests.unit.emulating import ANN, BOB, COMPANY, Org, code, made_id

CRM = "Microsoft.Dynamics.CRM."


@pytest.fixture(scope="module")
def org() -> Org:
    return Org()


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("owninguser/fullname eq 'bob ray'", ["beta", "alpha two", "50% off"]),
        ("owninguser/fullname ne 'Bob Ray'", ["Alpha", "Gamma"]),
        ("owninguser/fullname eq null", ["Gamma"]),
        ("contains(owninguser/fullname,'ann')", ["Alpha"]),
        (f"owninguser/systemuserid eq {ANN}", ["Alpha"]),
        ("owninguser/businessunitid/name eq null", ["Gamma"]),
        ("product_opportunities/any()", ["beta"]),
        ("not product_opportunities/any()", ["Alpha", "Gamma", "alpha two", "50% off"]),
        ("product_opportunities/any(p:p/quantity gt 2 and p/priceperunit eq 5)", ["beta"]),
        ("product_opportunities/any(p:p/quantity gt 3)", []),
        ("product_opportunities/all(p:p/quantity gt 3)", ["Alpha", "Gamma", "alpha two", "50% off"]),
        ("statecode eq 1 and not product_opportunities/any(p:contains(p/productname,'x'))", ["Alpha", "Gamma"]),
        (f"product_opportunities/any(p:p/{CRM}In(PropertyName='quantity',PropertyValues=['2.5']))", ["beta"]),
        (f"{CRM}NotIn(PropertyName='statecode',PropertyValues=['1'])", ["beta", "alpha two", "50% off"]),
        (f"{CRM}In(PropertyName='ownerid',PropertyValues=['{BOB}'])", ["beta", "alpha two", "50% off"]),
        (f"{CRM}Between(PropertyName='estimatedvalue',PropertyValues=['1','10'])", ["beta", "alpha two"]),
        (f"{CRM}On(PropertyName='actualclosedate',PropertyValue='2026-03-31')", ["Alpha"]),
        (f"{CRM}OnOrAfter(PropertyName='actualclosedate',PropertyValue=2026-04-01)", ["Gamma"]),
        (f"{CRM}LastXMonths(PropertyName='actualclosedate',PropertyValue=@p1)&@p1=1", ["Gamma"]),
        (f"{CRM}ThisYear(PropertyName='actualclosedate')", ["Alpha", "Gamma"]),
        (f"{CRM}InFiscalPeriodAndYear(PropertyName=@a,PropertyValue1=1,PropertyValue2=2026)&@a='actualclosedate'",
         ["Alpha"]),
        (f"{CRM}EqualUserId(PropertyName='ownerid') or name eq 'beta'", ["beta"]),
    ],
)  # fmt: skip
def test_a_filter_looks_at_other_rows_and_asks_functions(org: Org, filter_text: str, expected: list[str]) -> None:
    assert org.names(f"opportunities?$select=name&$filter={filter_text}") == expected


@pytest.mark.parametrize(
    ("filter_text", "status", "says"),
    [
        ("ownerid/fullname eq 'x'", 501, "several tables"),
        ("owninguser/nosuch eq 'x'", 400, "'nosuch' on type 'Microsoft.Dynamics.CRM.systemuser'"),
        ("nosuch/name eq 'x'", 400, "'nosuch'"),
        ("product_opportunities/quantity eq 1", 400, "needs 'any' or 'all'"),
        ("owninguser/user_x/any(u:u/name eq 'x')", 400, "only to a collection of the row itself"),
        ("nosuch/any()", 400, "'nosuch'"),
        ("product_opportunities/all()", 400, "Syntax error"),
        ("product_opportunities/any(p:quantity eq 1)", 400, "must begin with 'p/'"),
        ("product_opportunities/any(p:q/quantity eq 1)", 400, "must begin with 'p/'"),
        ("product_opportunities/any(p:p/quantity eq 1", 400, "Syntax error"),
        ("owninguser/fullname eq name", 501, "a column of another row"),
        (f"not {CRM}Today(PropertyName='createdon')", 400, "Not operator along with"),
        (f"not ({CRM}Today(PropertyName='createdon'))", 400, "Not operator along with"),
        (f"{CRM}Contains(PropertyName='name',PropertyValue='x')", 501, "Contains"),
        (f"{CRM}Nosuch(PropertyName='name')", 501, "Nosuch"),
        (f"{CRM}Today(PropertyName='name')", 400, "Today"),
        (f"{CRM}Today(PropertyName='nosuch')", 400, "'nosuch'"),
        (f"{CRM}Today()", 400, "Syntax error"),
        (f"{CRM}LastXDays(PropertyName='createdon')", 400, "takes PropertyName, PropertyValue"),
        (f"{CRM}LastXDays(PropertyName='createdon',PropertyValue='soon')", 400, "LastXDays"),
        (f"{CRM}In(PropertyName='statecode',PropertyValues=[])", 400, "Syntax error"),
        ("estimatedvalue eq 1e99999999999999999999", 400, "too large"),
    ],
)
def test_what_a_filter_cannot_do_is_refused_by_name(org: Org, filter_text: str, status: int, says: str) -> None:
    response = org.call("GET", f"opportunities?$filter={filter_text}")
    assert response.status_code == status, response.text
    assert says in response.json()["error"]["message"]


def test_every_query_function_is_an_operator_of_fetchxml() -> None:
    spoken = {function.operator for function in QUERY_FUNCTIONS.values()}
    assert spoken <= OPERATORS.keys()
    plain = {"eq", "ne", "neq", "gt", "ge", "lt", "le", "null", "not-null"}
    patterns = {name for name in OPERATORS if name.endswith(("like", "-with"))}
    assert OPERATORS.keys() - spoken == plain | patterns


def test_a_related_row_needs_the_privilege_of_its_table() -> None:
    org = Org(missing_privileges=frozenset({"prvReadUser"}))
    assert org.call("GET", "opportunities?$filter=owninguser/fullname eq 'x'").status_code == 403
    assert org.call("GET", "opportunities?$filter=statecode eq 0").status_code == 200


def test_expands_nest_and_collections_have_order_and_top(org: Org) -> None:
    line = org.get("opportunityproducts?$expand=opportunityid($select=name;$expand=owninguser($select=fullname))")
    inside = line["value"][0]["opportunityid"]
    assert (inside["name"], inside["owninguser"]["fullname"]) == ("beta", "Bob Ray")
    goals = org.get(f"{COMPANY}?$expand=goal_parent_goal($select=title;$orderby=title desc;$top=2)")
    everyone = org.get(f"{COMPANY}?$expand=goal_parent_goal($select=title)")["goal_parent_goal"]
    titles = sorted((one["title"] for one in everyone), reverse=True)
    assert len(titles) > 1
    assert [one["title"] for one in goals["goal_parent_goal"]] == titles[:2]
    quoted = org.get("goals?$expand=metricid($select=name;$filter=name eq 'a;b,(c')")
    assert {one["metricid"] for one in quoted["value"]} == {None}


@pytest.mark.parametrize(
    ("expand", "status", "says"),
    [
        ("goal_parent_goal($orderby=title;$expand=metricid)", 400, "Only $select and $filter"),
        ("parentgoalid($expand=goal_parent_goal($top=1))", 400, "Only $select and $filter"),
        ("metricid($top=1)", 400, "many-to-one"),
        ("goal_parent_goal($count=true)", 400, "$count"),
        ("goal_parent_goal($levels=2)", 400, "$levels"),
        ("goal_parent_goal/$ref", 501, "$ref"),
        ("metricid($select=name", 400, "not closed"),
        ("metricid($select=name;$select=name)", 400, "more than once"),
        (",".join(["metricid"] * 16), 400, "limit of 15"),
        ("parentgoalid($expand=" * 16 + "metricid" + ")" * 16, 400, "limit of 15"),
    ],
)
def test_expands_beyond_the_platforms_limits(org: Org, expand: str, status: int, says: str) -> None:
    response = org.call("GET", f"goals?$expand={expand}")
    assert response.status_code == status, response.text
    assert says in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("apply", "expected"),
    [
        ("aggregate($count as n)", '[{"n":5}]'),
        ("filter(statecode eq 1)/aggregate(actualvalue with sum as total)", '[{"total":300.500000000}]'),
        ("aggregate(actualvalue with average as a)", '[{"a":150.250000000}]'),
        ("groupby((statecode),aggregate($count as n))", '[{"statecode":0,"n":3},{"statecode":1,"n":2}]'),
        ("groupby((statecode))", '[{"statecode":0},{"statecode":1}]'),
        ("filter(statecode eq 0)/groupby((statecode,_ownerid_value),aggregate(estimatedvalue with max as m))",
         f'[{{"statecode":0,"_ownerid_value":"{BOB}","m":10.000000000}}]'),
        ("aggregate(createdon with max as last)", '[{"last":"2026-05-01T12:00:00Z"}]'),
        ("filter(name eq 'none')/aggregate(actualvalue with sum as t,$count as n)", '[{"t":null,"n":0}]'),
    ],
)  # fmt: skip
def test_groups_and_sums(org: Org, apply: str, expected: str) -> None:
    response = org.call("GET", f"opportunities?$apply={apply}")
    assert response.status_code == 200, response.text
    assert f'"value":{expected}' in response.text


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("$apply=aggregate(name with countdistinct as n)", 501, "'countdistinct'"),
        ("$apply=groupby((createdon))", 400, "'createdon'"),
        ("$apply=groupby((owninguser/fullname))", 501, "owninguser/fullname"),
        ("$apply=groupby((statecode),aggregate($count as n))&$orderby=n", 400, "SingleValueOpenPropertyAccess"),
        ("$apply=groupby((statecode))&$top=1", 501, "'$top'"),
        ("$apply=compute(statecode as x)", 501, "'compute'"),
        ("$apply=aggregate(name with sum as n)", 400, "sum is not allowed"),
        ("$apply=aggregate(nosuch with sum as n)", 400, "'nosuch'"),
        ("$apply=aggregate($count as n,$count as n)", 400, "twice"),
        ("$apply=groupby(statecode)", 400, "Syntax error"),
        ("$apply=", 501, "$apply"),
    ],
)
def test_groups_that_are_refused(org: Org, query: str, status: int, says: str) -> None:
    response = org.call("GET", f"opportunities?{query}")
    assert response.status_code == status, response.text
    assert says in response.json()["error"]["message"]


def test_too_many_rows_are_not_added_up() -> None:
    org = Org()
    for number in range(50_001):
        org.emulator.store.put("account", {"accountid": made_id("7", number), "statecode": 0})
    assert code(org.call("GET", "accounts?$apply=aggregate($count as n)")) == (400, "0x8004E023")
    assert org.get("accounts?$count=true&$top=1")["@odata.count"] == 5000


def test_rows_are_counted_beyond_the_cap(org: Org) -> None:
    names = quote('["goal","metric"]')
    document = org.get(f"RetrieveTotalRecordCount(EntityNames=@p1)?@p1={names}")
    counts = [len(org.get(path)["value"]) for path in ("goals", "metrics")]
    assert document["EntityRecordCountCollection"] == {
        "Count": 2, "IsReadOnly": False, "Keys": ["goal", "metric"], "Values": counts,
    }  # fmt: skip
    assert org.call("GET", "RetrieveTotalRecordCount(EntityNames=['nosuch'])").status_code == 400
    assert org.call("GET", "RetrieveTotalRecordCount").status_code == 400


def test_version_and_organization(org: Org) -> None:
    assert org.get("RetrieveVersion()")["Version"].startswith("9.2")
    access = f"{CRM}EndpointAccessType'Default'"
    detail = org.get(f"RetrieveCurrentOrganization(AccessType=@p1)?@p1={access}")["Detail"]
    assert detail["OrganizationId"] == org.get("WhoAmI")["OrganizationId"]
    assert org.call("GET", "RetrieveCurrentOrganization()").status_code == 400


def test_the_reading_of_ne_is_that_of_fetchxml() -> None:
    query = "opportunities?$select=name&$filter=estimatedvalue ne 10"
    assert Org().names(query) == ["Alpha", "Gamma", "alpha two", "50% off"]
    assert Org(fetch_readings={"ne_keeps_null": False}).names(query) == ["alpha two"]
