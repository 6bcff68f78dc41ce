"""When cycles are due: every so often, or by a cron expression in a zone; what was missed is made up for once.

A schedule is a set of instants; the loop keeps only the next one. Environments share a schedule without starting at the
same second: each is shifted by a part of the jitter that is always the same for its name; intervals keep their length.

Around changes of the clocks a fixed time of day comes exactly once, as Debian's cron has it: at the first valid minute
after a gap, and at the first of two equal times; expressions with ``*`` for minute or hour follow real time.

Source: crontab(5) and cron(8) of Debian, which cronsim follows; systemd.timer(5) (FixedRandomDelaySec) for the shift.

Pure.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass

from cronsim import CronSim, CronSimError

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
NOTHING = dt.timedelta(0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The instants at which cycles are due: multiples of ``every`` since 1970 in UTC, or those of ``cron`` in ``zone``.

    ``shift`` is added to each. Exactly one of ``every`` and ``cron`` says something.
    """

    every: dt.timedelta = NOTHING
    cron: str = ""
    zone: dt.tzinfo = dt.UTC
    shift: dt.timedelta = NOTHING

    def due_after(self, instant: dt.datetime) -> dt.datetime:
        """Return the first due instant strictly after another, in UTC."""
        base = instant.astimezone(dt.UTC) - self.shift
        if self.cron:
            return self._cron_after(base) + self.shift
        return EPOCH + ((base - EPOCH) // self.every + 1) * self.every + self.shift

    def first(self, last: dt.datetime | None, now: dt.datetime) -> dt.datetime:
        """Return when the first cycle of a new process is due; ``last`` is when one began before, None if never.

        By interval that is now. By cron it is the next time, or now if one was missed since ``last``.
        """
        if not self.cron:
            return now
        missed = last is not None and last < now and self.due_after(last) <= now
        return now if missed else self.due_after(now)

    def planned(self, next_at: dt.datetime, now: dt.datetime) -> dt.datetime:
        """Return the next due instant as it is planned now: as it was, or earlier if the clock was set back."""
        return min(next_at, self.due_after(now))

    def _cron_after(self, base: dt.datetime) -> dt.datetime:
        for found in CronSim(self.cron, base.astimezone(self.zone)):
            at = found.astimezone(dt.UTC)
            if at > base:  # within the hour that comes twice, a fixed time of its first run may still come up
                return at
        raise ValueError(f"{self.cron!r} never comes")


def shift_of(name: str, jitter: dt.timedelta) -> dt.timedelta:
    """Return the part of the jitter that belongs to a name: from nothing up to less than all of it, in seconds."""
    seconds = int(jitter.total_seconds())
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return dt.timedelta(seconds=number % seconds if seconds else 0)


def check_cron(expression: str) -> None:
    """Accept a cron expression of five fields.

    Raises:
        ValueError: it is none; says which field is wrong.
    """
    if len(expression.split()) != 5:
        raise ValueError('must be a cron expression of five fields, such as "*/5 * * * *"')
    try:
        CronSim(expression, EPOCH)
    except CronSimError as error:
        raise ValueError(f"is no cron expression: {str(error)[:1].lower()}{str(error)[1:]}") from None


def in_words(schedule: Schedule) -> str:
    """Say when cycles are due: ``every 5 min``, or what the cron expression means and in which zone."""
    if schedule.cron:
        meaning = CronSim(schedule.cron, EPOCH).explain()
        return f"{meaning[:1].lower()}{meaning[1:]} ({schedule.zone})"
    seconds = int(schedule.every.total_seconds())
    size, unit = next(
        (size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")) if not seconds % size
    )
    return f"every {seconds // size} {unit}"


BACK_OFF_FIRST = dt.timedelta(minutes=1)
BACK_OFF_LONGEST = dt.timedelta(minutes=15)


def back_off(failures: int, asked: dt.timedelta = NOTHING) -> dt.timedelta:
    """Return how long to rest after so many failures in a row (from 1): 1, 2, 4, 8, then always 15 minutes.

    ``asked`` is how long the remote asked to wait; it is waited for if it is longer.
    """
    longest = BACK_OFF_LONGEST // BACK_OFF_FIRST
    times = 2 ** (failures - 1) if failures <= longest else longest
    return max(BACK_OFF_FIRST * min(times, longest), asked)
