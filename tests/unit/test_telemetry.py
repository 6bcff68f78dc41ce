"""Spans of steps, in memory: nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from d365sync.config_seeing import TelemetrySection
from d365sync.errors import ConfigError, RetryableError
from d365sync.service.telemetry import _told, telling
from d365sync.sync.steps import step


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {one.name: one for one in exporter.get_finished_spans()}


def test_steps_are_spans_in_each_other_with_what_they_belong_to() -> None:
    exporter = InMemorySpanExporter()
    with (
        telling(TelemetrySection(service_name="d365sync-east"), {}, Path(), exporter=exporter),
        structlog.contextvars.bound_contextvars(environment="east", run="r1"),
        step("cycle") as note,
    ):
        note("outcome", "ok")
        with step("pull"):
            pass
    found = spans(exporter)
    cycle, pull = found["cycle"], found["pull"]
    assert pull.parent is not None
    assert cycle.context is not None
    assert pull.parent.span_id == cycle.context.span_id
    assert dict(cycle.attributes or {}) == {
        "d365sync.run": "r1", "d365sync.environment": "east", "d365sync.outcome": "ok",
    }  # fmt: skip
    assert cycle.resource.attributes["service.name"] == "d365sync-east"


def test_a_step_that_fails_says_what_kind_of_failure_and_not_its_words() -> None:
    exporter = InMemorySpanExporter()
    with (
        telling(TelemetrySection(), {}, Path(), exporter=exporter),
        pytest.raises(RetryableError),
        step("cycle"),
    ):
        raise RetryableError("the goal of Ada Lovelace")
    span = spans(exporter)["cycle"]
    assert not span.status.is_ok
    assert dict(span.attributes or {}) == {"error.type": "RetryableError"}
    assert not span.events


def test_nothing_is_watched_without_an_endpoint_or_afterwards() -> None:
    exporter = InMemorySpanExporter()
    with telling(TelemetrySection(), {}, Path()), step("cycle") as note:
        note("outcome", "ok")
    with telling(TelemetrySection(), {}, Path(), exporter=exporter):
        pass
    with step("cycle"):
        pass
    assert exporter.get_finished_spans() == ()


def test_a_header_is_a_secret_by_reference() -> None:
    section = TelemetrySection(endpoint="http://localhost:1/v1/traces", headers={"Authorization": "env:GONE"})
    with pytest.raises(ConfigError, match="GONE"):
        telling(section, {}, Path())


class Failing(InMemorySpanExporter):
    """Loses spans as long as it is told to."""

    failing = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.FAILURE if self.failing else super().export(spans)


def test_spans_that_are_lost_are_told_of_once() -> None:
    exporter = Failing()
    told = _told(exporter)
    with capture_logs() as logs:
        for failing in (True, True, False, False, True):
            exporter.failing = failing
            told.export(())
    assert [(one["event"], one["log_level"]) for one in logs] == [
        ("service.spans_lost", "warning"),
        ("service.spans_arrive", "info"),
        ("service.spans_lost", "warning"),
    ]
