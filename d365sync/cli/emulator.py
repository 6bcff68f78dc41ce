"""``emulator serve``: a local Dataverse.

IO: terminal, sockets.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from d365sync.errors import UsageError

if TYPE_CHECKING:
    import datetime as dt

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def emulator() -> None:
    """Run a local Dataverse."""


@emulator.command()
@click.option("--org", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Org folder to serve.")
@click.option(
    "--port", default=8443, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 picks a free one."
)
@click.option("--now", metavar="INSTANT", help="Freeze the emulator's clock at this instant.")
@click.option("--faults", metavar="FILE", type=FILE, help="TOML file of faults to inject.")
@click.option("--state", metavar="FILE", type=FILE, help="Keep the state in this file across starts.")
@click.option("--page-size", type=click.IntRange(1, 5000), help="Largest page served.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=N", help="Service protection limit; N may be off.")
@click.option("--no-limits", is_flag=True, help="Protect nothing: no request is answered 429.")
@click.option("--dop-hint", metavar="N", help="What x-ms-dop-hint advises.")
@click.option(
    "--native-rollup/--no-native-rollup", default=None, help="Whether goals are rolled up on schedule; not if frozen."
)
@click.option("--json", "as_json", is_flag=True, help="Accepted for uniformity: the answer is JSON anyway.")
def serve(
    *,
    org: Path,
    port: int,
    now: str | None,
    faults: Path | None,
    state: Path | None,
    page_size: int | None,
    limits: tuple[str, ...],
    no_limits: bool,
    dop_hint: str | None,
    native_rollup: bool | None,
    as_json: bool,
) -> None:
    """Serve an org folder over TLS until stopped.

    Prints one JSON line when it is ready: address, CA certificate, authority, tenant, client and secret.
    State is in memory unless --state names a file.
    """
    del as_json
    from dataclasses import replace

    from d365sync.emulator import Emulator
    from d365sync.emulator.choices import chosen_settings
    from d365sync.emulator.faults import FaultyApp, read_faults
    from d365sync.emulator.server import serving, wait_for_stop
    from d365sync.emulator.state import load_state, save_state
    from d365sync.emulator.wire import encode_json

    injected = read_faults(faults) if faults else ()
    frozen_at = _instant(now)
    settings = chosen_settings(limits, no_limits=no_limits, dop_hint=dop_hint, frozen=frozen_at is not None)
    settings = replace(settings, native_rollup=native_rollup)
    emulated = Emulator.load(org, now=frozen_at, page_size=page_size, settings=settings)
    if state is not None and state.exists():
        load_state(emulated.store, state)
    faulty = FaultyApp(emulated.app, injected) if injected else None
    with serving(faulty or emulated.app, port, emulated.clock.now) as (url, ca_file):
        credentials = emulated.credentials
        ready = {
            "url": url,
            "ca_bundle": str(ca_file),
            "authority": emulated.authority(url),
            "tenant_id": credentials.tenant_id,
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
        }
        click.echo(encode_json(ready).decode())
        wait_for_stop()
    if state is not None:
        save_state(emulated.store, state)
    for fault, times in zip(injected, faulty.struck if faulty else (), strict=True):
        click.echo(f"fault '{fault.match}' struck {times} times", err=True)


def _instant(text: str | None) -> dt.datetime | None:
    if text is None:
        return None
    from d365sync.core.values import parse_instant

    try:
        return parse_instant(text)
    except ValueError:
        raise UsageError(f"--now must be an instant such as 2026-11-20T09:00:00Z, not {text!r}") from None
