"""Which records count for a goal, as one FetchXML tree per group of goals.

A record counts if four tests hold, for example for the won revenue of Ida Keller in the fourth quarter: its state is
the rollup field's (won), its owner is the goal owner (unless the goal counts all records), its date is one of the
goal's days, and the goal's rollup query, if it has one, holds. ``_fetch`` writes the four down as one tree;
``_recipes`` says which rollup field and query feed which column of a goal, and ``_value_column`` which column is
summed.

Goals that share rollup field, rollup query and owner mode form a :class:`Group`; the owner and the bounds of each
goal are placeholders in the group's tree. The same tree is compiled for the whole group, and shown with one goal's
values filled in to whoever asks why a record counts.

Source: Roll up goal totals; Define goal metric and rollup fields; Add complex goal criteria.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from d365sync.core.fetchxml.ast import Condition, Fetch, Filter, Link, Placeholder
from d365sync.core.fetchxml.caller import depends_on_caller
from d365sync.core.fetchxml.check import check_fetch, columns_used
from d365sync.core.fetchxml.parse import parse_fetch
from d365sync.core.goals.bounds import BOUNDS
from d365sync.core.goals.goal import SLOT_BY_COLUMN, DataType, Goal, GoalBook, Metric, RollupField, RollupQuery, Slot
from d365sync.core.goals.rules import CallerIs
from d365sync.core.problems import Problem
from d365sync.core.schema import Column, ColumnType, DateBehavior, Schema, Table
from d365sync.errors import FetchXmlError, SchemaError

OWNER = Placeholder("owner")
RATE = "exchangerate"
PARENT_ALIAS = "parent_of_record"
DETAIL_PARENTS = {
    "opportunityproduct": "opportunity",
    "quotedetail": "quote",
    "salesorderdetail": "salesorder",
    "invoicedetail": "invoice",
}
"""Parent tables of the product lines that ship. Source: Define goal metric and rollup fields (opportunityproduct)."""

SOURCE_TYPES: Mapping[DataType, ColumnType] = {
    DataType.MONEY: ColumnType.MONEY,
    DataType.DECIMAL: ColumnType.DECIMAL,
    DataType.INTEGER: ColumnType.INTEGER,
}


GroupKey: TypeAlias = tuple[str, str | None, bool, str | None]
"""Rollup field, rollup query, whether only the owner's records count, and the user the query asks for."""


