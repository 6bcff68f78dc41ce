"""Which columns of a table are stored, in which order and spelling: what a page is decoded to and a mirror keeps.

The reader of pages and the mirror do not know each other; both know this. A stored row is a tuple: the value columns
with their companions, then the columns whose value could not be stored, then the etag.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeAlias

from d365sync.core.schema import Column, Table
from d365sync.core.storage import (
    FOLD_SUFFIX,
    StorageRangeError,
    StoredAs,
    decode,
    encode,
    fold,
    has_fold,
    stored_as,
)
from d365sync.core.values import Value

Stored: TypeAlias = int | float | str | None
StoredRow: TypeAlias = tuple[Stored, ...]

VERSION = "versionnumber"
ETAG_KEY = "@odata.etag"
DAMAGED = "!"
"""Before the name of a column left out: its value is none of its type; without it, the value is only too large."""


@dataclass(frozen=True)
class RowShape:
    """The columns of a table that are stored, the key first.

    ``as_text`` are decimal columns kept as text: they are only read back, and their range does not fit 64 bits.
    """

    table: Table
    columns: tuple[Column, ...]
    as_text: frozenset[str] = frozenset()

    @cached_property
    def stored_columns(self) -> tuple[tuple[str, StoredAs], ...]:
        """Every value column with its type: a polymorphic lookup has its table, text its fold, after it."""
        stored: list[tuple[str, StoredAs]] = []
        for column in self.columns:
            kind = StoredAs.TEXT if column.logical_name in self.as_text else stored_as(column)
            stored.append((column.logical_name, kind))
            if column.is_polymorphic:
                stored.append((column.type_name, StoredAs.TEXT))
            if has_fold(column):
                stored.append((column.logical_name + FOLD_SUFFIX, StoredAs.TEXT))
        return tuple(stored)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Where each stored column stands in a stored row."""
        return {name: at for at, (name, _) in enumerate(self.stored_columns)}

    @property
    def column_names(self) -> tuple[str, ...]:
        """Logical names, the key first."""
        return tuple(column.logical_name for column in self.columns)

    def encode(self, column: Column, value: Value) -> Stored:
        """Return the stored spelling of a value.

        Raises:
            ValueError: it cannot be stored exactly.
        """
        if column.logical_name in self.as_text and value is not None:
            return str(value)
        return encode(column, value)

    def decode(self, column: Column, stored: Stored) -> Value:
        """Return the value of a stored spelling."""
        if column.logical_name in self.as_text and stored is not None:
            return Decimal(str(stored))
        return decode(column, stored)

    def stored(self, row: Mapping[str, Any], damaged: dict[str, str] | None = None) -> StoredRow:
        """Return a row in stored spelling: the values, the names of those left out, the etag.

        A number too large to be stored is left out, and its column named: what would ask for it must be refused. With
        ``damaged``, columns with the reason, the same is done with those columns, and with values that cannot be stored
        exactly, which are added to it.

        Raises:
            ValueError: a value cannot be stored exactly, without ``damaged``.
        """
        stored: list[Stored] = []
        unfit = [DAMAGED + name for name in damaged or ()]
        for column in self.columns:
            value: Value = row.get(column.logical_name)
            try:
                stored.append(self.encode(column, value))
            except StorageRangeError:
                stored.append(None)
                unfit.append(column.logical_name)
            except ValueError as error:
                if damaged is None:
                    raise
                stored.append(None)
                unfit.append(DAMAGED + column.logical_name)
                damaged[column.logical_name] = str(error)
            if column.is_polymorphic:
                stored.append(row.get(column.type_name))
            if has_fold(column):
                stored.append(fold(value) if isinstance(value, str) else None)
        return (*stored, " ".join(unfit) or None, row.get(ETAG_KEY))
