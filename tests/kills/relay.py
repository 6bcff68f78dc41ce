"""Requests of a forked child, answered by the emulator in its parent: the child may be killed, that lives on.

One socket pair, one request at a time; no thread is needed in the parent, so that it may fork again.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse

from d365sync.emulator.inprocess import InProcessAdapter

LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it crosses the pair."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Answered:
    """Its answer: the body as it was sent, perhaps compressed."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


class RelayAdapter(BaseAdapter):
    """Sends what a session asks to the parent; ``before`` is called in the child each time, just before."""

    def __init__(self, pair: socket.socket, before: Callable[[str], None]) -> None:
        super().__init__()
        self._pair = pair
        self._before = before
        self._turn = threading.Lock()

    def send(self, request: requests.PreparedRequest, *_args: Any, **_options: Any) -> requests.Response:
        """Ask the parent."""
        body = request.body.encode() if isinstance(request.body, str) else request.body
        assert request.method is not None
        assert request.url is not None
        assert body is None or isinstance(body, bytes)
        with self._turn:
            self._before(f"{request.method} {request.url}")
            put(self._pair, Asked(request.method, request.url, dict(request.headers), body))
            answer: Answered = take(self._pair)
        response = requests.Response()
        response.status_code, response.reason, response.request = answer.status, answer.reason, request
        response.url = request.url
        response.headers = CaseInsensitiveDict(answer.headers)
        response.raw = HTTPResponse(
            io.BytesIO(answer.body), HTTPHeaderDict(answer.headers), answer.status, preload_content=False
        )
        return response

    def close(self) -> None:
        """Nothing is held open."""


def answering(pair: socket.socket, app: Any) -> Iterator[Asked]:
    """Answer requests until the child is gone; yield each one after it was answered."""
    adapter = InProcessAdapter(app)
    while True:
        try:
            asked: Asked = take(pair)
        except EOFError:
            return
        request = requests.Request(asked.method, asked.url, asked.headers, data=asked.body).prepare()
        request.headers = CaseInsensitiveDict(asked.headers)
        response = adapter.send(request)
        body = response.raw.read(decode_content=False)
        headers = list(response.raw.headers.items())
        try:
            put(pair, Answered(response.status_code, response.reason or "", headers, body))
        except (BrokenPipeError, ConnectionResetError):
            return
        yield asked


def put(pair: socket.socket, what: object) -> None:
    """Send one object."""
    data = pickle.dumps(what)
    pair.sendall(LENGTH.pack(len(data)) + data)


def take(pair: socket.socket) -> Any:
    """Receive one object of our own process family.

    Raises:
        EOFError: the other end is gone.
    """
    (length,) = LENGTH.unpack(_exactly(pair, LENGTH.size))
    return pickle.loads(_exactly(pair, length))  # noqa: S301 - from a process forked by this one


def _exactly(pair: socket.socket, length: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < length:
        try:
            piece = pair.recv(length - len(pieces))
        except ConnectionResetError:
            raise EOFError from None
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)
