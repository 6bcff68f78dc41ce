"""``d365sync run`` as a process: what systemd, an administrator's signals and a monitor see of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from d365sync.journal.store import Journal
from tests import canary
from tests.golden.casebook import write_org
from tests.scenarios.conftest import CASES, Admin, initialise, served
from tests.scenarios.processes import COMMAND

pytestmark = pytest.mark.skipif(os.name != "posix", reason="it sends signals")
PATIENCE_S = 30
SLOW = """
[[fault]]
match = "GET goals*"
delay_s = 60
"""


class Run:
    """The service of a folder; what it logs is read as it comes."""

    def __init__(self, admin: Admin, *options: str, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("D365SYNC_")}
        environment = {"D365SYNC_DAEMON__LISTEN": "127.0.0.1:0", **environment}
        self.process = subprocess.Popen(
            [COMMAND, *options, "run"],
            cwd=admin.folder,
            env={**inherited, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            canary.assert_silent(line)
            with self._came:
                self.events.append(json.loads(line) if line.startswith("{") else {"event": line})
                self._came.notify_all()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    def wait_for(self, name: str, count: int = 1) -> dict[str, Any]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.named(name)) >= count, PATIENCE_S), self.events
        return self.named(name)[count - 1]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(admin: Admin, *options: str, **environment: str) -> Iterator[Run]:
    run = Run(admin, *options, **environment)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()
        run._reader.join()
        assert run.process.stderr is not None
        run.process.stderr.close()


def test_it_cycles_tells_systemd_reloads_and_ends_when_asked(admin: Admin, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        path = admin.folder / "d365sync.toml"
        text = path.read_text(encoding="utf-8")
        with running(admin, D365SYNC_DAEMON__EVERY="1s", NOTIFY_SOCKET=str(tmp_path / "notify")) as run:
            assert systemd.recv(4096).decode().startswith("READY=1\n")
            done = run.wait_for("cycle.done", 2)
            assert (done["environment"], done["outcome"]) == ("default", "ok")
            path.write_text(text.replace('every = "5m"', 'evry = "5m"').replace("page_size", "pagesize"), "utf-8")
            run.process.send_signal(signal.SIGHUP)
            run.wait_for("configuration.kept")
            faults = [event["fault"] for event in run.named("configuration.refused")]
            assert [fault.partition(" (")[0] for fault in faults] == [
                "unknown key dataverse.pagesize",
                "unknown key daemon.evry",
            ]
            path.write_text(text, "utf-8")
            run.process.send_signal(signal.SIGHUP)
            run.wait_for("configuration.loaded")
            run.wait_for("cycle.done", len(run.named("cycle.done")) + 1)
            assert run.end() == 0
            assert run.named("service.stopped")
        messages = []
        systemd.setblocking(False)
        try:
            while True:
                messages.append(systemd.recv(4096).decode())
        except BlockingIOError:
            pass
    assert sum(message.startswith("RELOADING=1\nMONOTONIC_USEC=") for message in messages) == 2
    assert messages[-1].startswith("STOPPING=1\n")
    assert "ok" in [run["outcome"] for run in admin.run("status", "--json").document["runs"]]


def test_a_stop_does_not_wait_for_a_server_that_takes_its_time(tmp_path: Path) -> None:
    write_org(CASES["tree"], tmp_path / "org")
    (tmp_path / "faults.toml").write_text(SLOW, encoding="utf-8")
    with served(tmp_path / "org", "--faults", str(tmp_path / "faults.toml")) as remote:
        admin = initialise(tmp_path / "admin", remote)
        with running(admin, "--debug", D365SYNC_DAEMON__STOP_WITHIN="1s") as run:
            run.wait_for("request.done", 2)
            assert run.end() == 0
            assert run.wait_for("cycle.abandoned")["after_s"] == 1
        journal = Journal.open(f"sqlite:///{admin.folder / 'journal.db'}")
        assert journal.lease() is None
        journal.close()
        with running(admin, "--debug") as run:
            run.wait_for("request.done")
            run.process.send_signal(signal.SIGTERM)
            run.wait_for("service.stopping")
            assert run.end(signal.SIGINT) == 128 + signal.SIGINT


def test_a_wrong_configuration_never_begins(admin: Admin) -> None:
    with running(admin, D365SYNC_DAEMON__EVERY="0s") as run:
        assert run.process.wait(PATIENCE_S) == 2
    with running(admin, "--environment", "east") as run:
        assert run.process.wait(PATIENCE_S) == 2
        run._reader.join()
        assert "no environment east" in run.events[0]["event"]
