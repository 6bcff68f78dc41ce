"""The token endpoint: as much of Microsoft Entra ID, AD FS and the identity endpoints of Azure as MSAL needs.

Applications with a secret or a certificate, people with a device code, managed identities. Secrets and certificate
assertions (RS256 or PS256, found by ``x5t`` or ``x5t#S256``) are verified. Access tokens are signed with a key made at
start. Expiry follows real time even when the emulator's clock is frozen, because MSAL counts in real time.

Source: Microsoft identity platform, client credentials and device authorization flows; Managed identities for Azure
resources (IMDS and App Service); MSAL for Python (an authority ``https://HOST/adfs`` is AD FS).

IO: system clock, randomness.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from d365sync.emulator.people import People
from d365sync.emulator.refusals import SignInError
from d365sync.emulator.settings import EmulatorSettings
from d365sync.emulator.wire import WireError, decode_json, encode_json

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TENANT_ID = "5f0c1a4e-7d0f-5b3c-8c1d-0f6f4f1f9a10"
CLIENT_ID = "9a7e5d3c-1b2f-5e4d-8f6a-2c3b4d5e6f70"
CLOCK_SKEW_S = 300
LONGEST_ASSERTION_S = 86_400
"""Assumed: five minutes are forgiven, and an assertion may hold for a day."""
ADFS = "adfs"
"""The tenant of an AD FS authority; Entra's endpoints have a version in their path, these have none."""
GRANTS = {
    "client_credentials": "application",
    "urn:ietf:params:oauth:grant-type:device_code": "device",
    "refresh_token": "refresh",
}
SCOPES = ("/.default", "/user_impersonation")
IDENTITY_API = "/metadata/identity/oauth2/token"
APP_SERVICE = "/msi/token"
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may sign in: ids are fixed unless given, the secret is new at every start."""

    tenant_id: str = TENANT_ID
    client_id: str = CLIENT_ID
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)


class TokenService:
    """Issues access tokens and recognises them again."""

    def __init__(self, credentials: Credentials, settings: EmulatorSettings) -> None:
        self._credentials = credentials
        self._settings = settings
        self._lifetime_s = settings.token_lifetime_s
        self.people = People(settings)
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
        endpoint, version = f"{authority}/oauth2", "" if tenant == ADFS else "/v2.0"
        return {
            "issuer": f"{authority}{version}",
            "authorization_endpoint": f"{endpoint}{version}/authorize",
            "token_endpoint": f"{endpoint}{version}/token",
            "device_authorization_endpoint": f"{endpoint}{version}/devicecode",
            "jwks_uri": f"{authority}/discovery{version}/keys",
            "response_types_supported": ["code", "id_token", "token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def device_code(self, origin: str, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Answer a request for a device code.

        Raises:
            SignInError: the request is refused.
        """
        self._check_tenant(tenant)
        self._check_client_id(tenant, form)
        return self.people.begin(origin, _resource(form.get("scope", ""), origin, SCOPES))

    def token(self, origin: str, tenant: str, form: Mapping[str, str]) -> dict[str, Any]:
        """Answer a token request.

        Raises:
            SignInError: the request is refused.
        """
        self._check_tenant(tenant)
        grant = GRANTS.get(form.get("grant_type", ""))
        if grant is None:
            raise SignInError(
                70003, "unsupported_grant_type", 400, "The app requested an unsupported grant type, or none."
            )
        self._check_client_id(tenant, form)
        if grant == "application":
            version = "" if tenant == ADFS else "/v2.0"
            self._check_client(f"{origin}/{tenant}/oauth2{version}/token", form)
            resource = _resource(form.get("scope", ""), origin)
            return self._granted(origin, resource)
        known = self.people
        resource = known.poll(form.get("device_code", "")) if grant == "device" else ""
        resource = resource or known.resource_of(form.get("refresh_token", ""))
        person = {"uid": self._settings.person or self._credentials.client_id, "utid": self._credentials.tenant_id}
        return {
            **self._granted(origin, resource, self._settings.person),
            "refresh_token": known.remember(resource),
            "client_info": _encoded(encode_json(person)),
            "scope": f"{resource}/user_impersonation",
        }

    def identity(self, origin: str, path: str, headers: Mapping[str, str], query: Mapping[str, str]) -> dict[str, Any]:
        """Answer a managed identity, at the endpoint of a machine or of an App Service.

        Raises:
            SignInError: without the header that says it is meant, or for an identity that is not assigned.
        """
        meant = headers.get("Metadata") == "true" if path == IDENTITY_API else bool(headers.get("X-Identity-Header"))
        resource = query.get("resource", "")
        if not meant or not resource.startswith("https://") or resource.endswith("/.default"):
            raise SignInError(0, "invalid_request", 400, "Required metadata header or resource not specified")
        wanted = query.get("client_id", "")
        if not self._settings.managed_identity or wanted not in ("", self._credentials.client_id):
            raise SignInError(0, "invalid_request", 400, "Identity not found")
        expires_at = int(time.time()) + self._lifetime_s
        return {
            "access_token": self._issue(origin, resource),
            "client_id": self._credentials.client_id,
            "expires_in": str(self._lifetime_s),
            "expires_on": str(expires_at),
            "resource": resource,
            "token_type": "Bearer",
        }

    def accepts(self, authorization: str, origin: str) -> bool:
        """Say whether an ``Authorization`` header holds a token of ours, for this place, that has not expired."""
        claims = self.claims(authorization)
        return claims is not None and float(claims["exp"]) > time.time() and _same_place(str(claims["aud"]), origin)

    def claims(self, authorization: str) -> Mapping[str, Any] | None:
        """Return what a token of ours says; None for any other."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or token in self._revoked:
            return None
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(signed).encode(), signature.encode("utf-8", "replace")):
            return None
        return _decoded(signed.partition(".")[2])

    def revoke(self, authorization: str) -> None:
        """Treat the token of an ``Authorization`` header as expired from now on."""
        self._revoked.add(authorization.partition(" ")[2])

    def _check_tenant(self, tenant: str) -> None:
        if tenant.lower() not in (self._credentials.tenant_id, ADFS):
            raise SignInError(
                90002,
                "invalid_request",
                400,
                f"Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.",
            )

    def _check_client_id(self, tenant: str, form: Mapping[str, str]) -> None:
        client = form.get("client_id", "")
        if client.lower() != self._credentials.client_id:
            raise SignInError(
                700016,
                "unauthorized_client",
                400,
                f"Application with identifier '{client}' was not found in the directory '{tenant}'.",
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
        elif self._settings.secret_expired:
            raise SignInError(
                7000222,
                "invalid_client",
                401,
                f"The provided client secret keys for app '{self._credentials.client_id}' are expired. Visit the Azure "
                "portal to create new keys for your app, or consider using certificate credentials for added security.",
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
        now = time.time()
        if not now - CLOCK_SKEW_S < claims.get("exp", 0) < now + LONGEST_ASSERTION_S:
            raise SignInError(700024, "invalid_client", 401, "Client assertion is not within its valid time range.")
        whose = claims.get("iss") == client and claims.get("sub") == client
        if not whose or not _same_place(str(claims.get("aud")), endpoint):
            raise SignInError(50013, "invalid_client", 401, "Assertion failed validation: issuer, subject or audience.")

    def _certificate(self, header: Mapping[str, Any]) -> x509.Certificate:
        for certificate in self._certificates:
            for name, algorithm in (("x5t", hashes.SHA1()), ("x5t#S256", hashes.SHA256())):  # noqa: S303 - x5t is SHA-1
                if str(header.get(name)).rstrip("=") == _encoded(certificate.fingerprint(algorithm)):
                    return certificate
        raise ValueError("no such certificate")

    def _granted(self, origin: str, resource: str, person: str = "") -> dict[str, Any]:
        return {
            "token_type": "Bearer",
            "expires_in": self._lifetime_s,
            "ext_expires_in": self._lifetime_s,
            "access_token": self._issue(origin, resource, person),
        }

    def _issue(self, origin: str, resource: str, person: str = "") -> str:
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
            **({"oid": person} if person else {}),
        }
        signed = f"{_encoded(encode_json({'typ': 'JWT', 'alg': 'HS256'}))}.{_encoded(encode_json(claims))}"
        return f"{signed}.{self._sign(signed)}"

    def _sign(self, signed: str) -> str:
        return _encoded(hmac.new(self._key, signed.encode("utf-8", "replace"), hashlib.sha256).digest())


def _resource(scope: str, origin: str, endings: tuple[str, ...] = SCOPES[:1]) -> str:
    wanted = [part for part in scope.split() if part not in ("openid", "profile", "offline_access")]
    if len(wanted) != 1 or not wanted[0].endswith(endings):
        raise SignInError(
            70011, "invalid_scope", 400, f"The provided value for the input parameter 'scope' is not valid: {scope}."
        )
    resource = wanted[0].rpartition("/")[0].rstrip("/")
    if not _same_place(resource, origin):
        raise SignInError(
            500011, "invalid_resource", 400, f"The resource principal named {resource} was not found in the tenant."
        )
    return resource


def _same_place(one: str, other: str) -> bool:
    try:
        return _place(one) == _place(other)
    except ValueError:  # no address at all
        return False


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
