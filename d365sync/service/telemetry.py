"""Spans of cycles and their steps, sent by OTLP over HTTP; off unless an endpoint is configured.

A collector that is slow, gone or refuses holds up nothing: spans wait in memory, and are dropped when there are too
many.
No name of a goal, a person or a record is in any of them.

Source: OpenTelemetry, OTLP specification; resource semantic conventions (service.name, service.version).

IO: HTTP, a thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from d365sync import __version__, logs
from d365sync.config_seeing import TelemetrySection
from d365sync.errors import ConfigError
from d365sync.secretstore import resolve_secret
from d365sync.sync.steps import Note, watched

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = structlog.get_logger(__name__)

SEND_TIMEOUT_S = 10
ENDING_S = 3
"""How long the end of the service waits for the last spans to leave."""
BOUND = {"run": "d365sync.run", "environment": "d365sync.environment"}
"""What every span says of where it belongs, by the names of the log."""


def telling(
    section: TelemetrySection, environ: Mapping[str, str], folder: Path, *, exporter: SpanExporter | None = None
) -> AbstractContextManager[None]:
    """Send spans as a section says, meanwhile; nothing without an endpoint. ``exporter`` takes them instead of HTTP.

    Raises:
        ConfigError: the packages are not installed, or a header's secret is not there.
    """
    if not section.endpoint and exporter is None:
        return nullcontext()
    return _telling(section, exporter or _exporter(section, environ, folder))


@contextmanager
def _telling(section: TelemetrySection, exporter: SpanExporter) -> Iterator[None]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Status, StatusCode

    resource = Resource.create({"service.name": section.service_name, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_told(exporter)))
    tracer = provider.get_tracer("d365sync", __version__)

    @contextmanager
    def watch(name: str) -> Iterator[Note]:
        with tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
            bound = structlog.contextvars.get_contextvars()
            for key, attribute in BOUND.items():
                if key in bound:
                    span.set_attribute(attribute, str(bound[key]))
            try:
                yield lambda key, value: span.set_attribute(f"d365sync.{key}", value)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise

    try:
        with watched(watch):
            yield
    finally:
        ending = threading.Thread(target=provider.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(ENDING_S)


def _told(exporter: SpanExporter) -> SpanExporter:
    """Have it logged once when spans are lost, and once when they arrive again, instead of at every try."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    class Told(SpanExporter):
        lost = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = exporter.export(spans)
            lost = result is not SpanExportResult.SUCCESS
            if lost != self.lost:
                (log.warning if lost else log.info)("service.spans_lost" if lost else "service.spans_arrive")
            self.lost = lost
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Told()


def _exporter(section: TelemetrySection, environ: Mapping[str, str], folder: Path) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigError(
            "telemetry.endpoint needs OpenTelemetry's packages", hint="install d365sync[otel], or empty the key"
        ) from None
    headers = {name: resolve_secret(reference, environ, folder) for name, reference in section.headers.items()}
    for value in headers.values():
        logs.hide(value)
    return OTLPSpanExporter(endpoint=section.endpoint, headers=headers, timeout=SEND_TIMEOUT_S)
