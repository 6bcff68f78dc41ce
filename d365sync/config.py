"""The configuration: TOML plus environment, validated as a whole, every fault reported at once.

Each key is also an environment variable, ``D365SYNC_SECTION__KEY``, which wins over the file. Unknown keys are
faults, with a suggestion. Relative paths are relative to the file.

IO: files, environment.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from d365sync.config_daemon import DaemonSection
from d365sync.config_guards import GuardsSection
from d365sync.config_rules import (
    Duration,
    FetchxmlSection,
    FiscalSection,
    OptionalZoneName,
    OwnColumnNames,
    ZoneName,
)
from d365sync.config_seeing import HealthSection, LoggingSection, TelemetrySection
from d365sync.core.clouds import cloud_of
from d365sync.core.counts import counted
from d365sync.core.goals.owncolumns import number_columns
from d365sync.core.goals.rollup import ClosedChild, EmptyCategory, NoTarget, OverriddenChild, RollupRules, Rounding
from d365sync.core.goals.rules import Bounds, CallerIs, Hierarchy, ReadingRules
from d365sync.errors import ConfigError

ENVIRONMENT_PREFIX = "D365SYNC_"
FILE_NAME = "d365sync.toml"
DEFAULT_CONFIG = "D365SYNC_CONFIG"

_GUID = r"^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"


def _https(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("must be an address that begins with https://")
    return value.rstrip("/")


def _https_or_empty(value: str) -> str:
    return _https(value) if value else value


HttpsUrl = Annotated[str, AfterValidator(_https)]
OptionalHttpsUrl = Annotated[str, AfterValidator(_https_or_empty)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


NEEDED = {
    "client_secret": ("tenant_id", "client_id", "client_secret"),
    "certificate": ("tenant_id", "client_id", "certificate"),
    "managed_identity": (),
    "device_code": ("tenant_id", "client_id"),
}
"""What each way of signing in needs; an authority names the tenant itself."""


class DataverseSection(_Section):
    """Where the organization is and how to sign in."""

    url: HttpsUrl
    tenant_id: str = ""
    client_id: Annotated[str, Field(pattern=f"{_GUID}|^$")] = ""
    auth: Literal["client_secret", "certificate", "managed_identity", "device_code"] = "client_secret"
    client_secret: str = ""
    certificate: str = ""
    certificate_password: str = ""
    certificate_chain: bool = False
    sign_in_cache: Literal["encrypted", "file", "memory"] = "encrypted"
    sign_in_cache_file: str = "sign-in.cache"
    cloud: Literal["", "public", "gcc", "gcc_high", "dod", "china"] = ""
    authority: OptionalHttpsUrl = ""
    resource: OptionalHttpsUrl = ""
    api_version: Annotated[str, Field(pattern=r"^v9\.[0-9]$")] = "v9.2"
    ca_bundle: str = ""
    page_size: Annotated[int, Field(ge=1, le=5000)] = 5000
    timeout: Duration = 120
    retry_budget: Duration = 360
    concurrency: Annotated[int, Field(ge=0, le=24)] = 0
    proxy: Annotated[str, Field(pattern=r"^(https?://[^\s/]+/?)?$")] = ""
    daily_requests: Annotated[int, Field(ge=1)] = 500_000
    daily_warning_pct: Annotated[int, Field(ge=1, le=100)] = 50

    @model_validator(mode="after")
    def _has_what_its_auth_needs(self) -> DataverseSection:
        needed = [key for key in NEEDED[self.auth] if not getattr(self, key)]
        if self.authority:
            needed = [key for key in needed if key != "tenant_id"]
        if needed:
            raise ValueError(f'auth = "{self.auth}" needs the key {" and the key ".join(needed)}')
        return self

    @model_validator(mode="after")
    def _is_in_the_cloud_it_says(self) -> DataverseSection:
        host = urlsplit(self.url).hostname or ""
        found = cloud_of(host)
        if self.cloud and found and self.cloud != found:
            raise ValueError(f'cloud = "{self.cloud}" does not fit the host {host}, which is in the cloud "{found}"')
        if self.cloud and self.authority:
            raise ValueError("cloud and authority exclude each other: both say where to sign in")
        return self

    @property
    def token_resource(self) -> str:
        """What access tokens are for: as configured, else the address without its path."""
        parts = urlsplit(self.url)
        return self.resource or f"{parts.scheme}://{parts.netloc}"


class StorageSection(_Section):
    """Where the mirror (disposable) and the journal (not disposable) are kept.

    ``keep`` is for how long runs and writes stay in the journal; 0 keeps all.
    """

    mirror: str = "sqlite:///mirror.db"
    journal: str = "sqlite:///journal.db"
    keep: Duration = 400 * 86400


class PullSection(_Section):
    """How tables are read.

    ``tables`` at once, and ``partitions`` of one large table at its first load (1: page after page).
    """

    tables: Annotated[int, Field(ge=1, le=16)] = 4
    partitions: Annotated[int, Field(ge=1, le=32)] = 8
    shared_token: bool = True
    reread_up_to: Annotated[int, Field(ge=0)] = 1000
    overlap: Duration = 600
    sweep_every: Duration = 3600


class WritebackSection(_Section):
    """Whether and how results are written to the goals.

    ``columns`` says which of our numbers goes into which column of the organization's own (mode columns). In mode
    recalculate the platform rolls up so many trees in a cycle at most, with a pause between two.
    """

    mode: Literal["plan", "override", "columns", "recalculate"] = "plan"
    batch_size: Annotated[int, Field(ge=1, le=1000)] = 1000
    columns: OwnColumnNames = Field(default_factory=dict)
    recalculate_at_most: Annotated[int, Field(ge=1, le=1000)] = 10
    recalculate_pause: Duration = 10

    @model_validator(mode="after")
    def _has_columns_to_write(self) -> WritebackSection:
        if self.mode == "columns" and not number_columns(self.columns):
            raise ValueError('mode = "columns" needs the columns to write, such as columns.actualmoney = "new_actual"')
        return self


class RollupSection(_Section):
    """How goals are computed where the platform leaves a choice."""

    time_zone: ZoneName = "UTC"
    closed_child: ClosedChild = ClosedChild.STORED
    overridden_child: OverriddenChild = OverriddenChild.STORED
    percentage_rounding: Rounding = Rounding.HALF_UP
    visibility: Literal["service", "manager"] = "service"
    visibility_refresh: Duration = 3600
    percentage_without_target: NoTarget = NoTarget.NULL
    empty_category: EmptyCategory = EmptyCategory.ZERO
    caller: CallerIs = CallerIs.MANAGER
    hierarchy: Hierarchy = Hierarchy.MANAGER
    bounds: Bounds = Bounds.STORED
    bounds_zone: OptionalZoneName = ""
    end_of_day: bool = True
    double_counting: Literal["report", "off"] = "report"

    @property
    def rules(self) -> RollupRules:
        """The rules of adding up."""
        return RollupRules(
            self.closed_child,
            self.overridden_child,
            self.percentage_rounding,
            self.empty_category,
            self.percentage_without_target,
        )

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which goal days begin and end."""
        return ZoneInfo(self.time_zone)


