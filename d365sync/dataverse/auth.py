"""Signing in: MSAL's confidential client with a secret or a certificate. The only module that knows MSAL.

Source: Authenticate to Dataverse with the Web API; MSAL for Python.

IO: HTTP, files.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msal
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from msal.exceptions import MsalServiceError

from d365sync.errors import AuthError, ConfigError, RemoteError, RetryableError

PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
AUTHORITIES = (
    (".crm.microsoftdynamics.us", "https://login.microsoftonline.us"),
    (".crm.appsplatform.us", "https://login.microsoftonline.us"),
    (".crm.dynamics.cn", "https://login.partner.microsoftonline.cn"),
)
"""National clouds by the organization's host. Source: Discovery service, global and national clouds."""

EXPLANATIONS: Mapping[int, tuple[str, str]] = {
    7000215: ("the client secret is wrong", "copy the secret's value (not its id) from the app registration"),
    7000222: ("the client secret has expired", "create a new secret in the app registration and configure it"),
    700016: ("the application is not known in this tenant", "check client_id and tenant_id"),
    700027: ("the certificate is not accepted", "upload the certificate's public part to the app registration"),
    90002: ("the tenant is not known", "check tenant_id"),
    500011: ("the tenant does not know this organization's address", "check url and tenant_id"),
    70011: ("the requested scope is not valid", "check url"),
}
"""AADSTS numbers that deserve plain words. Source: Microsoft Entra authentication error codes."""


class TokenSource(Protocol):
    """Gives access tokens for the organization."""

    def token(self, *, fresh: bool = False) -> str:
        """Return a valid access token; ``fresh`` does not take it from the cache."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """What is needed to sign in; the credential never shows in ``repr``."""

    resource: str
    tenant_id: str
    client_id: str
    credential: str | Mapping[str, Any] = field(repr=False)
    authority: str = ""

    @property
    def authority_url(self) -> str:
        """The authority asked for tokens: as configured, or by the organization's cloud."""
        return self.authority or f"{authority_for(self.resource)}/{self.tenant_id}"


def authority_for(url: str) -> str:
    """Return the sign-in host of the cloud an organization lives in."""
    host = urlsplit(url).hostname or ""
    return next((authority for suffix, authority in AUTHORITIES if host.endswith(suffix)), PUBLIC_AUTHORITY)


def certificate_credential(path: Path, password: str) -> Mapping[str, Any]:
    """Return MSAL's credential for a PEM file (private key and certificate) or a PFX file.

    Raises:
        ConfigError: the file cannot be read, or holds no certificate or no key.
    """
    if path.suffix.lower() in (".pfx", ".p12"):
        if not path.is_file():
            raise ConfigError(f"the certificate file {path} is not there")
        return {"private_key_pfx_path": str(path), "passphrase": password or None, "public_certificate": True}
    try:
        pem = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificate file {path} cannot be used: {error}") from None
    if b"PRIVATE KEY" not in pem:
        raise ConfigError(
            f"the certificate file {path} holds no private key", hint="put key and certificate into one PEM"
        )
    credential: dict[str, Any] = {
        "private_key": pem.decode("ascii", "replace"),
        "thumbprint": certificate.fingerprint(hashes.SHA1()).hex(),  # noqa: S303 - what the platform identifies it by
    }
    if password:
        credential["passphrase"] = password
    return credential


