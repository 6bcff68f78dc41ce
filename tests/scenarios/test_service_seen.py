"""``d365sync run`` as a process, seen from outside: metrics, health checks, its log."""

from __future__ import annotations

import http.client
import json
import os
import stat
from pathlib import Path

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from d365sync.cli.context import Settings
from tests.scenarios.conftest import Admin
from tests.scenarios.test_service_by_hand import running

TOKEN = "a-token-for-metrics"


def get(port: int, path: str, token: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.mark.skipif(os.name != "posix", reason="it sends signals")
def test_a_cycle_shows_in_metrics_and_makes_the_service_ready(admin: Admin) -> None:
    with running(admin, D365SYNC_HEALTH__TOKEN="env:METRICS_TOKEN", METRICS_TOKEN=TOKEN) as run:
        port = run.wait_for("service.listening")["port"]
        done = run.wait_for("cycle.done")
        assert get(port, "/livez") == (200, "ok\n")
        assert get(port, "/readyz", TOKEN) == (200, "ready\ndefault: ready\n")
        assert get(port, "/metrics")[0] == 401
        status, text = get(port, "/metrics", TOKEN)
        assert run.end() == 0
    assert status == 200
    families = {one.name: one for one in text_string_to_metric_families(text)}
    told = {one.labels["outcome"]: one.value for one in families["d365sync_cycles"].samples}
    assert told["ok"] >= 1
    assert sum(one.value for one in families["d365sync_requests"].samples) >= done["requests"]
    assert families["d365sync_token_expiry_timestamp_seconds"].samples[0].value > 0
    assert {one.labels["table"] for one in families["d365sync_table_last_read_timestamp_seconds"].samples} >= {"goal"}
    assert done["run"]


@pytest.mark.parametrize(("level", "flags", "told"), [
    ("info", {}, ["service.ready", "goal.refused"]),
    ("debug", {}, ["service.ready", "goal.written", "request.done", "goal.refused"]),
    ("warning", {}, ["goal.refused"]),
    ("warning", {"verbose": True}, ["service.ready", "goal.written", "goal.refused"]),
])  # fmt: skip
def test_the_service_logs_as_its_section_says_unless_a_flag_says_more(
    level: str, flags: dict[str, bool], told: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "d365sync.toml"
    path.write_text(
        '[dataverse]\nurl = "https://contoso.crm4.dynamics.com"\ntenant_id = "t"\n'
        'client_id = "00000000-0000-0000-0000-000000000000"\nclient_secret = "env:NONE"\n'
        f'[logging]\nfile = "logs/service.log"\nlevel = "{level}"\n',
        encoding="utf-8",
    )
    Settings(str(path), None, {}, tmp_path, **flags).load_all(service=True)
    log = structlog.get_logger("d365sync.test")
    log.info("service.ready")
    log.info("goal.written")
    log.debug("request.done")
    log.warning("goal.refused")
    written = tmp_path / "logs" / "service.log"
    assert [json.loads(line)["event"] for line in written.read_text(encoding="utf-8").splitlines()] == told
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
