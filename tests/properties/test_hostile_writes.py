"""Any address and any body of a write gets an answer or a refusal by name, and a refusal changes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d365sync.core.values import Row
from d365sync.emulator.settings import UNLIMITED
from tests.effort import SAME_EACH_RUN, examples
from tests.unit.emulating import ANN, ANNS, BOB, COMPANY, ROOT, Org, deal, keyed_folder, made_id

CRM = "Microsoft.Dynamics.CRM."
SAFE = "/?$=&():,'@%"
HEADS = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
ONE = made_id("9", 1)


def _org() -> Org:
    with TemporaryDirectory() as folder:
        org = Org(folder=keyed_folder(Path(folder) / "org"), bulk_messages={"goal": True}, limits=UNLIMITED)
    org.post("accounts", {"accountid": ONE, "accountnumber": "A1", "name": "One"})
    return org


ORG = _org()
METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")
KEYS = [
    *("", ONE, BOB, "accountnumber='A1'", "accountnumber='no'", "accountnumber=5", "accountnumber=@p", "name='x'"),
    *("address1_city='x',numberofemployees=1", "address1_city='x'", f"_territoryid_value={BOB}", "=", ",", "''", "'"),
    *(
        "accountid=1",
        f"accountid={ONE}",
        "accountnumber='A1',accountnumber='A1'",
        "a=1e999999",
        "accountnumber='\x00😀'",
    ),
]
NAMES = [
    *("accounts", "goals", "opportunities", "contacts", "new_visits", "EntityDefinitions", "RelationshipDefinitions"),
    *("name", "revenue", "accountnumber", "_ownerid_value", "ownerid", "parentaccountid", "account_parent_account"),
    *("goal_parent_goal", "goalownerid_team", "$ref", "$value", "$count", "$batch", "$1", "Keys", "Attributes", "x"),
    *(
        f"{CRM}{name}"
        for name in ("CreateMultiple", "UpdateMultiple", "UpsertMultiple", "DeleteMultiple", "Recalculate")
    ),
]
SEGMENTS = st.builds(
    lambda name, key: name if key is None else f"{name}({key})",
    st.sampled_from(NAMES),
    st.none() | st.sampled_from(KEYS),
)
SHAPES = [
    *(f"accounts({ONE})/name", f"accounts({ONE})/parentaccountid/$ref", f"accounts({ONE})/account_parent_account/$ref"),
    *("accounts(accountnumber='A1')", "accounts(accountnumber='B2')", f"{ANNS}/goalownerid_team/$ref", "accounts"),
    *(f"accounts/{CRM}{name}Multiple" for name in ("Create", "Update", "Upsert")),
    *(f"{COMPANY}/goal_parent_goal({ANNS[6:-1]})/$ref", f"{COMPANY}/goal_parent_goal/$ref?$id={ANNS}", deal(1)),
    *("EntityDefinitions(LogicalName='account')/Keys", f"goals/{CRM}CreateMultiple", "accounts(accountnumber=@p)"),
]
PATHS = st.one_of(
    st.sampled_from(SHAPES),
    st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join),
    st.text(max_size=20).map(lambda text: f"accounts({text})"),
    st.text(max_size=20).map(lambda text: f"accounts({ONE})/{text}"),
)
QUERIES = st.sampled_from(["", "", "?@p='A1'", "?@p=", f"?$id={ROOT}{ANNS}", "?$id=x", "?$select=name", "?$expand=x"])
ADDRESSES = [
    *(f"{ROOT}accounts({ONE})", f"accounts({ONE})", "accounts(accountnumber='A1')", "/accounts(accountnumber='no')"),
    *(f"{ROOT}systemusers({ANN})", f"{ROOT}{COMPANY}", "$1", "", "accounts", "accounts(%27)", "accounts(%ff)", "x(1)"),
]
PROPERTIES = [
    *(
        "name",
        "value",
        "revenue",
        "accountid",
        "goalid",
        "title",
        "accountnumber",
        "statecode",
        "statuscode",
        "ownerid",
    ),
    *(
        "parentaccountid",
        "account_parent_account",
        "goal_parent_goal",
        "metricid",
        "targetmoney",
        "Targets",
        "@odata.id",
    ),
    *(
        "@odata.type",
        "parentaccountid@odata.bind",
        "account_parent_account@odata.bind",
        "ownerid@odata.bind",
        "@odata.x",
    ),
    *(
        "goalownerid_team@odata.bind",
        "metricid@odata.bind",
        "SchemaName",
        "KeyAttributes",
        "@odata.context",
        "x@y",
        "@",
    ),
]
VALUES = st.one_of(
    st.none() | st.booleans() | st.integers(-5, 5) | st.integers() | st.decimals(allow_nan=False).map(float),
    st.sampled_from(
        [*ADDRESSES, *(f"{CRM}{name}" for name in ("account", "goal", "nosuch")), "new_k", ONE, "😀", "\x00"]
    ),
    st.text(max_size=8),
)
BODIES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(PROPERTIES), inner, max_size=4),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(PROPERTIES), BODIES, max_size=4)
TARGETS = st.lists(ROWS.map(lambda row: {"@odata.type": f"{CRM}account", **row}), min_size=1, max_size=3)
ANY = st.one_of(ROWS, TARGETS.map(lambda targets: {"Targets": targets}), BODIES)


ACCOUNT = {"@odata.type": f"{CRM}account", "name": "n"}
RIGHT: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "accounts", {"name": "n", "revenue": 1.5, "account_parent_account": [{"name": "c"}]}),
    ("POST", "accounts", {"name": "n", "primarycontactid": {"lastname": "c"}}),
    ("PATCH", "accounts(accountnumber='new')", {"name": "n"}),
    ("PATCH", "accounts(accountnumber='A1')", {"name": "n", "parentaccountid@odata.bind": f"accounts({ONE})"}),
    ("PUT", f"accounts({ONE})/name", {"value": "n"}),
    ("PUT", f"accounts({ONE})/ownerid/$ref", {"@odata.id": f"{ROOT}systemusers({BOB})"}),
    ("POST", f"accounts({ONE})/account_parent_account/$ref", {"@odata.id": f"{ROOT}accounts(accountnumber='A1')"}),
    ("POST", f"accounts/{CRM}CreateMultiple", {"Targets": [ACCOUNT, ACCOUNT]}),
    ("POST", f"accounts/{CRM}UpdateMultiple", {"Targets": [{**ACCOUNT, "accountid": ONE}]}),
    ("POST", f"accounts/{CRM}UpsertMultiple", {"Targets": [{**ACCOUNT, "@odata.id": "accounts(accountnumber='B')"}]}),
    ("POST", f"goals/{CRM}UpdateMultiple", {"Targets": [{"@odata.type": f"{CRM}goal", "goalid": ANNS[6:-1]}]}),
    ("POST", "EntityDefinitions(LogicalName='account')/Keys", {"SchemaName": "new_k", "KeyAttributes": ["name"]}),
]


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[str, str, Any]:
    """A request that succeeds, with a few properties more or other ones."""
    method, path, body = draw(st.sampled_from(RIGHT))
    extra = draw(st.just({}) | ROWS)
    if "Targets" in body and draw(st.booleans()):
        return method, path, {"Targets": [{**target, **extra} for target in body["Targets"]]}
    return method, path, {**body, **extra}


REQUESTS = nearly_right() | st.tuples(st.sampled_from(METHODS), st.builds("{}{}".format, PATHS, QUERIES), ANY)


def _rows() -> dict[str, dict[str, Row]]:
    store = ORG.emulator.store
    return {name: dict(store.rows(name)) for name in store.catalogue.tables}


def _send(method: str, path: str, body: Any) -> tuple[int, str]:
    data = json.dumps(body, allow_nan=False, default=str).encode("utf-8", "surrogatepass")
    headers = {"Content-Type": "application/json"}
    response = ORG.session.request(method, ROOT + quote(path, safe=SAFE), data=data, headers=headers)
    return response.status_code, response.text


def _finite(body: Any) -> bool:
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        return False
    return True


@settings(
    max_examples=examples(300), deadline=None, derandomize=SAME_EACH_RUN, suppress_health_check=[HealthCheck.too_slow]
)
@given(request=REQUESTS.filter(lambda request: _finite(request[2])))
def test_any_write_is_answered_or_refused_by_name(request: tuple[str, str, Any]) -> None:
    store = ORG.emulator.store
    catalogue = store.catalogue
    with store.transaction() as transaction:
        before = _rows()
        status, text = _send(*request)
        assert status in (200, 201, 204, 400, 403, 404, 405, 412, 501), text
        if status >= 400:
            assert json.loads(text)["error"]["message"]
            assert _rows() == before
        transaction.roll_back()
    store.redefine(catalogue)


def test_the_requests_that_are_varied_succeed() -> None:
    store = ORG.emulator.store
    catalogue = store.catalogue
    for request in RIGHT:
        with store.transaction() as transaction:
            status, text = _send(*request)
            assert status in (200, 204), (request, text)
            transaction.roll_back()
        store.redefine(catalogue)


@settings(max_examples=examples(80), deadline=None, derandomize=SAME_EACH_RUN)
@given(request=nearly_right().filter(lambda request: _finite(request[2])), inside=st.booleans())
def test_in_a_batch_it_is_answered_as_alone(request: tuple[str, str, Any], inside: bool) -> None:
    store = ORG.emulator.store
    catalogue = store.catalogue
    answers = []
    for send in (_send, _send_in_set if inside else _send_in_batch):
        with store.transaction() as transaction:
            answers.append(send(*request)[0])
            transaction.roll_back()
        store.redefine(catalogue)
    assert answers[0] == answers[1]


def _send_in_batch(method: str, path: str, body: Any) -> tuple[int, str]:
    part = f"--b\r\n{HEADS}\r\n{method} {quote(path, safe=SAFE)} HTTP/1.1\r\n\r\n{json.dumps(body)}\r\n--b--\r\n"
    return _posted(part)


def _send_in_set(method: str, path: str, body: Any) -> tuple[int, str]:
    line = f"{method} {quote(path, safe=SAFE)} HTTP/1.1"
    part = f"--c\r\n{HEADS}Content-ID: 1\r\n\r\n{line}\r\n\r\n{json.dumps(body)}\r\n--c--\r\n"
    return _posted(f"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{part}\r\n--b--\r\n")


def _posted(batch: str) -> tuple[int, str]:
    headers = {"Content-Type": "multipart/mixed; boundary=b"}
    text = ORG.session.post(f"{ROOT}$batch", data=batch.encode("utf-8", "surrogatepass"), headers=headers).text
    (status,) = re.findall(r"^HTTP/1\.1 (\d{3})", text, re.MULTILINE)
    return int(status), text
