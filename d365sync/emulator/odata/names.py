"""Columns as query options name them.

Pure.
"""

from __future__ import annotations

from d365sync.emulator.facts import TableFacts
from d365sync.emulator.refuse import no_property


def named_column(name: str, facts: TableFacts) -> str:
    """Return the logical name of the column behind a property's name.

    Raises:
        Refusal: the table has no such property.
    """
    logical = facts.properties.get(name)
    if logical is None:
        raise no_property(name, facts.name)
    return logical