class Config(_Section):
    """One frozen configuration. ``folder`` is where relative paths start; ``path`` the file, None without one.

    ``environment`` is its name where the file has several, else empty.
    """

    dataverse: DataverseSection
    storage: StorageSection = StorageSection()
    pull: PullSection = PullSection()
    writeback: WritebackSection = WritebackSection()
    guards: GuardsSection = GuardsSection()
    rollup: RollupSection = RollupSection()
    fetchxml: FetchxmlSection = FetchxmlSection()
    fiscal: FiscalSection = FiscalSection()
    daemon: DaemonSection = DaemonSection()
    health: HealthSection = HealthSection()
    logging: LoggingSection = LoggingSection()
    telemetry: TelemetrySection = TelemetrySection()
    folder: Path = Path()
    path: Path | None = None
    environment: str = ""

    def command(self, words: str) -> str:
        """Return a command line for this environment: its name is said where the file has several."""
        return f"d365sync --environment {self.environment} {words}" if self.environment else f"d365sync {words}"

    @property
    def reading(self) -> ReadingRules:
        """The rules by which goals are read."""
        rollup = self.rollup
        return ReadingRules(
            caller=rollup.caller,
            hierarchy=rollup.hierarchy,
            bounds=rollup.bounds,
            end_of_day=rollup.end_of_day,
            bounds_zone=ZoneInfo(rollup.bounds_zone) if rollup.bounds_zone else None,
            fiscal=self.fiscal.rules,
        )

    def secret_references(self) -> Mapping[str, str]:
        """Return where each secret is, by the key that says so; those that are not set are left out."""
        remote = self.dataverse
        found = {
            "dataverse.client_secret": remote.client_secret if remote.auth == "client_secret" else "",
            "dataverse.certificate_password": remote.certificate_password if remote.auth == "certificate" else "",
            "health.token": self.health.token,
            **{f"telemetry.headers.{name}": value for name, value in self.telemetry.headers.items()},
        }
        return {key: reference for key, reference in found.items() if reference}

    def resolve(self, path: str) -> Path:
        """Return a path of the configuration as an absolute one."""
        return (self.folder / Path(path).expanduser()).absolute()

    def database_url(self, url: str) -> str:
        """Return a database URL with a relative SQLite path made absolute."""
        prefix = "sqlite:///"
        return prefix + str(self.resolve(url.removeprefix(prefix))) if url.startswith(prefix) else url

    def database_path(self, url: str) -> Path | None:
        """Return the file of a SQLite database URL, None where it is none."""
        prefix = "sqlite:///"
        name = url.removeprefix(prefix)
        return self.resolve(name) if url.startswith(prefix) and name not in ("", ":memory:") else None


