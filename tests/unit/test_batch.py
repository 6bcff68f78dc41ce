from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.dataverse.batch import MOST_PARTS, Part, PartAnswer, compose, content_type, parse
from d365sync.errors import ProtocolError
from tests.effort import examples

API = "/api/data/v9.2"
TYPE = content_type("batchresponse_1")
NO_CONTENT = PartAnswer(204, {"OData-Version": "4.0"}, b"")
CONFLICT = PartAnswer(412, {"Content-Type": "application/json"}, b'{"error":{"code":"0x80060882","message":"no"}}')

answers = st.lists(
    st.builds(
        PartAnswer,
        st.integers(200, 599),
        st.dictionaries(
            st.sampled_from(["ETag", "Retry-After", "REQ_ID"]), st.from_regex(r"[!-~]{1,9}", fullmatch=True)
        ),
        st.one_of(st.just(b""), st.text('{}[]:,ab\u00e9"\n-', max_size=30).map(lambda text: ("{" + text).encode())),
    ),
    min_size=1,
    max_size=6,
)


def served(answers: list[PartAnswer], *, end: str = "\r\n", close: bool = True) -> bytes:
    """Write a batch answer as the platform does."""
    lines = []
    for one in answers:
        lines += ["--batchresponse_1", "Content-Type: application/http", "Content-Transfer-Encoding: binary", ""]
        lines += [
            f"HTTP/1.1 {one.status} Reason",
            *(f"{k}: {v}" for k, v in one.headers.items()),
            "",
            one.body.decode(),
        ]
    return end.join([*lines, "--batchresponse_1--" if close else "", ""]).encode()


def test_a_batch_is_written_as_documented() -> None:
    parts = [
        Part("GET", "goals(1)?$select=title", {"Accept": "application/json"}),
        Part("PATCH", "goals(2)", {}, b"{}"),
    ]
    lines = compose(parts, API, "b").decode().split("\r\n")
    assert lines == [
        *("--b", "Content-Type: application/http", "Content-Transfer-Encoding: binary", ""),
        *("GET /api/data/v9.2/goals(1)?$select=title HTTP/1.1", "Accept: application/json", "", ""),
        *("--b", "Content-Type: application/http", "Content-Transfer-Encoding: binary", ""),
        *("PATCH /api/data/v9.2/goals(2) HTTP/1.1", "Content-Type: application/json; type=entry", "", "{}"),
        *("--b--", ""),
    ]


@settings(max_examples=examples(60), deadline=None)
@given(answers=answers, end=st.sampled_from(["\r\n", "\n"]))
def test_every_answer_comes_back_in_its_place(answers: list[PartAnswer], end: str) -> None:
    found = parse(TYPE, served(answers, end=end), len(answers))
    assert [(one.status, dict(one.headers), one.body) for one in found] == [
        (one.status, dict(one.headers), one.body) for one in answers
    ]


@settings(max_examples=examples(100), deadline=None)
@given(answers=answers, data=st.data())
def test_damage_is_a_protocol_error_and_never_a_lost_answer(answers: list[PartAnswer], data: st.DataObject) -> None:
    whole = served(answers)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    damaged = whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:]
    try:
        found = parse(TYPE, damaged, len(answers))
    except ProtocolError:
        return
    assert len(found) == len(answers)


@settings(max_examples=examples(60), deadline=None)
@given(kind=st.one_of(st.just(TYPE), st.text(max_size=40)), body=st.binary(max_size=80))
def test_garbage_is_a_protocol_error(kind: str, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(kind, body, 1)


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_a_cut_answer_is_refused(length: int) -> None:
    whole = served([NO_CONTENT, CONFLICT])
    with pytest.raises(ProtocolError):
        parse(TYPE, whole[: min(length, len(whole) - 5)], 2)


@pytest.mark.parametrize("expected", [1, 3])
def test_another_number_of_answers_is_refused(expected: int) -> None:
    with pytest.raises(ProtocolError, match=f"batch of {expected} requests was answered with 2"):
        parse(TYPE, served([NO_CONTENT, CONFLICT]), expected)


def test_header_names_are_found_in_any_case() -> None:
    (answer,) = parse('multipart/mixed; boundary="batchresponse_1"', served([NO_CONTENT]), 1)
    assert answer.headers["odata-version"] == "4.0"


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [Part("GET", "goals")] * (MOST_PARTS + 1),
        [Part("GET", "goals HTTP/1.1\r\nX: y")],
        [Part("GET", "goals", {"Prefer": "a\r\nIf-Match: *"})],
        [Part("PATCH", "goals(1)", {}, b'{"title":"--b"}')],
    ],
)
def test_what_would_not_be_one_request_is_not_written(parts: list[Part]) -> None:
    with pytest.raises(ValueError, match="batch"):
        compose(parts, API, "b")
