"""Runs the emulator inside the caller's process behind a real ``requests`` session.

Mounted on ``https://``, the adapter hands every request of the session to the WSGI application, so the real client,
its paging and retries, and the real sign-in library run without a socket.

IO: none (WSGI calls).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.cookies import extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPHeaderDict, HTTPResponse
from werkzeug.test import EnvironBuilder, run_wsgi_app

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class InProcessAdapter(BaseAdapter):
    """A transport adapter that answers from a WSGI application; bodies may be streamed both ways."""

    def __init__(self, app: WSGIApplication) -> None:
        super().__init__()
        self._app = app

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Answer a prepared request; time-outs, certificates and proxies mean nothing here.

        Raises:
            requests.ConnectionError: the application broke the connection.
        """
        del stream, timeout, verify, cert, proxies
        try:
            chunks, status, headers = run_wsgi_app(self._app, _environ(request), buffered=False)
        except OSError as error:
            raise requests.ConnectionError(error, request=request) from error
        raw = HTTPResponse(
            body=_Body(chunks),
            headers=HTTPHeaderDict(list(headers)),
            status=int(status.split(" ", 1)[0]),
            reason=status.partition(" ")[2],
            preload_content=False,
            original_response=_Original(headers),  # type: ignore[arg-type]
        )
        return _response(request, raw)

    def close(self) -> None:
        """Nothing is held open."""


def mounted_session(app: WSGIApplication) -> requests.Session:
    """Return a session whose every ``https://`` request is answered by the application."""
    session = requests.Session()
    session.mount("https://", InProcessAdapter(app))
    return session


class _Original:
    """What the session looks for beneath an answer to find its cookies."""

    def __init__(self, headers: Iterable[tuple[str, str]]) -> None:
        self.msg = Message()
        for name, value in headers:
            self.msg[name] = value

    def isclosed(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held open."""


class _Body(io.RawIOBase):
    """A WSGI body as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks: Iterator[bytes] = iter(chunks)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def _environ(request: requests.PreparedRequest) -> dict[str, Any]:
    parts = urlsplit(request.url or "")
    body = request.body or b""
    data = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else b"".join(body)
    builder = EnvironBuilder(
        method=request.method or "GET",
        base_url=f"{parts.scheme}://{parts.netloc}/",
        path=parts.path or "/",
        query_string=parts.query,
        headers=list(request.headers.items()),
        input_stream=io.BytesIO(data),
        content_length=len(data),
    )
    return builder.get_environ()


def _response(request: requests.PreparedRequest, raw: HTTPResponse) -> requests.Response:
    response = requests.Response()
    response.status_code = raw.status
    response.headers = CaseInsensitiveDict(raw.headers)
    response.encoding = requests.utils.get_encoding_from_headers(response.headers)
    response.raw = raw
    response.reason = raw.reason or ""
    response.url = request.url or ""
    response.request = request
    extract_cookies_to_jar(response.cookies, request, raw)  # type: ignore[no-untyped-call]
    return response
