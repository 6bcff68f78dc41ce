"""The journal's tables. Instants are ISO texts in UTC; numbers inside JSON are texts, so that none loses a digit.

Pure.
"""

from __future__ import annotations

from sqlalchemy import Column, Index, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

FORMAT = 2
"""The number of the newest migration; see :mod:`d365sync.journal.migrations`."""


class JournalModel(SQLModel, registry=registry()):
    """Root of the journal's models, with a catalogue of its own."""


class JournalFormat(JournalModel, table=True):
    """The one row that says how the journal is laid out."""

    __tablename__ = "journal_format"

    id: int = Field(default=1, primary_key=True)
    version: int = FORMAT


class RunRow(JournalModel, table=True):
    """One cycle: when, how, and how it ended."""

    __tablename__ = "run"

    id: str = Field(primary_key=True)
    command: str
    mode: str
    started_at: str
    finished_at: str | None = None
    outcome: str | None = None
    counts: str = Field(default="{}", sa_column=Column(Text, nullable=False))
    message: str = Field(default="", sa_column=Column(Text, nullable=False))


class WriteRow(JournalModel, table=True):
    """One goal written: the nine columns and the percentage before and after, and the etags around it."""

    __tablename__ = "goal_write"
    __table_args__ = (
        Index("goal_write_latest", "goal_id", "id"),
        Index("goal_write_latest_by_outcome", "goal_id", "outcome", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(index=True)
    goal_id: str
    title: str
    before: str = Field(sa_column=Column(Text, nullable=False))
    after: str = Field(sa_column=Column(Text, nullable=False))
    etag_before: str
    etag_after: str | None = None
    intended_at: str
    done_at: str | None = None
    outcome: str
    message: str = Field(default="", sa_column=Column(Text, nullable=False))


class OwnerRow(JournalModel, table=True):
    """The one row that says which organization the journal belongs to."""

    __tablename__ = "journal_owner"

    id: int = Field(default=1, primary_key=True)
    url: str
    organization_id: str


class LeaseRow(JournalModel, table=True):
    """The one row that says who may write; ``holder`` is empty when nobody does. Instants are ISO texts in UTC."""

    __tablename__ = "lease"

    id: int = Field(default=1, primary_key=True)
    holder: str
    epoch: int
    since: str
    until: str


class BackfillRow(JournalModel, table=True):
    """A backfill that was begun: its run, its window of days (ISO dates), and what guards were told to let pass."""

    __tablename__ = "backfill"

    number: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(index=True)
    first_on: str
    last_on: str
    mode: str
    accepted: int | None = None


class BackfillBatchRow(JournalModel, table=True):
    """Some goals (a JSON list of ids) that a backfill writes together, and when they were done."""

    __tablename__ = "backfill_batch"

    run_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    period: str
    goals: str = Field(sa_column=Column(Text, nullable=False))
    done_at: str | None = None
