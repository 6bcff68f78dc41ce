"""The section ``[daemon]``: when cycles are due, how many run at once, how the service stops, and whom it tells.

Pure.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from d365sync.config_rules import Duration, OptionalZoneName, RuleSection
from d365sync.core.schedule import Schedule, check_cron, shift_of


def _cron(value: str) -> str:
    if value:
        check_cron(value)
    return value


def _address(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("must be an address that begins with https:// (or http://)")
    if parts.query or parts.fragment:
        raise ValueError("must be an address without ? and #: /start and /fail are put behind it")
    return value.rstrip("/")


def _listen(value: str) -> str:
    try:
        parts = urlsplit(f"//{value}")
        usable = bool(parts.hostname) and parts.port is not None and not (parts.path or parts.query or parts.username)
    except ValueError:
        usable = False
    if value and not usable:
        raise ValueError("must be a host and a port such as 127.0.0.1:8365, or empty")
    return value


COMMON = ("listen", "at_once", "stop_within", "queue")
"""Keys that are one for the whole service: an environment cannot have its own."""


class DaemonSection(RuleSection):
    """The service. ``cron``, if it is set, goes before ``every``; ``ping`` is told of each cycle's begin and end.

    ``queue`` is the PostgreSQL database by which machines share environments; without one, this machine runs them all.
    """

    every: Annotated[Duration, Field(ge=1)] = 300
    cron: Annotated[str, AfterValidator(_cron)] = ""
    time_zone: OptionalZoneName = ""
    jitter: Duration = 0
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    stop_within: Annotated[Duration, Field(ge=1)] = 8
    ping: Annotated[str, AfterValidator(_address)] = ""
    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8365"
    queue: str = ""

    @model_validator(mode="after")
    def _jitter_is_part_of_the_interval(self) -> DaemonSection:
        if not self.cron and self.jitter > self.every:
            raise ValueError("jitter cannot be longer than every: cycles are spread within an interval")
        return self

    def schedule(self, name: str, zone: dt.tzinfo) -> Schedule:
        """Return when the cycles of an environment are due; ``zone`` is that of its goals' days."""
        from zoneinfo import ZoneInfo

        return Schedule(
            every=dt.timedelta(seconds=self.every),
            cron=self.cron,
            zone=ZoneInfo(self.time_zone) if self.time_zone else zone,
            shift=shift_of(name, dt.timedelta(seconds=self.jitter)),
        )
