"""The emulator's ``$batch``: operations as if alone, change sets all or nothing, answers in the documented shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import InProcessAdapter
from d365sync.emulator.multipart import ChangeSet, Item, Operation, parse_batch
from d365sync.emulator.settings import EmulatorSettings
from tests.effort import SAME_EACH_RUN, examples
from tests.unit.emulating import ANN, ROOT, Org, deal, keyed_folder, made_id

GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
HEADS = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"


@pytest.fixture
def org() -> Org:
    return Org()


def single(line: str, headers: str = "", body: str = "") -> str:
    return f"--b\r\n{HEADS}\r\n{line} HTTP/1.1\r\n{headers}\r\n{body}\r\n"


def change_set(*operations: str, name: str = "c") -> str:
    inner = "".join(
        f"--{name}\r\n{HEADS}Content-ID: {number}\r\n\r\n{one}\r\n" for number, one in enumerate(operations, 1)
    )
    return f"--b\r\nContent-Type: multipart/mixed; boundary={name}\r\n\r\n{inner}--{name}--\r\n"


def operation(line: str, body: Mapping[str, Any] | None = None, headers: str = "") -> str:
    kind = "Content-Type: application/json; type=entry\r\n" if body is not None else ""
    return f"{line} HTTP/1.1\r\n{headers}{kind}\r\n{json.dumps(body) if body is not None else ''}"


def send(org: Org, *items: str, prefer: str = "", boundary: str = "b") -> requests.Response:
    headers = {"Content-Type": f'multipart/mixed; boundary="{boundary}"'} | ({"Prefer": prefer} if prefer else {})
    return org.session.post(f"{ROOT}$batch", data=("".join(items) + "--b--\r\n").encode(), headers=headers)


def statuses(response: requests.Response) -> list[int]:
    return [int(code) for code in re.findall(r"^HTTP/1\.1 (\d{3})", response.text, re.MULTILINE)]


def codes(response: requests.Response) -> list[str]:
    return re.findall(r'"code":"(\w+)"', response.text)


def name_of(org: Org, number: int) -> str:
    return str(org.call("GET", f"{deal(number)}?$select=name").json()["name"])


def rename(number: int, name: str, headers: str = "") -> str:
    return operation(f"PATCH /api/data/v9.2/{deal(number)}", {"name": name}, headers)


def test_answers_have_the_documented_shape(org: Org) -> None:
    response = send(org, single(f"GET /api/data/v9.2/{deal(1)}?$select=name"), change_set(rename(1, "x")))
    assert response.status_code == 200
    kind = re.fullmatch(f"multipart/mixed; boundary=(batchresponse_{GUID})", response.headers["Content-Type"])
    assert kind
    first, second, end = response.text.split(f"--{kind[1]}")[1:]
    assert first.startswith(f"\r\n{HEADS}\r\nHTTP/1.1 200 OK\r\n")
    assert "\r\nContent-Type: application/json; odata.metadata=minimal\r\n" in first
    assert json.loads(first.partition("\r\n\r\n")[2].partition("\r\n\r\n")[2])["name"]
    inner = re.match(r"\r\nContent-Type: multipart/mixed; boundary=(changesetresponse_[\w-]+)\r\n\r\n--\1\r\n", second)
    assert inner
    assert f"{HEADS}Content-ID: 1\r\n\r\nHTTP/1.1 204 No Content\r\n" in second
    assert f"OData-EntityId: {ROOT}{deal(1)}\r\n" in second
    assert second.rstrip().endswith(f"--{inner[1]}--")
    assert end == "--\r\n"


@pytest.mark.parametrize(
    "address", [f"{ROOT}{deal(1)}?$select=name", f"/api/data/v9.2/{deal(1)}?$select=name", f"{deal(1)}?$select=name"]
)
def test_addresses_are_absolute_rooted_or_relative(org: Org, address: str) -> None:
    assert statuses(send(org, single(f"GET {address}"))) == [200]


def test_blanks_may_stand_in_an_address_and_a_part_may_end_with_its_headers(org: Org) -> None:
    line = f"GET {ROOT}opportunities?$select=name&$filter=name eq 'nobody has this'"
    bare = f"--b\r\n{HEADS}\r\n{line} HTTP/1.1\r\nAccept: application/json\r\n"
    assert statuses(send(org, bare, single(line))) == [200, 200]


def test_it_stops_at_the_first_failure_unless_told_to_go_on(org: Org) -> None:
    wrong = single(f"GET goals({made_id('9', 9)})?$select=title")
    items = [single(f"GET {deal(1)}?$select=name"), wrong, single(f"GET {deal(2)}?$select=name")]
    stopped = send(org, *items)
    assert (stopped.status_code, statuses(stopped)) == (400, [200, 404])
    went_on = send(org, *items, prefer="odata.continue-on-error")
    assert (went_on.status_code, statuses(went_on)) == (200, [200, 404, 200])
    assert went_on.headers["Preference-Applied"] == "odata.continue-on-error"


def test_each_part_has_its_own_conditions_and_preferences(org: Org) -> None:
    tag = org.call("GET", f"{deal(1)}?$select=name").json()["@odata.etag"]
    wanted = "Prefer: return=representation\r\n"
    parts = [
        f"--b\r\n{HEADS}\r\n{rename(1, 'one', f'If-Match: {tag}' + chr(13) + chr(10) + wanted)}\r\n",
        f"--b\r\n{HEADS}\r\n{rename(1, 'two', f'If-Match: {tag}' + chr(13) + chr(10))}\r\n",
    ]
    response = send(org, *parts, prefer="odata.continue-on-error")
    assert (statuses(response), codes(response)) == ([200, 412], ["0x80060882"])
    assert '"name":"one"' in response.text
    assert name_of(org, 1) == "one"


def test_each_part_asks_for_the_details_of_its_own_error(org: Org) -> None:
    missing = f"GET {deal(99)}"
    asking = single(missing, 'Prefer: odata.include-annotations="Microsoft.PowerApps.CDS.HelpLink"\r\n')
    text = send(org, asking, single(missing), prefer="odata.continue-on-error").text
    assert text.count("@Microsoft.PowerApps.CDS.HelpLink") == 1


def test_a_change_set_is_done_whole_or_not_at_all(org: Org) -> None:
    before = [name_of(org, 1), name_of(org, 2)]
    failing = change_set(rename(1, "a"), rename(2, "b"), operation(f"PATCH {deal(1)}", {"nosuchcolumn": 1}))
    response = send(org, failing, single(f"GET {deal(1)}?$select=name"), prefer="odata.continue-on-error")
    assert statuses(response) == [400, 200]
    assert "Content-ID: 3\r\n" in response.text
    assert "Content-ID: 1\r\n" not in response.text
    assert [name_of(org, 1), name_of(org, 2)] == before
    assert statuses(send(org, change_set(rename(1, "a"), rename(2, "b")))) == [204, 204]
    assert [name_of(org, 1), name_of(org, 2)] == ["a", "b"]


def test_a_set_that_failed_is_not_told_by_the_delta(org: Org) -> None:
    tracking = {"Prefer": "odata.track-changes"}
    link = org.call("GET", "opportunities?$select=name", headers=tracking).json()["@odata.deltaLink"]
    send(org, change_set(rename(1, "a"), operation(f"DELETE {deal(2)}"), operation("DELETE goals(1)")))
    assert org.call("GET", link).json()["value"] == []
    assert name_of(org, 2)


def test_operations_of_a_set_refer_to_earlier_ones(org: Org) -> None:
    made = operation("POST accounts", {"name": "Parent"})
    bound = operation("POST accounts", {"name": "Child", "parentaccountid@odata.bind": "$1"})
    changed = operation("PATCH $1", {"name": "Changed"})
    response = send(org, change_set(made, bound, changed))
    assert statuses(response) == [204, 204, 204], response.text
    accounts = org.call("GET", "accounts?$select=name,_parentaccountid_value").json()["value"]
    child = next(row for row in accounts if row["name"] == "Child")
    parent = next(row for row in accounts if row["accountid"] == child["_parentaccountid_value"])
    assert parent["name"] == "Changed"


@pytest.mark.parametrize("line", ["PATCH $2", "PATCH $1"])
def test_a_reference_to_nothing_earlier_is_refused(org: Org, line: str) -> None:
    response = send(org, change_set(operation(line, {"name": "x"})))
    assert "Content-ID Reference: '$" in response.text
    assert "does not exist in the batch context." in response.text
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "closing delimiter"),
        ("--b\r\nX: 1\r\n\r\n\r\n--b--", "Content-Type"),
        (single("GET accounts").replace("\r\n", "\n") + "--b--\n", "CR and LF"),
        ("--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--", "application/http"),
        (f"--b\r\n{HEADS}\r\nGET accounts\r\n\r\n--b--", "request line"),
        (change_set(operation("GET accounts")) + "--b--", "only support the HTTP methods"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(org: Org, body: str, says: str) -> None:
    headers = {"Content-Type": "multipart/mixed; boundary=b"}
    response = org.session.post(f"{ROOT}$batch", data=body.encode(), headers=headers)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


def test_a_batch_holds_a_thousand_operations_and_no_batch() -> None:
    org = Org(batch_limit=3)
    get = single(f"GET {deal(1)}?$select=name")
    assert statuses(send(org, *[get] * 3)) == [200] * 3
    assert send(org, *[get] * 4).json()["error"]["message"].startswith("The current batch message contains too many")
    assert codes(send(org, single("POST $batch"))) == ["0x80040203"]


def test_an_address_inside_may_be_twice_as_long(org: Org) -> None:
    def asking(length: int) -> str:
        start = "opportunities?$select=name&$filter=name eq '"
        return start + "x" * (length - len(start) - 1 - len(ROOT)) + "'"

    assert org.call("GET", asking(40_000)).status_code == 400
    assert statuses(send(org, single(f"GET {asking(60_000)}"))) == [200]
    assert statuses(send(org, single(f"GET {asking(70_000)}"))) == [400]


_PIECES: Sequence[str] = [
    "--b",
    "--c",
    "--",
    "\r\n",
    "\n",
    " ",
    ":",
    HEADS,
    "GET accounts HTTP/1.1",
    "Content-ID: 1",
    "$1",
]


@settings(max_examples=examples(40), deadline=None, derandomize=SAME_EACH_RUN)
@given(st.lists(st.one_of(st.sampled_from(_PIECES), st.text(max_size=5)), max_size=30))
def test_whatever_is_sent_is_answered_or_refused(pieces: list[str]) -> None:
    headers = {"Content-Type": "multipart/mixed; boundary=b"}
    response = _FUZZED.session.post(f"{ROOT}$batch", data="".join(pieces).encode(), headers=headers)
    assert response.status_code in (200, 400)


_FUZZED = Org()


def test_faults_strike_requests_inside_a_batch(org: Org) -> None:
    faults = [Fault(f"PATCH {deal(1)}*", nth=(1,), status=412, code="0x80060882")]
    org.session.mount("https://", InProcessAdapter(FaultyApp(org.emulator.app, faults)))
    parts = [f"--b\r\n{HEADS}\r\n{rename(number, 'struck')}\r\n" for number in (1, 2)]
    response = send(org, *parts, prefer="odata.continue-on-error")
    assert (statuses(response), codes(response)) == ([412, 204], ["0x80060882"])
    assert (name_of(org, 1) == "struck", name_of(org, 2)) == (False, "struck")
    assert statuses(send(org, parts[0])) == [204]


def test_a_fault_that_cannot_happen_inside_a_batch_waits_for_a_request_outside(org: Org) -> None:
    once: list[dict[str, Any]] = [{"expire_token": True}, {"duplicate_page": True}, {"delay_s": 0.001}]
    faulty = FaultyApp(org.emulator.app, [Fault("GET accounts", nth=(1,), **effect) for effect in once])
    org.session.mount("https://", InProcessAdapter(faulty))
    assert statuses(send(org, single("GET accounts"), prefer="odata.continue-on-error")) == [200]
    assert org.call("GET", "accounts").status_code == 401


def test_a_fault_of_a_status_without_name_strikes_too(org: Org) -> None:
    org.session.mount("https://", InProcessAdapter(FaultyApp(org.emulator.app, [Fault("GET accounts", status=599)])))
    assert statuses(send(org, single("GET accounts"), prefer="odata.continue-on-error")) == [599]


def test_a_user_is_acted_for_outside_or_inside(org: Org) -> None:
    me = org.get("WhoAmI")["UserId"]
    plain = single("GET WhoAmI")
    as_ann = single("GET WhoAmI", f"MSCRMCallerID: {ANN}\r\n")
    as_me = single("GET WhoAmI", f"MSCRMCallerID: {me}\r\n")
    assert _users(send(org, as_ann, plain)) == [ANN, me]
    org.session.headers["MSCRMCallerID"] = ANN
    assert _users(send(org, plain, as_me)) == [ANN, me]


def _users(response: requests.Response) -> list[str]:
    return re.findall(r'"UserId":"([^"]+)"', response.text)


def test_a_row_that_was_asked_for_can_be_referred_to(org: Org) -> None:
    made = operation("POST contacts?$select=lastname", {"lastname": "L"}, "Prefer: return=representation\r\n")
    assert statuses(send(org, change_set(made, operation("PATCH $1", {"lastname": "M"})))) == [201, 204]
    assert org.get("contacts?$filter=lastname eq 'M'&$select=lastname")["value"]


def test_a_delimiter_inside_a_text_ends_nothing(org: Org) -> None:
    body = operation(f"PATCH {deal(1)}", {"name": "--b-- --c--"})
    assert statuses(send(org, change_set(body))) == [204]
    assert name_of(org, 1) == "--b-- --c--"


def test_what_documents_leave_open_is_a_setting() -> None:
    lenient = Org(batch_bare_lf=True, batch_transfer_encoding=False, batch_content_id=False)
    create = operation(f"PATCH {deal(1)}", {"name": "n"})
    text = change_set(create).replace("Content-ID: 1\r\n", "").replace("Content-Transfer-Encoding: binary\r\n", "")
    headers = {"Content-Type": "multipart/mixed; boundary=b"}
    data = f"{text}--b--\r\n".replace("\r\n", "\n").encode()
    assert statuses(lenient.session.post(f"{ROOT}$batch", data=data, headers=headers)) == [204]
    stopping = Org(batch_after_failed_set=False)
    failing = change_set(operation(f"DELETE {deal(99)}"))
    assert statuses(send(stopping, failing, failing, prefer="odata.continue-on-error")) == [404]
    assert statuses(send(Org(), failing, failing, prefer="odata.continue-on-error")) == [404, 404]


_WORDS = st.text("abcXYZ019-_'()$=,%", min_size=1, max_size=12)
_BODIES = st.binary(max_size=60).filter(lambda body: b"\r\n--" not in body)
_OPERATIONS = st.builds(
    Operation,
    method=st.sampled_from(["POST", "PATCH", "PUT", "DELETE"]),
    url=st.lists(_WORDS, min_size=1, max_size=3).map(" ".join),
    headers=st.lists(st.tuples(st.sampled_from(["If-Match", "Prefer", "Accept"]), _WORDS), max_size=2).map(tuple),
    body=_BODIES,
)
_SETS = st.lists(_OPERATIONS, max_size=3).map(
    lambda found: ChangeSet(tuple(replace(one, content_id=str(number)) for number, one in enumerate(found, 1)))
)


@settings(max_examples=examples(60), deadline=None, derandomize=SAME_EACH_RUN)
@given(st.lists(_OPERATIONS | _SETS, max_size=4))
def test_what_is_composed_is_read_back(items: list[Item]) -> None:
    composed = b"".join(b"--b\r\n" + _composed(item) for item in items) + b"--b--\r\n"
    assert parse_batch("multipart/mixed; boundary=b", composed, EmulatorSettings()) == tuple(items)


def _composed(item: Item) -> bytes:
    if isinstance(item, ChangeSet):
        inner = b"".join(b"--c\r\n" + _composed(one) for one in item.operations)
        return b"Content-Type: multipart/mixed; boundary=c\r\n\r\n" + inner + b"--c--\r\n"
    mime = HEADS + (f"Content-ID: {item.content_id}\r\n" if item.content_id else "")
    lines = "".join(f"{name}: {value}\r\n" for name, value in item.headers)
    return f"{mime}\r\n{item.method} {item.url} HTTP/1.1\r\n{lines}\r\n".encode() + item.body + b"\r\n"


def keyed(tmp_path: Path) -> Org:
    return Org(folder=keyed_folder(tmp_path / "org"))


def test_bulk_messages_keys_values_and_references_work_in_a_batch(tmp_path: Path) -> None:
    org = keyed(tmp_path)
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.account"}
    targets = {"Targets": [{**kind, "name": "a"}, {**kind, "name": "b", "accountnumber": "b c"}]}
    child = operation("PUT accounts(accountnumber='k')/parentaccountid/$ref", {"@odata.id": "$1"})
    response = send(
        org,
        single("POST accounts/Microsoft.Dynamics.CRM.CreateMultiple", body=json.dumps(targets)),
        change_set(
            operation("PATCH accounts(accountnumber='p q')", {"name": "parent"}),
            operation("PATCH accounts(accountnumber='k')", {"name": "child"}),
            child,
            operation("PUT $2/name", {"value": "renamed"}),
            operation("POST $1/account_parent_account/$ref", {"@odata.id": f"{ROOT}accounts(accountnumber='b c')"}),
            operation("POST accounts/Microsoft.Dynamics.CRM.UpsertMultiple",
                      {"Targets": [{**kind, "@odata.id": "$2", "numberofemployees": 7}]}),
        ),
        single("GET accounts(accountnumber='b c')/name"),
        single("GET accounts(accountnumber='p q')/account_parent_account?$select=name,numberofemployees&$orderby=name"),
        single("GET accounts(accountnumber='k')/name/$value"),
    )  # fmt: skip
    assert response.status_code == 200, response.text
    assert statuses(response) == [200, 204, 204, 204, 204, 204, 204, 200, 200, 200]
    assert response.text.count('"name":"renamed","numberofemployees":7') == 1
    assert '"name":"b","numberofemployees":null' in response.text
    assert "\r\n\r\nrenamed\r\n" in response.text


@pytest.mark.parametrize(
    "failing",
    [
        operation("PUT accounts(accountnumber='k')/name", {"value": 5}),
        operation("PUT accounts(accountnumber='k')/parentaccountid/$ref", {"@odata.id": "$9"}),
        operation("POST accounts/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": [{}]}),
        operation("POST goals/Microsoft.Dynamics.CRM.CreateMultiple", {"Targets": [{}]}),
        operation("POST accounts", {"accountnumber": "K"}),
        operation("POST accounts", {"name": "x", "account_parent_account": [{"name": "y"}, {"name": 5}]}),
        operation("PATCH accounts(accountnumber='none')", {}, "If-Match: *\r\n"),
        operation("DELETE accounts(accountnumber='none')/name"),
    ],
)
def test_a_change_set_that_fails_at_one_of_them_leaves_nothing(tmp_path: Path, failing: str) -> None:
    org = keyed(tmp_path)
    before = operation("PATCH accounts(accountnumber='k')", {"name": "made"})
    response = send(org, change_set(before, failing), prefer="odata.continue-on-error")
    assert response.status_code == 200
    assert len(statuses(response)) == 1
    assert statuses(response)[0] in (400, 404, 412)
    assert "Content-ID: 2" in response.text
    assert org.get("accounts")["value"] == []


def test_definitions_go_back_too_when_a_change_set_fails(tmp_path: Path) -> None:
    org = keyed(tmp_path)
    org.patch("accounts(accountnumber='k')", {"name": "kept"})
    before = org.get("EntityDefinitions?$select=LogicalName"), org.get("accounts")
    account = "EntityDefinitions(LogicalName='account')"
    name = {
        "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata",
        "SchemaName": "new_Name",
        "IsPrimaryName": True,
    }
    (key,) = [one for one in org.get(f"{account}/Keys")["value"] if one["LogicalName"] == "new_number"]
    changed = [
        operation("DELETE EntityDefinitions(LogicalName='new_visit')"),
        operation("POST EntityDefinitions", {"SchemaName": "new_Visit", "Attributes": [name]}),
        operation("POST new_visits", {"new_name": "v"}),
        operation(f"DELETE {account}/Keys({key['MetadataId']})"),
        operation(f"POST {account}/Keys", {"SchemaName": "new_K", "KeyAttributes": ["name"]}),
        operation("PATCH accounts(name='other')", {}),
    ]
    failing = send(org, change_set(*changed, operation("PATCH accounts(accountnumber='k')", {})))
    assert codes(failing) == ["0x80060890"]
    assert (org.get("EntityDefinitions?$select=LogicalName"), org.get("accounts")) == before
    assert org.get("accounts(accountnumber='k')")["name"] == "kept"
    assert org.call("GET", "new_visits(new_fee=1)").status_code == 404
    assert statuses(send(org, change_set(*changed))) == [204] * 6
