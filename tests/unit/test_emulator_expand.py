"""Expanded collections: whole, or paged where expands are nested; their next links."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emulating import COMPANY, REVENUE, ROOT, Org, code

METRIC = f"metrics({REVENUE})"
NEXT = "metric_goal@odata.nextLink"
TITLES = ["Company", "Ann", "Desk", "Closed"]


@pytest.fixture(scope="module")
def org() -> Org:
    return Org()


def titles(rows: list[dict[str, Any]]) -> list[str]:
    return [row["title"] for row in rows]


def test_a_collection_comes_whole_with_the_address_of_the_whole(org: Org) -> None:
    asked = "$select=title;$filter=contains(title,'n') and title ne 'a b';$orderby=title;$top=5"
    found = org.get(f"{METRIC}?$select=name&$expand=metric_goal({asked})", "odata.maxpagesize=1")
    assert titles(found["metric_goal"]) == ["Ann", "Company"]
    query = "$select=title&$filter=contains(title,'n')%20and%20title%20ne%20'a%20b'&$orderby=title&$top=5"
    assert found[NEXT] == f"{ROOT}{METRIC}/metric_goal?{query}"
    assert titles(org.get(found[NEXT])["value"]) == ["Ann", "Company"]


def test_paging_is_of_the_querys_own_rows_where_no_expand_nests(org: Org) -> None:
    query = "metrics?$select=name&$expand=metric_goal($select=title),metric_rollupfield($select=goalattribute)"
    page = org.get(query, "odata.maxpagesize=1")
    (metric,) = page["value"]
    assert titles(metric["metric_goal"]) == TITLES
    assert "skiptoken" not in metric[NEXT]
    assert "skiptoken" in page["@odata.nextLink"]


def test_an_empty_collection_has_its_address_too(org: Org) -> None:
    found = org.get(f"{COMPANY}?$select=title&$expand=goal_parent_goal($filter=title eq 'nobody')")
    assert found["goal_parent_goal"] == []
    assert org.get(found["goal_parent_goal@odata.nextLink"])["value"] == []


def test_a_collection_without_options_has_a_bare_address(org: Org) -> None:
    found = org.get(f"{METRIC}?$select=name&$expand=metric_goal")
    assert found[NEXT] == f"{ROOT}{METRIC}/metric_goal"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_collections_are_paged_where_expands_nest(org: Org, size: int) -> None:
    prefer = f"odata.maxpagesize={size}"
    nested = "$select=title;$expand=metricid($select=name)"
    found = org.get(f"metrics?$filter=name eq 'Revenue'&$expand=metric_goal({nested})", prefer)["value"][0]
    rows = found["metric_goal"]
    link = found.get(NEXT, "")
    assert (len(rows), bool(link)) == (min(size, 4), size <= 4)
    while link:
        assert link.startswith(f"{ROOT}{METRIC}/metric_goal?$select=title&$expand=metricid($select=name)&$skiptoken=")
        page = org.get(link, prefer)
        rows += page["value"]
        link = page.get("@odata.nextLink", "")
    assert titles(rows) == TITLES
    assert {row["metricid"]["name"] for row in rows} == {"Revenue"}


def test_a_nested_collection_is_paged_from_its_own_row(org: Org) -> None:
    query = "goals?$filter=title eq 'Ann'&$select=title&$expand=parentgoalid($expand=goal_parent_goal($select=title))"
    parent = org.get(query, "odata.maxpagesize=1")["value"][0]["parentgoalid"]
    link = parent["goal_parent_goal@odata.nextLink"]
    assert link.startswith(f"{ROOT}{COMPANY}/goal_parent_goal?$select=title&$skiptoken=")
    assert titles(parent["goal_parent_goal"]) + titles(org.get(link)["value"]) == ["Ann", "Desk"]


def test_the_context_tells_nested_selections(org: Org) -> None:
    query = "goals?$select=title&$expand=metricid($select=name;$expand=metric_rollupfield($select=goalattribute))"
    assert org.get(query)["@odata.context"] == (
        f"{ROOT}$metadata#goals(title,metricid(name,metric_rollupfield(goalattribute)))"
    )


@pytest.mark.parametrize(
    "expand",
    [
        "metric_goal($top=1),metric_rollupfield($expand=metricid)",
        "metric_goal($orderby=title;$expand=metricid)",
        "metric_goal($expand=goal_parent_goal($top=1))",
        "createdby($orderby=fullname)",
    ],
)
def test_order_and_top_are_refused_for_lookups_and_where_expands_nest(org: Org, expand: str) -> None:
    response = org.call("GET", f"metrics?$expand={expand}")
    assert code(response) == (400, "0x80060888")
    assert "many-to-one relationship or nested one-to-many relationship" in response.json()["error"]["message"]
