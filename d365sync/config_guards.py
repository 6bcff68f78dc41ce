"""The section ``[guards]``: when a cycle is stopped before its first write.

Pure.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from d365sync.core.goals.guards import GuardName, GuardRules


def _listed(value: object) -> object:
    """Read names that a comma parts, as an environment variable has them."""
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


Count = Annotated[int, Field(ge=1)]
Percent = Annotated[int, Field(ge=0)]


class GuardsSection(BaseModel):
    """When a cycle is stopped before its first write; see :mod:`d365sync.core.goals.guards` for what each guard sees.

    ``plans`` is the folder for the plans of refused runs, empty for the journal's (or the configuration's).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    off: Annotated[tuple[GuardName, ...], BeforeValidator(_listed)] = ()
    deletions_rows: Annotated[int, Field(ge=0)] = 50
    deletions_percent: Percent = 50
    deletions_at_most: Annotated[int, Field(ge=0)] = 10_000
    emptied_rows: Count = 10
    changes_goals: Count = 50
    changes_percent: Percent = 80
    zeroed_goals: Count = 10
    zeroed_percent: Percent = 20
    jumps_goals: Count = 10
    jumps_percent: Percent = 20
    jumps_factor: Annotated[int, Field(ge=2)] = 10
    totals_goals: Count = 20
    totals_percent: Percent = 50
    negative_goals: Count = 5
    negative_percent: Percent = 5
    plans: str = ""

    @property
    def rules(self) -> GuardRules:
        """The section as the guards take it."""
        limits = {one.name: getattr(self, one.name) for one in fields(GuardRules) if one.name != "off"}
        return GuardRules(off=frozenset(self.off), **limits)
