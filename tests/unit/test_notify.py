from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from d365sync.service.notify import Notifier

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no such sockets here")


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(10)
        receiver.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        yield receiver


def heard(receiver: socket.socket) -> list[str]:
    return receiver.recv(4096).decode().split("\n")


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_messages_arrive_as_systemd_reads_them(kind: str, tmp_path: Path) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@d365sync-{uuid4()}"
    with listening(address) as receiver:
        notifier = Notifier.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
        assert notifier.watchdog_s == 30
        notifier.ready("2 environments")
        assert heard(receiver) == ["READY=1", "STATUS=2 environments"]
        notifier.reloading()
        first, second = heard(receiver)
        assert first == "RELOADING=1"
        assert re.fullmatch(r"MONOTONIC_USEC=\d+", second)
        notifier.alive()
        assert heard(receiver) == ["WATCHDOG=1"]
        notifier.alive(extend_s=1.5)
        assert heard(receiver) == ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=1500000"]
        notifier.stopping(20)
        assert heard(receiver) == ["STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=20000000"]


def test_a_status_cannot_smuggle_in_another_line(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as receiver:
        Notifier(str(tmp_path / "notify")).status("west: down\nMAINPID=1")
        assert heard(receiver) == ["STATUS=west: down MAINPID=1"]


def test_without_a_socket_or_a_listener_nothing_happens(tmp_path: Path) -> None:
    Notifier.of({}).ready("")
    Notifier(str(tmp_path / "gone")).ready("")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
    ],
)
def test_a_watchdog_is_fed_only_if_it_waits_for_this_process(environ: dict[str, str], seconds: float) -> None:
    assert Notifier.of(environ).watchdog_s == seconds
