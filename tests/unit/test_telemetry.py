"""Spans of steps, in memory: nothing is sent anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from d365sync.config_seeing import TelemetrySection
from d365sync.errors import ConfigError, RetryableError
from d365sync.service.telemetry import telling
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
