"""One TLS connection of the served emulator, kept open from request to request.

Werkzeug's own handler closes after every answer, and reads ahead afterwards, which on an open connection would
swallow the next request. Real clients keep connections open, so requests are answered here.

IO: sockets.
"""

from __future__ import annotations

import io
import traceback
from collections.abc import Iterable

from werkzeug.datastructures import Headers
from werkzeug.serving import WSGIRequestHandler
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import get_input_stream

from d365sync.emulator.calls import refusal_response
from d365sync.emulator.refuse import Refusal

UNEXPECTED = "0x80040216"
BODILESS = (204, 304)


class KeptOpenHandler(WSGIRequestHandler):
    """Answers one request after the other; logs nothing but faults of the emulator itself."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def run_wsgi(self) -> None:
        """Answer one request; a connection that breaks, on demand or not, ends quietly."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        self.environ = environ = self.make_environ()
        body = get_input_stream(environ).read()
        environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        try:
            chunks, status, headers = run_wsgi_app(self.server.app, environ, buffered=False)
            self._send(status, headers, chunks)
        except OSError:
            self.close_connection = True
        except Exception:  # noqa: BLE001 - the edge: what nobody foresaw is shown here and answered as the service does
            traceback.print_exc()
            self.close_connection = True
            failure = refusal_response(Refusal(500, UNEXPECTED, "An unexpected error occurred."))
            self._send(failure.status, failure.headers, [failure.get_data()])

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's signature
        """Keep quiet."""

    def _send(self, status: str, headers: Headers, chunks: Iterable[bytes]) -> None:
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        if "Content-Length" not in headers and int(code) not in BODILESS:
            self.send_header("Connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(chunk)
            self.wfile.flush()
        self.wfile.flush()
