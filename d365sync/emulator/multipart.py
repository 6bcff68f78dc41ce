"""The multipart bodies of ``$batch``: operations and change sets as they are sent, answers as the service sends them.

Source: Execute batch operations using the Web API; the batch format of OData 4.0 (lines end in CRLF, a delimiter is
a whole line, a part without body may end with its headers). Texts of refusals are those of Microsoft's OData library,
which the service is built with.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from werkzeug.http import parse_options_header
from werkzeug.wrappers import Response

from d365sync.emulator.settings import EmulatorSettings

MIXED = "multipart/mixed"
CRLF = b"\r\n"
BLANK_LINE = CRLF + CRLF
METHODS_OF_SETS = ("POST", "PUT", "DELETE", "PATCH")
ENCODING = "content-transfer-encoding"

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_REQUEST_LINE = re.compile(rb"([!-~]+) +([^\r\n]*[^\r\n ]) +HTTP/1\.1")
_HEADER = re.compile(rb"([!-9;-~]+):[ \t]*([^\r\n]*)")
_BARE_LF = re.compile(rb"(?<!\r)\n")


class MultipartError(ValueError):
    """A body that is no batch; the text says why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One request inside a batch, its address as it stands there."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Operations that succeed or fail together."""

    operations: tuple[Operation, ...]


