"""Several environments from one file: each table below ``[environments.NAME]`` goes over the file's other sections.

What counts for an environment, the later before the earlier: the file's sections, variables ``D365SYNC_SECTION__KEY``,
the environment's own sections, variables ``D365SYNC_ENVIRONMENTS__NAME__SECTION__KEY``. In every text ``{environment}``
stands for its name. A file without such tables has one environment, called ``default``.

Databases never collide: where nothing else is said they are ``NAME/mirror.db`` and ``NAME/journal.db``, and two
environments that name the same one are a fault.

IO: files.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d365sync.config import ENVIRONMENT_PREFIX, Config, faulty, merge_variables, parse, read_document
from d365sync.config_daemon import COMMON
from d365sync.config_seeing import WHOLE
from d365sync.core.counts import counted
from d365sync.errors import ConfigError

DEFAULT = "default"
SECTION = "environments"
PLACEHOLDER = "{environment}"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]|_(?!_)){0,61}[a-z0-9]|[a-z0-9]")
"""A name is part of paths, of addresses and of variables."""
APART = {
    ("storage", "mirror"): ("sqlite:///mirror.db", f"sqlite:///{PLACEHOLDER}/mirror.db"),
    ("storage", "journal"): ("sqlite:///journal.db", f"sqlite:///{PLACEHOLDER}/journal.db"),
    ("dataverse", "sign_in_cache_file"): ("sign-in.cache", f"{PLACEHOLDER}/sign-in.cache"),
}
"""Keys whose default, told first, is another one where there are environments."""
Sections = dict[str, Any]


def load_all(path: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Config]:
    """Read every environment of a configuration file, in its order.

    Raises:
        ConfigError: unreadable, not TOML, or anything in it is wrong; lists every fault of every environment.
    """
    return parse_all(read_document(path), environ, folder=path.absolute().parent, path=path)


def load_one(path: Path, environ: Mapping[str, str] = os.environ, name: str | None = None) -> Config:
    """Read one environment of a configuration file: the one named, or the only one.

    Raises:
        ConfigError: as of :func:`load_all`; or it is not there; or there are several and none is named.
    """
    return chosen(load_all(path, environ), name)


def chosen(configs: Mapping[str, Config], name: str | None) -> Config:
    """Return the configuration of an environment: the one named, or the only one.

    Raises:
        ConfigError: it is not there, or there are several and none is named.
    """
    listed = ", ".join(configs)
    if name is None:
        if len(configs) > 1:
            raise ConfigError(f"the configuration has several environments: {listed}", hint="say --environment NAME")
        return next(iter(configs.values()))
    if name not in configs:
        close = difflib.get_close_matches(name, configs, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(f"the configuration has no environment {name}{meant}", hint=f"it has: {listed}")
    return configs[name]


def parse_all(
    document: Mapping[str, Any], environ: Mapping[str, str], *, folder: Path, path: Path | None = None
) -> dict[str, Config]:
    """Validate every environment of a document, with variables over it.

    Raises:
        ConfigError: anything in it is wrong; lists every fault of every environment.
    """
    prefix = f"{ENVIRONMENT_PREFIX}{SECTION.upper()}__"
    own = {name: value for name, value in environ.items() if name.startswith(prefix)}
    common = {name: value for name, value in environ.items() if name not in own}
    base = {name: dict(value) if isinstance(value, dict) else value for name, value in document.items()}
    named = base.pop(SECTION, {})
    if named == {} and not own:
        return {DEFAULT: parse(base, common, folder=folder, path=path)}
    problems = _faults_of_names(named) + merge_variables(base, common)
    listed = named.items() if isinstance(named, dict) else ()
    tables = {name: table for name, table in listed if not _fault_of(name, table)}
    problems += _unknown_variables(own, prefix, tables)
    configs, found = _validated(base, tables, {name: _rewritten(own, prefix, name) for name in tables}, folder, path)
    problems += found or _collisions(configs)
    if problems:
        raise faulty(path, problems)
    if len(configs) == 1:
        return configs
    return {name: config.model_copy(update={"environment": name}) for name, config in configs.items()}


def _validated(
    base: Sections,
    tables: Mapping[str, Sections],
    variables: Mapping[str, Mapping[str, str]],
    folder: Path,
    path: Path | None,
) -> tuple[dict[str, Config], list[str]]:
    """Validate each environment; a fault that all of them have is the file's, and told once."""
    configs: dict[str, Config] = {}
    faults: dict[str, list[str]] = {}
    for name, table in tables.items():
        merged = _over(base, table)
        misplaced = _misplaced(table, variables[name])
        try:
            configs[name] = parse(_named(_apart(merged), name), variables[name], folder=folder, path=path)
        except ConfigError as error:
            for problem in error.problems:
                faults.setdefault(problem, []).append(name)
        for problem in misplaced:
            faults.setdefault(problem, []).append(name)
    everywhere = [problem for problem, names in faults.items() if len(names) == len(tables)]
    one_by_one = [
        f"environment {one}: {problem}"
        for problem, names in faults.items()
        for one in names
        if problem not in everywhere
    ]
    if len(tables) == 1:
        return configs, [f"environment {next(iter(tables))}: {problem}" for problem in everywhere]
    return configs, [*everywhere, *one_by_one]


