"""``$batch`` as values: many requests in one body, and the answer of each out of one answer.

Only what d365sync sends: single requests, each on its own, no change sets. An answer that is damaged anywhere, or that
does not answer every request, is refused whole: which request would have been answered by what is not guessed.

Source: Execute batch operations using the Web API (CRLF, closing delimiter, 1000 operations).

Pure.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from requests.structures import CaseInsensitiveDict

from d365sync.errors import ProtocolError

MULTIPART = "multipart/mixed"
MOST_PARTS = 1000
"""Source: Execute batch operations using the Web API."""

_BOUNDARY = re.compile(
    r"""(?:^|;)\s*boundary\s*=\s*(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))\s*(?:;|$)""", re.IGNORECASE
)
_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? ([1-5]\d\d)(?: [^\r\n]*)?")
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")
_SAFE = re.compile(r"[\x21-\x7e][\x20-\x7e]*")
_SAFE_URL = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Part:
    """One request of a batch. ``path`` is below the API root, percent-encoded, with its query."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """The answer to one request of a batch, successful or not; header names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def content_type(boundary: str) -> str:
    """Return the ``Content-Type`` of a batch."""
    return f"{MULTIPART}; boundary={boundary}"


def compose(parts: Sequence[Part], api_path: str, boundary: str) -> bytes:
    """Write a batch; ``api_path`` is the path of the API root, such as ``/api/data/v9.2``.

    Raises:
        ValueError: no parts, more than the platform takes, or a part that would not be one request.
    """
    if not 0 < len(parts) <= MOST_PARTS:
        raise ValueError(f"a batch has 1 to {MOST_PARTS} parts, not {len(parts)}")
    delimiter = f"--{boundary}".encode()
    if any(part.body is not None and delimiter in part.body for part in parts):
        raise ValueError("a part holds the boundary of its batch")
    pieces = [piece for part in parts for piece in (delimiter, _compose_part(part, api_path))]
    return b"\r\n".join([*pieces, delimiter + b"--", b""])


def parse(content_type: str, body: bytes, expected: int) -> tuple[PartAnswer, ...]:
    """Read the answers to a batch of ``expected`` parts, in the order of the parts.

    Raises:
        ProtocolError: not a batch answer, damaged, cut off, or with another number of answers.
    """
    if content_type.partition(";")[0].strip().lower() != MULTIPART:
        raise ProtocolError(f"the answer to a batch is {content_type[:60]!r}, not multipart/mixed")
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise ProtocolError("the answer to a batch names no boundary")
    answers = tuple(
        _parse_part(section) for section in _sections(body, (found[1] or found[2]).encode("latin-1", "replace"))
    )
    if len(answers) != expected:
        raise ProtocolError(f"a batch of {expected} requests was answered with {len(answers)} answers")
    return answers


def _compose_part(part: Part, api_path: str) -> bytes:
    url = f"{api_path}/{part.path}"
    fields = [text for header in part.headers.items() for text in header]
    if not part.method.isalpha() or not _SAFE_URL.fullmatch(url) or not all(map(_SAFE.fullmatch, fields)):
        raise ValueError(f"{part.method} {part.path[:80]!r} cannot stand in a batch")
    lines = ["Content-Type: application/http", "Content-Transfer-Encoding: binary", ""]
    lines += [f"{part.method} {url} HTTP/1.1", *(f"{name}: {value}" for name, value in part.headers.items())]
    if part.body is not None:
        lines.append("Content-Type: application/json; type=entry")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (part.body or b"")


def _sections(body: bytes, boundary: bytes) -> list[bytes]:
    """Split a multipart body at its delimiters, which are whole lines; the last must be the closing one."""
    delimiter = re.compile(rb"(?:\A|\r?\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    marks = list(delimiter.finditer(body))
    closing = [index for index, mark in enumerate(marks) if mark[1]]
    if closing != [len(marks) - 1]:
        raise ProtocolError("the answer to a batch is cut off: its closing delimiter is missing or in the wrong place")
    return [body[mark.end() : after.start()] for mark, after in itertools.pairwise(marks)]


def _parse_part(section: bytes) -> PartAnswer:
    outer, message = _head_and_rest(b"\r\n" + section.lstrip(b"\r\n"))
    if _headers(outer).get("Content-Type", "").partition(";")[0].strip().lower() != "application/http":
        raise ProtocolError("an answer of a batch is not an HTTP answer")
    head, rest = _head_and_rest(message)
    status_line, _, fields = head.lstrip(b"\r\n").partition(b"\n")
    status = _STATUS_LINE.fullmatch(status_line.rstrip(b"\r"))
    if status is None:
        raise ProtocolError(f"an answer of a batch begins with {status_line[:40].decode('latin-1')!r}")
    return PartAnswer(int(status[1]), _headers(fields), rest)


def _head_and_rest(text: bytes) -> tuple[bytes, bytes]:
    """Split at the first blank line; without one, all of it is head: an answer without a body may end so."""
    blank = _BLANK_LINE.search(text)
    return (text, b"") if blank is None else (text[: blank.start()], text[blank.end() :])


def _headers(head: bytes) -> Mapping[str, str]:
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for line in head.decode("latin-1").splitlines():
        name, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon or not name.strip():
            raise ProtocolError(f"an answer of a batch has the header line {line[:40]!r}")
        headers[name.strip()] = value.strip()
    return headers
