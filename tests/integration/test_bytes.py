"""What a cycle says it cost is what the server received and sent, byte for byte, packed and unpacked."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.test import run_wsgi_app

from d365sync.app import App, opened
from d365sync.cli.sync import traffic_line
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from d365sync.emulator.server import serving
from tests.emulated import NOW, application, configuration
from tests.integration.test_fault_rows import ORG, people_work
from tests.scripted import VirtualTimer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PACKED = Fault("*", compress=True)
TOLD = ("requests", "sent_bytes", "received_bytes", "bytes")


class Scales:
    """Weighs the bodies of every request to the Web API as they pass."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.weighed = dict.fromkeys(TOLD, 0)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        received = int(environ.get("CONTENT_LENGTH") or 0)
        chunks, status, headers = run_wsgi_app(self._app, environ, buffered=True)
        body = b"".join(chunks)
        if "/api/data/" in str(environ["PATH_INFO"]):
            unpacked = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
            with self._lock:
                for name, amount in zip(TOLD, (1, received, len(body), len(unpacked)), strict=True):
                    self.weighed[name] += amount
        start_response(status, list(headers))
        return [body]

    def taken(self) -> dict[str, int]:
        with self._lock:
            weighed, self.weighed = self.weighed, dict.fromkeys(TOLD, 0)
        return weighed


def assert_weighed(app: App, emulator: Emulator, scales: Scales) -> None:
    """A first cycle, one after changes, an idle one: each tells what was weighed, in its result and in the journal."""
    for number in range(3):
        result = app.sync(write=True)
        weighed = scales.taken()
        assert {name: result.counts[name] for name in TOLD} == weighed
        run = app.line.journal.run(result.run_id)
        assert run is not None
        assert run.counts == result.counts
        line = traffic_line(result.traffic)
        assert f"{weighed['received_bytes']:,} bytes received ({weighed['bytes']:,} unpacked)" in line
        assert f"{weighed['sent_bytes']:,} sent" in line
        if number == 0:
            people_work(emulator, 0)


@pytest.mark.parametrize("faults", [(), (PACKED,), (Fault("GET *", every=4, status=503), PACKED)])
def test_in_process(tmp_path: Path, faults: tuple[Fault, ...]) -> None:
    emulator = Emulator.load(ORG, now=NOW)
    scales = Scales(FaultyApp(emulator.app, faults))
    with application(
        emulator, tmp_path, session=mounted_session(scales), timer=VirtualTimer(), dataverse={"page_size": 10}
    ) as app:
        assert_weighed(app, emulator, scales)


@pytest.mark.parametrize("faults", [(), (PACKED,)])
def test_over_a_socket(tmp_path: Path, faults: tuple[Fault, ...]) -> None:
    emulator = Emulator.load(ORG, now=NOW)
    scales = Scales(FaultyApp(emulator.app, faults))
    with serving(scales, 0, emulator.clock.now) as (url, ca_file):
        place = {"url": url, "authority": emulator.authority(url), "ca_bundle": str(ca_file), "page_size": 10}
        config = configuration(emulator, tmp_path, dataverse=place)
        with opened(config, clock=lambda: NOW, environ={}) as app:
            assert_weighed(app, emulator, scales)
            if faults:
                traffic = app.line.client.usage.since()
                assert traffic.received_bytes < traffic.bytes / 3
