"""What goals are, as far as d365sync relies on it; see :mod:`tests.contract.test_dataverse`."""

from __future__ import annotations

import uuid

import pytest

from tests.contract.remotes import NOWHERE, Remote, error_of

RECALCULATE = "Microsoft.Dynamics.CRM.Recalculate"
ROLLUP_FIELDS = "0x80044911"
OURS = 123456.75


@pytest.mark.parametrize("column", ["actualmoney", "inprogressmoney"])
def test_rollup_columns_are_written_only_with_isoverride_in_the_same_request(
    remote: Remote, goal: str, column: str
) -> None:
    refused = remote.call("PATCH", goal, json={column: OURS}, headers={"If-Match": "*"})
    assert (refused.status_code, error_of(refused)["code"]) == (400, ROLLUP_FIELDS)
    assert remote.get(goal, select=column)[column] != OURS
    written = remote.call("PATCH", goal, json={column: OURS, "isoverride": True}, headers={"If-Match": "*"})
    assert written.status_code == 204, written.text
    assert remote.get(goal, select=column)[column] == OURS


def test_a_goal_is_not_made_with_rollup_columns_without_isoverride(remote: Remote) -> None:
    remote.need_sandbox()
    address = f"goals({uuid.uuid4()})"
    body = {**remote.new_goal(), "actualmoney": OURS}
    refused = remote.call("PATCH", address, json=body, headers={"If-None-Match": "*"})
    assert (refused.status_code, error_of(refused)["code"]) == (400, ROLLUP_FIELDS)
    assert remote.call("GET", f"{address}?$select=title").status_code == 404


def test_recalculate_rolls_a_goal_up(remote: Remote, goal: str) -> None:
    ours = {"actualmoney": OURS, "isoverride": True, "isoverridden": False}
    assert remote.call("PATCH", goal, json=ours, headers={"If-Match": "*"}).status_code == 204
    answer = remote.call("POST", f"{goal}/{RECALCULATE}", json={})
    assert (answer.status_code, answer.content) == (204, b"")
    row = remote.get(goal, select="actualmoney,lastrolledupdate")
    assert row["actualmoney"] != OURS
    assert row["lastrolledupdate"] is not None


def test_recalculate_leaves_what_is_overridden(remote: Remote, goal: str) -> None:
    ours = {"actualmoney": OURS, "isoverride": True, "isoverridden": True}
    assert remote.call("PATCH", goal, json=ours, headers={"If-Match": "*"}).status_code == 204
    assert remote.call("POST", f"{goal}/{RECALCULATE}", json={}).status_code == 204
    assert remote.get(goal, select="actualmoney")["actualmoney"] == OURS


def test_recalculate_needs_a_goal_that_is_there(remote: Remote) -> None:
    remote.need_sandbox()
    answer = remote.call("POST", f"goals({NOWHERE})/{RECALCULATE}", json={})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "0x80040217")
