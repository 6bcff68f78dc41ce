"""Change tracking: the tracked load, deltas, deletions, expiry."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest

from tests.unit.emulating import NOW, Org, code, deal, made_id

TRACK = "odata.track-changes"
DEALS = "opportunities?$select=name"


@pytest.fixture
def org() -> Org:
    return Org()


def load(org: Org, link: str = DEALS, prefer: str = TRACK) -> tuple[list[Any], str]:
    """Follow next links to the end; return the entries and the delta link, which only the last page may carry."""
    found: list[Any] = []
    while True:
        page = org.get(link, prefer)
        found += page["value"]
        assert ("@odata.nextLink" in page) is not ("@odata.deltaLink" in page)
        if "@odata.deltaLink" in page:
            return found, page["@odata.deltaLink"]
        link = page["@odata.nextLink"]


def names(entries: list[Any]) -> list[str]:
    return [entry.get("name", "-") for entry in entries]


def test_a_tracked_load_ends_with_a_token_of_version_and_instant(org: Org) -> None:
    entries, link = load(org)
    assert names(entries) == ["Alpha", "beta", "Gamma", "alpha two", "50% off"]
    version = org.emulator.store.version
    assert link.endswith(f"/opportunities?$select=name&$deltatoken={version}%2105%2f01%2f2026%2012%3a00%3a00")


def test_a_delta_brings_the_latest_state_by_version_then_the_deletions(org: Org) -> None:
    _, link = load(org)
    for path, name in ((deal(3), "third"), (deal(1), "first"), (deal(3), "third again")):
        assert org.patch(path, {"name": name}).status_code == 204
    org.call("DELETE", deal(2))
    new = org.post("opportunities", {"name": "new", "opportunityid": made_id("e", 9)})
    assert new.status_code == 204
    org.call("DELETE", f"opportunities({made_id('e', 9)})")
    page = org.get(link)
    assert page["@odata.context"].endswith("$metadata#opportunities(name)/$delta")
    assert names(page["value"]) == ["first", "third again", "-", "-"]
    assert page["value"][2] == {
        "@odata.context": "https://emulator.test/api/data/v9.2/$metadata#opportunities/$deletedEntity",
        "id": made_id("e", 2),
        "reason": "deleted",
    }
    assert page["value"][3]["id"] == made_id("e", 9), "made and deleted between two polls: still told"
    assert org.get(page["@odata.deltaLink"])["value"] == []


def test_a_delta_may_be_counted_and_paged(org: Org) -> None:
    _, link = load(org)
    for number in (4, 5, 1):
        org.patch(deal(number), {"name": f"n{number}"})
    org.call("DELETE", deal(2))
    org.call("DELETE", deal(3))
    assert org.call("GET", link.replace("opportunities?", "opportunities/$count?")).text == "5"
    for size in (1, 2, 4):
        entries, _ = load(org, link, f"{TRACK},odata.maxpagesize={size}")
        assert names(entries) == ["n4", "n5", "n1", "-", "-"]


def test_the_count_of_a_delta_is_that_of_all_pages_and_stops_at_five_thousand(org: Org) -> None:
    _, link = load(org)
    for number in (4, 5, 1):
        org.patch(deal(number), {"name": f"n{number}"})
    org.call("DELETE", deal(2))
    counted = link.replace("opportunities?", "opportunities/$count?")
    assert org.call("GET", counted, headers={"Prefer": "odata.maxpagesize=2"}).text == "4"
    for number in range(5000):
        org.emulator.store.put("opportunity", {"opportunityid": made_id("f", number), "name": "many"})
    assert org.call("GET", counted).text == "5000"


def test_a_row_deleted_and_made_again_is_no_deletion(org: Org) -> None:
    _, link = load(org)
    org.call("DELETE", deal(1))
    org.post("opportunities", {"name": "back", "opportunityid": made_id("e", 1)})
    entries, _ = load(org, link)
    assert names(entries) == ["back"]


def test_changes_to_early_pages_while_loading_come_with_the_first_delta(org: Org) -> None:
    prefer = f"{TRACK},odata.maxpagesize=2"
    first = org.get(DEALS, prefer)
    org.patch(deal(1), {"name": "changed meanwhile"})
    org.call("DELETE", deal(2))
    _, link = load(org, first["@odata.nextLink"], prefer)
    entries, _ = load(org, link)
    assert names(entries) == ["changed meanwhile", "-"]


@pytest.mark.parametrize("option", ["$filter=statecode eq 1", "$orderby=name", "$top=3", "$expand=parentaccountid"])
def test_tracking_goes_with_no_other_option(org: Org, option: str) -> None:
    response = org.call("GET", f"{DEALS}&{option}", headers={"Prefer": TRACK})
    assert response.status_code == 400
    name = option.partition("=")[0]
    wanted = f'The "{name}" query parameter isn\'t supported when Change Tracking is enabled.'
    assert response.json()["error"]["message"] == wanted


def test_goals_are_not_tracked_and_say_so(org: Org) -> None:
    response = org.call("GET", "goals", headers={"Prefer": TRACK})
    assert code(response) == (400, "0x80072491")
    assert response.json()["error"]["message"] == "Entity goal isn't enabled for change tracking."


def test_a_setting_turns_tracking_on_and_off() -> None:
    org = Org(change_tracking={"goal": True, "opportunity": False}, tracking_status=405)
    load(org, "goals?$select=title")
    assert code(org.call("GET", DEALS, headers={"Prefer": TRACK})) == (405, "0x80072491")


def test_a_token_lives_as_long_as_the_organization_says(org: Org) -> None:
    _, link = load(org)
    org.emulator.clock.freeze(NOW + dt.timedelta(days=7))
    assert org.get(link)["value"] == []
    org.emulator.clock.freeze(NOW + dt.timedelta(days=7, seconds=1))
    response = org.call("GET", link)
    assert code(response) == (400, "0x80044352")
    assert "Please perform a full sync." in response.json()["error"]["message"]


def test_a_token_from_the_future_or_none_is_refused(org: Org) -> None:
    version = org.emulator.store.version
    ahead = f"opportunities?$deltatoken={version + 1}!05/01/2026 12:00:00"
    assert code(org.call("GET", ahead)) == (400, "0x80044352")
    assert code(org.call("GET", "opportunities?$deltatoken=x")) == (400, "0x80060888")
    assert code(org.call("GET", f"opportunities?$deltatoken={version}!13/45/2026 12:00:00")) == (400, "0x80060888")


@pytest.mark.parametrize("prefer", ["odata.maxpagesize=2", f"{TRACK},odata.maxpagesize=2"])
def test_changes_go_on_from_a_page_of_changes_only(org: Org, prefer: str) -> None:
    _, link = load(org)
    token = org.get(DEALS, prefer)["@odata.nextLink"].partition("$skiptoken=")[2]
    response = org.call("GET", f"{link}&$skiptoken={token}")
    assert code(response) == (400, "0x80060888")
    assert "skip token" in response.json()["error"]["message"]


def test_a_place_in_changes_without_a_good_token_is_refused(org: Org) -> None:
    _, link = load(org)
    for number in (1, 2):
        org.patch(deal(number), {"name": f"n{number}"})
    following = org.get(link, f"{TRACK},odata.maxpagesize=1")["@odata.nextLink"]
    assert org.call("GET", following).status_code == 200
    spoiled = re.sub(r"(deltatoken=%22)\d+", r"\1x", following)
    assert spoiled != following
    assert code(org.call("GET", spoiled)) == (400, "0x80060888")
