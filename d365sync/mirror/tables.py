"""The SQL shape of a mirrored table: names, types, and the statements that make and fill it.

One table per Dataverse table, under its logical name; columns under theirs. A polymorphic lookup has its table in
``<name>type``, text its fold in ``<name>__fold``. Three columns of ours: ``__etag``; ``__load``, the number of the full
load that last saw the row; ``__unfit``, the columns whose value is too large to be mirrored.

Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from d365sync.core.schema import Column, Table
from d365sync.core.storage import (
    FOLD_SUFFIX,
    StorageRangeError,
    StoredAs,
    decode,
    encode,
    fold,
    has_fold,
    scale_of,
    stored_as,
)
from d365sync.core.values import Value

Dialect = Literal["sqlite", "postgresql"]
VERSION = "versionnumber"
ETAG_COLUMN = "__etag"
LOAD_COLUMN = "__load"
UNFIT_COLUMN = "__unfit"
ETAG_KEY = "@odata.etag"
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
    def stored_columns(self) -> tuple[tuple[str, StoredAs], ...]:
        """Every SQL column with its type, companions included, ours last."""
        stored: list[tuple[str, StoredAs]] = []
        for column in self.columns:
            kind = StoredAs.TEXT if column.logical_name in self.as_text else stored_as(column)
            stored.append((column.logical_name, kind))
            if column.is_polymorphic:
                stored.append((column.type_name, StoredAs.TEXT))
            if has_fold(column):
                stored.append((column.logical_name + FOLD_SUFFIX, StoredAs.TEXT))
        ours = ((UNFIT_COLUMN, StoredAs.TEXT), (ETAG_COLUMN, StoredAs.TEXT), (LOAD_COLUMN, StoredAs.INTEGER))
        return (*stored, *ours)

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
        """Return the statements that make the table and its before-images."""
        lines = [f"{quote(name)} {_sql_type(kind, dialect)}" for name, kind in self.stored_columns]
        lines[0] += " PRIMARY KEY"
        body = ", ".join(lines)
        made = tuple(f"CREATE TABLE {quote(name)} ({body})" for name in (self.name, BEFORE_PREFIX + self.name))
        index, unfit = quote(f"_unfit_{self.name[:50]}"), quote(UNFIT_COLUMN)
        return (*made, f"CREATE INDEX {index} ON {quote(self.name)} ({unfit}) WHERE {unfit} IS NOT NULL")

    def drop(self) -> tuple[str, ...]:
        """Return the statements that remove them, if they are there."""
        return tuple(f"DROP TABLE IF EXISTS {quote(name)}" for name in (self.name, BEFORE_PREFIX + self.name))

    def upsert(self, dialect: Dialect) -> str:
        """Return the statement that puts one row in place of what stands under its key."""
        names = [quote(name) for name, _ in self.stored_columns]
        marks = ", ".join([mark(dialect)] * len(names))
        updates = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        return (
            f"INSERT INTO {quote(self.name)} ({', '.join(names)}) VALUES ({marks}) "
            f"ON CONFLICT ({names[0]}) DO UPDATE SET {updates}"
        )

    def encode(self, column: Column, value: Value) -> int | float | str | None:
        """Return the stored spelling of a value.

        Raises:
            ValueError: it cannot be stored exactly.
        """
        if column.logical_name in self.as_text and value is not None:
            return str(value)
        return encode(column, value)

    def decode(self, column: Column, stored: int | float | str | None) -> Value:
        """Return the value of a stored spelling."""
        if column.logical_name in self.as_text and stored is not None:
            return Decimal(str(stored))
        return decode(column, stored)

    def stored_row(self, row: Mapping[str, Any], load_number: int) -> tuple[int | float | str | None, ...]:
        """Return a row in stored spelling, in the order of :attr:`stored_columns`.

        A number too large to be stored is left out, and its column named in :data:`UNFIT_COLUMN`: what would ask for
        it must be refused.

        Raises:
            ValueError: a value cannot be stored exactly.
        """
        stored: list[int | float | str | None] = []
        unfit: list[str] = []
        for column in self.columns:
            value: Value = row.get(column.logical_name)
            try:
                stored.append(self.encode(column, value))
            except StorageRangeError:
                stored.append(None)
                unfit.append(column.logical_name)
            if column.is_polymorphic:
                stored.append(row.get(column.type_name))
            if has_fold(column):
                stored.append(fold(value) if isinstance(value, str) else None)
        stored += [" ".join(unfit) or None, row.get(ETAG_KEY), load_number]
        return tuple(stored)


def mark(dialect: Dialect) -> str:
    """Return the driver's positional parameter mark."""
    return "?" if dialect == "sqlite" else "%s"


def marks(dialect: Dialect, values: Sequence[object]) -> str:
    """Return a bracketed list of parameter marks."""
    return f"({', '.join([mark(dialect)] * len(values))})"


def _sql_type(kind: StoredAs, dialect: Dialect) -> str:
    if kind is StoredAs.TEXT and dialect == "postgresql":
        return 'TEXT COLLATE "C"'
    return kind.value
