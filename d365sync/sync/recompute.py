"""Recompute: own parts of the goals whose records changed, kept parts of the others.

A goal's own part is kept with a fingerprint of the very query that gave it (its conditions, bounds and owner). It is
computed again when the fingerprint differs, when one of its records changed (as it is now, or as it was), or when a
change cannot be followed to goals: in a linked table, or in too many rows.

IO: SQL, through the mirror.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import structlog

from d365sync.core.fetchxml.ast import joined_of, quantified_of
from d365sync.core.fetchxml.check import columns_used
from d365sync.core.fetchxml.compile import Predicate
from d365sync.core.fetchxml.context import Context
from d365sync.core.fetchxml.used import rows_followed
from d365sync.core.goals.goal import GoalBook
from d365sync.core.goals.participation import Group, Grouping, owner_span, stored_bounds
from d365sync.core.goals.rollup import OwnPart
from d365sync.core.period import DaySpan
from d365sync.core.problems import Problem
from d365sync.core.schema import Schema
from d365sync.errors import FetchXmlError
from d365sync.mirror.store import Mirror, StoredPart, TableChanges, group_key_text
from d365sync.mirror.sums import group_predicate
from d365sync.mirror.tables import MirrorTable

log = structlog.get_logger(__name__)

MOST_FOLLOWED = 5000
"""Changed rows of a table beyond which everything is computed again: about where following them costs more."""


@dataclass(slots=True)
class Recomputed:
    """Own parts by goal id and column, the goals that were computed now, and the problems met."""

    own: dict[tuple[str, str], OwnPart] = field(default_factory=dict)
    goals: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recomputer:
    """What recomputing needs; ``tables`` are the mirrored tables by logical name."""

    mirror: Mirror
    book: GoalBook
    schema: Schema
    tables: Mapping[str, MirrorTable]
    context: Context
    zone: ZoneInfo

    def recompute(self, grouping: Grouping, *, settle: bool = True) -> Recomputed:
        """Return every goal's own parts, computing what may have changed.

        With ``settle`` the parts are kept and the mirror's changes are done with; only a cycle that pulled may do so.
        """
        result = Recomputed(problems=list(grouping.problems))
        spans = goal_spans(self.book, grouping, self.zone, result.problems)
        changes = {name: self.mirror.changes(table, up_to=MOST_FOLLOWED) for name, table in self.tables.items()}
        kept: dict[str, dict[str, StoredPart]] = {}
        for group in grouping.groups:
            try:
                predicate = group_predicate(group, self.schema, self.context, self.mirror.dialect)
            except FetchXmlError as error:
                result.problems.extend(_unusable(self.book, group, error))
                continue
            bounds = {
                goal_id: bound_of(self.book, group, goal_id, spans[goal_id], self.zone)
                for goal_id in group.goal_ids
                if goal_id in spans
            }
            if settle:
                self.mirror.index(group)
            kept[group_key_text(group)] = self._parts(group, predicate, bounds, changes, result)
        if settle:
            self.mirror.settle(kept)
        return result

    def _parts(
        self,
        group: Group,
        predicate: Predicate,
        bounds: Mapping[str, Mapping[str, str | None]],
        changes: Mapping[str, TableChanges],
        result: Recomputed,
    ) -> dict[str, StoredPart]:
        kept = self.mirror.stored_parts(group_key_text(group))
        definitions = {goal_id: _definition(group, predicate, bound) for goal_id, bound in bounds.items()}
        stale = {
            goal_id for goal_id in bounds if goal_id not in kept or kept[goal_id].definition != definitions[goal_id]
        }
        stale |= self._touched(group, predicate, bounds, changes)
        if stale:
            fresh = self.mirror.own_parts(group, predicate, [bounds[goal_id] for goal_id in sorted(stale)])
            kept |= {goal_id: StoredPart(definitions[goal_id], fresh.get(goal_id, OwnPart(0, 0))) for goal_id in stale}
        result.goals |= stale
        parts = {goal_id: kept[goal_id] for goal_id in bounds}
        result.own.update({(goal_id, group.slot.column): one.part for goal_id, one in parts.items()})
        return parts

    def _touched(
        self,
        group: Group,
        predicate: Predicate,
        bounds: Mapping[str, Mapping[str, str | None]],
        changes: Mapping[str, TableChanges],
    ) -> set[str]:
        """Return the goals of a group that a change may concern."""
        relevant = {
            name: changes[name] for name, columns in self._columns(group).items() if _concerns(changes[name], columns)
        }
        if not relevant:
            return set()
        if set(relevant) != {group.table} or relevant[group.table].everything or self._reaches_itself(group):
            return set(bounds)
        return self.mirror.touched_goals(group, predicate, list(bounds.values()))

    def _reaches_itself(self, group: Group) -> bool:
        """Say whether the group's query reaches rows of its own table: then a changed row may count through another."""
        links = [*joined_of(group.fetch.links), *quantified_of(group.fetch.filter)]
        links += [one for link in links for one in joined_of(link.links)]
        joined = any(link.name == group.table for link in links)
        return joined or group.table in rows_followed(group.fetch, self.schema)

    def _columns(self, group: Group) -> Mapping[str, set[str]]:
        used = {name: set(columns) for name, columns in columns_used(group.fetch, self.schema).items()}
        used.setdefault(group.table, set()).update(one.logical_name for one in (group.value, group.base) if one)
        return used


def goal_spans(book: GoalBook, grouping: Grouping, zone: ZoneInfo, problems: list[Problem]) -> dict[str, DaySpan]:
    """Return the days of every grouped goal; a goal without a usable period gets a problem instead."""
    spans: dict[str, DaySpan] = {}
    for goal_id in sorted({goal_id for group in grouping.groups for goal_id in group.goal_ids}):
        goal = book.goals[goal_id]
        try:
            spans[goal_id] = owner_span(goal, book, zone)
        except (ValueError, OverflowError) as error:
            problems.append(Problem("goal-period", f"'{goal.title}' has no usable period: {error}", goal_id))
    return spans


def bound_of(book: GoalBook, group: Group, goal_id: str, span: DaySpan, zone: ZoneInfo) -> Mapping[str, str | None]:
    """Return one goal's values of the group's placeholders, in stored spelling."""
    owner = book.goals[goal_id].owner_id if group.owned else None
    return {**stored_bounds(span, zone), "goal_id": goal_id, "owner": owner}


def _concerns(changes: TableChanges, columns: set[str]) -> bool:
    return changes.everything or bool(changes.columns & columns)


def _definition(group: Group, predicate: Predicate, bound: Mapping[str, str | None]) -> str:
    summed = [one.logical_name if one else None for one in (group.value, group.base)]
    parts: Sequence[object] = [
        group.table,
        summed,
        predicate.sql,
        sorted(predicate.parameters.items()),
        sorted(bound.items(), key=str),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _unusable(book: GoalBook, group: Group, error: FetchXmlError) -> list[Problem]:
    name = f"rollup query '{group.query.name}'" if group.query else "rollup field"
    return [
        Problem(
            "rollup-query-unusable", f"the {name} of '{book.goals[goal_id].title}' cannot be used: {error}", goal_id
        )
        for goal_id in group.goal_ids
    ]
