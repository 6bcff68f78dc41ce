"""The emulator behind a real socket: TLS with a certificate authority of its own, made at start.

MSAL and Microsoft's own client refuse ``http://``, so there is no way without TLS.

IO: sockets, files, signals.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from werkzeug.serving import BaseWSGIServer, make_server

from d365sync.emulator.connection import KeptOpenHandler
from d365sync.errors import UsageError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOST = "127.0.0.1"
NAME = "localhost"
LIFETIME = dt.timedelta(days=398)


@contextmanager
def serving(app: WSGIApplication, port: int, now: Callable[[], dt.datetime]) -> Iterator[tuple[str, Path]]:
    """Serve an application over TLS on loopback until the block ends; yield its address and the CA's certificate file.

    Port 0 takes a free one. ``now`` dates the answers.

    Raises:
        UsageError: the port cannot be had.
    """
    folder = Path(tempfile.mkdtemp(prefix="d365sync-emulator-"))
    try:
        ca_file, context = _make_certificates(folder)
        server = _server(app, port, context, now)
        thread = threading.Thread(target=server.serve_forever, name="emulator", daemon=True)
        thread.start()
        try:
            yield f"https://{NAME}:{server.port}", ca_file
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_stop() -> None:
    """Wait until the process is asked to stop (SIGTERM, or SIGINT from the keyboard)."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not stop.wait(0.5):
            pass
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _server(app: WSGIApplication, port: int, context: ssl.SSLContext, now: Callable[[], dt.datetime]) -> BaseWSGIServer:
    class Handler(KeptOpenHandler):
        """Dates answers by the emulator's clock."""

        def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002 - the emulator's clock decides
            return format_datetime(now(), usegmt=True)

    _check_free(port)
    return make_server(HOST, port, app, threaded=True, ssl_context=context, request_handler=Handler)


def _check_free(port: int) -> None:
    """Refuse a port that is taken, before werkzeug does so by ending the process."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be served: {error.strerror}", hint="choose another --port, or 0 for a free one"
            ) from None


def _make_certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a CA and a server certificate; write the CA's certificate, and return it with a server context."""
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _ca_certificate(ca_key)
    server = _server_certificate(server_key, ca_key, ca)
    ca_file, chain_file, key_file = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    chain_file.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_file, key_file)
    key_file.unlink()
    return ca_file, context


def _builder(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    """Return what both certificates share. Real time: certificates are checked by the clients' clocks."""
    today = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _ca_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = "d365sync emulator CA"
    return (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _server_certificate(
    key: ec.EllipticCurvePrivateKey, ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate
) -> x509.Certificate:
    names = [x509.DNSName(NAME), *(x509.IPAddress(ipaddress.ip_address(one)) for one in (HOST, "::1"))]
    issuer = str(ca.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    return (
        _builder(NAME, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
