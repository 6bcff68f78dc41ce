"""Goals, metrics, rollup fields and rollup queries as values, and the book that holds one snapshot of them.

Pure.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import TypeAlias

from d365sync.core.fiscal import FiscalCalendar
from d365sync.core.goals.rules import ReadingRules

Number: TypeAlias = Decimal | int


class Category(StrEnum):
    """The three rolled-up categories, spelled as the goal columns begin. Source: define goal metric, rollup fields."""

    ACTUAL = "actual"
    IN_PROGRESS = "inprogress"
    CUSTOM = "customrollupfield"

    @property
    def query_stem(self) -> str:
        """How the lookup to the category's rollup query begins: ``rollupquerycustom`` has no ``rollupfield``."""
        return f"rollupquery{'custom' if self is Category.CUSTOM else self.value}"


class DataType(StrEnum):
    """The three data types of a metric, spelled as the goal columns end."""

    MONEY = "money"
    DECIMAL = "decimal"
    INTEGER = "integer"


AMOUNT_DATA_TYPES = {0: DataType.MONEY, 1: DataType.DECIMAL, 2: DataType.INTEGER}
"""``amountdatatype``. Source: goal and metric table references."""

LIMITS: Mapping[DataType, int] = {
    DataType.MONEY: 922_337_203_685_477,
    DataType.DECIMAL: 100_000_000_000,
    DataType.INTEGER: 2_147_483_647,
}
"""Largest magnitude of the actual, in-progress and custom columns. Source: goal table reference."""

MAX_ROLLUP_FIELDS = 3
"""Source: error 0x8004480A MaxLimitForRollupAttribute."""


class StateCode(IntEnum):
    """``statecode`` of a goal. Source: goal table reference."""

    ACTIVE = 0
    INACTIVE = 1


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One of the nine rolled-up columns of a goal: a category in a data type.

    ``column`` is the goal column (``actualmoney``), ``query_lookup`` the goal's lookup to this slot's rollup query
    (``rollupqueryactualmoneyid``).
    """

    category: Category
    data_type: DataType
    column: str = field(init=False, compare=False)
    query_lookup: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", f"{self.category}{self.data_type}")
        object.__setattr__(self, "query_lookup", f"{self.category.query_stem}{self.data_type}id")


SLOTS = tuple(Slot(category, data_type) for category in Category for data_type in DataType)
SLOT_BY_COLUMN = {slot.column: slot for slot in SLOTS}
VALUE_COLUMNS = tuple(slot.column for slot in SLOTS)


@dataclass(frozen=True, slots=True)
class RollupField:
    """One row of ``rollupfield``: which records of which table feed which goal column.

    ``source_status`` None means every status of the state; ``source_state`` None means every state.
    ``state_of_parent``: state and status are the parent row's (``isstateparententityattribute``).
    """

    id: str
    metric_id: str
    goal_attribute: str
    source_entity: str
    source_attribute: str | None
    source_state: int | None
    source_status: int | None
    date_entity: str
    date_attribute: str | None
    state_of_parent: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """One goal metric with its rollup fields; ``data_type`` None when ``amountdatatype`` is missing or unknown."""

    id: str
    name: str
    is_amount: bool
    data_type: DataType | None
    fields: tuple[RollupField, ...] = ()


@dataclass(frozen=True, slots=True)
class RollupQuery:
    """One rollup query; ``fetchxml`` is the stored document."""

    id: str
    name: str
    entity: str
    fetchxml: str


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal as Dataverse holds it.

    ``owner_id`` is the goal owner (``goalownerid``), ``manager_id`` the record owner (``ownerid``); ``owner_type``
    and ``manager_type`` say whether each is a ``systemuser`` or a ``team``. ``starts_at``
    and ``ends_at`` are the stored bounds: instants of somebody's midnight, or None. ``native`` holds the nine
    rolled-up columns, ``targets`` and ``stretch_targets`` the value per data type. ``queries`` maps a slot to the
    id of its rollup query. ``own`` are columns of the organization's own that take our numbers.
    """

    id: str
    title: str
    etag: str
    is_open: bool
    status: int | None
    metric_id: str | None
    owner_id: str | None
    owner_type: str | None
    manager_id: str | None
    parent_id: str | None
    is_fiscal: bool
    fiscal_year: int | None
    fiscal_period: int | None
    starts_at: dt.datetime | dt.date | None
    ends_at: dt.datetime | dt.date | None
    only_from_children: bool
    only_owners_records: bool
    is_overridden: bool
    rolled_up_at: dt.datetime | None
    percentage: Decimal | None
    targets: Mapping[DataType, Number | None]
    stretch_targets: Mapping[DataType, Number | None]
    native: Mapping[str, Number | None]
    queries: Mapping[Slot, str]
    manager_type: str | None = None
    own: Mapping[str, Number | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Organization:
    """The settings of the ``organization`` row that goals use."""

    id: str = ""
    name: str = ""
    base_currency_id: str | None = None
    base_currency_code: str = ""
    base_currency_precision: int = 2
    week_start: int = 0
    fiscal: FiscalCalendar = field(default_factory=FiscalCalendar)


@dataclass(frozen=True, slots=True)
class GoalBook:
    """One immutable snapshot of everything that defines the goals; all mappings are keyed by id.

    ``names`` gives display names of users and teams (and whatever else explains an id). ``rules`` says how the goals
    are read where the platform leaves a choice.
    """

    organization: Organization
    goals: Mapping[str, Goal]
    metrics: Mapping[str, Metric]
    queries: Mapping[str, RollupQuery]
    names: Mapping[str, str] = field(default_factory=dict)
    currencies: Mapping[str, str] = field(default_factory=dict)
    rules: ReadingRules = field(default_factory=ReadingRules)

    def metric_of(self, goal: Goal) -> Metric | None:
        """Return the goal's metric, None when it has none or it is not there."""
        return self.metrics.get(goal.metric_id) if goal.metric_id else None
