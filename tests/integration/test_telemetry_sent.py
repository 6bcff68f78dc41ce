"""Spans over a real socket, to a collector of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from d365sync import logs
from d365sync.config_seeing import TelemetrySection
from d365sync.service.telemetry import telling
from d365sync.sync.steps import step


class Quiet(WSGIRequestHandler):
    def log(self, *_arguments: object) -> None:
        pass


class Collector:
    def __init__(self) -> None:
        self.spans: list[str] = []
        self.headers: list[str] = []
        self.server = make_server("127.0.0.1", 0, self, request_handler=Quiet)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    @Request.application
    def __call__(self, request: Request) -> Response:
        told = ExportTraceServiceRequest.FromString(request.get_data())
        self.headers.append(request.headers.get("Authorization", ""))
        self.spans += [span.name for one in told.resource_spans for two in one.scope_spans for span in two.spans]
        return Response(status=200)


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    thread = threading.Thread(target=running.server.serve_forever, args=(0.05,))
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()


def test_spans_reach_the_collector_with_the_header_that_opens_it(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "header").write_text("Bearer of-the-collector\n", encoding="utf-8")
    section = TelemetrySection(endpoint=collector.endpoint, headers={"Authorization": "file:header"})
    with telling(section, {}, tmp_path), step("cycle"), step("pull"):
        pass
    assert collector.spans == ["pull", "cycle"]
    assert collector.headers == ["Bearer of-the-collector"]
    assert "of-the-collector" not in logs.redact("sent Bearer of-the-collector")
