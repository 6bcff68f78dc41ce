"""``$batch`` as bytes: what is sent, and what is read from answers good and bad."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.dataverse.batch import MOST_PARTS, Part, compose, content_type_of, read_answers
from d365sync.errors import ProtocolError
from tests.effort import SAME_EACH_RUN, examples

ANSWER = (
    b"--batchresponse_1\r\n"
    b"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json; odata.metadata=minimal\r\nOData-Version: 4.0\r\n\r\n{"a":1}'
    b"\r\n--batchresponse_1\r\n"
    b"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\nOData-EntityId: https://h/goals(1)\r\n\r\n\r\n"
    b"--batchresponse_1--\r\n"
)
KIND = "multipart/mixed; boundary=batchresponse_1"


def test_a_batch_is_spelled_as_the_documents_say() -> None:
    parts = [
        Part("GET", "/api/data/v9.2/goals?$select=title", {"Accept": "application/json"}),
        Part("PATCH", "/api/data/v9.2/goals(1)", {"If-Match": 'W/"5"'}, b'{"actualmoney":1}'),
    ]
    assert compose(parts, "b").decode() == (
        "--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        "GET /api/data/v9.2/goals?$select=title HTTP/1.1\r\nAccept: application/json\r\n\r\n\r\n"
        "--b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        'PATCH /api/data/v9.2/goals(1) HTTP/1.1\r\nIf-Match: W/"5"\r\n'
        "Content-Type: application/json; type=entry\r\n\r\n"
        '{"actualmoney":1}\r\n'
        "--b--\r\n"
    )
    assert content_type_of("b") == 'multipart/mixed; boundary="b"'


@pytest.mark.parametrize("count", [0, MOST_PARTS + 1])
def test_a_batch_has_as_many_parts_as_the_platform_takes(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        compose([Part("GET", "/a")] * count, "b")


@pytest.mark.parametrize("part", [Part("GET", "/a\r\nX: 1"), Part("GET", "/a", {"If-Match": "*\nX: 1"})])
def test_no_line_is_smuggled_in(part: Part) -> None:
    with pytest.raises(ValueError, match="line break"):
        compose([part], "b")


def test_each_answer_is_read_by_itself() -> None:
    first, second = read_answers(KIND, ANSWER, 2)
    assert (first.status, first.body, first.headers["odata-version"]) == (200, b'{"a":1}', "4.0")
    assert (second.status, second.body, second.headers["OData-EntityId"]) == (204, b"", "https://h/goals(1)")


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        ("application/json", b'{"error":{}}', "not multipart/mixed"),
        ("multipart/mixed", ANSWER, "not multipart/mixed with a boundary"),
        (KIND, b"", "ends before its last part"),
        (KIND, ANSWER[:-24], "ends before its last part"),
        (KIND, ANSWER[:150], "ends before its last part"),
        (KIND, ANSWER.replace(b"HTTP/1.1 204", b"HTTP/2 204"), "not with a status line"),
        (KIND, ANSWER.replace(b"application/http", b"multipart/mixed"), "not application/http"),
        (KIND, ANSWER.replace(b"OData-EntityId:", b"OData-EntityId"), "header line"),
        (KIND, ANSWER.replace(b"OData-Version: 4.0", b"Content-Length: 999"), "shorter than it says"),
    ],
)
def test_what_is_no_answer_to_a_batch_is_refused(kind: str, body: bytes, told: str) -> None:
    with pytest.raises(ProtocolError, match=told):
        read_answers(kind, body, 2)


@pytest.mark.parametrize("count", [1, 3])
def test_no_part_is_left_without_an_answer(count: int) -> None:
    with pytest.raises(ProtocolError, match=f"a batch of {count} requests got 2 answers"):
        read_answers(KIND, ANSWER, count)


_BODIES = st.binary(max_size=40).filter(
    lambda body: (b"--batchresponse" not in body and bool(body.strip())) or body == b""
)


@settings(max_examples=examples(40), deadline=None, derandomize=SAME_EACH_RUN)
@given(st.lists(st.tuples(st.integers(200, 599), _BODIES), min_size=1, max_size=6), st.booleans())
def test_answers_come_back_as_they_were(answers: list[tuple[int, bytes]], quoted: bool) -> None:
    boundary = "batchresponse_9"
    parts = b"".join(
        b"--batchresponse_9\r\nContent-Type: application/http\r\n\r\n"
        + f"HTTP/1.1 {status} X\r\nREQ_ID: {at}\r\n\r\n".encode()
        + body
        + b"\r\n"
        for at, (status, body) in enumerate(answers)
    )
    kind = f'multipart/mixed; boundary="{boundary}"' if quoted else f"multipart/mixed;boundary={boundary}"
    found = read_answers(kind, parts + b"--batchresponse_9--", len(answers))
    assert [(one.status, one.body) for one in found] == answers
    assert [one.headers["req_id"] for one in found] == [str(at) for at in range(len(answers))]


@settings(max_examples=examples(60), deadline=None, derandomize=SAME_EACH_RUN)
@given(st.integers(0, len(ANSWER)), st.integers(0, len(ANSWER)), st.binary(max_size=8), st.integers(1, 3))
def test_a_damaged_answer_is_read_whole_or_refused(start: int, end: int, put: bytes, count: int) -> None:
    damaged = ANSWER[: min(start, end)] + put + ANSWER[max(start, end) :]
    try:
        found = read_answers(KIND, damaged, count)
    except ProtocolError:
        return
    assert len(found) == count
    assert all(100 <= one.status <= 999 for one in found)
