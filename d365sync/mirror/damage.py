"""A damaged mirror: found, put aside under another name, and made again empty; the next cycle pulls everything.

IO: files, SQL.
"""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from pathlib import Path

from d365sync.errors import MirrorError

COMPANIONS = ("", "-wal", "-shm")
ASIDE = ".damaged-"


def set_aside(database: Path, now: dt.datetime) -> Path:
    """Rename the files of a SQLite database; of those put aside before, none is kept. Return the new name.

    Raises:
        MirrorError: another program has it open, or the folder may not be written to.
    """
    for older in database.parent.glob(f"{database.name}{ASIDE}*"):
        with suppress(OSError):
            older.unlink()
    aside = database.with_name(f"{database.name}{ASIDE}{now:%Y%m%dT%H%M%SZ}")
    try:
        for companion in COMPANIONS:
            with suppress(FileNotFoundError):
                Path(f"{database}{companion}").rename(f"{aside}{companion}")
    except OSError as error:
        raise MirrorError(
            f"the mirror is damaged and cannot be put aside: {error.strerror}",
            hint=f"stop what has {database} open and delete it; the next sync pulls everything again",
        ) from error
    return aside
