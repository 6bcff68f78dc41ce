"""How hard the properties try: ``D365SYNC_TEST_EFFORT`` times as many examples, other ones in each run above 1."""

from __future__ import annotations

import os

EFFORT = float(os.environ.get("D365SYNC_TEST_EFFORT", "1"))
SAME_EACH_RUN = EFFORT <= 1


def examples(count: int) -> int:
    """Return how many examples a property tries that tries ``count`` by default."""
    return max(1, int(count * EFFORT))
