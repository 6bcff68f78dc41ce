"""Logging: events with keys on stderr, for people on a terminal, as JSON lines otherwise; secrets never.

Secrets are hidden by value: whatever was resolved from a secret reference is replaced wherever it would show. Access
tokens are hidden by their shape.

IO: stderr.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import structlog
import structlog.stdlib

from d365sync.errors import ConfigError

HIDDEN = "***"
SHORTEST_HIDDEN = 4
LINE = "d365sync_line"
"""The attribute of a log record that is one of our own lines."""
TOKEN = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(\.[\w-]*)?")
"""A JSON Web Token, also without its signature. Source: RFC 7519."""
_secrets: set[str] = set()


def hide(secret: str) -> None:
    """Keep a value out of every log line and error from now on (values under 4 characters cannot be)."""
    if len(secret) >= SHORTEST_HIDDEN:
        _secrets.add(secret)


def redact(text: str) -> str:
    """Replace every hidden value, and every token, in a text."""
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    return TOKEN.sub(HIDDEN, text)


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log in a file of mode 0600: begun anew at ``most_bytes``, with so many older ones kept beside it.

    One process may write to it.
    """

    path: Path
    most_bytes: int = 10_000_000
    backups: int = 5


OF_THE_SERVICE = ("service.", "environment.", "configuration.", "cycle.", "lease.", "ping.", "job.")
"""What the names of events begin with that tell what becomes of the service, once per change or cycle."""


def configure(*, level: int, tty: bool, file: LogFile | None = None, only: tuple[str, ...] = ()) -> None:
    """Set up logging for one process: on stderr, or in a file; ``tty`` means for people, otherwise as JSON lines.

    What other packages log (warnings and worse) becomes events like our own, and hides the same. With ``only``, events
    that are no warnings are logged if their names begin with one of these.

    Raises:
        ConfigError: the file cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if file is None else _opened(file)
    structlog.configure(
        processors=[*([_Only(only)] if only else []), *processors(tty=tty)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr)
        if file is None
        else lambda *_arguments: _FileLogger(handler),
        cache_logger_on_first_use=False,
    )
    handler.setFormatter(LineFormatter(processors=[LineFormatter.remove_processors_meta, *processors(tty=tty)]))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def processors(*, tty: bool) -> list[Any]:
    """Return what an event passes on its way to the log; the last makes it text."""
    renderer: Any = structlog.dev.ConsoleRenderer() if tty else structlog.processors.JSONRenderer(ensure_ascii=False)
    as_document = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if tty else structlog.processors.ExceptionRenderer(as_document),
        _redact_event,
        renderer,
    ]


class _Only:
    """Drops events that are no warnings, but for those whose names begin in certain ways."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        self._beginnings = beginnings

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method in ("debug", "info") and not str(event.get("event", "")).startswith(self._beginnings):
            raise structlog.DropEvent
        return event


class _PrivateRotatingFile(RotatingFileHandler):
    """A rotating log that its user alone may read."""

    def _open(self) -> Any:
        return open(
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda path, flags: os.open(path, flags, 0o600),
        )


def _opened(file: LogFile) -> logging.Handler:
    try:
        file.path.parent.mkdir(parents=True, exist_ok=True)
        return _PrivateRotatingFile(
            file.path, maxBytes=file.most_bytes, backupCount=file.backups, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise ConfigError(
            f"the log {file.path} cannot be written: {error.strerror}", hint="set logging.file, or its folder's rights"
        ) from None


class LineFormatter(structlog.stdlib.ProcessorFormatter):
    """Makes lines of what others log; our own are lines already."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: str | None = record.__dict__.get(LINE)
        return super().format(record) if line is None else line


class _FileLogger:
    """Writes our events by a handler."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler

    def msg(self, line: str) -> None:
        """Write one line; rotate before, where it is time."""
        self._handler.handle(logging.makeLogRecord({LINE: line}))

    log = debug = info = warn = warning = error = err = critical = fatal = exception = msg


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _redact_value(value)
    return event


def _redact_value(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redact_value(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(one) for one in value]
    return value
