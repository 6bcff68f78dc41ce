"""What the emulator knows of tables beyond the core's schema: navigation names, choices, ranges, defaults.

Pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum

from d365sync.core.schema import Column, ColumnType, Schema, Table
from d365sync.core.values import Value


class Ownership(StrEnum):
    """Who owns the rows of a table."""

    USER = "user"
    PARENT = "parent"
    ORGANIZATION = "org"
    BUSINESS_UNIT = "bu"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column.

    ``navigation`` maps each target table to its single-valued navigation property; ``options`` are labels by
    value (for two options by 0 and 1), empty when they are not known and any value is taken; ``states`` maps a
    status to its state; ``minimum`` and ``maximum`` are inclusive.
    """

    column: Column
    navigation: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[int, str] = field(default_factory=dict)
    states: Mapping[int, int] = field(default_factory=dict)
    default: Value = None
    date_format: str | None = None
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    max_length: int | None = None

    @property
    def name(self) -> str:
        """The logical name."""
        return self.column.logical_name


@dataclass(frozen=True, slots=True)
class AlternateKey:
    """Columns whose values together name a row; ``name`` is the key's, ``managed``: it is the platform's."""

    name: str
    columns: tuple[str, ...]
    managed: bool = False


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table.

    ``properties`` maps Web API property names to logical names; ``navigation`` maps a single-valued navigation
    property to its lookup column and the tables it may name; ``collections`` maps a collection-valued one to
    the other table and the lookup there; ``defaults`` are the values of columns a new row leaves out;
    ``bulk`` says that the table has CreateMultiple and UpdateMultiple; ``answered`` keeps what was answered about its
    columns, by what was asked: definitions are asked for again and again, and never change in place.
    """

    table: Table
    columns: Mapping[str, ColumnFacts]
    ownership: Ownership
    privilege: str
    collections: Mapping[str, tuple[str, str]]
    properties: Mapping[str, str]
    navigation: Mapping[str, tuple[str, tuple[str, ...]]]
    money: tuple[str, ...]
    defaults: Mapping[str, Value]
    keys: tuple[AlternateKey, ...] = ()
    bulk: bool = False
    answered: dict[Hashable, bytes] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The logical name."""
        return self.table.logical_name

    @property
    def key(self) -> str:
        """The primary key column."""
        return self.table.primary_id


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every table, by logical name and by entity set name, and the same as the core's schema."""

    tables: Mapping[str, TableFacts]
    sets: Mapping[str, TableFacts]
    schema: Schema

    @classmethod
    def of(cls, tables: Iterable[TableFacts]) -> Catalogue:
        """Build the catalogue; collections of tables that are not in it are left out."""
        by_name = {facts.name: facts for facts in tables}
        by_name = {name: _with_known_collections(facts, by_name) for name, facts in by_name.items()}
        by_set = {facts.table.entity_set_name: facts for facts in by_name.values()}
        return cls(by_name, by_set, Schema.of(facts.table for facts in by_name.values()))

    def having(self, facts: TableFacts) -> Catalogue:
        """Return the catalogue with a table added, or in place of the one of its name."""
        return self.of({**self.tables, facts.name: facts}.values())


def _with_known_collections(facts: TableFacts, tables: Mapping[str, TableFacts]) -> TableFacts:
    """Leave out collections of a table, or by a lookup, that is no longer there."""
    kept: dict[str, tuple[str, str]] = {}
    for name, (table, lookup) in facts.collections.items():
        column = tables[table].columns.get(lookup) if table in tables else None
        if column is not None and facts.name in column.navigation:
            kept[name] = (table, lookup)
    return facts if len(kept) == len(facts.collections) else replace(facts, collections=kept)


def describe(
    table: Table,
    columns: Iterable[ColumnFacts],
    ownership: Ownership,
    privilege: str,
    collections: Mapping[str, tuple[str, str]],
    keys: tuple[AlternateKey, ...] = (),
    *,
    bulk: bool = False,
) -> TableFacts:
    """Join a table with its columns and index them by every name the Web API uses."""
    by_name = {facts.name: facts for facts in columns}
    navigation: dict[str, tuple[str, tuple[str, ...]]] = {}
    for facts in by_name.values():
        for target, name in facts.navigation.items():
            navigation[name] = (facts.name, (*navigation.get(name, ("", ()))[1], target))
    return TableFacts(
        table=table,
        columns=by_name,
        ownership=ownership,
        privilege=privilege,
        collections=collections,
        properties={facts.column.property_name: facts.name for facts in by_name.values()},
        navigation=navigation,
        money=tuple(n for n, f in by_name.items() if f.column.type is ColumnType.MONEY and f"{n}_base" in by_name),
        defaults={name: facts.default for name, facts in by_name.items() if facts.default is not None},
        keys=keys,
        bulk=bulk,
    )
