"""What a write mode means along the line: how goals are planned, which columns of the organization's own take part.

Pure.
"""

from __future__ import annotations

from functools import partial

from d365sync.config import Config
from d365sync.core.counts import counted
from d365sync.core.goals.modes import COLUMNS, OVERRIDE, PLAN, RECALCULATE
from d365sync.core.goals.owncolumns import OwnColumns, column_faults, number_columns, plan_columns
from d365sync.core.goals.stale import plan_recalculation
from d365sync.core.goals.writes import Planner, plan_goal
from d365sync.core.schema import Table
from d365sync.errors import ConfigError


def planned_as(config: Config) -> str:
    """Return the mode that plans are made for: override also in mode plan, which writes nothing."""
    return OVERRIDE if config.writeback.mode == PLAN else config.writeback.mode


def own_columns(config: Config) -> tuple[str, ...]:
    """Return the columns of the organization's own that take numbers in this mode."""
    return number_columns(config.writeback.columns) if config.writeback.mode == COLUMNS else ()


def planner_of(config: Config) -> Planner:
    """Return how one goal is compared with our numbers in this mode."""
    if config.writeback.mode == COLUMNS:
        return partial(plan_columns, config.writeback.columns)
    return plan_recalculation if config.writeback.mode == RECALCULATE else plan_goal


def faults_of(config: Config, goals: Table) -> tuple[str, ...]:
    """Say what keeps columns from taking their numbers in this mode, one sentence each."""
    return column_faults(goals, config.writeback.columns) if config.writeback.mode == COLUMNS else ()


def check_own_columns(config: Config, goals: Table) -> None:
    """Check the columns that this mode writes to; see :func:`check_columns`."""
    if config.writeback.mode == COLUMNS:
        check_columns(config.writeback.columns, goals)


def check_columns(columns: OwnColumns, goals: Table) -> None:
    """Do nothing when every column can take its number.

    Raises:
        ConfigError: some cannot; names all of them.
    """
    faults = column_faults(goals, columns)
    if faults:
        raise ConfigError(
            f"writeback.columns has {counted(len(faults), 'fault')}: {'; '.join(faults)}",
            problems=faults,
            hint="change the columns in Dataverse, or name others",
        )
