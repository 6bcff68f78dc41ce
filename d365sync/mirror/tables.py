"""The SQL shape of a mirrored table: names, types, and the statements that make and fill it.

One table per Dataverse table, under its logical name; columns under theirs. A polymorphic lookup has its table in
``<name>type``, text its fold in ``<name>__fold``. Three columns of ours: ``__etag``; ``__load``, the number of the full
load that last saw the row; ``__unfit``, the columns whose value was left out (too large, or damaged).

Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from d365sync.core.rowshape import VERSION, RowShape, Stored, StoredRow
from d365sync.core.schema import Column, Table
from d365sync.core.storage import StoredAs, scale_of
from d365sync.core.values import Value

Dialect = Literal["sqlite", "postgresql"]
ETAG_COLUMN = "__etag"
LOAD_COLUMN = "__load"
UNFIT_COLUMN = "__unfit"
BEFORE_PREFIX = "_before_"


def quote(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class MirrorTable:
    """A Dataverse table with the columns that are mirrored (the key and the row version always are).

    ``as_text`` are decimal columns kept as text: they are only read back, and their range does not fit 64 bits.
    """

    table: Table
    wanted: frozenset[str]
    as_text: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The logical name."""
        return self.table.logical_name

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The mirrored columns, the key first, then by name."""
        extra = {VERSION} & set(self.table.columns)
        names = sorted((self.wanted | extra) - {self.table.primary_id})
        return tuple(self.table.column(name) for name in (self.table.primary_id, *names))

    @property
    def column_names(self) -> tuple[str, ...]:
        """Logical names of the mirrored columns, the key first."""
        return tuple(column.logical_name for column in self.columns)

    @property
    def has_version(self) -> bool:
        """Whether rows carry a version to tell a changed row from one seen again."""
        return VERSION in self.table.columns

    @cached_property
    def rows(self) -> RowShape:
        """What a row is decoded to and stored as."""
        return RowShape(self.table, self.columns, self.as_text)

    @cached_property
    def stored_columns(self) -> tuple[tuple[str, StoredAs], ...]:
        """Every SQL column with its type, companions included, ours last."""
        ours = ((UNFIT_COLUMN, StoredAs.TEXT), (ETAG_COLUMN, StoredAs.TEXT), (LOAD_COLUMN, StoredAs.INTEGER))
        return (*self.rows.stored_columns, *ours)

    @cached_property
    def shape(self) -> str:
        """A text that differs when the table must be made again."""
        columns = [
            [
                c.logical_name,
                c.type,
                c.date_behavior,
                scale_of(c) if c.type in ("money", "decimal") else None,
                c.is_polymorphic,
            ]
            for c in self.columns
        ]
        return hashlib.sha256(json.dumps([self.table.primary_id, columns, sorted(self.as_text)]).encode()).hexdigest()

    def create(self, dialect: Dialect) -> tuple[str, ...]:
        """Return the statements that make the table, without its key yet, and its before-images."""
        lines = [f"{quote(name)} {sql_type(kind, dialect)}" for name, kind in self.stored_columns]
        key, rest = lines[0], lines[1:]
        return (
            f"CREATE TABLE {quote(self.name)} ({', '.join([f'{key} NOT NULL', *rest])})",
            f"CREATE TABLE {quote(BEFORE_PREFIX + self.name)} ({', '.join([f'{key} PRIMARY KEY', *rest])})",
        )

    @property
    def key_index(self) -> str:
        """The name of the index that makes the key unique; a table without it was not filled to its end."""
        return f"_key_{self.name[:50]}"

    def create_indexes(self) -> tuple[str, ...]:
        """Return the statements that make the key unique and the rows with a value left out quick to find.

        Made after the first rows are in: appending to a table without an index costs less than half.
        """
        name, key, unfit = quote(self.name), quote(self.table.primary_id), quote(UNFIT_COLUMN)
        return (
            f"CREATE UNIQUE INDEX {quote(self.key_index)} ON {name} ({key})",
            f"CREATE INDEX {quote(f'_unfit_{self.name[:50]}')} ON {name} ({unfit}) WHERE {unfit} IS NOT NULL",
        )

    def drop(self) -> tuple[str, ...]:
        """Return the statements that remove them, if they are there."""
        return tuple(f"DROP TABLE IF EXISTS {quote(name)}" for name in (self.name, BEFORE_PREFIX + self.name))

    def upsert(self, dialect: Dialect, load_number: int) -> str:
        """Return the statement that puts one row, as of :meth:`append`, in place of what stands under its key."""
        names = [quote(name) for name, _ in self.stored_columns]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        return f"{self.append(dialect, load_number)} ON CONFLICT ({names[0]}) DO UPDATE SET {updates}"

    def append(self, dialect: Dialect, load_number: int) -> str:
        """Return the statement that adds one row, given as :class:`RowShape` stores it."""
        names = [quote(name) for name, _ in self.stored_columns]
        marks = ", ".join([*[mark(dialect)] * (len(names) - 1), str(int(load_number))])
        return f"INSERT INTO {quote(self.name)} ({', '.join(names)}) VALUES ({marks})"

    def encode(self, column: Column, value: Value) -> Stored:
        """Return the stored spelling of a value; see :meth:`RowShape.encode`."""
        return self.rows.encode(column, value)

    def decode(self, column: Column, stored: Stored) -> Value:
        """Return the value of a stored spelling."""
        return self.rows.decode(column, stored)

    def stored_row(self, row: Mapping[str, Any], load_number: int) -> StoredRow:
        """Return a row in stored spelling, in the order of :attr:`stored_columns`.

        Raises:
            ValueError: a value cannot be stored exactly.
        """
        return (*self.rows.stored(row), load_number)


def mark(dialect: Dialect) -> str:
    """Return the driver's positional parameter mark."""
    return "?" if dialect == "sqlite" else "%s"


def marks(dialect: Dialect, values: Sequence[object]) -> str:
    """Return a bracketed list of parameter marks."""
    return f"({', '.join([mark(dialect)] * len(values))})"


def sql_type(kind: StoredAs, dialect: Dialect) -> str:
    """Return the type of a stored column; texts are compared byte by byte everywhere."""
    if kind is StoredAs.TEXT and dialect == "postgresql":
        return 'TEXT COLLATE "C"'
    return kind.value
