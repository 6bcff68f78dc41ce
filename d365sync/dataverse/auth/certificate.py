"""Certificates: PEM and PFX files, with or without a password, as what MSAL signs assertions with.

Source: Microsoft identity platform, certificate credentials (assertions are signed with RSA; ``x5t`` or ``x5t#S256``
names the certificate, ``x5c`` carries it).

IO: files.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from d365sync.errors import ConfigError

PFX = (".pfx", ".p12")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A key with its certificate and those above it; the key never shows in ``repr``."""

    key: rsa.RSAPrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]

    @property
    def expires_at(self) -> dt.datetime:
        """Until when the certificate is valid."""
        return self.chain[0].not_valid_after_utc

    @property
    def thumbprint(self) -> str:
        """The SHA-1 thumbprint, as the app registration lists it."""
        return self.chain[0].fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - what the platform identifies it by

    def credential(self, *, with_chain: bool = False) -> Mapping[str, Any]:
        """Return MSAL's credential; ``with_chain`` sends the certificates along, for trust by subject and issuer."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        if not with_chain:
            return {"private_key": key, "thumbprint": self.thumbprint}
        pems = [one.public_bytes(serialization.Encoding.PEM).decode() for one in self.chain]
        return {"private_key": key, "public_certificate": "".join(pems), "thumbprint": self.thumbprint}


def read_certificate(path: Path, password: str) -> Certificate:
    """Read a PEM file (private key and certificate, in any order) or a PFX file; an empty password is none.

    Raises:
        ConfigError: the file cannot be read, the password is wrong or missing, or it lacks a key or a certificate.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the certificate file {path} cannot be read: {error.strerror}") from None
    secret = password.encode() or None
    if path.suffix.lower() in PFX:
        key, chain = _from_pfx(path, content, secret)
    else:
        key, chain = _from_pem(path, content, secret)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigError(f"the key in {path} is no RSA key; Microsoft Entra ID takes no other")
    public = key.public_key().public_numbers()
    own = [one for one in chain if isinstance(one.public_key(), rsa.RSAPublicKey)]
    own = [one for one in own if one.public_key().public_numbers() == public]  # type: ignore[union-attr]
    if not own:
        raise ConfigError(f"the private key in {path} does not belong to the certificate beside it")
    return Certificate(key, (own[0], *(one for one in chain if one is not own[0])))


def _from_pem(path: Path, content: bytes, password: bytes | None) -> tuple[object, list[x509.Certificate]]:
    try:
        chain = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigError(
            f"the certificate file {path} holds no certificate", hint="put key and certificate into one PEM file"
        ) from None
    if b"PRIVATE KEY" not in content:
        raise ConfigError(
            f"the certificate file {path} holds no private key", hint="put key and certificate into one PEM file"
        )
    try:
        return serialization.load_pem_private_key(content[_key_at(content) :], password), chain
    except TypeError:
        raise _password_fault(path, given=password is not None) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable(path, given=password is not None) from None


def _key_at(content: bytes) -> int:
    """Return where the block of the private key begins."""
    return content.rindex(b"-----BEGIN", 0, content.index(b"PRIVATE KEY"))


def _from_pfx(path: Path, content: bytes, password: bytes | None) -> tuple[object, list[x509.Certificate]]:
    try:
        key, certificate, above = pkcs12.load_key_and_certificates(content, password)
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable(path, given=password is not None) from None
    if key is None or certificate is None:
        raise ConfigError(f"the certificate file {path} holds no {'private key' if key is None else 'certificate'}")
    return key, [certificate, *above]


def _password_fault(path: Path, *, given: bool) -> ConfigError:
    if given:
        return ConfigError(f"the key in {path} has no password", hint="leave dataverse.certificate_password empty")
    return ConfigError(f"the key in {path} has a password", hint="name it in dataverse.certificate_password")


def _unreadable(path: Path, *, given: bool) -> ConfigError:
    if given:
        return ConfigError(
            f"the certificate file {path} cannot be opened: the password is wrong, or the file is damaged",
            hint="check dataverse.certificate_password",
        )
    return ConfigError(
        f"the certificate file {path} cannot be opened: it has a password, or is damaged",
        hint="name its password in dataverse.certificate_password",
    )
