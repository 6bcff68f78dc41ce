"""The write modes by name, as the configuration, the journal and saved plans spell them.

Pure.
"""

from __future__ import annotations

PLAN = "plan"
OVERRIDE = "override"
COLUMNS = "columns"
RECALCULATE = "recalculate"
