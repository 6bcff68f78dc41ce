"""``$batch``: many requests as one, composed and read back; each part has an answer of its own.

Only parts that stand for themselves are composed, no change sets: with ``odata.continue-on-error`` every part is then
answered in its order, whatever becomes of the others.

Source: Execute batch operations using the Web API.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from requests.structures import CaseInsensitiveDict

from d365sync.errors import ProtocolError

MOST_PARTS = 1000
"""Source: Execute batch operations (a batch can hold up to 1000 requests)."""
CONTINUE = "odata.continue-on-error"
_LINE = b"\r\n"
_BOUNDARY = re.compile(
    r"""multipart/mixed\s*;(?:[^"]*;)?\s*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE
)
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?")


@dataclass(frozen=True, slots=True)
class Part:
    """One request of a batch; ``address`` is rooted (``/api/data/v9.2/goals?...``) or absolute, and encoded."""

    method: str
    address: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """The answer to one part; ``headers`` are found in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def content_type_of(boundary: str) -> str:
    """Return the ``Content-Type`` of a batch."""
    return f'multipart/mixed; boundary="{boundary}"'


def compose(parts: Sequence[Part], boundary: str) -> bytes:
    """Return the body of a batch. The documents require CRLF, and a blank line after each part's headers.

    Raises:
        ValueError: no parts or too many, or a line break in what must be one line.
    """
    if not 0 < len(parts) <= MOST_PARTS:
        raise ValueError(f"a batch has 1 to {MOST_PARTS} parts, not {len(parts)}")
    lines: list[bytes] = []
    for part in parts:
        lines += [b"--" + boundary.encode("ascii"), b"Content-Type: application/http"]
        lines += [b"Content-Transfer-Encoding: binary", b"", _one_line(f"{part.method} {part.address} HTTP/1.1")]
        headers = dict(part.headers)
        if part.body is not None:
            headers.setdefault("Content-Type", "application/json; type=entry")
        lines += [_one_line(f"{name}: {value}") for name, value in headers.items()]
        lines += [b"", part.body or b""]
    return _LINE.join([*lines, b"--" + boundary.encode("ascii") + b"--", b""])


def read_answers(content_type: str, body: bytes, count: int) -> list[PartAnswer]:
    """Return the answers to a batch of ``count`` parts sent with :data:`CONTINUE`, in their order.

    Raises:
        ProtocolError: not the answer to a batch, or not an answer for each part.
    """
    answers = [_answer(part) for part in _split(body, _boundary(content_type))]
    if len(answers) != count:
        raise ProtocolError(f"a batch of {count} requests got {len(answers)} answers")
    return answers


def _one_line(text: str) -> bytes:
    line = text.encode("utf-8")
    if b"\r" in line or b"\n" in line:
        raise ValueError(f"a line of a batch must not hold a line break: {text[:40]!r}")
    return line


def _boundary(content_type: str) -> bytes:
    found = _BOUNDARY.match(content_type.strip())
    if found is None:
        raise ProtocolError(f"the answer to a batch is {content_type[:60]!r}, not multipart/mixed with a boundary")
    return b"--" + (found[1] or found[2]).encode("utf-8")


def _split(body: bytes, delimiter: bytes) -> list[bytes]:
    """Return what stands between the delimiters, which are whole lines; the last one ends with two dashes.

    Raises:
        ProtocolError: the last delimiter is missing: the answer was cut.
    """
    pieces = re.split(rb"(?:\A|\r\n)" + re.escape(delimiter) + rb"(--)?[ \t]*(?=\r\n|\Z)", body)
    contents, ends = pieces[2::2], pieces[1::2]
    if not ends or ends[-1] is None or any(ends[:-1]):
        raise ProtocolError("the answer to a batch ends before its last part")
    return contents[:-1]


def _answer(part: bytes) -> PartAnswer:
    mime, _, message = part.removeprefix(_LINE).partition(_LINE + _LINE)
    kind = _headers(mime).get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != "application/http":
        raise ProtocolError(f"a part of the answer to a batch is {kind[:60]!r}, not application/http")
    head, blank, body = message.partition(_LINE + _LINE)
    first, _, lines = head.partition(_LINE)
    status = _STATUS.fullmatch(first)
    if status is None:
        raise ProtocolError(f"a part of the answer to a batch begins with {first[:40]!r}, not with a status line")
    headers = _headers(lines if blank else lines.removesuffix(_LINE))
    length = headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > len(body):
        raise ProtocolError("a part of the answer to a batch is shorter than it says")
    return PartAnswer(int(status[1]), headers, body.removesuffix(_LINE) if not body.strip() else body)


def _headers(lines: bytes) -> CaseInsensitiveDict[str]:
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for line in filter(None, lines.split(_LINE)):
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise ProtocolError(f"a part of the answer to a batch has the header line {line[:40]!r}")
        headers[name] = value.strip()
    return headers
