"""A person at a console: a code to type on any device, remembered afterwards so that nobody is asked again.

What is remembered (a refresh token) signs in as that person, so it is kept encrypted where the platform can: DPAPI on
Windows, the Keychain on macOS, libsecret on Linux. Another way is taken only where the configuration says so.

Source: OAuth 2.0 device authorization grant; MSAL extensions for Python.

IO: HTTP, files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import requests

from d365sync.dataverse.auth.source import MsalTokens, SignIn
from d365sync.dataverse.gate import MonotonicTimer, Timer
from d365sync.errors import AuthError, ConfigError

PENDING = ("authorization_pending", "slow_down")
SIGN_IN_HINT = "sign in with `d365sync doctor` at a console, as the user and with the configuration of the service"
OTHERS = 0o077


class Cache(StrEnum):
    """Where the sign-in is remembered."""

    ENCRYPTED = "encrypted"
    FILE = "file"
    MEMORY = "memory"


class DeviceTokens(MsalTokens):
    """Tokens of a person. ``say`` shows the message with the code; without it nobody is there, and nobody is asked."""

    hint = "check tenant_id, client_id and authority"

    def __init__(
        self,
        sign_in: SignIn,
        session: requests.Session,
        timeout_s: float,
        *,
        cache: Callable[[], Any] | None = None,
        say: Callable[[str], None] | None = None,
        timer: Timer | None = None,
    ) -> None:
        super().__init__(sign_in.host, session, timeout_s)
        self._sign_in = sign_in
        self._open_cache = cache
        self._say = say
        self._timer = timer or MonotonicTimer()
        self._app: Any = None

    def _acquire(self, *, fresh: bool) -> Mapping[str, Any]:
        from msal import PublicClientApplication

        if self._app is None:
            self._app = PublicClientApplication(
                self._sign_in.client_id,
                token_cache=self._open_cache() if self._open_cache else None,
                http_client=self._http,
                **self._sign_in.application_options,
            )
        scopes = [f"{self._sign_in.resource}/user_impersonation"]
        known = self._app.get_accounts()
        silent: Mapping[str, Any] | None = None
        if known:
            silent = self._app.acquire_token_silent_with_error(scopes, account=known[0], force_refresh=fresh)
        if silent is not None and ("access_token" in silent or self._say is None or self._http.throttled):
            return silent
        if self._say is None:
            raise AuthError("nobody has signed in for d365sync yet (auth = device_code)", hint=SIGN_IN_HINT)
        return self._ask_person(scopes, self._say)

    def _ask_person(self, scopes: list[str], say: Callable[[str], None]) -> Mapping[str, Any]:
        """Show the code and ask for the token as often as the service wants, until it is there, refused or expired."""
        flow: dict[str, Any] = self._app.initiate_device_flow(scopes)
        if "user_code" not in flow:
            return flow
        say(str(flow["message"]))
        ends_at = self._timer.now() + float(flow["expires_in"])
        while True:
            self._timer.wait_until(self._timer.now() + float(flow["interval"]))
            flow["latest_attempt_at"] = 0  # the waiting is done by our timer
            result: Mapping[str, Any] = self._app.acquire_token_by_device_flow(flow, exit_condition=lambda _flow: True)
            if result.get("error") not in PENDING:
                return result
            if self._timer.now() >= ends_at:
                return {"error": "expired_token"}


def open_cache(kind: Cache, path: Path) -> Callable[[], Any] | None:
    """Return what opens the cache of sign-ins when it is needed; None to remember nothing on disk.

    The opener raises ConfigError where the platform cannot do what is asked, and where others may read the file.
    """
    if kind is Cache.MEMORY:
        return None
    return lambda: _persisted(kind, path)


def _persisted(kind: Cache, path: Path) -> Any:
    from msal_extensions import FilePersistence, PersistedTokenCache, build_encrypted_persistence

    if readable_by_others(path):
        raise ConfigError(f"others may read the sign-ins in {path}", hint=f"chmod 600 {path}, and sign in again")
    try:
        persistence = FilePersistence(str(path)) if kind is Cache.FILE else build_encrypted_persistence(str(path))
    except Exception as error:  # noqa: BLE001 - whatever a platform's store raises, it cannot be used
        raise ConfigError(
            f"this machine has no store for encrypted sign-ins ({type(error).__name__})",
            hint='install libsecret and PyGObject, or set dataverse.sign_in_cache to "file" (for this user only) '
            'or "memory" (sign in at each start)',
        ) from None
    return PersistedTokenCache(persistence)


def readable_by_others(path: Path) -> bool:
    """Say whether somebody else than the owner may read a file; on Windows its folder decides, which is not asked."""
    return os.name == "posix" and path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & OTHERS)