def find_file(explicit: str | None, environ: Mapping[str, str], folder: Path) -> Path:
    """Return the configuration file: the one named, else ``./d365sync.toml``, else the platform's folder.

    Raises:
        ConfigError: the file named is not there, or none is found.
    """
    named = explicit or environ.get(DEFAULT_CONFIG)
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"there is no configuration file {path}", hint="name another with --config, or run `d365sync init`"
            )
        return path
    for path in (folder / FILE_NAME, platform_folder(environ) / FILE_NAME):
        if path.is_file():
            return path
    raise ConfigError(
        f"there is no {FILE_NAME} here or in {platform_folder(environ)}",
        hint="run `d365sync init` to write one, or name it with --config",
    )


def platform_folder(environ: Mapping[str, str]) -> Path:
    """Return the machine's configuration folder: d365sync in ``%ProgramData%``, or ``/etc/d365sync``."""
    if sys.platform == "win32":
        return Path(environ.get("ProgramData", r"C:\ProgramData")) / "d365sync"
    return Path("/etc/d365sync")


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read one configuration file and the environment over it.

    Raises:
        ConfigError: unreadable, not TOML, or anything in it is wrong; lists every fault.
    """
    return parse(read_document(path), environ, folder=path.absolute().parent, path=path)


def read_document(path: Path) -> dict[str, object]:
    """Read a TOML file, whatever it says.

    Raises:
        ConfigError: unreadable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def parse(
    document: Mapping[str, object], environ: Mapping[str, str], *, folder: Path, path: Path | None = None
) -> Config:
    """Validate a configuration document with the environment over it.

    Raises:
        ConfigError: anything in it is wrong; lists every fault.
    """
    merged = {name: dict(value) if isinstance(value, dict) else value for name, value in document.items()}
    problems = merge_variables(merged, environ)
    problems += [unknown(name, _sections()) for name in merged if name not in _sections()]
    known = {name: value for name, value in merged.items() if name in _sections()}
    try:
        config = Config.model_validate({**known, "folder": folder, "path": path})
    except ValidationError as error:
        problems += [_describe(dict(one)) for one in error.errors(include_url=False, include_input=False)]
    if problems:
        raise faulty(path, problems)
    return config


def faulty(path: Path | None, problems: list[str]) -> ConfigError:
    """Return the error for a configuration with faults; it names them all."""
    where = str(path) if path else "the configuration"
    return ConfigError(f"{where} has {counted(len(problems), 'fault')}: {'; '.join(problems)}", problems=problems)


def local_date(now: dt.datetime, zone: ZoneInfo) -> dt.date:
    """Return today's date in a zone."""
    return now.astimezone(zone).date()


def _sections() -> list[str]:
    return [name for name in Config.model_fields if name not in ("folder", "path", "environment")]


def merge_variables(document: dict[str, object], environ: Mapping[str, str]) -> list[str]:
    """Put the variables ``D365SYNC_SECTION__KEY`` over a document; return what is wrong with them."""
    problems: list[str] = []
    for variable, value in sorted(environ.items()):
        section, separator, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not variable.startswith(ENVIRONMENT_PREFIX) or not separator:
            continue
        if section not in _sections():
            problems.append(f"{variable}: {unknown(section, _sections())}")
            continue
        target = document.setdefault(section, {})
        if isinstance(target, dict):
            _set(target, key.split("__"), value)
    return problems


def _set(target: dict[str, object], path: list[str], value: str) -> None:
    """Set a key; a further ``__`` leads into a table within the section."""
    if len(path) == 1:
        target[path[0]] = value
        return
    inner = target.get(path[0])
    copied = dict(inner) if isinstance(inner, dict) else {}
    _set(copied, path[1:], value)
    target[path[0]] = copied


def _describe(error: Mapping[str, object]) -> str:
    location = error["loc"]
    path = [str(part) for part in location] if isinstance(location, tuple) else []
    name = ".".join(path) or "configuration"
    if error["type"] == "extra_forbidden":
        return unknown(name, _keys(path[0])) if path else "unknown key"
    if error["type"] == "missing":
        return f"{name} is missing"
    return f"{name}: {_plain(str(error['msg']))}"


def _keys(section: str) -> list[str]:
    annotation = Config.model_fields[section].annotation if section in Config.model_fields else None
    models = [model for model in (annotation, *get_args(annotation)) if isinstance(model, type)]
    return [f"{section}.{key}" for model in models if issubclass(model, BaseModel) for key in model.model_fields]


MOVED = {"pull.guard_rows": "guards.deletions_rows", "pull.guard_percent": "guards.deletions_percent"}
"""Keys of earlier versions, and what they are called now."""


def unknown(name: str, known: list[str]) -> str:
    """Say that a key is unknown, and which one may be meant."""
    if name in MOVED:
        return f"{name} is called {MOVED[name]} now"
    close = difflib.get_close_matches(name, known, n=1)
    return f"unknown key {name}" + (f" (did you mean {close[0]}?)" if close else "")


def _plain(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return text[0].lower() + text[1:] if text else text
