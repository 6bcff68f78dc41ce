"""What can be told of a mirror without changing it: damage, leftovers, size.

IO: SQL.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, inspect

from d365sync.database import first_damage, size_of
from d365sync.mirror.layout import is_laid_out
from d365sync.mirror.tables import BEFORE_PREFIX


@dataclass(frozen=True, slots=True)
class MirrorFacts:
    """A mirror looked at. ``orphans`` are tables, bookmarks and changes of which the mirror does not know the table."""

    is_current: bool
    damage: str | None
    tables: int
    orphans: tuple[str, ...]
    size_bytes: int | None


def facts(connection: Connection) -> MirrorFacts:
    """Look a mirror through, within one transaction."""
    damage = first_damage(connection, thorough=True)
    if not is_laid_out(connection):
        return MirrorFacts(is_current=False, damage=damage, tables=0, orphans=(), size_bytes=size_of(connection, []))
    there = set(inspect(connection).get_table_names())
    known = set(connection.exec_driver_sql("SELECT name FROM _table").scalars())
    own = {name for name in there if name.removeprefix(BEFORE_PREFIX) in known}
    orphans = [name for name in sorted(there) if name.startswith(BEFORE_PREFIX) and name not in own]
    orphans += [f"table {name}, which is not there" for name in sorted(known - there)]
    for table in ("_bookmark", "_changed"):
        sql = f"SELECT DISTINCT name FROM {table} WHERE name NOT IN (SELECT name FROM _table) ORDER BY name"
        orphans += [f"{table} of {name}" for name in connection.exec_driver_sql(sql).scalars()]
    size = size_of(connection, sorted(own | {name for name in there if name.startswith("_")}))
    return MirrorFacts(is_current=True, damage=damage, tables=len(known), orphans=tuple(orphans), size_bytes=size)
