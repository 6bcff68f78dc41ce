"""What writing goals costs on the wire, against the arithmetic minimum.

The minimum is found by hand: one request for every 1,000 goals, with the columns of each that differ, both flags
(without which Dataverse refuses or forgets them) and the time; nothing else.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from d365sync.core.goals.writes import GoalWrite
from d365sync.dataverse.batch import MOST_PARTS, Part, compose
from d365sync.dataverse.client import name_lookups
from d365sync.dataverse.wire import encode_body, select_clause
from d365sync.emulator import Emulator
from d365sync.sync.cycle import CycleResult
from tests.bench.report import equal_line
from tests.emulated import NOW, application
from tests.golden.casebook import read_cases, write_org

CASES = Path(__file__).parents[2] / "fixtures" / "goals"
GOALS = 1000
BOUNDARY = "batch_00000000-0000-0000-0000-000000000000"
"""As long as any."""


def many_goals(folder: Path) -> Emulator:
    """Return an organization of that many goals, none of which was ever rolled up."""
    case = copy.deepcopy(next(one for one in read_cases(CASES) if one.name == "tree"))
    ann = next(row for row in case.tables["Goals"] if row["goal"] == "Ann")
    missing = GOALS - len(case.tables["Goals"])
    case.tables["Goals"] += [{**ann, "goal": f"Ann {number:04}", "parent": ""} for number in range(missing)]
    write_org(case, folder / "org")
    return Emulator.load(folder / "org", now=NOW)


def writing(part: str) -> Iterator[str]:
    """Count what it costs to write every goal, beyond the cycle that finds out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with application(many_goals(folder), folder, rollup={"double_counting": "off"}) as app:
            app.sync(write=False)
            idle = app.sync(write=False).traffic
            result = app.sync(write=True)
            if result.counts["written_goals"] != GOALS:
                raise AssertionError(f"{part}: {result.counts}")
            title = f"{part}: {GOALS:,} goal writes"
            requests = result.traffic.requests - idle.requests
            yield equal_line(title, "requests", requests, math.ceil(GOALS / MOST_PARTS))
            sent = result.traffic.sent_bytes - idle.sent_bytes
            yield equal_line(title, "bytes sent", sent, _least_bytes(result, app.line.client.api_root))


def _least_bytes(result: CycleResult, api_root: str) -> int:
    goals = result.snapshot.tables["goal"]
    query = f"?$select={select_clause(goals.table, goals.column_names)}"
    parts = [
        Part(
            "PATCH",
            f"goals({write.goal_id}){query}",
            {
                "Accept": "application/json",
                "Prefer": f"return=representation,{name_lookups()}",
                "If-Match": write.etag,
            },
            encode_body(_columns(write)),
        )
        for write in result.plan.writes
    ]
    return len(compose(parts, urlsplit(api_root).path, BOUNDARY))


def _columns(write: GoalWrite) -> dict[str, object]:
    changed = {one.column: one.ours for one in write.changes if one.native != one.ours}
    return {"isoverride": True, "isoverridden": True, "lastrolledupdate": NOW, **changed}
