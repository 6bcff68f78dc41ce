"""``POST $batch``: every operation answered as if it came alone, change sets all or nothing.

Source: Execute batch operations using the Web API. ``Assumed:``

- headers of the batch that say for whom it is made hold for each operation that does not name another user
- the other headers of the batch hold for the batch alone
- an address of another host is refused

Pure.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from werkzeug.wrappers import Request, Response

from d365sync.emulator.calls import OPERATIONS, PART_FAULT, Call, open_call, refusal_response, row_address
from d365sync.emulator.multipart import (
    ChangeSet,
    ItemAnswer,
    MultipartError,
    Operation,
    PartAnswer,
    parse_batch,
    write_batch,
)
from d365sync.emulator.refuse import Refusal, bad_uri, invalid, no_content_id

MAX_URL = 65_536
"""Longest address inside a batch. Source: Compose HTTP requests; Execute batch operations."""
CALLERS = ("CallerObjectId", "MSCRMCallerID")

Route = Callable[[Call, str], Response]

_UNSAFE = re.compile(rb"[^!-~]")
_ABSOLUTE = re.compile(r"(https?://[^/?]*)(.*)", re.DOTALL | re.IGNORECASE)
_REFERENCE = re.compile(r"(\$[^/?()]+)(.*)", re.DOTALL)
_OWN_SEGMENTS = ("$batch", "$metadata")


def answer_batch(call: Call, route: Route) -> Response:
    """Answer a batch; ``route`` answers one of its operations.

    Without ``odata.continue-on-error`` it stops at the first failure, and the answer's status is 400.

    Raises:
        Refusal: the body is not a batch, so nothing of it was done.
    """
    settings = call.store.settings
    try:
        items = parse_batch(call.request.headers.get("Content-Type", ""), call.request.get_data(), settings)
    except MultipartError as error:
        raise invalid(str(error)) from error
    going_on = call.preferences.continue_on_error
    answers: list[ItemAnswer] = []
    status = 200
    for item in items:
        answer, failed = (
            _answer_set(call, item, route) if isinstance(item, ChangeSet) else _answer_one(call, item, route)
        )
        answers.append(answer)
        if failed and not going_on:
            status = 400
            break
        if failed and isinstance(item, ChangeSet) and not settings.batch_after_failed_set:
            break
    name = str(uuid.uuid4())
    response = Response(write_batch(answers, name), status)
    response.headers["Content-Type"] = f"multipart/mixed; boundary=batchresponse_{name}"
    if going_on:
        response.headers["Preference-Applied"] = "odata.continue-on-error"
    return response


def _answer_one(call: Call, operation: Operation, route: Route) -> tuple[ItemAnswer, bool]:
    answer = _attempt(call, operation, route, {})
    return answer, answer.failed


def _answer_set(call: Call, change_set: ChangeSet, route: Route) -> tuple[ItemAnswer, bool]:
    """Carry out a change set; one that fails leaves nothing behind and is answered by the failure alone."""
    answers: list[PartAnswer] = []
    addresses: dict[str, str] = {}
    with call.store.transaction() as transaction:
        for operation in change_set.operations:
            answer = _attempt(call, operation, route, addresses)
            if answer.failed:
                transaction.roll_back()
                answer.response.headers["REQ_ID"] = str(uuid.uuid4())
                return [answer], True
            answers.append(answer)
    return answers, False


def _attempt(call: Call, operation: Operation, route: Route, addresses: dict[str, str]) -> PartAnswer:
    """Answer one operation; note the address of its row for those that come after."""
    outer = call.request.environ
    outer[OPERATIONS] = outer.get(OPERATIONS, 0) + 1
    try:
        with call.store.transaction():
            part, path = _opened(call, operation, addresses)
            response = route(part, path)
            if operation.content_id is not None:
                addresses[operation.content_id] = row_address(part, path, response)
        if part.preferences.applied:
            response.headers["Preference-Applied"] = part.preferences.applied
    except Refusal as refusal:
        response = refusal_response(refusal, [value for name, value in operation.headers if name.lower() == "prefer"])
    response.headers["OData-Version"] = "4.0"
    return PartAnswer(response, operation.content_id)


def _opened(call: Call, operation: Operation, addresses: dict[str, str]) -> tuple[Call, str]:
    request = Request(_environ(call, operation, _target(call, operation.url, addresses)))
    fault = call.request.environ.get(PART_FAULT)
    if fault is not None and (failure := fault(request)) is not None:
        raise failure
    part, path = open_call(request, call.store, call.real_id or call.user_id, max_url=MAX_URL, references=addresses)
    if path.partition("/")[0] == "$batch":
        raise invalid("A batch cannot hold another batch.")
    return part, path


def _target(call: Call, url: str, addresses: dict[str, str]) -> str:
    """Return the path and query an operation's address means: absolute, below the host, or below the service root."""
    origin = call.request.host_url.rstrip("/")
    absolute = _ABSOLUTE.fullmatch(url)
    if absolute is not None:
        if absolute[1].lower() != origin.lower():
            raise bad_uri(f"The address '{url[:200]}' of an operation is not one of this service ({origin}).")
        url = absolute[2]
    root = call.root.removeprefix(origin)
    below = url.removeprefix(root)
    reference = _REFERENCE.fullmatch(below)
    if reference is not None and reference[1] not in _OWN_SEGMENTS:
        address = addresses.get(reference[1].removeprefix("$"))
        if address is None:
            raise no_content_id(reference[1])
        return address.removeprefix(origin) + reference[2]
    return url if url.startswith("/") else root + url


def _environ(call: Call, operation: Operation, target: str) -> dict[str, Any]:
    """Return the WSGI environment of an operation. Blanks and letters beyond ASCII may stand in its address as such."""
    outer = call.request.environ
    path, _, query = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], target.encode()).partition(b"?")
    environ: dict[str, Any] = {
        str(name): outer[name]
        for name in ("SERVER_NAME", "SERVER_PORT", "HTTP_HOST", "wsgi.url_scheme")
        if name in outer
    }
    inherited = {name: call.request.headers[name] for name in CALLERS if name in call.request.headers}
    own: dict[str, str] = {}
    for name, value in operation.headers:
        own[name.lower()] = f"{own[name.lower()]},{value}" if name.lower() in own else value
    if not any(name.lower() in own for name in CALLERS):
        own.update({name.lower(): value for name, value in inherited.items()})
    own.pop("content-length", None)
    environ.update({"HTTP_" + name.upper().replace("-", "_"): value for name, value in own.items()})
    return {
        **environ,
        "REQUEST_METHOD": operation.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("ascii"),
        "CONTENT_TYPE": own.get("content-type", ""),
        "CONTENT_LENGTH": str(len(operation.body)),
        "wsgi.input": io.BytesIO(operation.body),
    }
