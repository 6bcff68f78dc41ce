"""Cycles shared by machines: who runs which is decided by a job queue in PostgreSQL, Procrastinate, and not by us.

Every machine offers every environment's cycle when it is due; the queue takes one offer for an environment and an
instant. Any machine with a place free takes a job; two of the same environment never run at once, and one waits at
most: what was missed comes once. A machine that dies leaves its jobs to others as soon as its heartbeat is missed. More
machines are more capacity; nothing else changes.

The queue shares work out and protects nothing: that is what the lease in the journal is for (a paused machine that
wakes cannot write, though another ran its job meanwhile).

Source: Procrastinate, How-to guides (periodic tasks, locks, queueing locks, stalled jobs).

IO: SQL on PostgreSQL, threads.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from d365sync.errors import ConfigError

log = structlog.get_logger(__name__)

QUEUE = "d365sync"
TASK = "d365sync.cycle"
GLANCE_S = 0.25
LOCK = 0x0D365
"""Of the advisory lock under which the queue's tables are made."""
HINT = 'install the queue: pip install "d365sync[workers]"'


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: between two signs of life of a machine, and without one until its jobs are given to others."""

    heartbeat_s: float = 10
    lost_s: float = 30
    poll_s: float = 5


class Jobs:
    """The queue, as one machine sees it; ``run`` does the cycle of an environment by name.

    What ``run`` raises ends the job as failed and nothing else: the next one is due as always.
    """

    def __init__(self, url: str, run: Callable[[str], object], *, patience: Patience | None = None) -> None:
        """Join the queue at a database URL; its tables are made if they are not there.

        Raises:
            ConfigError: no PostgreSQL URL, the queue is not installed, or the database cannot be reached.
        """
        self._conninfo = conninfo(url)
        self._run = run
        self._patience = patience or Patience()
        self._prepare()

    def work(self, offers: Callable[[], list[tuple[str, dt.datetime]]], stop: threading.Event, *, at_once: int) -> None:
        """Offer what is due and run what there is, ``at_once`` cycles at a time, until ``stop``.

        ``offers`` returns what has come due since it was last asked; it is asked several times a second. Cycles that
        run when ``stop`` is set are waited for: whoever sets it tells them too.
        """
        asyncio.run(self._work(offers, stop, at_once))

    async def _work(
        self, offers: Callable[[], list[tuple[str, dt.datetime]]], stop: threading.Event, at_once: int
    ) -> None:
        app = self._app()
        async with app.open_async():
            working = asyncio.create_task(
                app.run_worker_async(
                    queues=[QUEUE],
                    name=None,
                    concurrency=at_once,
                    fetch_job_polling_interval=self._patience.poll_s,
                    update_heartbeat_interval=self._patience.heartbeat_s,
                    stalled_worker_timeout=self._patience.lost_s,
                    delete_jobs="always",
                    install_signal_handlers=False,
                )
            )
            rescued_at = 0.0
            while not stop.is_set() and not working.done():
                for name, due_at in offers():
                    await self._offer(app, name, due_at)
                now = asyncio.get_running_loop().time()
                if now - rescued_at >= self._patience.heartbeat_s:
                    rescued_at = now
                    await self._rescue(app)
                await asyncio.sleep(GLANCE_S)
            if working.done():
                working.result()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    async def _offer(self, app: Any, name: str, due_at: dt.datetime) -> None:
        """Offer a cycle; that it was offered before, or that one waits already, is as good."""
        from procrastinate.exceptions import AlreadyEnqueued

        instant = int(due_at.timestamp())
        job = app.tasks[TASK].configure(
            lock=name, queueing_lock=name, task_kwargs={"environment": name, "timestamp": instant}
        )
        with suppress(AlreadyEnqueued):
            await app.job_manager.defer_periodic_job(job=job.job, periodic_id=name, defer_timestamp=instant)

    async def _rescue(self, app: Any) -> None:
        """Give the jobs of machines that show no sign of life to others."""
        found = await app.job_manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=self._patience.lost_s)
        for job in found:
            log.warning("job.rescued", environment=job.task_kwargs.get("environment"))
            await app.job_manager.retry_job(job)

    def _app(self) -> Any:
        from procrastinate import App, PsycopgConnector

        app = App(connector=PsycopgConnector(conninfo=self._conninfo, min_size=1, max_size=4))

        @app.task(name=TASK, queue=QUEUE)
        def cycle(environment: str, timestamp: int) -> None:
            log.debug("job.taken", environment=environment, due_at=timestamp)
            self._run(environment)

        return app

    def _prepare(self) -> None:
        try:
            import psycopg
            from procrastinate.schema import SchemaManager
        except ImportError:
            raise ConfigError("daemon.queue needs Procrastinate, which is not installed", hint=HINT) from None
        try:
            with psycopg.connect(self._conninfo) as connection:
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
                found = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
                if found is None or found[0] is None:
                    connection.execute(SchemaManager.get_schema().encode())
        except psycopg.OperationalError as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            raise ConfigError(
                f"the database of daemon.queue cannot be reached: {reason}", hint="see docs/service.md, machines"
            ) from None


def conninfo(url: str) -> str:
    """Return what libpq is told for a database URL.

    Raises:
        ConfigError: it is none of PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("daemon.queue is no database URL", hint="use postgresql+psycopg://USER@HOST/DB") from None
    if parsed.get_backend_name() != "postgresql":
        raise ConfigError(
            "daemon.queue must be a PostgreSQL database", hint="without it, one machine works and others stand by"
        )
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)
