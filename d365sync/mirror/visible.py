"""The ids of the rows that each goal manager may read, table by table, as Dataverse told them.

Each pair of table and manager has a version that grows only when its ids differ from before: a goal is computed again
when the version of its manager moved.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, text

from d365sync.core.values import format_instant, parse_instant
from d365sync.mirror.sums import SLICE_TABLE
from d365sync.mirror.tables import Dialect, MirrorTable, mark, quote

Pair: TypeAlias = tuple[str, str]
"""A table's logical name and a manager's id."""

UNREADABLE = "unreadable"
REFUSED = "refused"
_THIS = "WHERE name = :name AND manager_id = :manager"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a manager's rows are none (``UNREADABLE``) or not known (``REFUSED``), and what mends it."""

    kind: str
    reason: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class PairState:
    """What is known of a pair: when all its ids were last asked for, the version of the ids, what went wrong."""

    refreshed_at: dt.datetime
    version: int
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """How many ids came and went."""

    added: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class VisibleIds:
    """The ids of every pair within one transaction."""

    connection: Connection
    dialect: Dialect

    def states(self) -> dict[Pair, PairState]:
        """Return every pair that was asked about."""
        sql = "SELECT name, manager_id, refreshed_at, version, fault, reason, mend FROM _visibility"
        return {
            (row[0], row[1]): PairState(
                parse_instant(row[2]), row[3], Fault(row[4], row[5], row[6]) if row[4] else None
            )
            for row in self.connection.exec_driver_sql(sql)
        }

    def ids(self, pair: Pair) -> set[str]:
        """Return the ids of a pair."""
        found = self.connection.execute(text(f"SELECT row_id FROM _visible {_THIS}"), _named(pair))
        return {row[0] for row in found}

    def replace(self, pair: Pair, ids: Collection[str], at: dt.datetime, fault: Fault | None = None) -> Difference:
        """Put all the ids of a pair in place of those known, as asked for at the instant ``at``."""
        known, wanted = self.ids(pair), set(ids)
        return self._change(pair, wanted - known, known - wanted, at=at, fault=fault)

    def settle(self, pair: Pair, asked: Iterable[str], seen: Iterable[str]) -> Difference:
        """Correct some of a pair's ids: of those ``asked`` about, the manager may read those ``seen``."""
        known, wanted = self.ids(pair), set(seen)
        return self._change(pair, wanted - known, (set(asked) - wanted) & known)

    def refuse(self, pair: Pair, at: dt.datetime, fault: Fault) -> None:
        """Note that a pair's ids could not be told; those known stay."""
        self._change(pair, set(), set(), at=at, fault=fault)

    def keep_only(self, pairs: Collection[Pair]) -> None:
        """Forget every other pair."""
        for pair in self.states().keys() - set(pairs):
            for table in ("_visible", "_visibility"):
                self.connection.execute(text(f"DELETE FROM {table} {_THIS}"), _named(pair))

    def changed_ids(self, table: MirrorTable, *, up_to: int) -> list[str] | None:
        """Return the ids of the rows that came or changed since the last recompute and are still there, sorted.

        None when that is everything, or more than ``up_to``.
        """
        name = {"name": table.name}
        if self.connection.execute(text("SELECT all_changed FROM _table WHERE name = :name"), name).scalar():
            return None
        key = quote(table.table.primary_id)
        sql = f"SELECT r.{key} FROM _changed c JOIN {quote(table.name)} r ON r.{key} = c.row_id WHERE c.name = :name"
        found = [row[0] for row in self.connection.execute(text(sql), name)]
        return sorted(found) if len(found) <= up_to else None

    def _change(
        self,
        pair: Pair,
        added: Collection[str],
        removed: Collection[str],
        *,
        at: dt.datetime | None = None,
        fault: Fault | None = None,
    ) -> Difference:
        self._each("DELETE FROM _visible WHERE name = {} AND manager_id = {} AND row_id = {}", pair, removed)
        self._each("INSERT INTO _visible (name, manager_id, row_id) VALUES ({}, {}, {})", pair, added)
        if added or removed:
            self.connection.execute(text(f"UPDATE _visibility SET version = version + 1 {_THIS}"), _named(pair))
        if at is not None:
            self._save(pair, at, fault, version=1 if added or removed else 0)
        return Difference(len(added), len(removed))

    def _each(self, statement: str, pair: Pair, ids: Collection[str]) -> None:
        if ids:
            entries = [(*pair, one) for one in sorted(ids)]
            self.connection.exec_driver_sql(statement.format(*[mark(self.dialect)] * 3), entries)

    def _save(self, pair: Pair, at: dt.datetime, fault: Fault | None, *, version: int) -> None:
        """Note when and how a pair was asked about; ``version`` is added for a pair not known before.

        Such a pair begins above every version that kept sums may still carry from when it was known.
        """
        columns = ("name", "manager_id", "refreshed_at", "version", "fault", "reason", "mend")
        told = (fault.kind, fault.reason, fault.mend) if fault else ("", "", "")
        one = mark(self.dialect)
        kept = f"(SELECT COALESCE(MAX(seen), 0) FROM {SLICE_TABLE} WHERE manager = {one}) + {one}"
        values = [kept if name == "version" else one for name in columns]
        self.connection.exec_driver_sql(
            f"INSERT INTO _visibility ({', '.join(columns)}) VALUES ({', '.join(values)}) "
            "ON CONFLICT (name, manager_id) DO UPDATE SET refreshed_at = excluded.refreshed_at, "
            "fault = excluded.fault, reason = excluded.reason, mend = excluded.mend",
            (*pair, format_instant(at), pair[1], version, *told),
        )


def _named(pair: Pair) -> Mapping[str, str]:
    return {"name": pair[0], "manager": pair[1]}
