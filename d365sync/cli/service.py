"""``service install|uninstall|status``: the files by which a service manager runs d365sync.

IO: terminal; see :mod:`d365sync.service.install`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d365sync.cli.output import print_json

if TYPE_CHECKING:
    from d365sync.cli.context import Settings
    from d365sync.config import Config
    from d365sync.service.install import Planned
    from d365sync.service.units import Instance


@click.group()
def service() -> None:
    """Write the files by which systemd or Windows runs d365sync.

    `uninstall` takes them away; `status` shows how the service fares.

    \b
    d365sync --config /etc/d365sync/d365sync.toml service install
    d365sync --config /etc/d365sync/east.toml service install --name d365sync-east
    d365sync service install --windows --print
    d365sync service status
    """


def _instance_options(command: Callable[..., int]) -> Callable[..., int]:
    options = [
        click.option("--name", default="d365sync", show_default=True, help="Name of the service, one per instance."),
        click.option("--windows/--linux", default=sys.platform == "win32", help="WinSW XML, or a systemd unit."),
        click.option("--root", type=click.Path(path_type=Path), help="Folder to write below."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@service.command()
@_instance_options
@click.option("--print", "only_print", is_flag=True, help="Print the files and write nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be written and what to do next, and write nothing.")
@click.option("--force", is_flag=True, help="Write over files that somebody changed, and in spite of faults.")
@click.option("--program", help="Path of d365sync on the machine it is for [this one].")
@click.option("--user", default="", help="An existing user to run as [a system user of the service's name is made].")
@click.option(
    "--dynamic-user", is_flag=True, help="Have systemd make up the user; the configuration must be readable by all."
)
@click.option(
    "--credential",
    "credentials",
    multiple=True,
    metavar="NAME=PATH",
    help="A secret for systemd to hand over as systemd:NAME; several times [those the configuration names].",
)
@click.option("--encrypted", is_flag=True, help="The credentials were made by systemd-creds encrypt.")
@click.option(
    "--account", default=r"NT AUTHORITY\LocalService", show_default=True, help="The account to run as on Windows."
)
@click.pass_obj  # fmt: skip
def install(settings: Settings, /, **options: Any) -> int:
    """Write the systemd unit, or the WinSW XML on Windows, and say what to do next. Starts nothing.

    A file that somebody changed since it was written is left alone, unless --force is given.

    \b
    d365sync --config /etc/d365sync/d365sync.toml service install --dry-run
    d365sync --config /etc/d365sync/d365sync.toml service install --credential client_secret=/root/crm-secret
    """
    from d365sync.errors import ConfigError
    from d365sync.service.install import doubts_of, faults_of, next_steps, write

    windows = options["windows"]
    path, configs, unread = _configuration(settings)
    instance = _instance(options, path, configs)
    files = _files(options, instance)
    if options["only_print"]:
        click.echo("\n".join(f"# {one.path}\n{one.text}" if len(files) > 1 else one.text for one in files), nl=False)
        return 0
    faults = [] if windows else list(faults_of(instance, configs))
    if faults and not (options["force"] or options["dry_run"]):
        raise ConfigError(
            f"the service would not work: {'; '.join(faults)}",
            problems=faults,
            hint="change the configuration, or use --force",
        )
    if not options["dry_run"]:
        write(files, force=options["force"])
    steps = next_steps(instance, windows=windows, files=files)
    _tell(
        files, [*unread, *faults, *doubts_of(configs)], steps, as_json=options["as_json"], done=not options["dry_run"]
    )
    return 0


@service.command()
@_instance_options
@click.option("--force", is_flag=True, help="Remove files that somebody changed, too.")
@click.pass_obj
def uninstall(settings: Settings, /, *, force: bool, as_json: bool, **options: Any) -> int:  # noqa: ARG001
    """Remove what `install` wrote; databases, the configuration and secrets stay. Stop the service first."""
    from d365sync.errors import UsageError
    from d365sync.service.install import asked, remove
    from d365sync.service.units import Instance

    instance = Instance(name=_name(options["name"]))
    stop = f"systemctl disable --now {instance.name}"
    if options["windows"]:
        stop = f"{instance.name}.exe stop, then {instance.name}.exe uninstall"
    elif options["root"] is None and (asked(instance.name) or {}).get("ActiveState") == "active":
        raise UsageError(f"{instance.name} is running", hint=stop)
    removed = [str(path) for path in remove(_files(options, instance), force=force)]
    if as_json:
        print_json({"removed": removed})
        return 0
    click.echo("\n".join(f"removed {path}" for path in removed) or "there was nothing to remove")
    if removed and not options["windows"]:
        click.echo("next: systemctl daemon-reload")
    return 0


@service.command()
@_instance_options
@click.pass_obj
def status(settings: Settings, /, *, as_json: bool, **options: Any) -> int:
    """Show whether the service is installed, what its manager says, and whether it answers.

    Exit code 0 if it is alive, 1 if not.
    """
    from d365sync.service.asking import ask
    from d365sync.service.health import address_of
    from d365sync.service.install import asked

    path, configs, _ = _configuration(settings)
    instance = _instance({**DEFAULTS, **options}, path, configs)
    files = {str(one.path): one.fate.value for one in _files(options, instance)}
    manager = None if options["windows"] else asked(instance.name)
    config = next(iter(configs.values()), None)
    listens = config is not None and bool(config.daemon.listen)
    answer = ask(address_of(config.daemon.listen), "/readyz") if config is not None and listens else None
    document = {
        "name": instance.name,
        "files": files,
        "manager": manager,
        "answers": answer.text if answer else None,
        "alive": answer is not None and answer.status is not None,
    }
    if as_json:
        print_json(document)
    else:
        for file, fate in files.items():
            click.echo(f"{file}: {INSTALLED.get(fate, fate)}")
        for key, value in (manager or {}).items():
            click.echo(f"{key}: {value}")
        click.echo(f"health: {answer.text}" if answer else "health: daemon.listen is not known")
    return 0 if document["alive"] else 1


INSTALLED = {
    "new": "not installed",
    "unchanged": "installed",
    "replaced": "installed with other options, or by another version",
}
"""What the state of a file means to who only looks."""
DEFAULTS: Mapping[str, Any] = {
    "program": None, "user": "", "dynamic_user": False, "credentials": (), "encrypted": False,
    "account": r"NT AUTHORITY\LocalService",
}  # fmt: skip


def _configuration(settings: Settings) -> tuple[Path, Mapping[str, Config], list[str]]:
    """Return the configuration's path and its environments; none, and why, where it cannot be read."""
    from d365sync.config import FILE_NAME, find_file, platform_folder
    from d365sync.errors import ConfigError

    path = Path(settings.config_path) if settings.config_path else platform_folder(settings.environ) / FILE_NAME
    try:
        path = find_file(settings.config_path, settings.environ, settings.folder)
        return path.absolute(), settings.load_all(), []
    except ConfigError as error:
        return path.absolute(), {}, [f"not checked: {error}"]


