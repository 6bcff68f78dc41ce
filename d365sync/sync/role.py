"""The role that d365sync needs: privileges and depths by write mode, and what a user has beyond that.

The role is a list that an administrator, or whoever puts a role into a solution, can work through; the same list is
what a check compares with what the user has.

Source: Security roles and privileges; Manage application users; PrivilegeDepth.

Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from d365sync.core.goals.book import BOOK_COLUMNS
from d365sync.core.goals.modes import COLUMNS, OVERRIDE, PLAN, RECALCULATE
from d365sync.dataverse.wire import ACT_ON_BEHALF
from d365sync.sync.access import EVERYTHING, Held, reading

MODES = (PLAN, OVERRIDE, COLUMNS, RECALCULATE)
READS_OF_DEFINITIONS = ("prvReadEntity", "prvReadAttribute", "prvReadRelationship")
"""Assumed: definitions expanded with relationships need the last one too."""
WRITES_OF_GOALS = "prvWriteGoal"
USUAL_SOURCES = (
    "opportunity",
    "opportunityproduct",
    "quote",
    "quotedetail",
    "salesorder",
    "salesorderdetail",
    "invoice",
    "invoicedetail",
    "lead",
    "phonecall",
)
"""Tables that goals usually count; a role needs those that the organization's own goals count."""
SPELLED = {
    "prvReadGoalrollupquery": "prvReadGoalRollupQuery",
    "prvReadTransactioncurrency": "prvReadTransactionCurrency",
}
"""Privileges that have capitals within. Privileges are compared without case; solutions spell them."""
DEPTHS = ("Basic", "Local", "Deep", EVERYTHING)
"""From the user's own rows to everything, as the Web API spells them. Source: PrivilegeDepth."""
ON_SCREEN = {EVERYTHING: "Organization"}
HARMLESS = re.compile(
    r"prv(Read|Export|Flow|Print|GoOffline|Use|Search|QuickFind|MailMerge|DocumentGeneration|WebMailMerge)\w*",
    re.IGNORECASE,
)
"""Privileges that let nobody change anything or act as somebody else; what a basic role brings along."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A privilege that a user has and d365sync does not need; ``needed`` is the depth it needs, empty for none."""

    privilege: str
    depth: str
    needed: str = ""


def needed(mode: str, sources: Iterable[str] = USUAL_SOURCES, *, impersonates: bool = False) -> dict[str, str]:
    """Return the privileges that a write mode needs, by name, with their depths.

    ``sources`` are the tables whose records goals count; ``impersonates`` when what goal managers may read counts.

    Raises:
        KeyError: there is no such mode.
    """
    if mode not in MODES:
        raise KeyError(mode)
    tables = dict.fromkeys((*BOOK_COLUMNS, *sources))
    names = [*READS_OF_DEFINITIONS, *(_reading(table) for table in tables)]
    names += [WRITES_OF_GOALS] if mode != PLAN else []
    names += [ACT_ON_BEHALF] if impersonates else []
    return dict.fromkeys(names, EVERYTHING)


def beyond(held: Held, wanted: Mapping[str, str]) -> tuple[Excess, ...]:
    """Return what a user could do and d365sync does not need, by name; ``held`` are depths by names in lower case.

    Reading more than needed is no excess here: it changes nothing, and every user reads what basic roles give. Nothing
    is excess where privileges are not told (``held`` is empty).
    """
    least = {name.lower(): depth for name, depth in wanted.items()}
    return tuple(
        Excess(name, depth)
        for name, depth in sorted(held.items())
        if name.lower() not in least and not HARMLESS.fullmatch(name)
    )


def missing(held: Held, wanted: Mapping[str, str]) -> tuple[Excess, ...]:
    """Return what is needed and not held, or not deep enough: ``depth`` is what is held, empty for nothing."""
    have = {name.lower(): depth for name, depth in held.items()}
    return tuple(
        Excess(name, have.get(name.lower(), ""), depth)
        for name, depth in wanted.items()
        if _rank(have.get(name.lower(), "")) < _rank(depth)
    )


def document() -> str:
    """Return the list as it is shipped: JSON, by write mode."""
    roles = {mode: [{"privilege": name, "depth": depth} for name, depth in needed(mode, ()).items()] for mode in MODES}
    whole = {
        "role": "d365sync",
        "depths": ON_SCREEN,
        "modes": roles,
        "sources": {table: {"privilege": _reading(table), "depth": EVERYTHING} for table in USUAL_SOURCES},
        "visibility_manager": [{"privilege": ACT_ON_BEHALF, "depth": EVERYTHING, "assigned": "directly, by no team"}],
    }
    return json.dumps(whole, indent=2) + "\n"


def _reading(table: str) -> str:
    name = reading(table)
    return SPELLED.get(name, name)


def _rank(depth: str) -> int:
    return DEPTHS.index(depth) if depth in DEPTHS else -1


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201 - `make docs` keeps the shipped list
