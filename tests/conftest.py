"""Databases for tests: SQLite in a temporary folder, and a real PostgreSQL.

PostgreSQL is the server named by D365SYNC_TEST_POSTGRESQL (a SQLAlchemy URL), or one started here from the installed
programs. Without either the tests that need it are skipped, or fail if D365SYNC_REQUIRE_POSTGRESQL is set.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import create_engine

from d365sync import logs
from tests import canary

canary.listen()


@pytest.fixture(autouse=True)
def _no_secret_is_left_behind() -> Iterator[None]:
    """Fail a test whose d365sync left a secret or token in a file or in the log."""
    yield
    assert canary.harvest() == []


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a command sets up for its process: its log's stream is closed when its test ends."""
    configured = structlog.get_config() if structlog.is_configured() else None
    yield
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one.formatter, logs.LineFormatter)]:
        root.removeHandler(handler)
        handler.close()
    structlog.reset_defaults()
    if configured is not None:
        structlog.configure(**configured)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that printed a secret or token, and keep it out of what pytest shows of a failing one."""
    report = yield
    shown = [("longrepr", report.longreprtext), *report.sections]
    if any(canary.hidden(text) != text for _, text in shown):
        report.sections = [(name, canary.hidden(text)) for name, text in report.sections]
        report.longrepr = canary.hidden(report.longreprtext) or f"{item.nodeid} printed a secret or an access token"
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    named = os.environ.get("D365SYNC_TEST_POSTGRESQL")
    if named:
        yield named
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        reason = "no PostgreSQL: set D365SYNC_TEST_POSTGRESQL or install its programs"
        if os.environ.get("D365SYNC_REQUIRE_POSTGRESQL"):
            pytest.fail(reason)
        pytest.skip(reason)
    with Cluster(programs[-1].parent) as url:
        yield url


class Cluster:
    """A PostgreSQL server of our own, on a Unix socket in a temporary folder."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="d365sync-pg-"))
        self._as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def __enter__(self) -> str:
        if self._as_user:
            shutil.chown(self._folder, "postgres")
        self._run("initdb", "-D", str(self._folder / "data"), "-A", "trust", "-U", "postgres", "-N", "--locale=C.UTF-8")
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        self._run(
            "pg_ctl", "-D", str(self._folder / "data"), "-w", "-l", str(self._folder / "log"), "-o", options, "start"
        )
        return f"postgresql+psycopg://postgres@/postgres?host={self._folder}"

    def __exit__(self, *_error: object) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, str(self._programs / program), *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/"
        )


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A fresh database on the server."""
    name = f"test_{uuid4().hex}"
    engine = create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    head, _, tail = postgresql_server.partition("?")
    yield f"{head.rpartition('/')[0]}/{name}{'?' + tail if tail else ''}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgresql_url"))
