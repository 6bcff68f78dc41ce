"""The format of a journal: made as the models say, brought up to date by migrations, refused when it is newer.

A new journal is made at once from the models; an older one is migrated in one transaction, after a copy of it was put
aside. That both lead to the same tables is tested.

IO: SQL.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, column, insert, inspect, select, table

from d365sync.errors import JournalError, LeaseError
from d365sync.journal.lease import read_lease
from d365sync.journal.models import FORMAT, JournalFormat, JournalModel

if TYPE_CHECKING:
    from alembic.config import Config

FORMATS = JournalModel.metadata.tables[str(JournalFormat.__tablename__)]
VERSION_TABLE = "alembic_version"
WITH_LEASE = 2
"""The first format that knows a lease."""


def format_of(connection: Connection) -> int | None:
    """Return the format of the journal in a database, None when there is none."""
    if not inspect(connection).has_table(FORMATS.name):
        return None
    found = connection.execute(select(FORMATS.c.version)).scalar_one_or_none()
    return None if found is None else int(found)


def refuse_newer(found: int | None) -> None:
    """Refuse a format that this version does not know.

    Raises:
        JournalError: it is newer.
    """
    if found is not None and found > FORMAT:
        raise JournalError(
            f"the journal has format {found}, this version of d365sync knows formats up to {FORMAT}",
            hint="use the version of d365sync that wrote it, or a newer one; "
            "a copy from before its upgrade can be put back with `d365sync db restore`",
        )


def make(connection: Connection) -> None:
    """Make the tables of a new journal, as if every migration had been run."""
    JournalModel.metadata.create_all(connection)
    connection.execute(FORMATS.insert().values(id=1, version=FORMAT))
    connection.exec_driver_sql(
        f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
        f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    connection.execute(insert(table(VERSION_TABLE, column("version_num"))).values(version_num=str(FORMAT)))


def upgrade(connection: Connection, *, found: int, to: int = FORMAT) -> None:
    """Run the migrations from a format (0: there is no table yet) to another, in the connection's transaction."""
    from alembic import command

    config = _alembic(connection)
    if found and not inspect(connection).has_table(VERSION_TABLE):
        command.stamp(config, str(found))
    command.upgrade(config, str(to))


def refuse_while_held(connection: Connection, found: int, now: dt.datetime) -> None:
    """Refuse to change the format under the feet of an instance that works.

    Raises:
        LeaseError: one does.
    """
    lease = read_lease(connection) if found >= WITH_LEASE else None
    if lease is not None and not lease.is_over(now):
        raise LeaseError(
            f"the journal has format {found} and must be upgraded to {FORMAT}, but {lease.holder} works with it",
            hint="stop that instance first; an instance of this version then upgrades the journal",
        )


def _alembic(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
