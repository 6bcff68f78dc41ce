"""The bounds the platform writes on a goal with a fiscal period.

Pure.
"""

from __future__ import annotations

import datetime as dt

from d365sync.core.fiscal import FiscalCalendar
from d365sync.emulator.refuse import invalid
from d365sync.emulator.store import Store


def fiscal_bounds(store: Store, year: int, period: int) -> tuple[dt.datetime, dt.datetime]:
    """Return the midnights, in the rollup's zone, that begin the first and the last day of a fiscal period.

    Assumed: the platform fills both columns of a fiscal goal, and reads the organization's start in that zone.

    Raises:
        Refusal: the calendar has no such period.
    """
    zone = store.settings.rollup_time_zone
    begins = store.only("organization").get("fiscalcalendarstart")
    day = begins.astimezone(zone) if isinstance(begins, dt.datetime) else dt.datetime(year, 1, 1, tzinfo=zone)
    try:
        days = FiscalCalendar(day.month, day.day).period_bounds(year, period)
    except ValueError as error:
        raise invalid(f"The fiscal period is not valid: {error}.") from error
    first, last = (dt.datetime(one.year, one.month, one.day, tzinfo=zone).astimezone(dt.UTC) for one in days)
    return first, last
