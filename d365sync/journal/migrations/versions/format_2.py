"""Format 2: the lease, and backfills; the latest writes of a goal are found by index.

IO: SQL.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add the row that says who may write, the tables of backfills, and the indexes."""
    op.create_table(
        "lease",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("since", sa.String, nullable=False),
        sa.Column("until", sa.String, nullable=False),
    )
    op.create_table(
        "backfill",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("first_on", sa.String, nullable=False),
        sa.Column("last_on", sa.String, nullable=False),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("accepted", sa.Integer),
    )
    op.create_index("ix_backfill_run_id", "backfill", ["run_id"])
    op.create_table(
        "backfill_batch",
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("period", sa.String, nullable=False),
        sa.Column("goals", sa.Text, nullable=False),
        sa.Column("done_at", sa.String),
    )
    op.drop_index("ix_goal_write_goal_id", "goal_write")
    op.create_index("goal_write_latest", "goal_write", ["goal_id", "id"])
    op.create_index("goal_write_latest_by_outcome", "goal_write", ["goal_id", "outcome", "id"])
    op.execute("UPDATE journal_format SET version = 2")
