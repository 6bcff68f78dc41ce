"""What can be told of a server and of a token without asking the API anything.

Source: RFC 5280 (validity), RFC 7519 (claims); Microsoft identity platform, access token claims. What a token says is
shown to people only: the platform may change it, and nothing here decides by it.

Pure.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from d365sync.dataverse.wire import decode_object
from d365sync.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Peer:
    """The server at the other end of TLS, whose certificate was verified; names are common names, else organizations.

    ``until`` is the instant at which its certificate ends, None when it does not say.
    """

    subject: str
    issuer: str
    until: dt.datetime | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What any answer tells: the tenant in lower case (empty when not told), the server's clock, and who it is."""

    tenant: str
    server_now: dt.datetime | None
    peer: Peer | None = None


def peer_of(response: requests.Response) -> Peer | None:
    """Return who answered, None where the connection is not TLS, or is closed already. Ask before the body is read."""
    socket = getattr(getattr(response.raw, "connection", None), "sock", None)
    if not isinstance(socket, ssl.SSLSocket):
        return None
    told: Mapping[str, Any] = socket.getpeercert() or {}
    until = told.get("notAfter")
    return Peer(
        _name(told.get("subject")),
        _name(told.get("issuer")),
        dt.datetime.fromtimestamp(ssl.cert_time_to_seconds(until), dt.UTC) if isinstance(until, str) else None,
        socket.version() or "",
    )


def claims_of(token: str) -> Mapping[str, Any]:
    """Return what a token says about itself, nothing where it is no JSON Web Token; its signature is not verified."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        return decode_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ProtocolError, binascii.Error, ValueError):
        return {}


def _name(sequence: object) -> str:
    """Return the common name, or else the organization, of a name as ``getpeercert`` gives it."""
    pairs = (
        [pair for part in sequence if isinstance(part, tuple) for pair in part] if isinstance(sequence, tuple) else []
    )
    named = {str(key): str(value) for key, value in pairs}
    return named.get("commonName") or named.get("organizationName") or "unnamed"
