"""What every command starts from: where the configuration is, which instant counts as now, and how much is logged.

IO: files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datetime as dt

    from d365sync.app import App
    from d365sync.config import Config


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options, and the process's environment and folder."""

    config_path: str | None
    now: dt.datetime | None
    environ: Mapping[str, str] = field(repr=False)
    folder: Path
    verbose: bool = False
    debug: bool = False
    environment: str | None = None

    def load(self) -> Config:
        """Read the configuration of the environment named, or of the only one.

        Raises:
            ConfigError: none, unreadable, or wrong; or it is not clear which environment is meant.
        """
        from d365sync.service.environments import chosen

        return chosen(self.load_all(), self.environment)

    def load_all(self, *, service: bool = False, as_json: bool = False) -> dict[str, Config]:
        """Find and read the configuration; logging starts here too, which help and completion do not need.

        A ``service`` logs what becomes of it and its environments; each table and goal only if told to. ``as_json`` is
        for logs on a terminal; elsewhere they always are.

        Raises:
            ConfigError: none, unreadable, or wrong.
        """
        import logging

        from d365sync import logs
        from d365sync.config import find_file
        from d365sync.service.environments import load_all

        level = logging.DEBUG if self.debug else logging.INFO if self.verbose or service else logging.WARNING
        only = logs.OF_THE_SERVICE if service and not (self.verbose or self.debug) else ()
        logs.configure(level=level, tty=sys.stderr.isatty() and not as_json, only=only)
        configs = load_all(find_file(self.config_path, self.environ, self.folder), self.environ)
        if service:
            self._log_as(next(iter(configs.values())), as_json=as_json)
        return configs

    def _log_as(self, config: Config, *, as_json: bool) -> None:
        """Log as the section [logging] says, for the service; --verbose, --debug and ``as_json`` go before it.

        Raises:
            ConfigError: the log cannot be written.
        """
        import logging

        from d365sync import logs
        from d365sync.config_seeing import LEVELS

        section = config.logging
        level = logging.DEBUG if self.debug else logging.INFO if self.verbose else LEVELS[section.level]
        in_short = level == logging.INFO and not self.verbose
        file = None
        if section.file:
            file = logs.LogFile(config.resolve(section.file), section.size_mb * 1_000_000, section.backups)
        people = section.format == "human" or (section.format == "auto" and file is None and sys.stderr.isatty())
        people = people and not as_json
        logs.configure(level=level, tty=people, file=file, only=logs.OF_THE_SERVICE if in_short else ())

    @property
    def clock(self) -> Callable[[], dt.datetime]:
        """The clock: the system's, or one that stands at ``--now``."""
        from d365sync.app import system_clock

        now = self.now
        return system_clock if now is None else lambda: now

    @property
    def say(self) -> Callable[[str], None] | None:
        """What shows a message to a person who can act on it now; None when nobody is at a terminal."""
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        import click

        return lambda message: click.echo(message, err=True)

    @contextmanager
    def app(self, config: Config | None = None, **options: Any) -> Iterator[App]:
        """Build the application of the configuration, and close it at the end."""
        from d365sync.app import opened

        with opened(config or self.load(), clock=self.clock, environ=self.environ, say=self.say, **options) as app:
            yield app
