"""The trees goals form through ``parentgoalid``, and the two columns the platform keeps about them.

Pure.
"""

from __future__ import annotations

from d365sync.core.values import Row, Value
from d365sync.emulator.store import Store


def ancestors(store: Store, goal: Row) -> list[Row]:
    """Return the goals above a goal, the parent first; a loop or a missing parent ends the walk."""
    above: list[Row] = []
    seen = {goal["goalid"]}
    parent = store.get("goal", goal.get("parentgoalid"))
    while parent is not None and parent["goalid"] not in seen:
        above.append(parent)
        seen.add(parent["goalid"])
        parent = store.get("goal", parent.get("parentgoalid"))
    return above


def children(store: Store, goal_id: Value) -> list[Row]:
    """Return the goals directly below a goal."""
    return store.referring("goal", "parentgoalid", str(goal_id))


def tree(store: Store, root_id: Value) -> list[Row]:
    """Return a goal and everything below it, parents before their children."""
    below: dict[Value, list[Row]] = {}
    for goal in store.rows("goal").values():
        below.setdefault(goal.get("parentgoalid"), []).append(goal)
    root = store.get("goal", root_id)
    found: list[Row] = [] if root is None else [root]
    seen = {root_id}
    for goal in found:
        fresh = [child for child in below.get(goal["goalid"], ()) if child["goalid"] not in seen]
        seen.update(child["goalid"] for child in fresh)
        found.extend(fresh)
    return found


def tree_columns(store: Store, goal: Row) -> dict[str, Value]:
    """Return ``treeid`` and ``depth``. Assumed: treeid is the root's id; depth counts from the setting."""
    above = ancestors(store, goal)
    root = above[-1] if above else goal
    return {"treeid": root["goalid"], "depth": store.settings.depth_of_root + len(above)}


def place_in_trees(store: Store) -> None:
    """Give goals without ``treeid`` or ``depth`` theirs."""
    for goal in list(store.rows("goal").values()):
        missing = {name: value for name, value in tree_columns(store, goal).items() if goal.get(name) is None}
        if missing:
            store.change("goal", str(goal["goalid"]), missing)


def inherited_from_metric(goal: Row, store: Store) -> dict[str, Value]:
    """Return the two columns a goal copies from its metric. Assumed: a Count metric without type is Integer."""
    metric = store.get("metric", goal.get("metricid"))
    if metric is None:
        return {}
    counts = metric.get("isamount") is False
    return {
        "isamount": not counts,
        "amountdatatype": 2 if counts and metric.get("amountdatatype") is None else metric.get("amountdatatype"),
    }
