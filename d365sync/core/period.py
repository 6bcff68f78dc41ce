"""Days and instants: a goal's period in one stated zone.

A goal's period is whole days, both ends included. Columns with a time are compared with the half-open pair of
instants at which those days begin and end in the zone; each instant is converted on its own, since a local day can
have 23 or 25 hours.

Pure.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

INSTANT = dt.timedelta(seconds=1)
"""The least distance of two stored instants: columns with a time keep whole seconds."""


@dataclass(frozen=True, slots=True)
class DaySpan:
    """Calendar days from ``first_on`` to ``last_on``, both included; empty when they are reversed.

    With ``whole_last_day`` False, columns with a time count on the last day only at its first instant.
    """

    first_on: dt.date
    last_on: dt.date
    whole_last_day: bool = True

    def instants(self, zone: ZoneInfo) -> tuple[dt.datetime, dt.datetime]:
        """Return the half-open instants ``[start of first_on, start of the day after last_on)``, in UTC."""
        if not self.whole_last_day:
            return start_of_day(self.first_on, zone), start_of_day(self.last_on, zone) + INSTANT
        return start_of_day(self.first_on, zone), start_of_day(self.last_on + dt.timedelta(days=1), zone)

    def wall_clock(self) -> tuple[dt.datetime, dt.datetime]:
        """Return the same bounds as wall-clock time, tagged UTC, for TimeZoneIndependent columns."""
        return self.instants(ZoneInfo("UTC"))

    @property
    def days(self) -> int:
        """Number of days in the span, 0 when it is empty."""
        return max(0, (self.last_on - self.first_on).days + 1)

    def __contains__(self, day: dt.date) -> bool:
        return self.first_on <= day <= self.last_on


def start_of_day(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    """Return the instant at which a day begins in a zone, in UTC.

    Where clocks skip midnight, the day begins at the moment of the change.
    """
    return dt.datetime.combine(day, dt.time(), tzinfo=zone).astimezone(dt.UTC)


def day_of(instant: dt.datetime, zone: ZoneInfo) -> dt.date:
    """Return the calendar day of an instant in a zone.

    Raises:
        ValueError: ``instant`` has no zone.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant needs a zone")
    return instant.astimezone(zone).date()


def is_midnight(instant: dt.datetime, zone: ZoneInfo) -> bool:
    """Say whether an instant is the start of a day in the zone (a goal bound written there would be)."""
    return start_of_day(day_of(instant, zone), zone) == instant
