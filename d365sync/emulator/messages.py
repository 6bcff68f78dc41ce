"""Which messages which tables have: the rows of ``sdkmessages`` and ``sdkmessagefilters``.

They follow from the tables and are made again whenever those change. Source: Use bulk operation messages (availability:
how to ask; there is no row for UpsertMultiple). Assumed: nothing beyond these messages; what an org folder says of the
two tables stays.

Pure.
"""

from __future__ import annotations

import uuid

from d365sync.emulator.store import Store

EVERY = ("Create", "Update", "Delete", "Retrieve", "RetrieveMultiple")
BULK = ("CreateMultiple", "UpdateMultiple")

_IDS = uuid.UUID("5e1a4f7e-3a44-5d0b-9a57-0d3f6a0c7b11")


def list_messages(store: Store) -> None:
    """Add the rows that are missing, and take away those of tables that are gone."""
    for message in (*EVERY, *BULK):
        message_id = str(uuid.uuid5(_IDS, message))
        if store.get("sdkmessage", message_id) is None:
            store.put("sdkmessage", {"sdkmessageid": message_id, "name": message})
    wanted = {
        str(uuid.uuid5(_IDS, f"{message}/{facts.name}")): (message, facts.name)
        for facts in store.catalogue.tables.values()
        for message in (*EVERY, *(BULK if facts.bulk else ()))
    }
    for row_id in wanted.keys() - store.rows("sdkmessagefilter").keys():
        message, table = wanted[row_id]
        store.put(
            "sdkmessagefilter",
            {
                "sdkmessagefilterid": row_id,
                "sdkmessageid": str(uuid.uuid5(_IDS, message)),
                "primaryobjecttypecode": table,
            },
        )
    for row_id, row in list(store.rows("sdkmessagefilter").items()):
        if row.get("primaryobjecttypecode") not in store.catalogue.tables:
            store.remove("sdkmessagefilter", row_id)
