"""Secured columns that may not be read: every way of asking is answered as if they were empty."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.emulating import ANN, BOB, NOW, SMALL, Org, deal

ALL = 'odata.include-annotations="*"'
SECRETS: dict[str, Any] = {"new_fee": 77, "new_mark": "secret", "_new_boss_value": BOB, "new_when": "2026-04-04"}
SCHEMA = {
    "opportunity": {
        "columns": {
            "new_fee": {"type": "money", "secured": True},
            "new_mark": {"type": "string", "secured": True},
            "new_when": {"type": "datetime:dateonly", "secured": True},
            "new_helper": {"type": "lookup:systemuser", "navigation": {"systemuser": "new_Helper"}},
            "new_boss": {"type": "lookup:systemuser", "navigation": {"systemuser": "new_Boss"}, "secured": True},
        }
    },
    "systemuser": {
        "columns": {},
        "collections": {"new_deals": ["opportunity", "new_boss"], "new_helped": ["opportunity", "new_helper"]},
    },
}


def org(folder: Path, secrets: dict[str, Any], **settings: Any) -> Org:
    """Return the small org, whose first three deals hold the secrets."""
    shutil.copytree(SMALL, folder)
    (folder / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    deals = folder / "opportunities.json"
    rows = json.loads(deals.read_text(encoding="utf-8"))
    for row in rows[:3]:
        row.update({**secrets, "_new_helper_value": ANN})
    deals.write_text(json.dumps(rows), encoding="utf-8")
    return Org(folder=folder, **settings)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Org:
    return org(tmp_path_factory.mktemp("hidden") / "org", SECRETS, reads_secured=False, max_page_size=2)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Org:
    return org(tmp_path_factory.mktemp("empty") / "org", {}, max_page_size=2)


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Org:
    return org(tmp_path_factory.mktemp("open") / "org", SECRETS, max_page_size=2)


def fetch(inside: str, more: str = "", entity: str = "opportunity", entity_set: str = "opportunities") -> str:
    text = f'<fetch{more}><entity name="{entity}">{inside}</entity></fetch>'
    return f"{entity_set}?fetchXml={quote(text)}"


def condition(column: str, operator: str, value: str = "") -> str:
    shown = f' value="{value}"' if value else ""
    return f'<filter><condition attribute="{column}" operator="{operator}"{shown}/></filter>'


LINK = '<link-entity name="opportunity" from="{}" to="{}" alias="d">{}</link-entity>'
FEES = '<attribute name="new_fee"/><attribute name="new_mark"/><attribute name="new_boss"/>'
FUNCTION = "Microsoft.Dynamics.CRM."
QUERIES = [
    "opportunities?$select=name,new_fee,new_fee_base,new_mark,_new_boss_value,new_when",
    f"{deal(1)}?$select=new_fee,new_mark",
    f"{deal(1)}?$expand=new_Boss($select=fullname)",
    f"{deal(1)}/new_fee",
    f"{deal(1)}/new_fee_base",
    f"{deal(1)}/new_mark/$value",
    f"{deal(1)}/_new_boss_value",
    f"{deal(1)}/new_Boss",
    f"{deal(1)}/new_Boss/$ref",
    "opportunities?$select=name&$filter=new_fee gt 0",
    "opportunities?$select=name&$filter=new_fee eq null",
    "opportunities?$select=name&$filter=new_fee ne 77",
    "opportunities?$select=name&$filter=contains(new_mark,'sec')",
    "opportunities?$select=name&$filter=not contains(new_mark,'sec')",
    f"opportunities?$select=name&$filter=_new_boss_value eq {BOB}",
    "opportunities?$select=name&$filter=new_Boss/fullname ne null",
    "opportunities?$select=name&$filter=actualvalue gt new_fee",
    f"opportunities?$select=name&$filter={FUNCTION}ThisYear(PropertyName='new_when')",
    "opportunities/$count?$filter=new_fee gt 0",
    "opportunities?$select=name&$count=true&$filter=new_mark eq 'secret'",
    "opportunities?$select=name&$orderby=new_fee desc,name",
    "opportunities?$select=name&$orderby=new_mark,name",
    "opportunities?$apply=aggregate(new_fee with sum as total)",
    "opportunities?$apply=aggregate(new_fee with max as most,new_fee_base with min as least)",
    "opportunities?$apply=groupby((new_mark),aggregate($count as n))",
    "opportunities?$apply=filter(new_fee gt 0)/aggregate($count as n)",
    f"systemusers({ANN})?$expand=new_helped($select=name,new_fee;$orderby=new_fee desc)",
    f"systemusers({BOB})?$select=fullname&$expand=new_deals($select=name)",
    f"systemusers({BOB})/new_deals?$select=name",
    f"systemusers({BOB})/new_deals/$count",
    f"systemusers({BOB})/new_deals/$ref",
    "systemusers?$select=fullname&$filter=new_deals/any()",
    "systemusers?$select=fullname&$filter=new_helped/any(o:o/new_fee gt 0)",
    "opportunities?sql=" + quote("SELECT name, new_fee, new_mark, new_boss FROM opportunity"),
    "opportunities?sql=" + quote("SELECT name FROM opportunity WHERE new_mark = 'secret'"),
    "opportunities?sql=" + quote("SELECT name FROM opportunity WHERE new_fee IS NULL ORDER BY new_fee DESC"),
    fetch('<attribute name="name"/>' + FEES),
    fetch("<all-attributes/>"),
    fetch('<attribute name="name"/>' + condition("new_fee", "gt", "0")),
    fetch('<attribute name="name"/>' + condition("new_boss", "eq", BOB)),
    fetch('<attribute name="name"/>' + condition("new_mark", "null")),
    fetch('<attribute name="name"/>' + condition("new_when", "this-year")),
    fetch('<attribute name="name"/><order attribute="new_fee" descending="true"/>', ' count="1"'),
    fetch('<attribute name="new_fee" alias="t" aggregate="sum"/>', ' aggregate="true"'),
    fetch('<attribute name="new_mark" alias="m" aggregate="countcolumn" distinct="true"/>', ' aggregate="true"'),
    fetch(
        '<attribute name="new_mark" alias="m" groupby="true"/><attribute name="name" alias="n" aggregate="count"/>',
        ' aggregate="true"',
    ),
    fetch(
        '<attribute name="fullname"/>' + LINK.format("new_boss", "systemuserid", ""), "", "systemuser", "systemusers"
    ),
    fetch(
        '<attribute name="fullname"/>' + LINK.format("ownerid", "systemuserid", FEES), "", "systemuser", "systemusers"
    ),
]


def answered(org: Org, path: str) -> tuple[int, str]:
    response = org.call("GET", path, headers={"Prefer": ALL})
    return response.status_code, response.text


@pytest.mark.parametrize("path", QUERIES)
def test_what_may_not_be_read_is_answered_as_if_it_were_empty(hidden: Org, empty: Org, path: str) -> None:
    status, text = answered(hidden, path)
    assert status in (200, 204), text
    assert (status, text) == answered(empty, path)


@pytest.mark.parametrize("path", QUERIES)
def test_whoever_may_read_it_is_answered_otherwise(open_to_all: Org, empty: Org, path: str) -> None:
    assert answered(open_to_all, path) != answered(empty, path)


def test_changes_and_representations_hide_it_too(tmp_path: Path) -> None:
    org_ = org(tmp_path / "org", SECRETS, reads_secured=False)
    tracked = org_.get("opportunities?$select=name,new_fee", "odata.track-changes")
    assert {row["new_fee"] for row in tracked["value"]} == {None}
    body = {"new_mark": "changed"}
    changed = org_.patch(f"{deal(1)}?$select=name,new_mark", body, {"Prefer": "return=representation"})
    assert changed.json()["new_mark"] is None
    (row,) = org_.get(tracked["@odata.deltaLink"].replace("new_fee", "new_mark"))["value"]
    assert (row["name"], row.get("new_mark"), row.get("new_fee")) == ("Alpha", None, None)
    assert org_.emulator.store.rows("opportunity")[deal(1)[-37:-1]]["new_mark"] == "changed"


def test_a_bulk_deletion_finds_as_little_as_a_query(tmp_path: Path) -> None:
    found: list[Callable[[], int]] = []
    for name, reads in (("hidden", False), ("open", True)):
        org_ = org(tmp_path / name, SECRETS, reads_secured=reads)
        text = f'<fetch><entity name="opportunity">{condition("new_mark", "eq", "secret")}</entity></fetch>'
        query = {"@odata.type": f"{FUNCTION}FetchExpression", "Query": text}
        body = {"QuerySet": [query], "JobName": "Tidy", "StartDateTime": NOW.isoformat(), "RunNow": True}
        body |= {"SendEmailNotification": False, "ToRecipients": [], "CCRecipients": [], "RecurrencePattern": ""}
        assert org_.post("BulkDelete", body).status_code == 200
        org_.emulator.run_jobs()
        found.append(lambda org_=org_: len(org_.emulator.store.rows("opportunity")))  # type: ignore[misc]
    assert [count() for count in found] == [5, 2]
