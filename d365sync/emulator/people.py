"""People who sign in with a device code, and what keeps them signed in.

The service answers polls with the errors that the settings list, in order, and then with a token: as if the person had
typed the code on another device meanwhile. Refresh tokens hold until the emulator ends, or are revoked.

Source: Microsoft identity platform, device authorization grant; refresh tokens.

IO: system clock, randomness.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d365sync.emulator.refusals import SignInError
from d365sync.emulator.settings import EmulatorSettings

CODE_LIFETIME_S = 900
TEXTS: Mapping[str, tuple[int, str]] = {
    "authorization_pending": (70016, "OAuth 2.0 device flow error. Authorization is pending. Continue polling."),
    "slow_down": (70016, "OAuth 2.0 device flow error. Polling too fast."),
    "authorization_declined": (70018, "The user declined the authorization request."),
    "expired_token": (70020, "The provided value for the input parameter 'device_code' is not valid: it has expired."),
}
"""Errors of the flow; the AADSTS numbers of the last three are Assumed:, nothing relies on them."""


@dataclass(slots=True)
class _Code:
    resource: str
    answers: list[str]
    expires_at: float = field(default_factory=lambda: time.time() + CODE_LIFETIME_S)


class People:
    """Codes that were given out, and refresh tokens with what they are for."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._settings = settings
        self._codes: dict[str, _Code] = {}
        self._refresh: dict[str, str] = {}

    def begin(self, origin: str, resource: str) -> dict[str, Any]:
        """Give out a code."""
        device_code, user_code = secrets.token_urlsafe(30), secrets.token_hex(4).upper()
        self._codes[device_code] = _Code(resource, list(self._settings.device_answers))
        page = f"{origin}/devicelogin"
        return {
            "user_code": user_code,
            "device_code": device_code,
            "verification_uri": page,
            "expires_in": CODE_LIFETIME_S,
            "interval": self._settings.device_interval_s,
            "message": f"To sign in, use a web browser to open the page {page} and enter the code {user_code} to "
            "authenticate.",
        }

    def poll(self, device_code: str) -> str:
        """Return the resource a code stands for, once the person has signed in.

        Raises:
            SignInError: not yet, too often, never, or no such code.
        """
        code = self._codes.get(device_code)
        if code is None:
            raise SignInError(70000, "bad_verification_code", 400, "The device code is not known.")
        error = "expired_token" if code.expires_at < time.time() else code.answers.pop(0) if code.answers else ""
        if error:
            number, text = TEXTS[error]
            raise SignInError(number, error, 400, text)
        del self._codes[device_code]
        return code.resource

    def remember(self, resource: str) -> str:
        """Return a new refresh token."""
        token = secrets.token_urlsafe(48)
        self._refresh[token] = resource
        return token

    def resource_of(self, refresh_token: str) -> str:
        """Return what a refresh token is for.

        Raises:
            SignInError: it is not known, or was revoked.
        """
        if refresh_token not in self._refresh:
            text = "The provided grant has expired due to it being revoked, a fresh auth token is needed."
            raise SignInError(50173, "invalid_grant", 400, text)
        return self._refresh[refresh_token]

    def forget(self) -> None:
        """Revoke every refresh token."""
        self._refresh.clear()
