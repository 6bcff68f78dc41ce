"""``health``: ask the service on this machine how it is.

IO: terminal, HTTP on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from d365sync.cli.output import print_json

if TYPE_CHECKING:
    from d365sync.cli.context import Settings


@click.command()
@click.option("--ready", is_flag=True, help="Ask whether every environment is fresh, not only whether the loop lives.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def health(settings: Settings, *, ready: bool, as_json: bool) -> int:
    """Ask the service on this machine whether it is alive, or ready.

    Exit code 0 if it is, 1 if not; the address is daemon.listen. For the health check of a container.

    \b
    d365sync health            alive?
    d365sync health --ready    every environment fresh, its databases working?
    """
    from d365sync.errors import ConfigError
    from d365sync.secretstore import resolve_secret
    from d365sync.service.asking import ask
    from d365sync.service.health import address_of

    config = next(iter(settings.load_all().values()))
    if not config.daemon.listen:
        raise ConfigError("the service answers no health checks", hint="set daemon.listen")
    token = resolve_secret(config.health.token, settings.environ, config.folder) if config.health.token else ""
    path = "/readyz" if ready else "/livez"
    answer = ask(address_of(config.daemon.listen), path, token=token)
    if as_json:
        print_json({"path": path, "ok": answer.well, "status": answer.status, "text": answer.text})
    else:
        click.echo(answer.text)
    return 0 if answer.well else 1