def _instance(options: Mapping[str, Any], config: Path, configs: Mapping[str, Config]) -> Instance:
    from d365sync.errors import UsageError
    from d365sync.secretstore import CREDENTIALS_FOLDER
    from d365sync.service.install import credentials_named
    from d365sync.service.units import Instance

    if options["user"] and options["dynamic_user"]:
        raise UsageError("--user and --dynamic-user exclude each other")
    given = dict(one.partition("=")[::2] for one in options["credentials"])
    for name, path in given.items():
        if not name or not path.startswith("/"):
            raise UsageError(f"--credential {name}={path} is not NAME=PATH with an absolute path")
    return Instance(
        name=_name(options["name"]),
        program=options["program"] or _program(),
        config=str(config),
        credentials={**credentials_named(configs, CREDENTIALS_FOLDER), **given},
        encrypted=options["encrypted"],
        user=options["user"],
        dynamic_user=options["dynamic_user"],
        account=options["account"],
    )


def _name(name: str) -> str:
    from d365sync.errors import UsageError
    from d365sync.service.units import NAME

    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a service", hint="small letters, digits and hyphens, such as d365sync-east"
        )
    return name


def _program() -> str:
    """Return the path of this command, as it was installed."""
    beside = Path(sys.executable).with_name("d365sync.exe" if sys.platform == "win32" else "d365sync")
    return str(beside if beside.exists() else Path(sys.argv[0]).absolute())


def _files(options: Mapping[str, Any], instance: Instance) -> tuple[Planned, ...]:
    from d365sync.service.install import files_of

    windows = bool(options["windows"])
    root = options["root"] or (Path(instance.config).parent if windows else Path("/"))
    return files_of(instance, windows=windows, root=root)


def _tell(
    files: tuple[Planned, ...], warnings: list[str], steps: tuple[str, ...], *, as_json: bool, done: bool
) -> None:
    if as_json:
        fates = {str(one.path): one.fate.value for one in files}
        print_json({"files": fates, "written": done, "warnings": warnings, "next": steps})
        return
    for one in files:
        click.echo(f"{one.path}: {one.fate.value}{'' if done else ' (nothing is written)'}")
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo("next:")
    for step in steps:
        click.echo(f"  {step}")