class MsalTokens:
    """A token source with MSAL's in-memory cache; thread-safe."""

    def __init__(self, sign_in: SignIn, session: requests.Session, timeout_s: float) -> None:
        self._sign_in = sign_in
        self._http = _TimedSession(session, timeout_s)
        self._lock = threading.Lock()
        self._app: Any = None

    def token(self, *, fresh: bool = False) -> str:
        """Return an access token for the organization's ``.default`` scope.

        Raises:
            AuthError: refused; the message says why.
            RetryableError: the authority could not be reached or is overloaded.
        """
        with self._lock:
            result = self._acquire(fresh)
        if "access_token" not in result:
            raise _refusal(result)
        return str(result["access_token"])

    def _acquire(self, fresh: bool) -> Mapping[str, Any]:
        scopes = [f"{self._sign_in.resource}/.default"]
        try:
            if self._app is None:
                self._app = self._application()
            if fresh:
                self._app.remove_tokens_for_client()
            result: Mapping[str, Any] = self._app.acquire_token_for_client(scopes)
        except requests.RequestException as error:
            raise no_answer(f"the sign-in service at {self._host} cannot be reached", error) from None
        except MsalServiceError as error:
            raise RetryableError(f"the sign-in service at {self._host} is failing ({error})") from None
        except ValueError as error:
            raise AuthError(
                f"signing in at {self._sign_in.authority_url} is not possible: {_first_line(str(error))}",
                hint="check tenant_id, authority and the certificate",
            ) from None
        return result

    @property
    def _host(self) -> str:
        return urlsplit(self._sign_in.authority_url).netloc

    def _application(self) -> Any:
        own_authority = bool(self._sign_in.authority)
        return msal.ConfidentialClientApplication(
            self._sign_in.client_id,
            client_credential=self._sign_in.credential,
            authority=self._sign_in.authority_url,
            http_client=self._http,
            **({"instance_discovery": False} if own_authority else {}),
        )


class _TimedSession:
    """What MSAL needs of an HTTP client, with a time-out on every call and no redirects."""

    def __init__(self, session: requests.Session, timeout_s: float) -> None:
        self._session = session
        self._timeout_s = timeout_s

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        return self._send("GET", url, kwargs)

    def post(self, url: str, **kwargs: Any) -> requests.Response:
        return self._send("POST", url, kwargs)

    def close(self) -> None:
        """Leave the shared session open; whoever made it closes it."""

    def _send(self, method: str, url: str, kwargs: dict[str, Any]) -> requests.Response:
        return self._session.request(method, url, **{"timeout": self._timeout_s, "allow_redirects": False} | kwargs)


def no_answer(what: str, error: requests.RequestException) -> RemoteError:
    """Return the error for a request without an answer: worth a repeat, unless the server is not to be trusted."""
    message = f"{what} ({_reason(error)})"
    if isinstance(error, requests.exceptions.SSLError):
        return RemoteError(
            message, hint="if the server has a private certificate authority, name it in dataverse.ca_bundle"
        )
    return RetryableError(message, hint="check the address and this machine's network, or try again later")


def _reason(error: requests.RequestException) -> str:
    """Say in a few words why no answer came, without addresses of objects or stacks."""
    if isinstance(error, requests.exceptions.SSLError):
        return f"TLS: {_innermost(error)}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    return _innermost(error)


def _innermost(error: BaseException) -> str:
    deepest: BaseException = error
    seen: set[int] = set()
    while id(deepest) not in seen:
        seen.add(id(deepest))
        inner = getattr(deepest, "reason", None) or next(
            (a for a in deepest.args if isinstance(a, BaseException)), None
        )
        deepest = inner if isinstance(inner, BaseException) else (deepest.__cause__ or deepest)
    text = getattr(deepest, "strerror", None) or getattr(deepest, "verify_message", None) or str(deepest)
    return _first_line(str(text)) or type(deepest).__name__


def _refusal(result: Mapping[str, Any]) -> AuthError:
    codes = [code for code in result.get("error_codes", ()) if isinstance(code, int)]
    for code in codes:
        if code in EXPLANATIONS:
            words, hint = EXPLANATIONS[code]
            return AuthError(f"signing in failed: {words} (AADSTS{code})", code=f"AADSTS{code}", hint=hint)
    description = _first_line(str(result.get("error_description") or result.get("error") or "no explanation"))
    return AuthError(f"signing in failed: {description}", code=str(result.get("error", "")))


def _first_line(text: str) -> str:
    return " ".join(text.strip().splitlines()[0].split())[:300] if text.strip() else ""
