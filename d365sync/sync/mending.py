"""A damaged mirror is put aside and begun anew, by whoever holds the lease.

IO: files, SQL, through the mirror.
"""

from __future__ import annotations

import datetime as dt

import structlog

from d365sync.errors import Fault, MirrorError
from d365sync.mirror.store import Mirror

log = structlog.get_logger(__name__)


def mend(mirror: Mirror, error: MirrorError, now: dt.datetime) -> bool:
    """Put a damaged mirror aside and begin an empty one; say whether that was done.

    Raises:
        MirrorError: it cannot be put aside.
    """
    if error.fault is not Fault.DAMAGED:
        return False
    aside = mirror.make_again(now)
    if aside is not None:
        log.warning("mirror.damaged", reason=str(error), kept_as=str(aside), next="everything is pulled again")
    return aside is not None
