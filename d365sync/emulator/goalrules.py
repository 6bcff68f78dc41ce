"""What the platform holds goals to: rollup columns, closed goals, periods, hierarchy, queries and metrics.

Source: Goal table reference; Roll up goal totals; Create goal hierarchy, goals, and targets; Web service error
codes (0x800449xx, 0x8004F68x).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from d365sync.core.values import Row, Value
from d365sync.emulator.fiscalperiods import fiscal_bounds
from d365sync.emulator.goaltree import children, inherited_from_metric, tree, tree_columns
from d365sync.emulator.kept import CURRENCY, PAR, RATE, base_currency
from d365sync.emulator.payload import Changes
from d365sync.emulator.percentages import (
    CATEGORIES,
    KINDS,
    QUERY_CATEGORIES,
    ROLLUP_COLUMNS,
    kind_of,
    percentage_of,
)
from d365sync.emulator.refuse import INACTIVE, ROLLUP_FIELDS, Refusal, invalid
from d365sync.emulator.store import Store

PERIOD = ("isfiscalperiodgoal", "fiscalyear", "fiscalperiod", "goalstartdate", "goalenddate")
QUERIES = {
    f"rollupquery{named}{kind}id": f"{category}{kind}" for category, named in QUERY_CATEGORIES.items() for kind in KINDS
}


def goal_created(store: Store, row: Row, changes: Changes) -> Changes:
    """Return what the platform adds to a new goal.

    Raises:
        Refusal: a rule is broken.
    """
    _check_rollup_columns(store, changes)
    added: Changes = {CURRENCY: base_currency(store), RATE: PAR}
    copied = inherited_from_metric(row, store)
    added.update({name: value for name, value in copied.items() if changes.get(name) is None})
    goal = {**row, **added}
    added.update(_checked_period(store, goal, changes))
    goal = {**goal, **added}
    _check_parent(store, goal)
    _check_references(store, goal, changes)
    return {**added, **tree_columns(store, goal), **_percentage(store, goal, changes)}


def goal_updated(store: Store, old: Row, row: Row, changes: Changes) -> Changes:
    """Return what the platform changes beside an update.

    Raises:
        Refusal: a rule is broken.
    """
    _check_open(old, changes)
    _check_rollup_columns(store, changes)
    changed = {name for name in changes if old.get(name) != row.get(name)}
    _check_place(store, old, row, changed)
    added: Changes = {}
    if changed & {*PERIOD}:
        added.update(_checked_period(store, row, changes))
    goal = {**row, **added}
    if "parentgoalid" in changed:
        _check_parent(store, goal)
        added.update(tree_columns(store, goal))
    _check_references(store, goal, changes)
    return {**added, **_percentage(store, goal, changes)}


def after_goal_updated(store: Store, old: Row, goal: Row) -> None:
    """Carry a root's new period down to its tree, and a moved goal's new place to its descendants.

    Source: Create goal hierarchy, goals, and targets (changing the root's period changes its children).
    """
    period = {name: goal.get(name) for name in PERIOD}
    below = list(tree(store, goal["goalid"]))[1:]
    if any(old.get(name) != value for name, value in period.items()):
        for child in below:
            store.change("goal", str(child["goalid"]), period)
    if old.get("parentgoalid") != goal.get("parentgoalid"):
        replace_in_tree(store, below)


def replace_in_tree(store: Store, goals: Iterable[Row]) -> None:
    """Compute ``treeid`` and ``depth`` of goals again."""
    for goal in goals:
        store.change("goal", str(goal["goalid"]), tree_columns(store, goal))


def _check_rollup_columns(store: Store, changes: Changes) -> None:
    guarded = ROLLUP_COLUMNS | ({"percentage"} if store.settings.guard_percentage else set())
    if changes.keys() & guarded and changes.get("isoverride") is not True:
        raise Refusal(
            400,
            ROLLUP_FIELDS,
            "The rollup fields of a goal can be updated only if isoverride is set to true in the same request.",
        )


def _check_open(old: Row, changes: Changes) -> None:
    reopens = changes.get("statecode") == 0
    only_state = changes.keys() <= {"statecode", "statuscode"}
    if old.get("statecode") == 1 and not reopens and not only_state:
        raise Refusal(
            400,
            INACTIVE,
            "The goal cannot be updated because it is inactive: closed and discarded goals are read-only.",
        )


def _check_place(store: Store, old: Row, row: Row, changed: set[str]) -> None:
    moved = "parentgoalid" in changed
    metric, period = "metricid" in changed, bool(changed & {*PERIOD})
    if not metric and not period:
        return
    if moved:
        raise _refused("0x8004480c", "The metric or period cannot be changed in the same request as the parent goal.")
    has_parent = row.get("parentgoalid") is not None
    below = children(store, old["goalid"])
    if metric and has_parent:
        raise _refused("0x80044900", "The metric of a child goal cannot be changed.")
    if metric and below:
        raise _refused("0x80044902", "The metric of a goal that has child goals cannot be changed.")
    if period and has_parent:
        raise _refused("0x80044901", "The period of a child goal cannot be changed.")
    if period and any(goal.get("statecode") == 1 for goal in list(tree(store, old["goalid"]))[1:]):
        raise _refused("0x80044910", "The period cannot be changed while a subordinate goal is closed.")


def _checked_period(store: Store, goal: Row, changes: Changes) -> Changes:
    fiscal = goal.get("isfiscalperiodgoal")
    year, code = goal.get("fiscalyear"), goal.get("fiscalperiod")
    if fiscal is None:
        raise _refused("0x80044908", "The goal's period type is missing: isfiscalperiodgoal must be true or false.")
    if fiscal is False:
        if year is not None or code is not None:
            raise _refused("0x80044904", "A goal with a custom period cannot have a fiscal year or fiscal period.")
        if goal.get("goalstartdate") is None or goal.get("goalenddate") is None:
            raise _refused("0x80044907", "A goal with a custom period needs a start date and an end date.")
        return {}
    if not isinstance(year, int) or not isinstance(code, int):
        raise _refused("0x80044903", "A goal with a fiscal period needs a fiscal year and a fiscal period.")
    start, end = fiscal_bounds(store, year, code)
    bounds: Changes = {"goalstartdate": start, "goalenddate": end}
    return {name: value for name, value in bounds.items() if changes.get(name) is None}


def _check_parent(store: Store, goal: Row) -> None:
    parent_id = goal.get("parentgoalid")
    parent = store.get("goal", parent_id)
    if parent_id is None or parent is None:
        return
    if any(one["goalid"] == parent_id for one in tree(store, goal["goalid"])):
        raise invalid("A goal cannot be the parent of a goal above it.")
    if parent.get("metricid") != goal.get("metricid"):
        raise _refused("0x80044905", "The metric of the goal differs from the metric of its parent goal.")
    fiscal = goal.get("isfiscalperiodgoal") is True
    same = PERIOD[:3] if fiscal else (PERIOD[0], *PERIOD[3:])
    if any(parent.get(name) != goal.get(name) for name in same):
        raise _refused("0x80044906", "The period of the goal differs from the period of its parent goal.")


def _check_references(store: Store, goal: Row, changes: Changes) -> None:
    if changes.get("owneridtype") == "team":
        raise _refused("0x8004f684", "A team cannot be the manager of a goal.")
    metric = store.get("metric", changes.get("metricid"))
    if metric is not None and metric.get("statecode") == 1:
        raise _refused("0x8004f686", "An inactive metric cannot be set on a goal.")
    for lookup, attribute in QUERIES.items():
        query = store.get("goalrollupquery", changes.get(lookup))
        if query is not None:
            _check_query(store, goal, query, attribute)


def _check_query(store: Store, goal: Row, query: Row, attribute: str) -> None:
    if query.get("statecode") == 1:
        raise _refused("0x8004f685", "An inactive rollup query cannot be set on a goal.")
    for field in store.referring("rollupfield", "metricid", str(goal.get("metricid"))):
        if field.get("goalattribute") == attribute and field.get("sourceentity") != query.get("queryentitytype"):
            raise _refused("0x8004f683", "The rollup query is not over the table that the metric's rollup field sums.")


def _percentage(store: Store, goal: Row, changes: Changes) -> dict[str, Value]:
    kind = kind_of(goal)
    touched = changes.keys() & {f"{CATEGORIES[0]}{kind}", f"target{kind}"}
    if not store.settings.keep_percentage or "percentage" in changes or not touched:
        return {}
    return {"percentage": percentage_of(goal, store.settings.rounding)}


def _refused(code: str, message: str) -> Refusal:
    return Refusal(400, code, message)
