"""The mirror's own bookkeeping tables, beside the copies of Dataverse tables.

Names begin with an underscore, which no Dataverse table's does. Pure.
"""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import Column, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel


class MirrorModel(SQLModel, registry=registry()):
    """Root of the mirror's models, with a catalogue of its own."""


class TableShape(MirrorModel, table=True):
    """How a mirrored table was made, and whether all of it changed since the last recompute.

    ``pulse`` grows with every change of its rows, so that a recompute can tell whether it saw all of them.
    ``unreadable`` is why the table could not be read the last time, empty when it could; ``mend`` what helps.
    """

    __tablename__ = "_table"

    name: str = Field(primary_key=True)
    shape: str = Field(sa_column=Column(Text, nullable=False))
    columns: str = Field(default="", sa_column=Column(Text, nullable=False))
    all_changed: bool = True
    load_number: int = 0
    pulse: int = 0
    unreadable: str = Field(default="", sa_column=Column(Text, nullable=False))
    mend: str = Field(default="", sa_column=Column(Text, nullable=False))


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


class Layout(MirrorModel, table=True):
    """Which layout of these tables a mirror has; another one is dropped and pulled again."""

    __tablename__ = "_layout"

    version: int = Field(primary_key=True)


class Fence(MirrorModel, table=True):
    """The one row with the epoch of the instance that may write, and when the mirror was last looked through."""

    __tablename__ = "_fence"

    id: int = Field(default=1, primary_key=True)
    epoch: int
    checked_at: str | None = None


class Owner(MirrorModel, table=True):
    """The one row that says which organization a mirror belongs to."""

    __tablename__ = "_owner"

    organization_id: str = Field(primary_key=True)
    url: str


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


_IDS = Text().with_variant(Text(collation="C"), "postgresql")
"""Ids as mirrored tables spell them, so that indexes serve joins with those."""


class VisibleRow(MirrorModel, table=True):
    """A row that a manager may read."""

    __tablename__ = "_visible"
    __table_args__: ClassVar[dict[str, bool]] = {"sqlite_with_rowid": False}

    name: str = Field(sa_column=Column(_IDS, primary_key=True))
    manager_id: str = Field(sa_column=Column(_IDS, primary_key=True))
    row_id: str = Field(sa_column=Column(_IDS, primary_key=True))


class VisibilityState(MirrorModel, table=True):
    """When the rows a manager may read of a table were last asked for, all of them, and how that ended.

    ``version`` grows whenever the rows differ. ``fault`` is empty, ``unreadable`` (no row may be read) or ``refused``
    (the answer is not known), with its ``reason`` and ``mend``.
    """

    __tablename__ = "_visibility"

    name: str = Field(sa_column=Column(_IDS, primary_key=True))
    manager_id: str = Field(sa_column=Column(_IDS, primary_key=True))
    refreshed_at: str
    version: int = 0
    fault: str = ""
    reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    mend: str = Field(default="", sa_column=Column(Text, nullable=False))
