"""Writing the files of a service, and taking them away; never over what somebody changed, unless told to.

A file of ours holds a checksum of itself: one that still fits is ours to write again. Starting, stopping and making
users stay with the administrator and the service manager; what to do next is said.

IO: files, the service manager's own commands (to ask, never to change).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from d365sync.config import Config
from d365sync.errors import UsageError
from d365sync.secretstore import is_literal_secret
from d365sync.service.units import Instance, is_untouched, sysusers_of, unit_of, winsw_of

UNITS = Path("etc/systemd/system")
SYSUSERS = Path("etc/sysusers.d")
SQLITE = "sqlite:///"
SHOWN = ("LoadState", "ActiveState", "SubState", "StatusText", "NRestarts", "Result", "ActiveEnterTimestamp")
ASK_TIMEOUT_S = 10


class Fate(StrEnum):
    """What is to become of a file."""

    NEW = "new"
    SAME = "unchanged"
    NEWER = "replaced"
    CHANGED = "changed by somebody"
    ABSENT = "not there"


@dataclass(frozen=True, slots=True)
class Planned:
    """One file, with what stands there now."""

    path: Path
    text: str
    fate: Fate


def files_of(instance: Instance, *, windows: bool, root: Path) -> tuple[Planned, ...]:
    """Return the files of an instance, below ``root``, with what would become of each."""
    if windows:
        return (_planned(root / f"{instance.name}.xml", winsw_of(instance)),)
    unit = _planned(root / UNITS / f"{instance.name}.service", unit_of(instance))
    if instance.dynamic_user or instance.user:
        return (unit,)
    return (unit, _planned(root / SYSUSERS / f"{instance.name}.conf", sysusers_of(instance)))


def _planned(path: Path, text: str) -> Planned:
    try:
        found = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Planned(path, text, Fate.NEW)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from None
    if found == text:
        return Planned(path, text, Fate.SAME)
    return Planned(path, text, Fate.NEWER if is_untouched(found) else Fate.CHANGED)


def write(files: Sequence[Planned], *, force: bool) -> None:
    """Write the files; all or, where one was changed by somebody and ``force`` is not given, none.

    Raises:
        UsageError: a file was changed, or cannot be written.
    """
    _refuse_changed(files, force=force)
    for one in files:
        if one.fate is Fate.SAME:
            continue
        try:
            one.path.parent.mkdir(parents=True, exist_ok=True)
            _replace(one.path, one.text)
        except OSError as error:
            hint = "run it as an administrator, or see the file with --print"
            raise UsageError(f"{one.path} cannot be written: {error.strerror}", hint=hint) from None


def remove(files: Sequence[Planned], *, force: bool) -> tuple[Path, ...]:
    """Remove the files, all or none as :func:`write`; return those that were there.

    Raises:
        UsageError: a file was changed, or cannot be removed.
    """
    _refuse_changed(files, force=force)
    there = tuple(one.path for one in files if one.fate is not Fate.NEW)
    for path in there:
        try:
            path.unlink()
        except OSError as error:
            raise UsageError(f"{path} cannot be removed: {error.strerror}", hint="run it as an administrator") from None
    return there


def _refuse_changed(files: Sequence[Planned], *, force: bool) -> None:
    changed = [str(one.path) for one in files if one.fate is Fate.CHANGED]
    if changed and not force:
        raise UsageError(
            f"changed by somebody since it was written, and left as it is: {', '.join(changed)}",
            hint="put changes into a drop-in (systemctl edit NAME), or use --force",
        )


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole: whoever reads it sees the old one or the new."""
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    beside.replace(path)


def credentials_named(configs: Mapping[str, Config], folder: str) -> dict[str, str]:
    """Return the credentials that the environments refer to as ``systemd:NAME``, each with its file in a folder."""
    found: dict[str, str] = {}
    for config in configs.values():
        for reference in config.secret_references().values():
            scheme, _, name = reference.partition(":")
            if scheme == "systemd":
                found[name] = f"{folder}/{name}"
    return found


def faults_of(instance: Instance, configs: Mapping[str, Config]) -> Iterator[str]:
    """Yield what would keep the unit from working: what it may not read, and databases where it may not write."""
    if any(instance.program.startswith(home) for home in ("/home/", "/root/")):
        yield f"{instance.program} is in a home, which the unit hides from the service; install d365sync in /opt"
    for name, config in configs.items():
        where = f"environments.{name}: " if len(configs) > 1 else ""
        for key, url in (("mirror", config.storage.mirror), ("journal", config.storage.journal)):
            path = Path(config.database_url(url).removeprefix(SQLITE))
            if url.startswith(SQLITE) and Path(instance.state_folder) not in path.parents:
                good = f"{SQLITE}{instance.state_folder}/{path.name}"
                yield f'{where}storage.{key} is outside {instance.state_folder}; write {key} = "{good}"'
        if instance.dynamic_user and any(is_literal_secret(one) for one in config.secret_references().values()):
            yield f"{where}a secret stands in the configuration, which a dynamic user can read only if everybody can"
        if config.dataverse.auth == "device_code":
            yield f'{where}auth = "device_code" needs a person; use a certificate, a secret or a managed identity'


def doubts_of(configs: Mapping[str, Config]) -> Iterator[str]:
    """Yield what may keep the service from working: secrets of an environment that it does not have by itself."""
    for name, config in configs.items():
        where = f"environments.{name}: " if len(configs) > 1 else ""
        for key, reference in config.secret_references().items():
            if reference.startswith("env:"):
                variable = reference.partition(":")[2]
                yield f"{where}{key} is in the variable {variable}, which a service has only if its unit sets it"


def next_steps(instance: Instance, *, windows: bool, files: Sequence[Planned]) -> tuple[str, ...]:
    """Return the commands to give next, in order; a line that begins with # is a remark."""
    if windows:
        folder = files[0].path.parent
        return (
            f"# put WinSW (WinSW-x64.exe) into {folder} as {instance.name}.exe",
            f"# let {instance.account} read the configuration and its secrets, and write to the databases' folder",
            f"{folder / instance.name}.exe install",
            f"{folder / instance.name}.exe start",
        )
    steps = [] if instance.dynamic_user or instance.user else ["systemd-sysusers"]
    if not instance.dynamic_user:
        steps += [f"chgrp {instance.runs_as} {instance.config}", f"chmod 640 {instance.config}"]
    for path in sorted(instance.credentials.values()):
        steps.append(f"chmod 600 {path}" if Path(path).exists() else f"# write the secret into {path}, of mode 600")
    return (*steps, "systemctl daemon-reload", f"systemctl enable --now {instance.name}")


def asked(name: str) -> Mapping[str, str] | None:
    """Return what systemd knows of a unit, None where there is no systemd to ask."""
    program = shutil.which("systemctl")
    if program is None:
        return None
    command = [program, "show", f"{name}.service", f"--property={','.join(SHOWN)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    return {key: value for key, _, value in lines if value}
