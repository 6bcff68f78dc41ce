"""The day's requests: an estimate of what this installation took from the tenant's daily allowance.

Counted are the cycles that the journal remembers; the commands that keep no run (doctor, parity, probe) are not.
Application users draw on a pool of the whole tenant, which other programs share. Parts of a batch and records of a bulk
call count each. Source: Requests limits and allocations (500,000 at least with Dynamics 365 Enterprise or Professional,
and 5,000 more for each licence up to 10,000,000; 25,000 with Power Apps or Power Automate alone).

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Entitlement:
    """Requests that counted in the last 24 hours; ``allowed`` and ``warn_pct`` are the configuration's."""

    used: int
    allowed: int
    warn_pct: int

    @property
    def used_pct(self) -> float:
        """The share that is used, in percent, to a tenth."""
        return round(100 * self.used / self.allowed, 1)

    @property
    def is_near(self) -> bool:
        """Whether the share from which to warn is reached."""
        return 100 * self.used >= self.warn_pct * self.allowed


def entitlement_of(counts: Iterable[Mapping[str, int]], allowed: int, warn_pct: int) -> Entitlement:
    """Add up the counts of the cycles of 24 hours; cycles of older versions counted requests alone."""
    return Entitlement(sum(one.get("operations", one.get("requests", 0)) for one in counts), allowed, warn_pct)
