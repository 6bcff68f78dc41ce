"""The adapter that answers a real session from the application, and the actions reached through it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest
import requests

from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from tests.unit.emulating import ANNS, COMPANY, DESKS, ORIGIN, ROOT, Org, code, made_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    yield environ["PATH_INFO"].encode("latin-1")
    yield b"|" + environ["QUERY_STRING"].encode("latin-1")
    yield b"|" + environ["wsgi.input"].read()


def test_a_request_arrives_whole_and_the_answer_streams_back() -> None:
    session = mounted_session(echo)
    body = (part for part in (b"one", b"two"))
    response = session.post("https://x.test/a%20b('c')?%24select=d%2Ce&f=g+h", data=body, stream=True)
    assert b"".join(response.iter_content(4)) == b"/a b('c')|%24select=d%2Ce&f=g+h|onetwo"
    assert response.cookies.get_dict() == {"a": "1", "b": "2"}


@pytest.mark.parametrize("fault", [Fault("GET goals", close="after"), Fault("GET goals", cut_after_bytes=5)])
def test_a_broken_connection_is_one_to_the_session_too(fault: Fault) -> None:
    org = Org()
    session = mounted_session(FaultyApp(org.emulator.app, [fault]))
    session.headers.update(org.session.headers)
    with pytest.raises(requests.RequestException):
        session.get(ROOT + "goals")
    assert session.get(ROOT + "metrics").status_code == 200


@pytest.mark.parametrize("root", [ROOT, f"{ORIGIN}/contoso/api/data/v9.1/"])
def test_somebody_else_acts_below_the_same_root(root: str) -> None:
    org = Org()
    fault = Fault("PATCH goals(*", nth=(1,), meanwhile=f"PATCH {ANNS}", json={"title": "Renamed"})
    session = mounted_session(FaultyApp(org.emulator.app, [fault]))
    session.headers.update(org.session.headers)
    assert session.patch(root + COMPANY, json={"title": "Mine"}).status_code == 204
    assert [org.get(path)["title"] for path in (COMPANY, ANNS)] == ["Mine", "Renamed"]


def test_recalculate_rolls_up_the_whole_tree() -> None:
    org = Org()
    assert org.post(f"{ANNS}/Microsoft.Dynamics.CRM.Recalculate", {}).status_code == 204
    values = [org.get(f"{path}?$select=actualmoney,inprogressmoney,percentage") for path in (COMPANY, ANNS, DESKS)]
    assert [(goal["actualmoney"], goal["inprogressmoney"], goal["percentage"]) for goal in values] == [
        (401, None, 40),
        (100.5, None, 20),
        (200, None, None),
    ]
    assert org.get(COMPANY)["lastrolledupdate"] == "2026-05-01T12:00:00Z"


def test_recalculate_needs_a_goal_and_the_privilege_to_write_it() -> None:
    path = f"goals({made_id('d', 99)})/Microsoft.Dynamics.CRM.Recalculate"
    assert code(Org().post(path, {})) == (404, "0x80040217")
    refused = Org(missing_privileges=frozenset({"prvWriteGoal"}))
    assert code(refused.post(f"{ANNS}/Microsoft.Dynamics.CRM.Recalculate", {})) == (403, "0x80040220")
    assert Org().post("accounts/Microsoft.Dynamics.CRM.Recalculate", {}).status_code == 501
