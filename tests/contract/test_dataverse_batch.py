"""What ``$batch`` is, as far as d365sync relies on it; see :mod:`tests.contract.test_dataverse`."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from tests.contract.remotes import GUID, NAME, NOWHERE, Remote

HEADS = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
GOING_ON = {"Prefer": "odata.continue-on-error"}
ANSWER = re.compile(r"HTTP/1\.1 (\d{3})[^\r\n]*\r\n(.*?)\r\n\r\n(.*?)(?=\r\n--)", re.DOTALL)


def get(path: str) -> str:
    """One operation that reads."""
    return f"--b\r\n{HEADS}\r\nGET /api/data/v9.2/{path} HTTP/1.1\r\nAccept: application/json\r\n\r\n\r\n"


def change_set(*operations: tuple[str, str, dict[str, Any]]) -> str:
    """A change set of operations: method, address, body; each has its number as Content-ID."""
    parts = [
        f"--c\r\n{HEADS}Content-ID: {number}\r\n\r\n{method} {address} HTTP/1.1\r\n"
        f"Content-Type: application/json; type=entry\r\n{'If-Match: *' if method == 'PATCH' else 'Accept: */*'}\r\n\r\n"
        f"{json.dumps(body)}\r\n"
        for number, (method, address, body) in enumerate(operations, 1)
    ]
    return f"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{''.join(parts)}--c--\r\n"


def send(remote: Remote, *items: str, headers: dict[str, str] | None = None) -> tuple[int, list[tuple[int, str, str]]]:
    """Send a batch; return its status, and status, headers and body of each answer in it."""
    kind = {"Content-Type": 'multipart/mixed; boundary="b"'}
    body = ("".join(items) + "--b--\r\n").encode()
    answer = remote.call("POST", "$batch", data=body, headers={**kind, **(headers or {})})
    assert answer.headers["Content-Type"].startswith("multipart/mixed; boundary=batchresponse_"), answer.text
    found = ANSWER.findall(answer.text)
    return answer.status_code, [(int(status), inner, text) for status, inner, text in found]


def test_every_operation_is_answered_as_if_it_came_alone(remote: Remote) -> None:
    status, (who, goals) = send(remote, get("WhoAmI"), get("goals?$select=title&$top=1"))
    assert (status, who[0], goals[0]) == (200, 200, 200)
    assert json.loads(who[2])["UserId"] == remote.get("WhoAmI")["UserId"]
    assert isinstance(json.loads(goals[2])["value"], list)
    assert "Content-Type: application/json" in goals[1]


def test_a_failure_ends_a_batch(remote: Remote) -> None:
    status, answers = send(remote, get(f"goals({NOWHERE})?$select=title"), get("WhoAmI"))
    assert status == 400
    ((inner, _, text),) = answers
    assert (inner, json.loads(text)["error"]["code"]) == (404, "0x80040217")


def test_a_failure_does_not_end_a_batch_that_goes_on(remote: Remote) -> None:
    status, answers = send(remote, get(f"goals({NOWHERE})?$select=title"), get("WhoAmI"), headers=GOING_ON)
    assert (status, [inner for inner, _, _ in answers]) == (200, [404, 200])


def test_a_change_set_happens_as_a_whole(remote: Remote, account: str) -> None:
    changes = [("PATCH", remote.root + account, {name: "set"}) for name in ("telephone1", "address1_city")]
    status, answers = send(remote, change_set(*changes))
    assert (status, [inner for inner, _, _ in answers]) == (200, [204, 204])
    row = remote.get(account, select="telephone1,address1_city")
    assert (row["telephone1"], row["address1_city"]) == ("set", "set")


def test_a_change_set_that_fails_leaves_nothing_and_is_answered_by_its_failure(remote: Remote, account: str) -> None:
    first = ("PATCH", remote.root + account, {"telephone1": "never"})
    second = ("PATCH", f"{remote.root}accounts({NOWHERE})", {"telephone1": "never"})
    after = change_set(("PATCH", remote.root + account, {"address1_city": "after"}))
    status, answers = send(remote, change_set(first, second), after)
    assert (status, [inner for inner, _, _ in answers]) == (400, [404])
    row = remote.get(account, select="telephone1,address1_city")
    assert (row["telephone1"], row["address1_city"]) == (None, None)


def test_a_change_set_that_fails_takes_back_its_own_changes_only(remote: Remote, account: str) -> None:
    failing = change_set(
        ("PATCH", remote.root + account, {"telephone1": "never"}),
        ("PATCH", f"{remote.root}accounts({NOWHERE})", {"telephone1": "never"}),
    )
    before = change_set(("PATCH", remote.root + account, {"address1_city": "before"}))
    status, answers = send(remote, before, failing, get("WhoAmI"), headers=GOING_ON)
    assert (status, [inner for inner, _, _ in answers][:2]) == (200, [204, 404])
    row = remote.get(account, select="telephone1,address1_city")
    assert (row["telephone1"], row["address1_city"]) == (None, "before")


def test_later_operations_of_a_change_set_name_rows_that_earlier_ones_made(remote: Remote, account: str) -> None:
    made = {"accountid": str(uuid.uuid4()), "name": NAME}
    bound = {"parentaccountid@odata.bind": "$1"}
    address = f"accounts({made['accountid']})"
    try:
        status, answers = send(
            remote,
            change_set(
                ("POST", f"{remote.root}accounts", made),
                ("PATCH", "$1", {"telephone1": "by reference"}),
                ("PATCH", remote.root + account, bound),
            ),
        )
        assert (status, [inner for inner, _, _ in answers]) == (200, [204, 204, 204])
        told = next(line for line in answers[0][1].splitlines() if line.startswith("OData-EntityId:"))
        assert [found[0] for found in GUID.finditer(told)] == [made["accountid"]]
        assert remote.get(address, select="telephone1")["telephone1"] == "by reference"
        assert remote.get(account, select="_parentaccountid_value")["_parentaccountid_value"] == made["accountid"]
    finally:
        remote.call("PATCH", account, json={"parentaccountid@odata.bind": None}, headers={"If-Match": "*"})
        remote.call("DELETE", address)


def test_a_reference_to_what_was_not_made_fails(remote: Remote, account: str) -> None:
    status, answers = send(remote, change_set(("PATCH", remote.root + account, {"parentaccountid@odata.bind": "$7"})))
    assert status == 400
    assert [inner for inner, _, _ in answers] == [400]
    assert "$7" in json.loads(answers[0][2])["error"]["message"]
