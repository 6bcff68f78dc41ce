"""What the service tells in the form of Prometheus, and that what is shipped to watch it asks for nothing else."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from d365sync.errors import GuardError
from d365sync.service.metrics import names, registry_of
from d365sync.service.state import ServiceState

NOW = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
CONFIG = Path(__file__).parents[2] / "config"
NAME = re.compile(r"\bd365sync_\w+")


def told(state: ServiceState) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and labels, as a reader of the text form sees them."""
    text = generate_latest(registry_of(state, lambda: NOW)).decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return {(one.name, *one.labels.values()): one.value for one in samples}


def worked() -> ServiceState:
    state = ServiceState(["Contoso", 'nörd\n"quoted"'])
    counts = {
        "rows": 10, "changed_rows": 4, "deleted_rows": 1, "goals": 7, "written_goals": 3, "conflicts": 1,
        "failures": 2, "operations": 20, "throttled_s": 5, "GET 200": 9, "PATCH 412": 1, "GET none": 2,
    }  # fmt: skip
    before = NOW - dt.timedelta(seconds=90)
    state.ended("Contoso", "ok", before, counts=counts, duration_s=2.5, tables={"goal": before}, lease_epoch=4)
    state.ended("Contoso", "refused", NOW, counts={"GET 200": 1}, error=GuardError("implausible"))
    state.update("Contoso", token_expires_at=NOW + dt.timedelta(hours=1))
    return state


def test_a_service_that_has_done_nothing_tells_when_nothing_was() -> None:
    found = told(ServiceState(["a"]))
    assert found["d365sync_alive",] == 1
    assert found["d365sync_guard_stops_total", "a"] == 0
    assert ("d365sync_last_success_timestamp_seconds", "a") not in found
    assert ("d365sync_lag_seconds", "a") not in found


def test_counters_add_up_over_cycles_and_gauges_are_of_the_last_success() -> None:
    found = told(worked())
    assert found["d365sync_requests_total", "Contoso", "GET", "200"] == 10
    assert found["d365sync_requests_total", "Contoso", "GET", "none"] == 2
    assert [found["d365sync_rows_total", "Contoso", one] for one in ("read", "changed", "deleted")] == [10, 3, 1]
    results = ("written", "conflicted", "refused")
    assert [found["d365sync_goal_writes_total", "Contoso", one] for one in results] == [3, 1, 2]
    assert found["d365sync_cycles_total", "Contoso", "refused"] == 1
    assert found["d365sync_guard_stops_total", "Contoso"] == 1
    assert found["d365sync_throttle_seconds_total", "Contoso"] == 5
    assert found["d365sync_lag_seconds", "Contoso"] == 90
    assert found["d365sync_goals", "Contoso"] == 7
    assert found["d365sync_lease_epoch", "Contoso"] == 4
    assert found["d365sync_token_expiry_timestamp_seconds", "Contoso"] == NOW.timestamp() + 3600
    assert found["d365sync_table_last_read_timestamp_seconds", "Contoso", "goal"] == NOW.timestamp() - 90


def test_a_name_with_quotes_and_line_ends_survives() -> None:
    assert told(worked())["d365sync_standby", 'nörd\n"quoted"'] == 0


def test_every_name_is_told_once() -> None:
    text = generate_latest(registry_of(worked(), lambda: NOW)).decode()
    families = re.findall(r"^# TYPE (d365sync_\w+)", text, re.MULTILINE)
    assert sorted(families) == sorted(names())


def test_every_metric_is_documented() -> None:
    text = (CONFIG.parent / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names()) if f"`{name.removeprefix('d365sync_')}`" not in text] == []


def expressions(document: object) -> Iterator[str]:
    """Yield every query of a dashboard or of alert rules."""
    if isinstance(document, dict):
        if isinstance(document.get("expr"), str):
            yield document["expr"]
        for value in document.values():
            yield from expressions(value)
    elif isinstance(document, list):
        for one in document:
            yield from expressions(one)


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CONFIG / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return document


def rules() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CONFIG / "prometheus-alerts.yml").read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("shipped", [dashboard, rules])
def test_what_is_shipped_to_watch_it_asks_for_metrics_that_are_told(shipped: Any) -> None:
    asked = {name for one in expressions(shipped()) for name in NAME.findall(one)}
    assert len(asked) > 5
    assert asked <= names()


@pytest.mark.parametrize("shipped", [dashboard, rules])
def test_its_queries_are_read_by_a_parser_of_the_language(shipped: Any) -> None:
    for one in expressions(shipped()):
        promql_parser.parse(one.replace("$__rate_interval", "5m").replace("$__range", "1d"))


def test_alert_rules_are_whole() -> None:
    """As Prometheus reads a rule file: groups with names, alerts with expressions; each says what to do."""
    groups = rules()["groups"]
    alerts = [rule for group in groups for rule in group["rules"]]
    assert all(set(group) <= {"name", "rules", "interval"} for group in groups)
    assert all(set(rule) <= {"alert", "expr", "for", "labels", "annotations"} for rule in alerts)
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert re.fullmatch(r"D365Sync[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description"} <= set(rule["annotations"])


def test_the_dashboard_has_panels_that_do_not_cover_each_other() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(
        target["datasource"]["uid"] == "${datasource}" for panel in panels for target in panel.get("targets", [])
    )
