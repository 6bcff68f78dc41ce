"""Short ways to write goals, metrics and books in tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal

from d365sync.core.goals.goal import (
    VALUE_COLUMNS,
    DataType,
    Goal,
    GoalBook,
    Metric,
    Number,
    Organization,
    RollupField,
    RollupQuery,
)


def field(goal_attribute: str = "actualmoney", **changes: object) -> RollupField:
    values: dict[str, object] = {
        "id": f"field-{goal_attribute}",
        "metric_id": "revenue",
        "goal_attribute": goal_attribute,
        "source_entity": "opportunity",
        "source_attribute": "actualvalue",
        "source_state": 1,
        "source_status": None,
        "date_entity": "opportunity",
        "date_attribute": "actualclosedate",
    }
    return RollupField(**{**values, **changes})  # type: ignore[arg-type]


REVENUE = Metric(
    id="revenue",
    name="Revenue",
    is_amount=True,
    data_type=DataType.MONEY,
    fields=(
        field("actualmoney"),
        field(
            "inprogressmoney", source_attribute="estimatedvalue", source_state=0, date_attribute="estimatedclosedate"
        ),
    ),
)
CALLS = Metric(
    id="calls",
    name="Calls",
    is_amount=False,
    data_type=DataType.INTEGER,
    fields=(
        field(
            "actualinteger",
            metric_id="calls",
            source_entity="phonecall",
            source_attribute=None,
            date_entity="phonecall",
            date_attribute="actualend",
        ),
    ),
)


def goal(
    goal_id: str, parent: str | None = None, *, native: dict[str, Number] | None = None, **changes: object
) -> Goal:
    values: dict[str, object] = {
        "id": goal_id,
        "title": f"Goal {goal_id}",
        "etag": f'W/"{goal_id}"',
        "is_open": True,
        "status": 0,
        "metric_id": "revenue",
        "owner_id": f"owner-{goal_id}",
        "owner_type": "systemuser",
        "manager_id": None,
        "parent_id": parent,
        "is_fiscal": False,
        "fiscal_year": None,
        "fiscal_period": None,
        "starts_at": dt.datetime(2026, 10, 1, tzinfo=dt.UTC),
        "ends_at": dt.datetime(2026, 12, 31, tzinfo=dt.UTC),
        "only_from_children": False,
        "only_owners_records": True,
        "is_overridden": False,
        "rolled_up_at": None,
        "percentage": None,
        "targets": {DataType.MONEY: Decimal(1000)},
        "stretch_targets": {},
        "native": {**dict.fromkeys(VALUE_COLUMNS), **(native or {})},
        "queries": {},
    }
    return Goal(**{**values, **changes})  # type: ignore[arg-type]


def book(*goals: Goal, metrics: Iterable[Metric] = (REVENUE, CALLS), queries: Iterable[RollupQuery] = ()) -> GoalBook:
    return GoalBook(
        organization=Organization(),
        goals={one.id: one for one in goals},
        metrics={one.id: one for one in metrics},
        queries={one.id: one for one in queries},
    )