def _over(base: Sections, table: Sections) -> Sections:
    """Return the base with a table over it, key by key within each section."""
    merged = dict(base)
    for section, keys in table.items():
        below = merged.get(section)
        merged[section] = {**below, **keys} if isinstance(below, dict) and isinstance(keys, dict) else keys
    return merged


def _apart(document: Sections) -> Sections:
    """Give keys that must differ between environments a default that does, unless they say something of their own."""
    for (section, key), (default, other) in APART.items():
        keys = document.get(section, {})
        if isinstance(keys, dict) and keys.get(key, default) == default:
            document = {**document, section: {**keys, key: other}}
    return document


def _named(value: Any, name: str) -> Any:
    """Put the environment's name where a text asks for it."""
    if isinstance(value, str):
        return value.replace(PLACEHOLDER, name)
    if isinstance(value, dict):
        return {key: _named(one, name) for key, one in value.items()}
    return value


def _misplaced(table: Sections, variables: Mapping[str, str]) -> list[str]:
    """Return the keys of an environment that are one for the whole service."""
    keys = table.get("daemon", {})
    said = [
        key
        for key in COMMON
        if (isinstance(keys, dict) and key in keys) or f"{ENVIRONMENT_PREFIX}DAEMON__{key.upper()}" in variables
    ]
    faults = [f"daemon.{key} is one for the whole service; set it in the section [daemon] of the file" for key in said]
    whole = [section for section in WHOLE if section in table or _set_by(variables, section)]
    return faults + [
        f"the section [{section}] is one for the whole service; set it in the file itself" for section in whole
    ]


def _set_by(variables: Mapping[str, str], section: str) -> bool:
    return any(name.startswith(f"{ENVIRONMENT_PREFIX}{section.upper()}__") for name in variables)


def _collisions(configs: Mapping[str, Config]) -> list[str]:
    """Return what two environments may not have in common."""
    held: dict[str, tuple[str, str]] = {}
    problems = []
    for name, config in configs.items():
        keys = {"storage.mirror": config.database_url(config.storage.mirror)}
        keys["storage.journal"] = config.database_url(config.storage.journal)
        if config.dataverse.auth == "device_code" and config.dataverse.sign_in_cache != "memory":
            keys["dataverse.sign_in_cache_file"] = str(config.resolve(config.dataverse.sign_in_cache_file))
        if config.daemon.ping:
            keys["daemon.ping"] = config.daemon.ping
        for key, value in keys.items():
            other, its = held.setdefault(value, (name, key))
            if other != name:
                problems.append(
                    f"{key} of environment {name} is {its} of environment {other}: "
                    f"give each its own, or write {PLACEHOLDER} where the name belongs"
                )
    return problems


def _faults_of_names(named: object) -> list[str]:
    if not isinstance(named, dict):
        return [f"{SECTION} must hold a table for each environment, such as [environments.east.dataverse]"]
    return [fault for name, table in named.items() if (fault := _fault_of(name, table))]


def _fault_of(name: str, table: object) -> str:
    if not NAME.fullmatch(name):
        return f"environment {name!r}: a name has small letters, digits, and between them - or _ (not two), 63 at most"
    if not isinstance(table, dict):
        return f"environment {name} must be a table of sections, such as [environments.{name}.dataverse]"
    return ""


def _spelled(name: str) -> str:
    """Return a name as variables spell it: there is no hyphen in them."""
    return name.lower().replace("-", "_")


def _rewritten(own: Mapping[str, str], prefix: str, name: str) -> dict[str, str]:
    """Return the variables of an environment as those of a file that has no other."""
    parts = {variable: variable.removeprefix(prefix).partition("__") for variable in own}
    mine = {variable: rest for variable, (whose, _, rest) in parts.items() if _spelled(whose) == _spelled(name)}
    return {f"{ENVIRONMENT_PREFIX}{rest}": own[variable] for variable, rest in mine.items()}


def _unknown_variables(own: Mapping[str, str], prefix: str, tables: Mapping[str, object]) -> list[str]:
    known = {_spelled(name) for name in tables}
    problems = []
    for variable in sorted(own):
        whose, _, rest = variable.removeprefix(prefix).partition("__")
        if _spelled(whose) not in known:
            close = difflib.get_close_matches(_spelled(whose), known, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            has = f"the file has {counted(len(known), 'environment')}"
            problems.append(f"{variable}: there is no environment {whose.lower()}{meant}; {has}")
        elif "__" not in rest:
            problems.append(f"{variable} names no section and key")
    return problems
