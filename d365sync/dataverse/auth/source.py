"""Access tokens: what is needed to get them, and the part that every way of signing in shares.

IO: HTTP.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests

from d365sync.core.clouds import sign_in_host
from d365sync.dataverse.auth.answers import Answering, refusal
from d365sync.dataverse.silence import first_line, no_answer
from d365sync.errors import AuthError, RetryableError

ADFS = "adfs"
_ONE_WORD = re.compile(r"[!-~]+")
"""What may stand in a header: whoever refuses to send anything else would show it. Source: RFC 6750 (b64token)."""


class TokenSource(Protocol):
    """Gives access tokens for the organization. Some know when the last one ends: ``expires_at``."""

    def token(self, *, fresh: bool = False) -> str:
        """Return a valid access token; ``fresh`` does not take it from the cache."""


class LateTokens:
    """Tokens of a way in that is made when the first is needed; what cannot be read for it is told then."""

    def __init__(self, make: Callable[[], TokenSource]) -> None:
        self._make = make
        self._made: TokenSource | None = None

    def token(self, *, fresh: bool = False) -> str:
        """Return a valid access token.

        Raises:
            ConfigError: a secret or a certificate cannot be read.
            AuthError, RetryableError: as of the way in.
        """
        if self._made is None:
            self._made = self._make()
        return self._made.token(fresh=fresh)


@dataclass(frozen=True, slots=True)
class SignIn:
    """What is needed to sign in; the credential never shows in ``repr``.

    Assumed: AD FS gives tokens for the same scopes as Entra, ``RESOURCE/.default`` and ``RESOURCE/user_impersonation``.
    ``resource`` is what tokens are for, an address without a path; ``authority`` where to sign in, empty: by cloud.
    """

    resource: str
    tenant_id: str
    client_id: str
    credential: str | Mapping[str, Any] = field(default="", repr=False)
    authority: str = ""
    cloud: str = ""

    @property
    def authority_url(self) -> str:
        """The authority asked for tokens: as configured, or by the organization's cloud."""
        return self.authority or f"{sign_in_host(urlsplit(self.resource).hostname or '', self.cloud)}/{self.tenant_id}"

    @property
    def host(self) -> str:
        """The host of the authority, as messages name it."""
        return urlsplit(self.authority_url).netloc

    @property
    def application_options(self) -> dict[str, Any]:
        """MSAL's options for the authority: one that Microsoft's clouds do not know is taken as it is.

        Source: MSAL for Python (instance_discovery; a path that begins with ``adfs`` makes an AD FS authority).
        """
        return {"authority": self.authority_url, **({"instance_discovery": False} if self.authority else {})}


class MsalTokens:
    """What every way shares: one request at a time, MSAL's cache, and errors that say what to do next."""

    what = "the sign-in service"
    hint = "check tenant_id, authority and the certificate"

    def __init__(self, host: str, session: requests.Session, timeout_s: float) -> None:
        self._host = host
        self._http = Answering(session, timeout_s)
        self._lock = threading.Lock()
        self.expires_at: dt.datetime | None = None

    def token(self, *, fresh: bool = False) -> str:
        """Return an access token for the organization.

        Raises:
            AuthError: refused; the message says why.
            RetryableError: the authority could not be reached or is overloaded.
        """
        with self._lock:
            token = self._token(fresh=fresh)
            if not _ONE_WORD.fullmatch(token) and not fresh:
                token = self._token(fresh=True)
        if not _ONE_WORD.fullmatch(token):
            raise AuthError(
                f"{self.what} at {self._host} answers with a token that is none",
                hint="a proxy may have answered in its place; check authority",
            )
        return token

    def _token(self, *, fresh: bool) -> str:
        result = self._answered(lambda: self._acquire(fresh=fresh))
        if "access_token" not in result:
            raise self._refusal(result)
        self.expires_at = _ends(result.get("expires_in"))
        return str(result["access_token"])

    @abstractmethod
    def _acquire(self, *, fresh: bool) -> Mapping[str, Any]:
        """Return MSAL's answer."""

    def _refusal(self, result: Mapping[str, Any]) -> AuthError | RetryableError:
        if self._http.throttled:
            return self._busy("asks for patience (HTTP 429)")
        return refusal(result)

    def _answered(self, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Ask MSAL, and turn what it raises into what to do next."""
        from msal import ManagedIdentityError
        from msal.exceptions import MsalServiceError

        try:
            return ask()
        except requests.RequestException as error:
            raise no_answer(f"{self.what} at {self._host} cannot be reached", error) from None
        except MsalServiceError as error:
            raise self._busy(f"is failing ({error})") from None
        except (json.JSONDecodeError, RecursionError, AttributeError, TypeError):  # MSAL reads any JSON as an object
            what = "something else than a JSON object; a proxy may have answered in its place"
            raise self._busy(f"answers with {what}") from None
        except (ValueError, KeyError, ManagedIdentityError) as error:
            raise AuthError(
                f"signing in at {self._host} is not possible: {first_line(str(error))}", hint=self.hint
            ) from None

    def _busy(self, how: str) -> RetryableError:
        return RetryableError(
            f"{self.what} at {self._host} {how}", retry_after_s=self._http.retry_after_s, hint="try again later"
        )


def _ends(lasts_s: object) -> dt.datetime | None:
    """Return when a token ends that lasts so many seconds; None when that is not told, or is no such number."""
    try:
        return dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=int(str(lasts_s)))
    except (ValueError, OverflowError):
        return None
