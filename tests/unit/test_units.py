"""The files by which a service manager runs d365sync: whole, safe to write again, and the ones that are shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xmlschema
from defusedxml import ElementTree

from d365sync.config import Config, parse
from d365sync.errors import UsageError
from d365sync.service.install import Fate, doubts_of, faults_of, files_of, next_steps, remove, write
from d365sync.service.units import SHIPPED, Instance, is_untouched, sysusers_of, unit_of, winsw_of

ROOT = Path(__file__).parents[2]
WINSW = xmlschema.XMLSchema11(str(ROOT / "fixtures" / "service" / "winsw.xsd"))
REMOTE = {
    "url": "https://contoso.crm4.dynamics.com",
    "tenant_id": "t",
    "client_id": "00000000-0000-0000-0000-000000000000",
    "client_secret": "systemd:client_secret",
}


@pytest.fixture(scope="session")
def systemd_analyze() -> str:
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "no systemd-analyze: install systemd"
        if os.environ.get("D365SYNC_REQUIRE_SYSTEMD"):
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_what_is_written(name: str) -> None:
    assert (ROOT / "config" / name).read_text(encoding="utf-8") == SHIPPED[name], "run `make docs`"


INSTANCES = {
    "plain": Instance(program=sys.executable),
    "dynamic": Instance(program=sys.executable, dynamic_user=True),
    "strange": Instance(
        name="d365sync-east",
        program=sys.executable,
        config='/etc/d365 sync/50% $HOME "east".toml',
        credentials={"a": "/etc/credentials/100%", "b": "/b"},
        user="daemon",
    ),
}


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_systemd_understands_the_unit_and_finds_it_hardened(
    instance: Instance, systemd_analyze: str, tmp_path: Path
) -> None:
    unit = tmp_path / f"{instance.name}.service"
    unit.write_text(unit_of(instance), encoding="utf-8")
    verified = subprocess.run([systemd_analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, [one for one in verified.stderr.splitlines() if unit.name in one]) == (0, [])
    command = [systemd_analyze, "security", "--offline=yes", "--threshold=15", "--no-pager", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr


def test_the_unit_says_what_a_service_that_is_watched_needs() -> None:
    lines = set(unit_of(Instance(credentials={"s": "/etc/s"}, encrypted=True)).splitlines())
    assert {
        "Type=notify", "NotifyAccess=main", "WatchdogSec=120", "Restart=on-failure", "RestartPreventExitStatus=2 4 6",
        "ExecReload=/bin/kill -HUP $MAINPID", "User=d365sync", "StateDirectory=d365sync", "NoNewPrivileges=yes",
        "LoadCredentialEncrypted=s:/etc/s",
    } <= lines  # fmt: skip
    assert "DynamicUser=yes" in unit_of(Instance(dynamic_user=True))


def test_paths_reach_the_command_as_they_are() -> None:
    unit = unit_of(INSTANCES["strange"])
    assert r'--config "/etc/d365 sync/50%% $$HOME \"east\".toml" run' in unit
    assert "LoadCredential=a:/etc/credentials/100%%" in unit


@pytest.mark.parametrize("instance", INSTANCES.values(), ids=INSTANCES)
def test_winsw_understands_its_configuration(instance: Instance) -> None:
    """By the elements of its documentation. A comment may stand before the root."""
    text = winsw_of(instance)
    WINSW.validate(text)
    root = ElementTree.fromstring(text)
    assert root.findtext("id") == instance.name
    assert root.findtext("arguments") == f'--config "{instance.config}" run'
    assert root.findtext("serviceaccount/username") == r"NT AUTHORITY\LocalService"


@pytest.mark.parametrize(
    "broken", ["<service><id>a</id></service>", "<service><id>a</id><executable>b</executable><exec/></service>"]
)
def test_the_schema_is_not_content_with_anything(broken: str) -> None:
    assert not WINSW.is_valid(broken)


@pytest.mark.parametrize("text", [unit_of(Instance()), winsw_of(Instance()), sysusers_of(Instance())])
def test_a_change_by_somebody_is_seen(text: str) -> None:
    assert is_untouched(text)
    assert not is_untouched(text.replace("d365sync", "d365", 1))
    assert not is_untouched(text + "\n")
    assert not is_untouched("")


def fates(root: Path, instance: Instance = Instance(), *, windows: bool = False) -> list[Fate]:  # noqa: B008 - frozen
    return [one.fate for one in files_of(instance, windows=windows, root=root)]


def test_files_are_written_once_and_again_when_they_are_ours(tmp_path: Path) -> None:
    write(files_of(Instance(), windows=False, root=tmp_path), force=False)
    assert fates(tmp_path) == [Fate.SAME, Fate.SAME]
    moved = Instance(program="/usr/bin/d365sync")
    assert fates(tmp_path, moved) == [Fate.NEWER, Fate.SAME]
    write(files_of(moved, windows=False, root=tmp_path), force=False)
    assert fates(tmp_path, moved) == [Fate.SAME, Fate.SAME]
    unit = tmp_path / "etc/systemd/system/d365sync.service"
    assert unit.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in unit.parent.iterdir()] == ["d365sync.service"]


def test_a_file_that_somebody_changed_keeps_all_from_being_written_or_removed(tmp_path: Path) -> None:
    write(files_of(Instance(), windows=False, root=tmp_path), force=False)
    unit = tmp_path / "etc/systemd/system/d365sync.service"
    unit.write_text(unit.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    files = files_of(Instance(), windows=False, root=tmp_path)
    for act in (write, remove):
        with pytest.raises(UsageError, match="changed by somebody"):
            act(files, force=False)
    assert unit.read_text(encoding="utf-8").endswith("# mine\n")
    assert len(remove(files, force=True)) == 2
    assert fates(tmp_path) == [Fate.NEW, Fate.NEW]


def test_instances_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    for name in ("d365sync", "d365sync-east"):
        write(files_of(Instance(name=name), windows=False, root=tmp_path), force=False)
    remove(files_of(Instance(), windows=False, root=tmp_path), force=False)
    assert fates(tmp_path, Instance(name="d365sync-east")) == [Fate.SAME, Fate.SAME]


def config(**sections: dict[str, object]) -> dict[str, Config]:
    return {"default": parse({"dataverse": REMOTE, **sections}, {}, folder=Path("/etc/d365sync"))}


def test_databases_where_the_unit_may_not_write_are_a_fault_with_what_to_write() -> None:
    found = list(faults_of(Instance(), config()))
    assert len(found) == 2
    assert 'write mirror = "sqlite:////var/lib/d365sync/mirror.db"' in found[0]
    good = {"mirror": "sqlite:////var/lib/d365sync/mirror.db", "journal": "postgresql+psycopg://d365sync@db/journal"}
    assert list(faults_of(Instance(), config(storage=good))) == []
    assert "hides" in next(iter(faults_of(Instance(program="/home/me/d365sync"), config(storage=good))))


def test_a_secret_in_a_variable_is_doubted() -> None:
    assert list(doubts_of(config())) == []
    (doubt,) = doubts_of(config(health={"token": "env:METRICS"}))
    assert doubt.startswith("health.token is in the variable METRICS")


def test_the_next_steps_are_commands_in_order(tmp_path: Path) -> None:
    secret = tmp_path / "there"
    secret.touch()
    instance = Instance(credentials={"a": str(secret), "b": str(tmp_path / "not-there")})
    steps = next_steps(instance, windows=False, files=files_of(instance, windows=False, root=tmp_path))
    assert steps[0] == "systemd-sysusers"
    assert steps[-2:] == ("systemctl daemon-reload", "systemctl enable --now d365sync")
    assert f"chmod 600 {secret}" in steps
    assert any(step.startswith("# write the secret into") for step in steps)
    windows = next_steps(Instance(), windows=True, files=files_of(Instance(), windows=True, root=tmp_path))
    assert windows[-1].endswith("d365sync.exe start")
