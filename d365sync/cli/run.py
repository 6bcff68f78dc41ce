"""``run``: the service.

IO: terminal, signals; all that cycles do.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from d365sync.app import App
    from d365sync.cli.context import Settings
    from d365sync.config import Config
    from d365sync.config_daemon import DaemonSection
    from d365sync.service.health import Server
    from d365sync.service.loop import Outside, Sharing
    from d365sync.service.ping import Pinger
    from d365sync.service.state import ServiceState
    from d365sync.service.worker import World

ANSWER_TIMEOUTS = 5
COMPUTING_S = 600
"""How long a cycle may compute, beside what it may wait for the network, before it counts as hanging."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Log JSON lines on a terminal too.")
@click.pass_obj
def run(settings: Settings, *, as_json: bool) -> int:
    """Run cycles by the schedule in [daemon] until stopped: the service.

    All environments of the configuration, or the one named by --environment. SIGTERM or Ctrl+C ends it after the
    current pages, a second one at once. SIGHUP has it read the configuration again: a valid one replaces the present
    one, any other is refused with every fault in the log. Logs go to stderr, as JSON unless it is a terminal.

    \b
    Examples:
      d365sync run                          all environments
      d365sync -v --environment east run    one of them; log each table and goal too
    """
    from d365sync.service.loop import Loop
    from d365sync.service.signals import Signals
    from d365sync.service.state import ServiceState
    from d365sync.service.telemetry import telling

    configs = _configs(settings, settings.load_all(service=True, as_json=as_json))
    state = ServiceState(cycle_patience_s=_patience_s(configs))
    first = next(iter(configs.values()))
    loop = Loop(configs, _world(settings, state), _outside(settings, state, first.daemon), Signals())
    with telling(first.telemetry, settings.environ, first.folder):
        whole = loop.run()
    if not whole:
        sys.stderr.flush()
        os._exit(0)  # a cycle hangs in a thread: only the end of the process ends it
    return 0


def _configs(settings: Settings, configs: Mapping[str, Config]) -> Mapping[str, Config]:
    from d365sync.service.environments import chosen

    if settings.environment is None:
        return configs
    return {settings.environment: chosen(configs, settings.environment)}


def _patience_s(configs: Mapping[str, Config]) -> float:
    """Return how long a cycle may show no progress: it may have to wait for an answer, and to repeat a request."""
    remotes = [config.dataverse for config in configs.values()]
    return max(one.retry_budget + ANSWER_TIMEOUTS * one.timeout for one in remotes) + COMPUTING_S


def _world(settings: Settings, state: ServiceState) -> World:
    from d365sync.service.worker import World
    from d365sync.sync.holding import own_name

    def built(config: Config, options: dict[str, Any]) -> App:
        from d365sync.app import build

        return build(config, clock=settings.clock, environ=settings.environ, line_options=options)

    return World(build=built, state=state, holder=own_name(), pinger=_pinger)


def _outside(settings: Settings, state: ServiceState, daemon: DaemonSection) -> Outside:
    from d365sync.app import make_client, secret_of
    from d365sync.config import find_file
    from d365sync.service.environments import load_all
    from d365sync.service.health import serve
    from d365sync.service.loop import Outside
    from d365sync.service.notify import Notifier

    path = find_file(settings.config_path, settings.environ, settings.folder)

    def served(config: Config) -> Server:
        health = config.health
        token = secret_of(config, health.token, settings.environ) if health.token else ""
        return serve(config.daemon.listen, state, clock=settings.clock, hosts=health.hosts, token=token)

    return Outside(
        load=lambda: _configs(settings, load_all(path, settings.environ)),
        check=partial(make_client, environ=settings.environ),
        serve=served,
        notifier=Notifier.of(settings.environ),
        sharing=_sharing(daemon),
    )


def _sharing(daemon: DaemonSection) -> Sharing | None:
    """Return what shares environments with other machines, None when this one runs them all."""
    if not daemon.queue:
        return None
    from d365sync.service.jobs import Jobs
    from d365sync.service.sharing import Shared

    return Shared(partial(Jobs, daemon.queue), daemon.at_once)


def _pinger(config: Config) -> Pinger:
    """Return what tells the dead-man switch, on the way by which Dataverse is reached."""
    from d365sync.app import ca_bundle_of
    from d365sync.dataverse.session import make_session, proxies_of
    from d365sync.service.ping import TIMEOUT_S, Pinger, getter, nobody

    if not config.daemon.ping:
        return nobody()
    session = make_session(ca_bundle_of(config), config.dataverse.proxy, timeout_s=TIMEOUT_S)
    return Pinger(config.daemon.ping, getter(session, proxies_of(session)))