@dataclass(frozen=True, slots=True)
class Group:
    """Goals whose own part of one slot is the same query but for owner and bounds.

    ``value`` is the column that is summed, None when records are counted; ``base`` is its base-currency column when
    it is money. ``dates`` says what the date column holds, and so which of :data:`BOUNDS` the tree has. ``goal_ids``
    are in id order. ``caller_id`` is the user that the query's user operators mean, None when it has none.
    """

    key: GroupKey
    slot: Slot
    field: RollupField
    query: RollupQuery | None
    owned: bool
    primary_id: str
    fetch: Fetch
    dates: DateBehavior
    value: Column | None
    base: Column | None
    goal_ids: tuple[str, ...]
    caller_id: str | None = None

    @property
    def table(self) -> str:
        """Logical name of the table whose records are counted or summed."""
        return self.field.source_entity


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of a book, and the problems of the goals that could not be put into one."""

    groups: tuple[Group, ...]
    problems: tuple[Problem, ...]


class _Refused(Exception):  # noqa: N818 - control flow inside this module
    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def group_goals(book: GoalBook, schema: Schema, goals: Iterable[Goal]) -> Grouping:
    """Put every goal with an own part into a group per rollup field of its metric.

    A goal whose metric, field or query cannot be used gets one blocking problem per fault; the other goals go on.
    """
    members: dict[GroupKey, list[Goal]] = {}
    recipes: dict[GroupKey, tuple[Slot, RollupField, RollupQuery | None]] = {}
    problems: list[Problem] = []
    asking = asking_queries(book)
    for goal in sorted(goals, key=lambda one: one.id):
        try:
            for slot, field, query in _recipes(book, goal):
                caller = _caller_of(book, goal, query) if query and query.id in asking else None
                key = (field.id, query.id if query else None, goal.only_owners_records, caller)
                recipes[key] = (slot, field, query)
                members.setdefault(key, []).append(goal)
        except _Refused as refused:
            problems.append(_problem(goal, refused))
    groups: list[Group] = []
    for key, (slot, field, query) in recipes.items():
        try:
            groups.append(_group(key, slot, field, query, members[key], book, schema))
        except _Refused as refused:
            problems.extend(_problem(goal, refused) for goal in members[key])
    return Grouping(tuple(groups), tuple(problems))


def asking_queries(book: GoalBook) -> frozenset[str]:
    """Return the ids of the rollup queries whose records depend on the calling user; unreadable ones do not."""
    return frozenset(query.id for query in book.queries.values() if _asks(query))


def slots_of(metric: Metric) -> Mapping[Slot, RollupField]:
    """Return the slots a metric's rollup fields feed.

    Raises:
        ValueError: the metric has no known data type; a field's goal attribute is not one of the nine columns, does not
            fit the metric's data type, or is named by two fields. Source: errors 0x8004480B and 0x80044807.
    """
    if metric.data_type is None:
        raise ValueError("it has no known amount data type")
    slots: dict[Slot, RollupField] = {}
    for field in metric.fields:
        slot = SLOT_BY_COLUMN.get(field.goal_attribute)
        if slot is None or slot.data_type is not metric.data_type:
            raise ValueError(f"its rollup field into '{field.goal_attribute}' does not fit a {_kind(metric)} metric")
        if slot in slots:
            raise ValueError(f"two of its rollup fields feed '{field.goal_attribute}'")
        slots[slot] = field
    return slots


def bind(fetch: Fetch, values: Mapping[str, str]) -> Fetch:
    """Fill the placeholders of a group's tree with one goal's values: a query anyone can run."""
    return replace(
        fetch,
        filter=_bind_filter(fetch.filter, values) if fetch.filter else None,
        links=tuple(_bind_link(link, values) for link in fetch.links),
    )


def _bind_filter(tree: Filter, values: Mapping[str, str]) -> Filter:
    return replace(
        tree,
        conditions=tuple(
            replace(one, values=tuple(values[v.name] if isinstance(v, Placeholder) else v for v in one.values))
            for one in tree.conditions
        ),
        filters=tuple(_bind_filter(one, values) for one in tree.filters),
        links=tuple(_bind_link(one, values) for one in tree.links),
    )


def _bind_link(link: Link, values: Mapping[str, str]) -> Link:
    return replace(
        link,
        filter=_bind_filter(link.filter, values) if link.filter else None,
        links=tuple(_bind_link(one, values) for one in link.links),
    )


def _recipes(book: GoalBook, goal: Goal) -> list[tuple[Slot, RollupField, RollupQuery | None]]:
    """Return, per column the goal's metric feeds, its rollup field and the goal's rollup query for it."""
    metric = book.metric_of(goal)
    if metric is None:
        raise _Refused("goal-metric-missing", f"'{goal.title}' has no goal metric that can be read")
    if metric.data_type is None:
        raise _Refused("metric-data-type", f"metric '{metric.name}' has no known amount data type")
    if goal.only_owners_records and goal.owner_id is None:
        raise _Refused("goal-owner-missing", f"'{goal.title}' counts its owner's records but has no goal owner")
    try:
        slots = slots_of(metric)
    except ValueError as error:
        raise _Refused("metric-rollup-field", f"metric '{metric.name}' cannot be used: {error}") from None
    return [(slot, field, _query_of(book, goal, slot)) for slot, field in sorted(slots.items())]


def _query_of(book: GoalBook, goal: Goal, slot: Slot) -> RollupQuery | None:
    query_id = goal.queries.get(slot)
    if query_id is None:
        return None
    query = book.queries.get(query_id)
    if query is None:
        raise _Refused("rollup-query-missing", f"the rollup query of '{goal.title}' for {slot.column} cannot be read")
    return query


def _asks(query: RollupQuery) -> bool:
    try:
        return depends_on_caller(parse_fetch(query.fetchxml))
    except FetchXmlError:
        return False  # grouping says what is wrong with it


def _caller_of(book: GoalBook, goal: Goal, query: RollupQuery) -> str:
    """Return the user that a query's user operators mean for a goal.

    Source: Roll up goal totals (the rollup switches to each goal's own manager).
    """
    rule = book.rules.caller
    subject = f"rollup query '{query.name}' of '{goal.title}' asks for the calling user"
    if rule is CallerIs.REFUSE:
        raise _Refused("caller-refused", f"{subject}, which the configuration refuses", "set rollup.caller")
    is_owner = rule is CallerIs.OWNER
    user, kind = (goal.owner_id, goal.owner_type) if is_owner else (goal.manager_id, goal.manager_type)
    role = "goal owner" if is_owner else "manager"
    if user is None:
        raise _Refused("caller-missing", f"{subject}, but the goal has no {role} that can be read")
    if kind == "team":
        raise _Refused("caller-is-team", f"{subject}, but the {role} is a team", f"give the goal a user as {role}")
    return user


def _group(
    key: GroupKey,
    slot: Slot,
    field: RollupField,
    query: RollupQuery | None,
    goals: list[Goal],
    book: GoalBook,
    schema: Schema,
) -> Group:
    metric = book.metrics[field.metric_id]
    try:
        table = schema.table(field.source_entity)
        dates = _date_behavior(field, schema.table(field.date_entity))
        fetch = _fetch(field, query, dates, owned=key[2], table=table)
        value = _value_column(metric, field, slot, table)
        check_fetch(fetch, schema)
        _refuse_goal_decimals(fetch, schema)
    except (SchemaError, FetchXmlError) as error:
        raise _Refused(_fault_code(error, query), f"{_subject(metric, field, query)} cannot be used: {error}") from None
    return Group(
        key=key,
        slot=slot,
        field=field,
        query=query,
        owned=key[2],
        primary_id=table.primary_id,
        fetch=fetch,
        dates=dates,
        value=value,
        base=table.base_of(value.logical_name) if value is not None and slot.data_type is DataType.MONEY else None,
        goal_ids=tuple(goal.id for goal in goals),
        caller_id=key[3],
    )


def _refuse_goal_decimals(fetch: Fetch, schema: Schema) -> None:
    """Refuse a query over the columns that the mirror keeps as text: the goal table's decimals, exchange rates."""
    for table, names in columns_used(fetch, schema).items():
        for name in sorted(names & read_back_only(schema.table(table))):
            raise SchemaError(f"a rollup query over '{table}.{name}' is not supported", table=table, column=name)


def read_back_only(table: Table) -> frozenset[str]:
    """Return the columns that are read and compared as values, never asked for in a query.

    The decimal columns of the goal table, and everywhere the exchange rate: scaled, they do not fit 64 bits.
    """
    decimals = {name for name, column in table.columns.items() if column.type is ColumnType.DECIMAL}
    return frozenset(decimals if table.logical_name == "goal" else decimals & {RATE})


def _fault_code(error: Exception, query: RollupQuery | None) -> str:
    return (
        "rollup-query-unusable" if query is not None and isinstance(error, FetchXmlError) else "rollup-field-unusable"
    )


def _subject(metric: Metric, field: RollupField, query: RollupQuery | None) -> str:
    subject = f"the rollup field of metric '{metric.name}' into {field.goal_attribute}"
    return f"{subject} with rollup query '{query.name}'" if query else subject


def _fetch(field: RollupField, query: RollupQuery | None, dates: DateBehavior, *, owned: bool, table: Table) -> Fetch:
    """Join the four tests into one tree: state (and status), owner, date, and the rollup query.

    Where the rollup field takes state or date from the parent record (a deal, for its product lines), those tests stand
    on a link to the parent.
    """
    own: list[Condition] = []
    parent: list[Condition] = []
    state_home = parent if field.state_of_parent else own
    if field.source_state is not None:
        state_home.append(Condition("statecode", "eq", (str(field.source_state),)))
    if field.source_status is not None:
        state_home.append(Condition("statuscode", "eq", (str(field.source_status),)))
    if owned:
        own.append(Condition("ownerid", "eq", (OWNER,)))
    (own if field.date_entity == table.logical_name else parent).extend(
        Condition(field.date_attribute or "", operator, (bound,)) for operator, bound in BOUNDS[dates]
    )
    stored = _stored_query(field, query)
    links = stored.links if stored else ()
    if parent:
        links = (*links, _parent_link(field, table, tuple(parent)))
    nested = (stored.filter,) if stored and stored.filter else ()
    return Fetch(entity=table.logical_name, filter=Filter("and", tuple(own), nested), links=links)


def _stored_query(field: RollupField, query: RollupQuery | None) -> Fetch | None:
    """Parse the stored document; its attributes and orders say nothing about which records count."""
    if query is None:
        return None
    fetch = parse_fetch(query.fetchxml)
    if fetch.entity != field.source_entity:
        raise FetchXmlError(
            f"it asks for '{fetch.entity}' but the rollup field counts '{field.source_entity}'",
            path="/fetch/entity",
            code="0x80044909",
        )
    return fetch


def _date_behavior(field: RollupField, table: Table) -> DateBehavior:
    """Return what the field's date column holds.

    Raises:
        SchemaError: it names no date column.
    """
    if field.date_attribute is None:
        raise SchemaError("it names no date column", table=table.logical_name)
    column = table.column(field.date_attribute)
    if column.type is not ColumnType.DATETIME or column.date_behavior is None:
        raise SchemaError(
            f"'{table.logical_name}.{column.logical_name}' is not a date",
            table=table.logical_name,
            column=column.logical_name,
        )
    return column.date_behavior


def _parent_link(field: RollupField, table: Table, conditions: tuple[Condition, ...]) -> Link:
    parent = parent_table(field)
    lookup = _lookup_to(table, parent)
    return Link(
        name=parent,
        from_=f"{parent}id",
        to=lookup.logical_name,
        alias=PARENT_ALIAS,
        link_type="inner",
        filter=Filter("and", conditions),
    )


def parent_table(field: RollupField) -> str:
    """Return the table whose row gives state or date instead of the record's own.

    Raises:
        SchemaError: the rollup field takes its state from a parent that nothing names.
    """
    if field.date_entity != field.source_entity:
        return field.date_entity
    try:
        return DETAIL_PARENTS[field.source_entity]
    except KeyError:
        raise SchemaError(
            f"it takes its state from the parent of '{field.source_entity}', and no parent table is named",
            table=field.source_entity,
        ) from None


def _lookup_to(table: Table, parent: str) -> Column:
    """Return the one lookup from a table to its parent; ``<parent>id`` if there are several.

    Assumed: the platform joins by the lookup named after the parent (the relationship is named nowhere).
    """
    lookups = [column for column in table.columns.values() if column.is_lookup and parent in column.targets]
    named = [column for column in lookups if column.logical_name == f"{parent}id"]
    if named or len(lookups) == 1:
        return (named or lookups)[0]
    raise SchemaError(
        f"'{table.logical_name}' has {len(lookups) or 'no'} lookups to '{parent}'; the parent record is not clear",
        table=table.logical_name,
    )


def _value_column(metric: Metric, field: RollupField, slot: Slot, table: Table) -> Column | None:
    """Return the column that is summed; None when records are counted.

    Raises:
        SchemaError: there is none, it has another type than the goal's column, or money without a base amount.
    """
    if not metric.is_amount:
        return None
    if field.source_attribute is None:
        raise SchemaError("it names no source column to sum", table=table.logical_name)
    column = table.column(field.source_attribute)
    if column.type is not SOURCE_TYPES[slot.data_type]:
        raise SchemaError(
            f"'{table.logical_name}.{column.logical_name}' is {column.type}, which cannot be summed into {slot.column}",
            table=table.logical_name,
            column=column.logical_name,
        )
    if slot.data_type is DataType.MONEY and table.base_of(column.logical_name) is None:
        raise SchemaError(
            f"'{table.logical_name}.{column.logical_name}' has no base-currency column",
            table=table.logical_name,
            column=column.logical_name,
        )
    return column


def _kind(metric: Metric) -> str:
    return f"{'amount' if metric.is_amount else 'count'} ({metric.data_type})"


def _problem(goal: Goal, refused: _Refused) -> Problem:
    return Problem(code=refused.code, message=str(refused), goal_id=goal.id, hint=refused.hint)
