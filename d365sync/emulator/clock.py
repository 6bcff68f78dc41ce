"""The emulator's clock: real time, or one instant until told otherwise.

The emulator is an edge of the product, so unlike the core it may read the clock; this is the one place.

IO: system clock.
"""

from __future__ import annotations

import datetime as dt
import time


class Clock:
    """Tells the time; frozen at an instant when one is given."""

    def __init__(self, frozen_at: dt.datetime | None = None) -> None:
        self._frozen_at = frozen_at

    def now(self) -> dt.datetime:
        """Return the instant in UTC, to the second."""
        return self.exactly().replace(microsecond=0)

    def exactly(self) -> dt.datetime:
        """Return the instant in UTC, with parts of seconds."""
        return (self._frozen_at or dt.datetime.now(dt.UTC)).astimezone(dt.UTC)

    def outside(self) -> dt.datetime:
        """Return the instant in UTC by everybody else's clock, to the second."""
        return dt.datetime.now(dt.UTC).replace(microsecond=0)

    def passing_s(self) -> float:
        """Return seconds from some beginning that pass even while the clock is frozen."""
        return time.monotonic()

    @property
    def frozen(self) -> bool:
        """Whether it stands still until told otherwise."""
        return self._frozen_at is not None

    def freeze(self, at: dt.datetime) -> None:
        """Stand still at ``at``, an aware instant."""
        self._frozen_at = at

    def advance(self, by: dt.timedelta) -> None:
        """Move on and stand still there."""
        self._frozen_at = self.exactly() + by
