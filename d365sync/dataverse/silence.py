"""Why no answer came: the server, its certificate, or the proxy, each with its own mend.

Source: OpenSSL's verification codes (verify(1)); RFC 9110 (CONNECT, 407).

Pure.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

import requests

from d365sync.errors import RemoteError, RetryableError

EXPIRED, NOT_YET, OTHER_HOST = 10, 9, 62
CLOCK = "have the server's certificate renewed, or set this machine's clock if that is wrong"
CERTIFICATES = {
    EXPIRED: CLOCK,
    NOT_YET: CLOCK,
    OTHER_HOST: "check the address: the server's certificate is for another host",
}
PRIVATE = "if the server has a private certificate authority, name it in dataverse.ca_bundle"
PASSWORD = "put a user and a password that it takes into dataverse.proxy (or HTTPS_PROXY)"  # noqa: S105 - no password
ALLOWED = "have the proxy allow this host, or name the host in NO_PROXY"
LATER = "check the address and this machine's network, or try again later"
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})(?: ([^'\")]{0,60}))?")


def no_answer(what: str, error: requests.RequestException) -> RemoteError:
    """Return the error for a request without an answer: worth a repeat, unless a repeat would end the same."""
    causes = list(_causes(error))
    if isinstance(error, requests.exceptions.ProxyError):
        return _of_proxy(what, error, causes)
    if isinstance(error, requests.exceptions.SSLError):
        return _of_certificate(what, causes)
    late = isinstance(error, requests.Timeout) or any(isinstance(one, TimeoutError) for one in causes)
    return RetryableError(f"{what} ({'no answer in time' if late else _words(causes[-1])})", hint=LATER)


def first_line(text: str) -> str:
    """Return the first line of a text, shortened."""
    return " ".join(text.strip().splitlines()[0].split())[:300] if text.strip() else ""


def _of_certificate(what: str, causes: list[BaseException]) -> RemoteError:
    """Return the error of TLS; a connection that broke while it was set up is no matter of trust."""
    if any(isinstance(one, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError) for one in causes):
        return RetryableError(f"{what} (the connection broke while TLS was set up)", hint=LATER)
    refused = next((one for one in causes if isinstance(one, ssl.SSLCertVerificationError)), None)
    if refused is not None:
        hint = CERTIFICATES.get(refused.verify_code, PRIVATE)
        return RemoteError(f"{what} (TLS: {first_line(refused.verify_message)})", hint=hint, at="TLS")
    mend = f"check that the address speaks TLS; {PRIVATE}"
    return RemoteError(f"{what} (TLS: {_words(causes[-1])})", hint=mend, at="TLS")


def _of_proxy(what: str, error: requests.exceptions.ProxyError, causes: list[BaseException]) -> RemoteError:
    """Return the error of a proxy, named by host and port alone: its address may hold a password."""
    proxy = f"the proxy {_proxy_named(error)}".rstrip()
    told = next((found for one in reversed(causes) if (found := _TUNNEL.search(str(one)))), None)
    if told is None:
        return RetryableError(
            f"{what} ({proxy} cannot be reached: {_words(causes[-1])})",
            hint="check dataverse.proxy or HTTPS_PROXY",
            at="proxy",
        )
    status = int(told[1])
    message = f"{what} ({proxy} refuses: {status} {told[2] or ''}".rstrip() + ")"
    if status >= 500:
        return RetryableError(message, hint=LATER, at="proxy")
    return RemoteError(message, hint=PASSWORD if status == 407 else ALLOWED, at="proxy")


def _proxy_named(error: requests.exceptions.ProxyError) -> str:
    for one in _causes(error):
        url = getattr(getattr(one, "pool", None), "proxy", None)
        if url is not None:
            return f"{url.host}:{url.port}" if url.port else str(url.host)
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it holds, to the innermost."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        reason = getattr(one, "reason", None)
        inner = reason if isinstance(reason, BaseException) else None
        one = (
            inner
            or next((held for held in reversed(one.args) if isinstance(held, BaseException)), None)
            or one.__cause__
        )


def _words(error: BaseException) -> str:
    """Say what an error says, without addresses of objects or stacks."""
    return first_line(str(getattr(error, "strerror", None) or error)) or type(error).__name__
