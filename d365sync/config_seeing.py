"""The sections by which the service is seen from outside: ``[health]``, ``[logging]`` and ``[telemetry]``.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from d365sync.config_rules import RuleSection

WHOLE = ("health", "logging", "telemetry")
"""The sections here are one for the whole service: an environment cannot have its own."""
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""As the standard library numbers them."""


def _host(value: str) -> str:
    if not value or urlsplit(f"//{value}").hostname != value.lower():
        raise ValueError("must be host names or addresses, without a port")
    return value.lower()


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("must be an address that begins with https:// (or http://)")
    return value


class HealthSection(RuleSection):
    """Health checks and metrics; where they listen is ``daemon.listen``.

    ``hosts`` are the names it is known by besides those of this machine; ``token`` is a secret without which metrics
    and details are not told.
    """

    hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    token: str = ""


class LoggingSection(RuleSection):
    """How the service logs; other commands log to stderr, as -v and --debug say.

    Without a ``file`` the log goes to stderr. ``size_mb`` and ``backups`` are for a file: it begins anew at that size,
    and so many older ones are kept.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "human", "json"] = "auto"
    file: str = ""
    size_mb: Annotated[int, Field(ge=1, le=2000)] = 10
    backups: Annotated[int, Field(ge=0, le=100)] = 5


class TelemetrySection(RuleSection):
    """Spans, by OTLP over HTTP; off without an ``endpoint``. ``headers`` are sent with them: secrets, by reference."""

    endpoint: Annotated[str, AfterValidator(_endpoint)] = ""
    service_name: str = "d365sync"
    headers: Mapping[str, str] = {}
