"""Logging: events with keys on stderr, for people on a terminal, as JSON lines otherwise; secrets never.

Secrets are hidden by value: whatever was resolved from a secret reference is replaced wherever it would show. Access
tokens are hidden by their shape.

IO: stderr.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

HIDDEN = "***"
SHORTEST_HIDDEN = 4
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


def configure(*, level: int, tty: bool) -> None:
    """Set up logging for one process."""
    structlog.configure(
        processors=processors(tty=tty),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)


def processors(*, tty: bool) -> list[Any]:
    """Return what an event passes on its way to the log; the last makes it text."""
    renderer: Any = structlog.dev.ConsoleRenderer() if tty else structlog.processors.JSONRenderer()
    as_document = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if tty else structlog.processors.ExceptionRenderer(as_document),
        _redact_event,
        renderer,
    ]


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
