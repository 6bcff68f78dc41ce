"""The token endpoint: enough of Microsoft Entra ID for MSAL's client-credential flows, and the check of tokens.

Client secret and certificate assertions (RS256 or PS256, found by ``x5t`` or ``x5t#S256``) are verified. Access
tokens are signed with a key made at start. Expiry follows real time even when the emulator's clock is frozen,
because MSAL counts in real time. Source: Microsoft identity platform, client credentials flow; error codes.

IO: system clock, randomness.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.wire import WireError, decode_json, encode_json

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TENANT_ID = "5f0c1a4e-7d0f-5b3c-8c1d-0f6f4f1f9a10"
CLIENT_ID = "9a7e5d3c-1b2f-5e4d-8f6a-2c3b4d5e6f70"
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may sign in: ids are fixed unless given, the secret is new at every start."""

    tenant_id: str = TENANT_ID
    client_id: str = CLIENT_ID
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)


class SignInError(Exception):
    """A refusal of the token endpoint: the AADSTS number, its error word, status and text."""

    def __init__(self, number: int, error: str, status: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.error = error
        self.status = status

    def document(self) -> dict[str, Any]:
        """Return the JSON body."""
        now = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.number}: {self} Trace ID: {trace} Correlation ID: {correlation} "
            f"Timestamp: {now}",
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={self.number}",
        }


class TokenService:
    """Issues access tokens and recognises them again."""

    def __init__(self, credentials: Credentials, settings: EmulatorSettings) -> None:
        self._credentials = credentials
        self._lifetime_s = settings.token_lifetime_s
        self._key = secrets.token_bytes(32)
        self._certificates = [x509.load_pem_x509_certificate(pem) for pem in settings.certificates]
        self._revoked: set[str] = set()

    def discovery(self, origin: str, tenant: str) -> dict[str, Any]:
        """Return the OpenID configuration of a tenant; ``origin`` is the emulator's own address.

        Raises:
            SignInError: there is no such tenant.
        """
        self._check_tenant(tenant)
        authority = f"{origin}/{tenant}"
        return {
            "issuer": f"{authority}/v2.0",
            "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
            "token_endpoint": f"{authority}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{authority}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{authority}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token", "token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def token(self, origin: str, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Answer a token request.

        Raises:
            SignInError: the request is refused.
        """
        self._check_tenant(tenant)
        if form.get("grant_type") != "client_credentials":
            raise SignInError(
                70003, "unsupported_grant_type", 400, "The app requested an unsupported grant type, or none."
            )
        client = form.get("client_id", "")
        if client.lower() != self._credentials.client_id:
            raise SignInError(
                700016,
                "unauthorized_client",
                400,
                f"Application with identifier '{client}' was not found in the directory '{tenant}'.",
            )
        self._check_client(f"{origin}/{tenant}/oauth2/v2.0/token", form)
        resource = _resource(form.get("scope", ""), origin)
        return {
            "token_type": "Bearer",
            "expires_in": self._lifetime_s,
            "ext_expires_in": self._lifetime_s,
            "access_token": self._issue(origin, resource),
        }

    def accepts(self, authorization: str) -> bool:
        """Say whether an ``Authorization`` header holds a token of ours that has not expired."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or token in self._revoked:
            return False
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(signed).encode(), signature.encode("utf-8", "replace")):
            return False
        claims = _decoded(signed.partition(".")[2])
        return float(claims["exp"]) > time.time()

    def revoke(self, authorization: str) -> None:
        """Treat the token of an ``Authorization`` header as expired from now on."""
        self._revoked.add(authorization.partition(" ")[2])

    def _check_tenant(self, tenant: str) -> None:
        if tenant.lower() != self._credentials.tenant_id:
            raise SignInError(
                90002,
                "invalid_request",
                400,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.",
            )

    def _check_client(self, endpoint: str, form: Mapping[str, str]) -> None:
        if form.get("client_assertion_type") == ASSERTION_TYPE:
            self._check_assertion(form.get("client_assertion", ""), endpoint)
        elif not hmac.compare_digest(form.get("client_secret", "").encode(), self._credentials.client_secret.encode()):
            raise SignInError(
                7000215,
                "invalid_client",
                401,
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
                f"value, not the client secret ID, for a secret added to app '{self._credentials.client_id}'.",
            )

    def _check_assertion(self, assertion: str, endpoint: str) -> None:
        signed, _, signature = assertion.rpartition(".")
        header_text, _, claims_text = signed.partition(".")
        try:
            header, claims = _decoded(header_text), _decoded(claims_text)
            certificate = self._certificate(header)
            _verify(certificate, str(header.get("alg")), signed, signature)
        except (WireError, ValueError, InvalidSignature):
            raise SignInError(
                700027,
                "invalid_client",
                401,
                "The certificate with identifier used to sign the client assertion is not registered on application.",
            ) from None
        self._check_claims(claims, endpoint)

    def _check_claims(self, claims: Mapping[str, Any], endpoint: str) -> None:
        client = self._credentials.client_id
        whose = claims.get("iss") == client and claims.get("sub") == client
        if not whose or not _same_place(str(claims.get("aud")), endpoint) or claims.get("exp", 0) < time.time():
            raise SignInError(
                50013, "invalid_client", 401, "Assertion failed validation: issuer, subject, audience or lifetime."
            )

    def _certificate(self, header: Mapping[str, Any]) -> x509.Certificate:
        for certificate in self._certificates:
            for name, algorithm in (("x5t", hashes.SHA1()), ("x5t#S256", hashes.SHA256())):  # noqa: S303 - x5t is SHA-1
                if str(header.get(name)).rstrip("=") == _encoded(certificate.fingerprint(algorithm)):
                    return certificate
        raise ValueError("no such certificate")

    def _issue(self, origin: str, resource: str) -> str:
        now = int(time.time())
        claims = {
            "aud": resource,
            "iss": f"{origin}/{self._credentials.tenant_id}/v2.0",
            "iat": now,
            "nbf": now,
            "exp": now + self._lifetime_s,
            "appid": self._credentials.client_id,
            "tid": self._credentials.tenant_id,
            "uti": secrets.token_urlsafe(16),
            "ver": "1.0",
        }
        signed = f"{_encoded(encode_json({'typ': 'JWT', 'alg': 'HS256'}))}.{_encoded(encode_json(claims))}"
        return f"{signed}.{self._sign(signed)}"

    def _sign(self, signed: str) -> str:
        return _encoded(hmac.new(self._key, signed.encode("utf-8", "replace"), hashlib.sha256).digest())


