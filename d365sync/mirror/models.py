"""The mirror's own bookkeeping tables, beside the copies of Dataverse tables.

Names begin with an underscore, which no Dataverse table's does. Pure.
"""

from __future__ import annotations

from sqlalchemy import Column, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class MirrorModel(SQLModel, registry=registry()):
    """Root of the mirror's models, with a catalogue of its own."""


class TableShape(MirrorModel, table=True):
    """How a mirrored table was made, and whether all of it changed since the last recompute."""

    __tablename__ = "_table"

    name: str = Field(primary_key=True)
    shape: str = Field(sa_column=Column(Text, nullable=False))
    columns: str = Field(default="", sa_column=Column(Text, nullable=False))
    all_changed: bool = True
    load_number: int = 0


class Bookmark(MirrorModel, table=True):
    """A saved position in a table; instants are ISO texts in UTC.

    ``delta_link`` is set for tracked tables; ``watermark`` is the greatest ``modifiedon`` seen, for the others.
    """

    __tablename__ = "_bookmark"

    name: str = Field(primary_key=True)
    delta_link: str | None = Field(default=None, sa_column=Column(Text))
    watermark: str | None = None
    swept_at: str | None = None
    pulled_at: str


class ChangedRow(MirrorModel, table=True):
    """A row that came, changed or went since the last recompute."""

    __tablename__ = "_changed"

    name: str = Field(primary_key=True)
    row_id: str = Field(primary_key=True)


class OwnSum(MirrorModel, table=True):
    """The last own part computed for a goal in a group; valid while ``definition`` is the same."""

    __tablename__ = "_own"

    group_key: str = Field(primary_key=True)
    goal_id: str = Field(primary_key=True)
    definition: str
    records: int
    amount: str
    unpriced: int


class DoublePair(MirrorModel, table=True):
    """What two goals were found to share in one column; valid while ``definition`` is the same.

    ``at_goal`` is the lowest goal whose total holds both; ``sample`` a JSON list of record ids and names.
    """

    __tablename__ = "_double"

    first_goal: str = Field(primary_key=True)
    second_goal: str = Field(primary_key=True)
    goal_column: str = Field(primary_key=True)
    at_goal: str
    definition: str
    records: int
    amount: str
    sample: str = Field(sa_column=Column(Text, nullable=False))


class DoubleNote(MirrorModel, table=True):
    """About the last look for doubles: that it is pending, or a goal whose tree it did not compare wholly."""

    __tablename__ = "_double_note"

    name: str = Field(primary_key=True)


class TableDefinition(MirrorModel, table=True):
    """A table's metadata as read at ``read_at``."""

    __tablename__ = "_metadata"

    name: str = Field(primary_key=True)
    document: str = Field(sa_column=Column(Text, nullable=False))
    read_at: str
