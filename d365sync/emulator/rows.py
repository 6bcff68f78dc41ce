"""Creating, changing and deleting rows: the rules every table shares, and where each table's own come in.

No HTTP here; whoever calls has checked conditions and privileges.

Pure.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from d365sync.core.values import Row, Value
from d365sync.emulator.checks import check_values, settle_status
from d365sync.emulator.facts import Ownership, TableFacts
from d365sync.emulator.goalrules import after_goal_updated, goal_created, goal_updated, replace_in_tree
from d365sync.emulator.goaltree import tree
from d365sync.emulator.jobrows import check_job
from d365sync.emulator.kept import (
    CURRENCY,
    RATE,
    base_amounts,
    completed,
    currency_and_rate,
    full_name,
    has_currency,
    inherited,
    owner_columns,
)
from d365sync.emulator.keys import check_unique
from d365sync.emulator.metricrules import check_metric, check_rollup_field, check_rollup_query
from d365sync.emulator.payload import Changes
from d365sync.emulator.refuse import Refusal, already_exists, invalid
from d365sync.emulator.store import Store

DEDICATED = {
    ("opportunity", 1): "WinOpportunity",
    ("opportunity", 2): "LoseOpportunity",
    ("incident", 1): "CloseIncident",
}
PARENTAL = {("opportunityproduct", "opportunityid"), ("rollupfield", "metricid")}
RESTRICTED = {("goal", "metricid")}
FOLLOWING = {
    "ownerid": "ownerid",
    "owneridtype": "owneridtype",
    "statecode": "opportunitystatecode",
    CURRENCY: CURRENCY,
    RATE: RATE,
}
"""Columns of an opportunity and those of its lines that follow them."""


def create(store: Store, facts: TableFacts, changes: Changes, user_id: str, real_id: str | None = None) -> Row:
    """Create a row from the columns a request sets; return what is stored. ``real_id`` impersonates ``user_id``.

    Raises:
        Refusal: the key is taken, or a rule is broken.
    """
    row_id = str(changes.get(facts.key) or uuid.uuid4())
    if store.get(facts.name, row_id) is not None:
        raise already_exists()
    check_values(facts, changes)
    _check_dedicated(facts, None, changes)
    settled = settle_status(facts, None, changes)
    owner: Changes = {}
    if facts.ownership is Ownership.USER and changes.get("ownerid") is None:
        owner = {"ownerid": user_id, "owneridtype": "systemuser"}
    row = {
        **facts.defaults,
        **changes,
        **owner,
        **settled,
        facts.key: row_id,
        **_stamps(store, facts, user_id, changes),
        **_on_behalf(facts, real_id, ("createdonbehalfby", "modifiedonbehalfby")),
    }
    row.update(_own_rules(store, facts, None, row, changes))
    whole = completed(facts, row, store)
    check_unique(store, facts, whole)
    return store.put(facts.name, whole)


def update(
    store: Store,
    facts: TableFacts,
    row_id: str,
    changes: Changes,
    user_id: str,
    *,
    dedicated: bool = False,
    real_id: str | None = None,
) -> Row:
    """Change columns of an existing row; return what is stored.

    ``dedicated`` says that the message meant for it closes the row, which a plain update may not;
    ``real_id`` impersonates ``user_id``.

    Raises:
        Refusal: a rule is broken.
    """
    old = store.rows(facts.name)[row_id]
    if changes.get(facts.key, row_id) != row_id:
        raise invalid(f"The key '{facts.key}' of a row cannot be changed.")
    check_values(facts, changes)
    if not dedicated:
        _check_dedicated(facts, old, changes)
    settled = settle_status(facts, old, changes)
    row: dict[str, Value] = {**old, **changes, **settled}
    row.update(_own_rules(store, facts, old, row, changes))
    row.update(_derived(store, facts, old, row))
    if "modifiedon" in facts.columns:
        row.update({"modifiedon": store.clock.now(), "modifiedby": user_id})
        row.update(_on_behalf(facts, real_id, ("modifiedonbehalfby",)))
    check_unique(store, facts, row)
    stored = store.put(facts.name, row)
    _after(store, facts, old, stored)
    return stored


def delete(store: Store, facts: TableFacts, row_id: str) -> None:
    """Delete a row: what belongs to it goes with it, other lookups to it are cleared.

    Assumed: only a metric with goals is protected, only product lines and rollup fields belong to their parent.

    Raises:
        Refusal: rows that need it are there.
    """
    links = list(_links_to(store, facts))
    for table, lookup in links:
        if (table, lookup) in RESTRICTED and store.referring(table, lookup, row_id):
            raise Refusal(
                405, "0x80040227", f"The {facts.name} cannot be deleted because {table} rows are associated with it."
            )
    store.remove(facts.name, row_id)
    for table, lookup in links:
        other = store.catalogue.tables[table]
        for row in store.referring(table, lookup, row_id):
            if (table, lookup) in PARENTAL:
                delete(store, other, str(row[other.key]))
            else:
                _unlink(store, other, lookup, row)


def _own_rules(store: Store, facts: TableFacts, old: Row | None, row: Row, changes: Changes) -> Changes:
    match facts.name:
        case "goal":
            return goal_created(store, row, changes) if old is None else goal_updated(store, old, row, changes)
        case "metric":
            check_metric(store, old, row, changes)
        case "rollupfield":
            check_rollup_field(store, old, row)
        case "goalrollupquery":
            check_rollup_query(row)
        case "asyncoperation":
            check_job(old, row, changes)
    return {}


def _check_dedicated(facts: TableFacts, old: Row | None, changes: Changes) -> None:
    state = changes.get("statecode")
    message = DEDICATED.get((facts.name, state)) if isinstance(state, int) else None
    if message is not None and (old is None or old.get("statecode") != state):
        label = facts.columns["statecode"].options.get(int(str(state)))
        raise Refusal(
            400,
            "0x80100005",
            f"This message can not be used to set the state of {facts.name} to {label}. In order to set state of "
            f"{facts.name} to {label}, use the {message} message instead.",
        )


def _stamps(store: Store, facts: TableFacts, user_id: str, changes: Changes) -> Changes:
    if "createdon" not in facts.columns:
        return {}
    now = store.clock.now()
    return {
        "createdon": changes.get("overriddencreatedon") or now,
        "modifiedon": now,
        "createdby": user_id,
        "modifiedby": user_id,
    }


def _on_behalf(facts: TableFacts, real_id: str | None, columns: Iterable[str]) -> Changes:
    """Name the user who impersonates another. Source: Impersonate another user using the Web API."""
    return dict.fromkeys(columns, real_id) if "modifiedonbehalfby" in facts.columns else {}


def _derived(store: Store, facts: TableFacts, old: Row, row: dict[str, Value]) -> Changes:
    """Return the kept values that follow from what changed."""
    derived: Changes = {}
    if _differ(old, row, ("ownerid", "owneridtype")):
        derived.update(owner_columns(facts, row, store))
    if _differ(old, row, ("firstname", "lastname")):
        derived.update(full_name(facts, row))
    if _differ(old, row, ("opportunityid",)):
        orphan = {name: value for name, value in row.items() if name not in FOLLOWING.values()}
        derived.update(inherited(facts, orphan, store))
    return {**derived, **_currency(store, facts, old, {**row, **derived})}


def _currency(store: Store, facts: TableFacts, old: Row, row: dict[str, Value]) -> Changes:
    """Return rate and base amounts: the rate stays that of the row until its currency changes."""
    if not has_currency(facts):
        return {}
    kept: Changes = {}
    if _differ(old, row, (CURRENCY,)) and old.get(RATE) == row.get(RATE):
        row = {**row, RATE: None}
        kept[RATE] = None
    kept.update(currency_and_rate(facts, {name: value for name, value in row.items() if value is not None}, store))
    whole = {**row, **kept}
    again = (
        facts.money if _differ(old, whole, (CURRENCY, RATE)) else [n for n in facts.money if _differ(old, row, (n,))]
    )
    return {**kept, **base_amounts(facts, whole, store.settings.rounding, again)}


def _differ(old: Row, row: Row, names: Iterable[str]) -> bool:
    return any(old.get(name) != row.get(name) for name in names)


def _after(store: Store, facts: TableFacts, old: Row, row: Row) -> None:
    if facts.name == "goal":
        after_goal_updated(store, old, row)
    elif facts.name == "opportunity":
        _carry_to_lines(store, old, row)


def _carry_to_lines(store: Store, old: Row, row: Row) -> None:
    """Let product lines follow their opportunity, unless a line had a value of its own."""
    changed = {name: own for name, own in FOLLOWING.items() if old.get(name) != row.get(name)}
    if not changed:
        return
    facts = store.catalogue.tables["opportunityproduct"]
    for line in store.referring(facts.name, "opportunityid", str(row["opportunityid"])):
        moved = {own: row.get(name) for name, own in changed.items() if line.get(own) == old.get(name)}
        if moved:
            whole = {**line, **moved}
            store.put(facts.name, {**whole, **_currency(store, facts, line, whole)})


def _links_to(store: Store, facts: TableFacts) -> Iterable[tuple[str, str]]:
    for other in store.catalogue.tables.values():
        for column in other.columns.values():
            if column.column.is_lookup and facts.name in column.column.targets:
                yield other.name, column.name


def _unlink(store: Store, facts: TableFacts, lookup: str, row: Row) -> None:
    column = facts.columns[lookup].column
    cleared: Changes = {lookup: None}
    if column.is_polymorphic:
        cleared[column.type_name] = None
    row_id = str(row[facts.key])
    store.change(facts.name, row_id, cleared)
    if (facts.name, lookup) == ("goal", "parentgoalid"):
        replace_in_tree(store, tree(store, row_id))
