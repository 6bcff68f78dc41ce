"""``service`` and ``health`` as an administrator gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d365sync.cli.main import _run
from d365sync.service.health import serve
from d365sync.service.state import ServiceState

CONFIG = """\
[dataverse]
url = "https://contoso.crm4.dynamics.com"
tenant_id = "t"
client_id = "00000000-0000-0000-0000-000000000000"
client_secret = "systemd:client_secret"
[storage]
mirror = "sqlite:////var/lib/d365sync/mirror.db"
journal = "sqlite:////var/lib/d365sync/journal.db"
[daemon]
listen = "{listen}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "d365sync.toml"
    path.write_text(CONFIG.format(listen="127.0.0.1:1"), encoding="utf-8")
    return path


def said(config: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = _run(["--config", str(config), *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_install_writes_the_unit_with_what_the_configuration_names(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("service", "install", "--linux", "--root", str(tmp_path), "--program", "/opt/d365sync/bin/d365sync")
    code, out, _ = said(config, *arguments, "--json", capsys=capsys)
    document = json.loads(out)
    unit = tmp_path / "etc/systemd/system/d365sync.service"
    assert (code, document["written"], document["warnings"]) == (0, True, [])
    assert document["files"][str(unit)] == "new"
    assert document["next"][-1] == "systemctl enable --now d365sync"
    text = unit.read_text(encoding="utf-8")
    assert f"ExecStart=/opt/d365sync/bin/d365sync --config {config} run" in text
    assert "LoadCredential=client_secret:/etc/d365sync/credentials/client_secret" in text
    code, out, _ = said(config, *arguments, "--json", capsys=capsys)
    assert json.loads(out)["files"][str(unit)] == "unchanged"
    _, out, _ = said(config, "service", "status", "--linux", "--root", str(tmp_path), capsys=capsys)
    assert f"{unit}: installed with other options" in out
    code, out, _ = said(config, "service", "uninstall", "--linux", "--root", str(tmp_path), capsys=capsys)
    assert (code, unit.exists()) == (0, False)
    assert "next: systemctl daemon-reload" in out


def test_a_dry_run_and_print_write_nothing(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("service", "install", "--linux", "--root", str(tmp_path / "root"))
    code, out, _ = said(config, *arguments, "--dry-run", capsys=capsys)
    assert code == 0
    assert "new (nothing is written)" in out
    code, out, _ = said(config, *arguments, "--print", capsys=capsys)
    assert code == 0
    assert "[Service]" in out
    code, out, _ = said(config, "service", "install", "--windows", "--print", capsys=capsys)
    assert out.startswith("<!-- ")
    assert out.endswith("</service>\n")
    assert not (tmp_path / "root").exists()


def test_what_would_not_work_is_refused_with_what_to_write(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace("/var/lib/d365sync/", ""), encoding="utf-8")
    arguments = ("service", "install", "--linux", "--root", str(tmp_path), "--program", "/opt/d365sync")
    code, _, err = said(config, *arguments, capsys=capsys)
    assert code == 2
    assert 'write mirror = "sqlite:////var/lib/d365sync/mirror.db"' in err
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("name", ["D365", "../x", "a b", ""])
def test_names_are_names_of_units(name: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(config, "service", "install", "--linux", "--name", name, "--print", capsys=capsys)
    assert code == 2
    assert "cannot name a service" in err


def test_status_and_health_tell_of_a_service_that_answers(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_nobody = ("service", "status", "--linux", "--root", str(tmp_path), "--json")
    code, out, _ = said(config, *with_nobody, capsys=capsys)
    assert (code, json.loads(out)["alive"]) == (1, False)
    server = serve("127.0.0.1:0", ServiceState(["a"]))
    try:
        config.write_text(CONFIG.format(listen=f"127.0.0.1:{server.address.port}"), encoding="utf-8")
        code, out, _ = said(config, *with_nobody, capsys=capsys)
        assert (code, json.loads(out)["answers"]) == (0, "not ready")
        assert said(config, "health", capsys=capsys)[:2] == (0, "ok\n")
        code, out, _ = said(config, "health", "--ready", "--json", capsys=capsys)
        assert (code, json.loads(out)["ok"], json.loads(out)["status"]) == (1, False, 503)
    finally:
        server.close()


def test_health_with_nobody_there_says_where_it_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(config, "health", capsys=capsys)
    assert code == 1
    assert "no answer from 127.0.0.1:1" in out