@dataclass(frozen=True, slots=True)
class PartAnswer:
    """The answer to one operation, under the Content-ID the operation had."""

    response: Response
    content_id: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the operation failed."""
        return self.response.status_code >= 400


Item = Operation | ChangeSet
ItemAnswer = PartAnswer | Sequence[PartAnswer]


def parse_batch(content_type: str, body: bytes, settings: EmulatorSettings) -> tuple[Item, ...]:
    """Read the body of a batch.

    Raises:
        MultipartError: it is none, or holds too many operations.
    """
    boundary = _boundary(content_type)
    if settings.batch_bare_lf:
        body = _BARE_LF.sub(CRLF, body)
    items = tuple(_item(*_part(part), settings) for part in _split(body, boundary))
    if sum(len(item.operations) if isinstance(item, ChangeSet) else 1 for item in items) > settings.batch_limit:
        raise MultipartError(
            "The current batch message contains too many parts. Only batch messages with a maximum number of "
            f"'{settings.batch_limit}' query operations and change sets are allowed."
        )
    return items


def write_batch(answers: Iterable[ItemAnswer], name: str) -> bytes:
    """Return the body of the answer to a batch; ``name`` makes its boundaries one of their kind."""
    boundary = f"batchresponse_{name}"
    parts = [
        _written(answer)
        if isinstance(answer, PartAnswer)
        else _written_set(answer, f"changesetresponse_{number}_{name}")
        for number, answer in enumerate(answers, 1)
    ]
    return _joined(parts, boundary)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind.lower() != MIXED or not 0 < len(boundary) <= 70 or not boundary.isascii():
        raise MultipartError(
            f"Invalid multi-part content type '{content_type[:200]}' specified. The content type value must be "
            "'multipart/mixed' and must specify the 'boundary' parameter."
        )
    return boundary.encode("ascii")


def _split(body: bytes, boundary: bytes) -> list[bytes]:
    """Return what stands between the delimiters, each part with the CRLF that ended the delimiter before it."""
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    parts: list[bytes] = []
    start: int | None = None
    for match in delimiter.finditer(body):
        if start is not None:
            parts.append(body[start : match.start()])
        if match[1]:
            return parts
        start = match.end()
    lines = "" if CRLF in body or b"\n" not in body else " Lines must end in CR and LF."
    shown = boundary.decode("ascii")
    raise MultipartError(f"The batch is not complete: there is no closing delimiter '--{shown}--'.{lines}")


def _part(content: bytes) -> tuple[dict[str, str], bytes]:
    head, blank, rest = content.removeprefix(CRLF).partition(BLANK_LINE)
    if not blank:
        raise MultipartError("The headers of a part of the batch must be ended by an empty line (CR LF CR LF).")
    return {name.lower(): value for name, value in _headers(head)}, rest


def _headers(head: bytes) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for line in head.split(CRLF) if head else ():
        match = _HEADER.fullmatch(line)
        if match is None:
            shown = line[:100].decode("utf-8", "replace")
            raise MultipartError(f"Invalid header '{shown}' in a part of the batch. The format is 'name: value'.")
        found.append((match[1].decode("ascii"), match[2].decode("latin-1").strip()))
    return tuple(found)


def _item(headers: dict[str, str], rest: bytes, settings: EmulatorSettings) -> Item:
    content_type = headers.get("content-type")
    if content_type is None:
        raise MultipartError("Missing 'Content-Type' header in a part of the batch.")
    if _kind(content_type) != MIXED:
        return _operation(headers, rest, settings)
    operations: list[Operation] = []
    for part in _split(rest, _boundary(content_type)):
        inner, message = _part(part)
        if _kind(inner.get("content-type", "")) == MIXED:
            raise MultipartError("A change set was found inside a change set; change sets cannot be nested.")
        operation = _operation(inner, message, settings)
        _check_member(operation, operations, settings)
        operations.append(operation)
    return ChangeSet(tuple(operations))


def _kind(content_type: str) -> str:
    return parse_options_header(content_type)[0].lower()


def _operation(headers: dict[str, str], message: bytes, settings: EmulatorSettings) -> Operation:
    if _kind(headers.get("content-type", "")) != "application/http":
        raise MultipartError("The content type of a part of the batch must be 'application/http' or 'multipart/mixed'.")
    if settings.batch_transfer_encoding and headers.get(ENCODING, "").lower() != "binary":
        raise MultipartError(
            "A missing or invalid 'Content-Transfer-Encoding' header was found. The 'Content-Transfer-Encoding' header "
            "must be specified for each batch operation, and its value must be 'binary'."
        )
    line, _, rest = message.partition(CRLF)
    request = _REQUEST_LINE.fullmatch(line.strip(b" "))
    if request is None:
        shown = line[:100].decode("utf-8", "replace")
        raise MultipartError(
            f"The request line '{shown}' is invalid. The request line at the start of each operation must be of the "
            "format 'HttpMethod RequestUrl HttpVersion'."
        )
    head, body = (b"", rest[2:]) if rest.startswith(CRLF) else rest.partition(BLANK_LINE)[::2]
    own = _headers(head.removesuffix(CRLF))
    inside = next((value for name, value in own if name.lower() == "content-id"), None)
    try:
        url = request[2].decode("utf-8")
    except UnicodeDecodeError:
        raise MultipartError("The address of an operation of the batch is not UTF-8.") from None
    return Operation(request[1].decode("ascii"), url, own, body, headers.get("content-id") or inside)


def _check_member(operation: Operation, before: Iterable[Operation], settings: EmulatorSettings) -> None:
    """Refuse what a change set may not hold."""
    if operation.method not in METHODS_OF_SETS:
        raise MultipartError(
            f"An invalid HTTP method '{operation.method[:20]}' was detected for a request in a change set. Requests in "
            "change sets only support the HTTP methods 'POST', 'PUT', 'DELETE', and 'PATCH'."
        )
    if operation.content_id is None:
        if settings.batch_content_id:
            raise MultipartError(
                "The header with name 'Content-ID' was not present in the header collection of the batch operation."
            )
    elif any(one.content_id == operation.content_id for one in before):
        shown = operation.content_id[:50]
        raise MultipartError(f"The content ID '{shown}' was found more than once in the same change set.")


def _written_set(answers: Sequence[PartAnswer], boundary: str) -> bytes:
    head = f"Content-Type: {MIXED}; boundary={boundary}".encode()
    return head + BLANK_LINE + _joined([_written(answer) for answer in answers], boundary)


def _written(answer: PartAnswer) -> bytes:
    head = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
    if answer.content_id is not None:
        head += f"Content-ID: {answer.content_id}\r\n"
    status = answer.response.status_code
    head += f"\r\nHTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"
    for name, value in answer.response.headers:
        if name != "Content-Length":
            head += f"{name}: {value}\r\n"
    return head.encode("latin-1", "replace") + CRLF + answer.response.get_data() + CRLF


def _joined(parts: Iterable[bytes], boundary: str) -> bytes:
    mark = f"--{boundary}".encode()
    return b"".join([*(mark + CRLF + part for part in parts), mark + b"--" + CRLF])
