"""What it is to ask for somebody else, as far as d365sync relies on it; see :mod:`tests.contract.test_dataverse`."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.contract.remotes import NOWHERE, Remote, error_of

OBJECT_ID = "azureactivedirectoryobjectid"
HEADERS = {"CallerObjectId": OBJECT_ID, "MSCRMCallerID": "systemuserid"}


def somebody(remote: Remote) -> dict[str, Any]:
    """Return a user other than the one who asks, with both ids."""
    mine = remote.get("WhoAmI")["UserId"]
    wanted = f"isdisabled eq false and {OBJECT_ID} ne null and systemuserid ne {mine}"
    users = remote.get("systemusers", select=f"systemuserid,{OBJECT_ID}", filter=wanted, top="1")["value"]
    if not users:
        pytest.skip("this organization has no other user who has signed in")
    found: dict[str, Any] = users[0]
    return found


def answered(answer: requests.Response) -> requests.Response:
    """Return an answer, unless whoever asks may not act for others."""
    if answer.status_code == 403:
        pytest.skip(f"the application user may not act for another user: {error_of(answer)['message'][:200]}")
    return answer


@pytest.mark.parametrize("header", HEADERS)
def test_a_request_is_made_as_the_user_it_names(remote: Remote, header: str) -> None:
    user = somebody(remote)
    answer = answered(remote.call("GET", "WhoAmI", headers={header: user[HEADERS[header]]}))
    assert answer.status_code == 200
    assert answer.json()["UserId"] == user["systemuserid"]


@pytest.mark.parametrize("header", HEADERS)
def test_a_request_for_nobody_is_refused_and_not_made_as_oneself(remote: Remote, header: str) -> None:
    answer = remote.call("GET", "WhoAmI", headers={header: NOWHERE})
    assert 400 <= answer.status_code < 500
    assert error_of(answer)["code"]


def test_a_change_names_who_it_was_made_for_and_who_made_it(remote: Remote, account: str) -> None:
    user, mine = somebody(remote), remote.get("WhoAmI")["UserId"]
    headers = {"MSCRMCallerID": user["systemuserid"], "If-Match": "*"}
    answer = answered(remote.call("PATCH", account, json={"telephone1": "on behalf"}, headers=headers))
    assert answer.status_code == 204, answer.text
    row = remote.get(account, select="_modifiedby_value,_modifiedonbehalfby_value")
    assert (row["_modifiedby_value"], row["_modifiedonbehalfby_value"]) == (user["systemuserid"], mine)
