"""Doctor as a whole against an organization served over TLS, and what breaks one thing at a time."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from d365sync.app import make_client
from d365sync.config import Config
from d365sync.doctor.check import Check, Verdict
from d365sync.doctor.service import has_queue
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.errors import ConfigError
from d365sync.journal.store import Journal
from d365sync.mirror.store import Mirror
from d365sync.service.health import serve
from d365sync.service.state import ServiceState
from d365sync.sync.holding import own_name, take
from tests import canary
from tests.emulated import NOW, configuration
from tests.examined import examined
from tests.network import Certified, Proxy, listening, speaking_tls
from tests.scripted import VirtualTimer

SMALL = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
HTTP_OK = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.delenv(spelled, raising=False)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Emulator, dict[str, str]]]:
    emulator = Emulator.load(SMALL, now=NOW, settings=EmulatorSettings(expire_change_tracking_days=7))
    with emulator.serve() as (url, ca_file):
        yield emulator, {"url": url, "authority": emulator.authority(url), "ca_bundle": str(ca_file)}


class Patient:
    """An organization served over TLS; ``look`` examines a configuration of it."""

    def __init__(self, served: tuple[Emulator, dict[str, str]], folder: Path) -> None:
        self.emulator, self.place = served
        self.folder = folder

    def config(self, *, dataverse: dict[str, Any] | None = None, **sections: Any) -> Config:
        return configuration(self.emulator, self.folder, dataverse={**self.place, **(dataverse or {})}, **sections)

    def look(self, *, config: Config | None = None, machine: dict[str, Any] | None = None, **sections: Any) -> Any:
        config = config or self.config(**sections)

        def client() -> Any:
            return make_client(config, environ={}, timer=VirtualTimer(), late=True)

        return Found(examined(config, client, **{"environ": {}, **(machine or {})}))


class Found:
    """The lines of an examination."""

    def __init__(self, checks: list[Check]) -> None:
        self.checks = checks

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    @property
    def failed(self) -> list[str]:
        return [check.name for check in self.checks if check.verdict is Verdict.FAIL]

    @property
    def unchecked(self) -> dict[str, str]:
        begin = "not checked: needs "
        return {one.name: one.found.removeprefix(begin) for one in self.checks if one.found.startswith(begin)}


@pytest.fixture
def patient(served: tuple[Emulator, dict[str, str]], tmp_path: Path) -> Patient:
    return Patient(served, tmp_path)


REMOTE = {"clock", "sign in", "token", "WhoAmI", "privileges", "goals", "sources", "write goals", "least privilege"}
LOCAL = {"configuration", "SQLite", "mirror", "journal", "disk", "lease", "schedule", "listen"}


def test_where_all_is_well_every_topic_has_a_line(patient: Patient) -> None:
    found = patient.look()
    assert (found.failed, found.unchecked) == ([], {})
    assert {check.name for check in found.checks} >= LOCAL | {
        "DNS",
        "proxy",
        "reach",
        "TLS",
        "clock",
        "token",
        "fiscal year",
    }
    assert "a private authority of dataverse.ca_bundle" in found["TLS"].found
    assert "for 5" in found["token"].found
    assert "application user, Non-interactive" in found["service account"].found
    assert "remembered for 7 days" in found["delta retention"].found
    assert all(check.topic for check in found.checks)
    assert list(patient.folder.glob("*.db*")) == []


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"until": YESTERDAY}, "certificate has expired"),
        ({"host": "other.example"}, "not valid for 'localhost'"),
        ({"by_itself": True}, "self-signed certificate"),
    ],
    ids=["expired", "wrong host", "self-signed"],
)
def test_a_certificate_that_is_not_good_is_one_failure(patient: Patient, made: dict[str, Any], words: str) -> None:
    certified = Certified(**made)
    with speaking_tls(certified.context(patient.folder), lambda connection: connection.sendall(HTTP_OK)) as url:
        ca_bundle = str(certified.ca_file(patient.folder))
        found = patient.look(dataverse={"url": url, "ca_bundle": ca_bundle})
    assert found.failed == ["TLS"]
    assert words in found["TLS"].found
    assert found["TLS"].mend
    assert set(found.unchecked.values()) == {"TLS"}
    assert set(found.unchecked) >= REMOTE
    assert {check.name for check in found.checks} - set(found.unchecked) >= LOCAL


def test_a_certificate_that_ends_soon_is_a_warning(patient: Patient) -> None:
    certified = Certified(until=dt.datetime.now(dt.UTC) + dt.timedelta(days=3))
    with speaking_tls(certified.context(patient.folder), lambda connection: connection.sendall(HTTP_OK)) as url:
        ca_bundle = str(certified.ca_file(patient.folder))
        found = patient.look(dataverse={"url": url, "ca_bundle": ca_bundle})
    assert (found["TLS"].verdict, "2 days left" in found["TLS"].found) == (Verdict.WARN, True)
    assert "test CA, a private authority" in found["TLS"].found


def test_a_dead_name_is_one_failure(patient: Patient) -> None:
    def resolve(_host: str) -> tuple[str, ...]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    found = patient.look(machine={"resolve": resolve})
    assert found.failed == ["DNS"]
    assert set(found.unchecked) >= REMOTE | {"proxy", "reach", "TLS"}
    assert set(found.unchecked.values()) == {"DNS"}


def test_a_proxy_that_is_not_there_is_one_failure(patient: Patient) -> None:
    def connect(host: str, port: int) -> None:
        socket.create_connection((host, port), 5).close()

    found = patient.look(dataverse={"proxy": "http://127.0.0.1:1"}, machine={"connect": connect})
    assert found.failed == ["proxy"]
    assert found["proxy"].exit_code == 5
    assert found.unchecked["reach"] == "proxy"


def test_a_proxy_that_refuses_is_told_by_its_status(patient: Patient) -> None:
    proxy = Proxy(refuses="403 Forbidden by the company")
    with listening(proxy.serve) as port:
        found = patient.look(dataverse={"proxy": f"http://clerk:known@127.0.0.1:{port}"})
    assert found.failed == ["proxy"]
    told = [check for check in found.checks if check.name == "proxy"][-1]
    assert "403 Forbidden by the company" in told.found
    assert "known" not in f"{told.found}{told.mend}"
    assert found.unchecked["sign in"] == "proxy"


def test_by_a_proxy_all_is_well_too(patient: Patient) -> None:
    with listening(Proxy().serve) as port:
        found = patient.look(dataverse={"proxy": f"http://127.0.0.1:{port}"})
    assert (found.failed, found.unchecked) == ([], {})
    assert "by dataverse.proxy" in found["proxy"].found


def test_a_clock_that_is_wrong_hides_nothing(patient: Patient) -> None:
    config = patient.config()
    client = make_client(config, environ={}, timer=VirtualTimer())
    found = Found(examined(config, client, now=NOW + dt.timedelta(minutes=6), environ={}))
    assert (found.failed, found.unchecked) == (["clock"], {})
    assert found["clock"].exit_code == 1


def test_a_secret_that_cannot_be_read_leaves_the_network_and_the_databases(patient: Patient) -> None:
    found = patient.look(dataverse={"client_secret": "file:gone"})
    assert found.failed == ["secret"]
    assert found["secret"].exit_code == 2
    assert found["reach"].verdict is found["TLS"].verdict is Verdict.OK
    assert found.unchecked["sign in"] == "secret"


def test_a_wrong_secret_leaves_the_rest(patient: Patient) -> None:
    found = patient.look(dataverse={"client_secret": canary.plant("a-secret-that-is-wrong", patient.folder)})
    assert (found.failed, found["sign in"].exit_code) == (["sign in"], 6)
    assert set(found.unchecked.values()) == {"sign in"}


# -- the machine -----------------------------------------------------------------------------------------------------


def test_a_damaged_journal_is_found_without_touching_it(patient: Patient) -> None:
    path = patient.folder / "journal.db"
    path.write_bytes(b"no database at all " * 1000)
    before = path.read_bytes()
    found = patient.look()
    assert found.failed == ["journal"]
    assert found.unchecked["lease"] == "journal"
    assert "restore the journal" in found["journal"].mend
    assert path.read_bytes() == before
    assert found["write goals"].verdict is Verdict.OK


def test_who_holds_the_lease_is_told(patient: Patient) -> None:
    config = patient.config()
    real = dt.datetime.now(dt.UTC)
    journal = Journal.open(config.database_url(config.storage.journal))
    mirror = Mirror.open(config.database_url(config.storage.mirror))
    assert take(journal, mirror, own_name(), real)
    journal.close()
    mirror.close()
    assert "has held it since" in patient.look(config=config)["lease"].found
    later = patient.look(config=config, machine={"real_clock": lambda: real + dt.timedelta(hours=1)})
    assert later["lease"].verdict is Verdict.WARN


def test_our_own_service_may_have_the_port(patient: Patient) -> None:
    server = serve("127.0.0.1:0", ServiceState())
    try:
        daemon = {"listen": f"127.0.0.1:{server.address.port}"}
        with_ours = patient.look(daemon=daemon, machine={"listen_error": real_bind_error})
    finally:
        server.close()
    assert "a service of d365sync listens" in with_ours["listen"].found


def test_another_program_at_the_port_is_told(patient: Patient) -> None:
    with listening(lambda connection: connection.sendall(b"SSH-2.0\r\n")) as port:
        daemon = {"listen": f"127.0.0.1:{port}"}
        found = patient.look(daemon=daemon, machine={"listen_error": real_bind_error})
    assert (found["listen"].verdict, "another program" in found["listen"].found) == (Verdict.WARN, True)


def real_bind_error(host: str, port: int) -> OSError | None:
    from d365sync.doctor.case import bind_error

    return bind_error(host, port)


def test_the_monitor_is_reached_and_told_nothing(patient: Patient) -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        asked.append(connection.recv(4096).split(b"\r\n")[0])
        connection.sendall(HTTP_OK)

    with listening(answer) as port:
        found = patient.look(daemon={"ping": f"http://127.0.0.1:{port}/ping/0a1b2c3d"})
    assert found["ping"].verdict is Verdict.OK
    assert asked == [b"HEAD /robots.txt HTTP/1.1"]
    gone = patient.look(daemon={"ping": f"http://127.0.0.1:{port}/ping/0a1b2c3d"})
    assert (gone["ping"].verdict, "0a1b2c3d" in gone["ping"].found) == (Verdict.WARN, False)


@pytest.mark.postgresql
def test_postgresql_is_asked_what_the_user_may_do(patient: Patient, postgresql_url: str) -> None:
    storage = {"mirror": postgresql_url, "journal": postgresql_url}
    found = patient.look(storage=storage)
    assert found["journal"].found.startswith("PostgreSQL ")
    assert (found.failed, found["lease"].found) == ([], "nobody holds it")
    assert "SQLite" not in {check.name for check in found.checks}
    gone = patient.look(storage={**storage, "journal": postgresql_url.replace("/test_", "/gone_")})
    assert "journal" in gone.failed
    assert "databases" not in gone.unchecked.values()


@pytest.mark.postgresql
def test_a_role_that_may_not_make_tables_is_told(patient: Patient, postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    role = f"reader_{uuid4().hex}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'reader-of-the-test'")
        connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        url = make_url(postgresql_url).set(username=role, password="reader-of-the-test")
        found = patient.look(storage={"journal": url.render_as_string(hide_password=False)})
        assert "journal" in found.failed
        assert f"as {role}: may not make tables" in found["journal"].found
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE {role}")
        engine.dispose()


@pytest.mark.postgresql
def test_the_database_of_the_queue_is_asked_for_it(postgresql_url: str) -> None:
    assert has_queue(postgresql_url) is False
    with pytest.raises(ConfigError, match="cannot be reached"):
        has_queue(postgresql_url.replace("/test_", "/gone_"))
    with pytest.raises(ConfigError, match="must be a PostgreSQL database"):
        has_queue("sqlite:///queue.db")