def _resource(scope: str, origin: str) -> str:
    wanted = [part for part in scope.split() if part not in ("openid", "profile", "offline_access")]
    if len(wanted) != 1 or not wanted[0].endswith("/.default"):
        raise SignInError(
            70011, "invalid_scope", 400, f"The provided value for the input parameter 'scope' is not valid: {scope}."
        )
    resource = wanted[0].removesuffix("/.default").rstrip("/")
    if not _same_place(resource, origin):
        raise SignInError(
            500011, "invalid_resource", 400, f"The resource principal named {resource} was not found in the tenant."
        )
    return resource


def _same_place(one: str, other: str) -> bool:
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, "localhost" if host in _LOCAL else host, port, parts.path.rstrip("/")


def _verify(certificate: x509.Certificate, algorithm: str, signed: str, signature: str) -> None:
    key = certificate.public_key()
    schemes: dict[str, padding.AsymmetricPadding] = {
        "RS256": padding.PKCS1v15(),
        "PS256": padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH),
    }
    if not isinstance(key, rsa.RSAPublicKey) or algorithm not in schemes:
        raise ValueError(f"cannot verify {algorithm}")
    key.verify(_bytes_of(signature), signed.encode(), schemes[algorithm], hashes.SHA256())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes_of(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None


def _decoded(text: str) -> dict[str, Any]:
    document = decode_json(_bytes_of(text))
    if not isinstance(document, dict):
        raise WireError("not a JSON object")
    return document
