"""The ``requests`` session: TLS that is always verified, no cookies, connections for many threads; bodies with a cap.

``requests`` promises nothing about a session used by several threads, ``urllib3`` promises that its pools may be. So a
session here is only where adapters, trust anchors and proxies are configured: requests are prepared without it and
handed to its adapter (:mod:`d365sync.dataverse.transport`), which leaves no mutable state to share.

Source: urllib3 Advanced Usage (PoolManager is thread-safe); Send parallel requests (affinity cookies).

IO: HTTP, files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from isal import isal_zlib
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from d365sync.dataverse.deadline import within
from d365sync.errors import ConfigError, ProtocolError

MAX_BODY_BYTES = 128 * 1024 * 1024
"""Far more than a page of 5,000 rows of the columns that goals need."""
CHUNK_BYTES = 256 * 1024
CONNECTIONS = 32
"""Connections kept open to a host; more than ever work at once."""
TIMEOUT_S = 120
ANSWER_TIMEOUTS = 5
"""Of how many time-outs the whole of an answer may make use."""
GZIP = 16 + zlib.MAX_WBITS


class TrustingAdapter(HTTPAdapter):
    """Verifies servers by the usual trust anchors and by further ones; gives each answer so many seconds."""

    def __init__(self, ca_bundle: str | None, answer_s: float, **options: Any) -> None:
        self._context = create_urllib3_context()
        self._context.sslsocket_class = within(answer_s)
        if ca_bundle:
            self._context.load_verify_locations(ca_bundle)
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the connection pool with our TLS context; requests adds the usual anchors to it."""
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Make the pool of a proxy with our TLS context."""
        return super().proxy_manager_for(*args, ssl_context=self._context, **kwargs)


def make_session(ca_bundle: str | None, proxy: str = "", *, timeout_s: float = TIMEOUT_S) -> requests.Session:
    """Return a session that verifies TLS (with further trust anchors if given) and keeps no cookies.

    ``proxy`` is the address of a proxy for every request; without it the environment decides (``HTTPS_PROXY``,
    ``NO_PROXY``). Affinity cookies would tie every request to one server. Source: Send parallel requests. A whole
    answer may take :data:`ANSWER_TIMEOUTS` times as long as its next byte, for which ``timeout_s`` is the limit of
    whoever sends. No credentials are taken from a ``.netrc``.

    Raises:
        ConfigError: the file holds no certificates.
    """
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    if proxy:
        session.proxies = {"https": proxy}
    session.auth = _as_it_is
    try:
        adapter = TrustingAdapter(ca_bundle, ANSWER_TIMEOUTS * timeout_s, pool_maxsize=CONNECTIONS)
    except (OSError, ValueError):
        raise ConfigError(f"the file of dataverse.ca_bundle, {ca_bundle}, holds no usable certificate") from None
    session.mount("https://", adapter)
    return session


def proxies_of(session: requests.Session) -> dict[str, str]:
    """Return the proxies a session was made with, to be given with each request.

    requests prefers those of the environment to the session's own, but not to a request's.
    """
    return {scheme: address for scheme, address in session.proxies.items() if address}


def _as_it_is(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared


def verifying(session: requests.Session) -> requests.Session:
    """Return the session if it verifies servers.

    Raises:
        ConfigError: it was told not to.
    """
    if not session.verify:
        raise ConfigError("the requests session does not verify TLS certificates; d365sync never works so")
    return session


def read_body(response: requests.Response, limit: int = MAX_BODY_BYTES) -> tuple[bytes, int]:
    """Read the body, decompressed, with a cap that holds while reading; also say how many bytes were transferred.

    Compressed bytes are unpacked a chunk at a time, so that a small answer cannot become a large one in memory.

    Raises:
        ProtocolError: the body is larger than any answer should be, or compressed in a way that was not asked for.
        requests.ConnectionError: the body is shorter than it said, or ends within its compression.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise ProtocolError(f"the answer is compressed as {encoding[:20]!r}, which was not asked for")
    received = _Received()
    pieces = received.counted(response)
    chunks: list[bytes] = []
    size = 0
    try:
        for chunk in _unzipped(pieces) if encoding == "gzip" else pieces:
            size += len(chunk)
            if size > limit:
                raise ProtocolError(
                    f"the answer is larger than {limit} bytes; given up", hint="lower dataverse.page_size"
                )
            chunks.append(chunk)
    finally:
        response.close()
    return b"".join(chunks), received.size


class _Received:
    """Counts the bytes of a body as they come from the network."""

    def __init__(self) -> None:
        self.size = 0

    def counted(self, response: requests.Response) -> Iterator[bytes]:
        try:
            for piece in response.raw.stream(CHUNK_BYTES, decode_content=False):
                self.size += len(piece)
                yield piece
        except HTTPError as error:
            raise requests.ConnectionError(error) from error


def _unzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what gzip hides, never more than a chunk at a time."""
    unpack = isal_zlib.decompressobj(GZIP)
    started = False
    try:
        for piece in pieces:
            started = True
            while piece and not unpack.eof:
                yield unpack.decompress(piece, CHUNK_BYTES)
                piece = unpack.unconsumed_tail
            if piece or unpack.unused_data:
                raise ProtocolError("the answer goes on after the end of its compression")
        while started and not unpack.eof:
            rest = unpack.decompress(unpack.unconsumed_tail, CHUNK_BYTES)
            if not rest:
                raise requests.ConnectionError("the compressed answer ends too early")
            yield rest
    except isal_zlib.error as error:  # type: ignore[misc] # its stub calls the class an instance
        raise ProtocolError(f"the answer says it is gzip and is not ({error})") from None
