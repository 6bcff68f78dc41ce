"""Real sockets for tests: TLS servers with whatever certificate, a proxy for CONNECT, an answer that drips."""

from __future__ import annotations

import base64
import datetime as dt
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATIENCE_S = 10


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections on loopback, each served by a thread; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(PATIENCE_S)
            serve(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def head_of(connection: socket.socket) -> bytes:
    """Read the head of a request."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            raise OSError("gone")
        head += piece
    return head


class Certified:
    """A certificate authority, and one server certificate of it (or signed by itself)."""

    def __init__(self, *, host: str = "localhost", until: dt.datetime | None = None, by_itself: bool = False) -> None:
        now = dt.datetime.now(dt.UTC)
        until = until or now + dt.timedelta(days=1)
        ca_key, self._key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = _name("test CA")
        begins = min(now, until) - dt.timedelta(days=2)
        self._ca = (
            _builder(ca_name, ca_name, ca_key, begins, now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
        own = _name(host)
        self._certificate = (
            _builder(own, own if by_itself else ca_name, self._key, begins, until)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .sign(self._key if by_itself else ca_key, hashes.SHA256())
        )

    def ca_file(self, folder: Path) -> Path:
        """Write the authority's certificate."""
        path = folder / "ca.pem"
        path.write_bytes(self._ca.public_bytes(serialization.Encoding.PEM))
        return path

    def context(self, folder: Path) -> ssl.SSLContext:
        """Return a server's context."""
        file = folder / "server.pem"
        private = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@contextmanager
def speaking_tls(context: ssl.SSLContext, answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve one request of each connection over TLS; yield the address."""

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            head_of(secure)
            answer(secure)

    with listening(serve) as port:
        yield f"https://localhost:{port}"


@dataclass
class Proxy:
    """A proxy that knows CONNECT alone; ``refuses`` is the status it answers instead, ``login`` what it asks for."""

    refuses: str = ""
    login: str = ""
    asked: list[bytes] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        """Answer one CONNECT, and pass on what follows."""
        head = head_of(connection)
        self.asked.append(head)
        known = f"Basic {base64.b64encode(self.login.encode()).decode()}".encode()
        refused = self.refuses or ("407 Proxy Authentication Required" if self.login and known not in head else "")
        if refused:
            connection.sendall(f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\n\r\n".encode())
            return
        host, _, port = head.split()[1].decode().rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as server:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _pass_on(connection, server)

    @property
    def targets(self) -> set[str]:
        """The hosts and ports asked for."""
        return {head.split()[1].decode() for head in self.asked}


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    while True:
        ready, _, _ = select.select([one, other], [], [], PATIENCE_S)
        if not ready:
            return
        for source in ready:
            piece = source.recv(65536)
            if not piece:
                return
            (other if source is one else one).sendall(piece)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: dt.datetime, ends: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
