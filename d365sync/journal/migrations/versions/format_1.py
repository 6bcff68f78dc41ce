"""Format 1: runs, goals written, and whose the journal is.

IO: SQL.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "journal_format",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("command", sa.String, nullable=False),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("started_at", sa.String, nullable=False),
        sa.Column("finished_at", sa.String),
        sa.Column("outcome", sa.String),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_table(
        "goal_write",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("goal_id", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        sa.Column("etag_before", sa.String, nullable=False),
        sa.Column("etag_after", sa.String),
        sa.Column("intended_at", sa.String, nullable=False),
        sa.Column("done_at", sa.String),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("ix_goal_write_run_id", "goal_write", ["run_id"])
    op.create_index("ix_goal_write_goal_id", "goal_write", ["goal_id"])
    op.create_table(
        "journal_owner",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("organization_id", sa.String, nullable=False),
    )
    op.execute("INSERT INTO journal_format (id, version) VALUES (1, 1)")
