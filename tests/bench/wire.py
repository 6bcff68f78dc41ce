"""What cycles cost on the wire: requests and bytes counted by the client, against the arithmetic minimum.

The minimum is found by asking for the same pages by hand, one by one, with a client of its own: the delta page of every
tracked table, and the whole of every small table; these share one batch, whose framing is measured too.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from d365sync.app import App, make_client
from d365sync.dataverse.batch import MULTIPART, Part, compose, content_type, parse
from d365sync.dataverse.wire import select_clause
from d365sync.emulator import Emulator
from d365sync.sync.offline import mirrored
from tests.bench.report import equal_line
from tests.bench.writing import writing
from tests.emulated import NOW, application, configuration

if TYPE_CHECKING:
    from d365sync.dataverse.client import DataverseClient
    from d365sync.mirror.tables import MirrorTable

DEMO = Path(__file__).parents[2] / "fixtures" / "orgs" / "demo"
PAGE_ROWS = 5000
CHANGED, DELETED = 50, 50
TRACKED = "odata.track-changes"
BOUNDARY = "batch_00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Cost:
    """Requests, and bytes of bodies, decompressed."""

    requests: int
    bytes: int


def wire(part: str) -> Iterator[str]:
    """Count what cycles of the demo organization cost, and what they have to."""
    emulator = Emulator.load(DEMO, now=NOW)
    with tempfile.TemporaryDirectory() as folder, application(emulator, Path(folder)) as app:
        asking = make_client(configuration(emulator, Path(folder)), environ={}, session=emulator.session())
        app.sync(write=False)
        yield from _cycle(f"{part}: idle cycle", app, asking, changed=0)
        change(emulator, "opportunity")
        title = f"{part}: cycle after {CHANGED} changes and {DELETED} deletes"
        yield from _cycle(title, app, asking, changed=CHANGED + DELETED)
    yield from writing(part)


def change(emulator: Emulator, name: str) -> None:
    """Change some rows of a table, and remove some others."""
    for number, key in enumerate(sorted(emulator.store.rows(name))[: CHANGED + DELETED]):
        if number < CHANGED:
            emulator.store.change(name, key, {"name": f"Changed {number}"})
        else:
            emulator.store.remove(name, key)


def _cycle(title: str, app: App, asking: DataverseClient, *, changed: int) -> Iterator[str]:
    """Ask for the pages by hand, then let a cycle read them, and compare."""
    least = minimum(app, asking, changed)
    before = app.line.client.usage.since()
    result = app.sync(write=False)
    cost = app.line.client.usage.since(before)
    if result.counts["changed_rows"] != changed:
        raise AssertionError(f"{title}: {result.counts}")
    yield equal_line(title, "requests", cost.requests, least.requests)
    yield equal_line(title, "bytes of bodies", cost.bytes, least.bytes)


def minimum(app: App, asking: DataverseClient, changed: int) -> Cost:
    """Return what a cycle has to cost; ``changed`` rows are all of one tracked table."""
    tables = mirrored(app.line, NOW).tables.values()
    links = {name: position.delta_link for name, (position, _) in app.line.mirror.positions().items()}
    tracked = [links[table.name] or "" for table in tables if links[table.name]]
    small = [table for table in tables if not links[table.name]]
    read = sum(_bytes(asking, link, f"{TRACKED},{asking.paging}") for link in tracked)
    read += sum(_bytes(asking, f"{asking.api_root}/{_path(table)}", asking.paging) for table in small)
    further_pages = max(0, math.ceil(changed / PAGE_ROWS) - 1)
    return Cost(len(tracked) + further_pages + 1, read + _framing(asking, small))


def _bytes(asking: DataverseClient, address: str, prefer: str) -> int:
    return len(asking.transport.send("GET", address, prefer=prefer).body)


def _framing(asking: DataverseClient, tables: Sequence[MirrorTable]) -> int:
    """Return how many bytes of a batch's answer are not its parts' bodies."""
    parts = [Part("GET", _path(table), {"Prefer": asking.paging}) for table in tables]
    answer = asking.transport.send(
        "POST",
        f"{asking.api_root}/$batch",
        body=compose(parts, urlsplit(asking.api_root).path, BOUNDARY),
        content_type=content_type(BOUNDARY),
        expects=MULTIPART,
    )
    answers = parse(answer.headers["Content-Type"], answer.body, len(parts))
    return len(answer.body) - sum(len(one.body) for one in answers)


def _path(table: MirrorTable) -> str:
    return f"{table.table.entity_set_name}?$select={select_clause(table.table, table.column_names)}"
