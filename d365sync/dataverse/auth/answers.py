"""The sign-in service's answers and silences, in words that say what to do next.

Source: Microsoft Entra authentication and authorization error codes; OAuth 2.0 device authorization grant.

IO: HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from d365sync.dataverse.session import proxies_of
from d365sync.dataverse.silence import first_line
from d365sync.errors import THROTTLED, AuthError

MOST_BYTES = 1024 * 1024
"""No answer of a sign-in service is as large."""
EXPIRED_SECRET = 7000222
EXPLANATIONS: Mapping[int, tuple[str, str]] = {
    7000215: ("the client secret is wrong", "copy the secret's value (not its id) from the app registration"),
    EXPIRED_SECRET: ("the client secret has expired", "create a new secret in the app registration and configure it"),
    700016: ("the application is not known in this tenant", "check client_id and tenant_id"),
    700027: ("the certificate is not accepted", "upload the certificate's public part to the app registration"),
    700024: (
        "the certificate's assertion is not valid at this time",
        "set this machine's clock by a time server: assertions hold for ten minutes",
    ),
    90002: ("the tenant is not known", "check tenant_id"),
    500011: ("the tenant does not know this organization's address", "check url and tenant_id"),
    70011: ("the requested scope is not valid", "check url"),
    7000218: (
        "the application is not a public client",
        "allow public client flows in the app registration, or use another way to sign in",
    ),
    65001: ("nobody has consented to the application", "let an administrator grant consent to the app registration"),
    53003: (
        "conditional access does not allow it",
        "ask the tenant's administrator which policy applies; device code sign-in is often blocked",
    ),
    50076: ("a second factor is needed", "sign in again with `d365sync doctor` at a console"),
    700082: ("the remembered sign-in has expired", "sign in again with `d365sync doctor` at a console"),
    50173: ("the remembered sign-in was revoked", "sign in again with `d365sync doctor` at a console"),
    70044: ("the remembered sign-in may not be used any more", "sign in again with `d365sync doctor` at a console"),
}
"""AADSTS numbers that deserve plain words."""
WORDS: Mapping[str, tuple[str, str]] = {
    "authorization_declined": ("the sign-in was declined", "run it again and accept"),
    "access_denied": ("the sign-in was declined", "run it again and accept"),
    "expired_token": ("the code expired before anybody signed in", "run it again and sign in within the time it says"),
    "bad_verification_code": ("the code is not known any more", "run it again"),
}
"""Errors of the device code flow."""
_DATE = re.compile(r"\b(\d{4}-\d{2}-\d{2})\b|\b(\d{1,2}/\d{1,2}/\d{4})\b")
_TRAILER = re.compile(r"\s*(Trace ID|Correlation ID|Timestamp):.*", re.DOTALL)


class Answering:
    """What MSAL needs of an HTTP client: a time-out on every call, no redirects, a cap, and the last answer's wish.

    It may be asked by one thread at a time.
    """

    def __init__(self, session: requests.Session, timeout_s: float, *, direct: bool = False) -> None:
        self._session = session
        self._options: dict[str, Any] = {"timeout": timeout_s, "allow_redirects": False, "stream": True}
        if direct:
            self._options["proxies"] = {"http": None, "https": None, "all": None}
        elif configured := proxies_of(session):
            self._options["proxies"] = configured
        self.throttled = False
        self.retry_after_s: float | None = None

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        """GET for MSAL."""
        return self._send("GET", url, kwargs)

    def post(self, url: str, **kwargs: Any) -> requests.Response:
        """POST for MSAL."""
        return self._send("POST", url, kwargs)

    def close(self) -> None:
        """Leave the shared session open; whoever made it closes it."""

    def _send(self, method: str, url: str, kwargs: dict[str, Any]) -> requests.Response:
        response = self._session.request(method, url, **self._options | kwargs)
        try:
            body = response.raw.read(MOST_BYTES + 1, decode_content=True)
        except HTTPError as error:
            response.close()
            raise requests.ConnectionError(error) from error
        if len(body) > MOST_BYTES:
            response.close()
            raise requests.ConnectionError(f"the answer is larger than {MOST_BYTES} bytes")
        response._content = body  # noqa: SLF001 - how requests keeps a body that was read
        self.throttled = response.status_code == THROTTLED
        wish = response.headers.get("Retry-After", "").strip()
        self.retry_after_s = float(wish) if re.fullmatch(r"\d{1,6}", wish) else None
        return response


def refusal(result: Mapping[str, Any]) -> AuthError:
    """Return the error for a refusal, with the date the answer tells, if it tells one."""
    text = str(result.get("error_description") or result.get("error") or "no explanation")
    told = _DATE.search(_TRAILER.sub("", text))
    listed = result.get("error_codes")
    for code in listed if isinstance(listed, list) and listed else _codes(text):
        if isinstance(code, int) and code in EXPLANATIONS:
            words, hint = EXPLANATIONS[code]
            when = f" (the answer says {told[0]})" if code == EXPIRED_SECRET and told else ""
            return AuthError(f"signing in failed: {words}{when} (AADSTS{code})", code=f"AADSTS{code}", hint=hint)
    error = str(result.get("error", ""))
    if error in WORDS:
        words, hint = WORDS[error]
        return AuthError(f"signing in failed: {words}", code=error, hint=hint)
    return AuthError(f"signing in failed: {first_line(_TRAILER.sub('', text))}", code=error)


def _codes(text: str) -> list[int]:
    found = re.match(r"AADSTS(\d+)", text)
    return [int(found[1])] if found else []
