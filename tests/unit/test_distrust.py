"""What a network may answer, and what must not come of it (rows 2 to 5, 7, 26, 30 and 32 of the fault list)."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
import zlib
from decimal import Decimal

import pytest
import requests

from d365sync.core.schema import Column, ColumnType, Table
from d365sync.dataverse import session as sessions
from d365sync.dataverse.auth.answers import Answering, refusal
from d365sync.dataverse.client import DataverseClient
from d365sync.dataverse.retry import RetryPolicy
from d365sync.dataverse.transport import Transport
from d365sync.dataverse.wire import check_link, decode_json, read_page
from d365sync.emulator.spoiling import bomb
from d365sync.errors import AuthError, ConfigError, ProtocolError, RetryableError
from tests.scripted import JSON, URL, Scripted, Tokens, VirtualTimer, answer, by_turns, transport

ROOT = f"{URL}/api/data/v9.2"
GZIP = {**JSON, "Content-Encoding": "gzip"}
BODY = b'{"value":[{"goalid":"x"}]}'


@pytest.mark.parametrize(
    "link",
    [
        "http://org.example/api/data/v9.2/goals",
        "https://evil.example/api/data/v9.2/goals",
        "https://org.example.evil.example/api/data/v9.2/goals",
        "https://169.254.169.254/api/data/v9.2/goals",
        "https://org.example:8443/api/data/v9.2/goals",
        "https://org.example:99999/api/data/v9.2/goals",
        "https://user@org.example/api/data/v9.2/goals",
        "https://@org.example/api/data/v9.2/goals",
        "https://org.example@evil.example/api/data/v9.2/goals",
        "https://org.example\\@evil.example/api/data/v9.2/goals",
        "https://evil.example\\.org.example/api/data/v9.2/goals",
        "https://\u043erg.example/api/data/v9.2/goals",
        "https://or\uff47.example/api/data/v9.2/goals",
        "https://org\u3002example/api/data/v9.2/goals",
        "https://org.e%78ample/api/data/v9.2/goals",
        "https://org.example/api/data/v9.1/goals",
        "https://org.example/api/data/v9.2",
        "https://org.example/api/data/v9.20/goals",
        "https://org.example/API/data/v9.2/goals",
        "https://org.example/api/data/v9.2/../../x",
        "https://org.example/api/data/v9.2/%2e%2e/%2E%2E/x",
        "https://org.example/api/data/v9.2/.%2e/x",
        "https://org.example/api/data/v9.2/%252e%252e/x",
        "https://org.example/api/data/v9.2/..%2f..%2fx",
        "https://org.example/api/data/v9.2/..\\..\\x",
        "https://org.example/api/data/v9.2/%5c..%5cx",
        "https://org.example/api/data/v9.2//evil.example/x",
        "https://org.example//evil.example/api/data/v9.2/goals",
        "//evil.example/api/data/v9.2/goals",
        "/api/data/v9.2/goals",
        "https://org.example/api/data/v9.2/goals\r\nX: 1",
        "https://[::1/api/data/v9.2/goals",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_link_that_leaves_the_api_costs_no_request(link: str) -> None:
    sender, server, _timer = transport(lambda _request: answer())
    with pytest.raises(ProtocolError):
        sender.send("GET", link)
    assert server.seen == []


@pytest.mark.parametrize(
    "link",
    [
        f"{ROOT}/goals?$select=title&$skiptoken=%3Ccookie%20a=%22..//%5C%22%3E",
        "https://ORG.example/api/data/v9.2/goals",
        "https://org.example:443/api/data/v9.2/goals?$deltatoken=919042%2108%2f22%2f2017%2008%3a10%3a44",
        f"{ROOT}/goals(00000000-0000-0000-0000-000000000001)/Microsoft.Dynamics.CRM.Recalculate",
        f"{ROOT}/$batch",
    ],
)
def test_a_link_that_stays_is_followed(link: str) -> None:
    assert check_link(link, ROOT) == link


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_gets_no_token(status: int) -> None:
    sender, server, _timer = transport(
        by_turns(answer(status, b"", {"Location": "https://evil.example/api/data/v9.2/goals"}))
    )
    with pytest.raises(ProtocolError, match="redirects"):
        sender.send("GET", f"{ROOT}/goals")
    assert [request.url for _at, request in server.seen] == [f"{ROOT}/goals"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>Sign in</html>", {"Content-Type": "text/html"}),
        (BODY, {"Content-Type": "text/plain"}),
        (BODY, {}),
        (b"", JSON),
        (BODY, {**JSON, "Content-Encoding": "br"}),
        (BODY, GZIP),
        (gzip.compress(BODY, mtime=0) + b"more", GZIP),
    ],
)
def test_a_200_that_is_no_answer_is_an_error_and_is_not_repeated(body: bytes, headers: dict[str, str]) -> None:
    sender, server, _timer = transport(by_turns(answer(200, body, headers)))
    with pytest.raises(ProtocolError):
        sender.send("GET", f"{ROOT}/goals")
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [202, 203, 206, 226])
def test_a_success_of_another_kind_is_no_answer(status: int) -> None:
    sender, server, _timer = transport(by_turns(answer(status, BODY)))
    with pytest.raises(ProtocolError, match=str(status)):
        sender.send("GET", f"{ROOT}/goals")
    assert len(server.seen) == 1


@pytest.mark.parametrize(("most", "asked"), [(1, 2), (7, 8)])
def test_pages_without_end_are_given_up(most: int, asked: int) -> None:
    numbers = itertools.count()

    def page(_request: requests.PreparedRequest) -> requests.Response:
        return answer(200, f'{{"@odata.nextLink":"{ROOT}/goals?$skiptoken={next(numbers)}","value":[]}}'.encode())

    server = Scripted(page, VirtualTimer())
    session = requests.Session()
    session.mount("https://", server)
    client = DataverseClient(Transport(session, URL, Tokens(), retry=RetryPolicy()), most_pages=most)
    table = Table("goal", "goals", "goalid", "title", {"goalid": Column("goalid", ColumnType.UNIQUEIDENTIFIER)})
    with pytest.raises(ProtocolError, match="goals do not end"):
        list(client.rows(table, ()))
    assert len(server.seen) == asked


@pytest.mark.parametrize(
    "short",
    [
        lambda: answer(200, BODY[:9], JSON, length=len(BODY)),
        lambda: answer(200, b"", JSON, length=len(BODY)),
        lambda: answer(200, gzip.compress(BODY, mtime=0)[:-9], GZIP),
        lambda: answer(200, gzip.compress(BODY, mtime=0)[:12], GZIP, length=40),
    ],
)
def test_an_answer_that_ends_too_early_is_asked_for_again(short: object) -> None:
    sender, server, _timer = transport(by_turns(short, answer(200, BODY)))  # type: ignore[arg-type]
    assert sender.send("GET", f"{ROOT}/goals").body == BODY
    assert len(server.seen) == 2


def test_an_answer_cut_without_a_length_is_never_read_as_rows() -> None:
    table = Table("goal", "goals", "goalid", "title", {"goalid": Column("goalid", ColumnType.UNIQUEIDENTIFIER)})
    for end in range(len(BODY)):
        with pytest.raises(ProtocolError):
            read_page(BODY[:end], table, ())


def test_compressed_answers_are_unpacked_exactly_and_counted_as_they_came() -> None:
    body = b'{"value":[' + b"1," * 400_000 + b"1]}"
    packed = gzip.compress(body)
    sender, _server, _timer = transport(by_turns(answer(200, packed, GZIP)))
    assert sender.send("GET", f"{ROOT}/goals").body == body
    traffic = sender.usage.since()
    assert (traffic.bytes, traffic.received_bytes) == (len(body), len(packed))


def test_a_gzip_bomb_is_given_up_in_little_memory() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, sessions.GZIP)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(60)) + packer.flush()
    response = answer(200, bomb, GZIP)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="larger"):
            sessions.read_body(response, limit=8 << 20)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b'"\\ud800"',
        b'"\\udc00x"',
        b'"\xff"',
        b"[" * 100_000 + b"]" * 100_000,
        b"9" * 5000,
        b"1e999999999999999999999",
        b"[1]x",
        b"",
    ],
)
def test_json_that_cannot_be_right_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="answer is"):
        decode_json(body)


def test_numbers_are_read_exactly() -> None:
    assert decode_json(b"[922337203685477.5807, 0.1]") == [Decimal("922337203685477.5807"), Decimal("0.1")]


def test_a_session_that_does_not_verify_is_refused_at_once_and_later() -> None:
    session = requests.Session()
    session.verify = False
    with pytest.raises(ConfigError, match="verify"):
        Transport(session, URL, None, retry=None)  # type: ignore[arg-type]
    sender, server, _timer = transport(by_turns())
    sender._session.verify = False
    with pytest.raises(ConfigError, match="verify"):
        sender.send("GET", f"{ROOT}/goals")
    assert server.seen == []


def test_a_certificate_that_is_not_trusted_is_no_reason_to_try_again() -> None:
    sender, server, _timer = transport(by_turns(requests.exceptions.SSLError("certificate verify failed")))
    with pytest.raises(Exception, match="TLS") as caught:
        sender.send("GET", f"{ROOT}/goals")
    assert not isinstance(caught.value, RetryableError)
    assert len(server.seen) == 1


def test_a_token_refused_for_ever_is_renewed_once_and_given_up() -> None:
    sender, server, _timer = transport(lambda _request: answer(401, b"no", {}))
    with pytest.raises(AuthError) as caught:
        sender.send("GET", f"{ROOT}/goals")
    assert caught.value.exit_code == 6
    assert [request.headers["Authorization"] for _at, request in server.seen] == ["Bearer token-1", "Bearer token-2"]


def test_affinity_cookies_are_not_sent_back() -> None:
    cookie = {**JSON, "Set-Cookie": "ARRAffinity=abc; path=/; secure; HttpOnly"}
    sender, server, _timer = transport(lambda _request: answer(headers=cookie))
    for _ in range(2):
        sender.send("GET", f"{ROOT}/goals")
    assert all("Cookie" not in request.headers for _at, request in server.seen)
    assert all(session.headers.get("Cookie") is None for session in (sender._session,))


def test_a_sign_in_service_is_read_no_further_than_any_answer_of_it() -> None:
    timer = VirtualTimer()
    session = requests.Session()
    session.mount("https://", Scripted(lambda _request: answer(200, bomb(200 << 20), GZIP), timer))
    tracemalloc.start()
    try:
        with pytest.raises(requests.ConnectionError, match="larger"):
            Answering(session, 5).get("https://login.example/token")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codes", [7, "AADSTS7000215", [[7000215]], [{}], {"a": 1}])
def test_a_refused_sign_in_whose_numbers_are_none_is_told_by_its_words(codes: object) -> None:
    error = refusal({"error": "invalid_client", "error_description": "no such thing", "error_codes": codes})
    assert str(error) == "signing in failed: no such thing"
