"""What a cycle asks for, by kind of request: the arithmetic minimum, on the demo organization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from d365sync.app import App, opened
from d365sync.emulator import Emulator
from d365sync.sync.cycle import CycleResult
from tests.emulated import NOW, configuration
from tests.integration.test_pull import Between

DEMO = Path(__file__).parents[2] / "fixtures" / "orgs" / "demo"
PAGE = 10


@contextmanager
def counted(folder: Path, *, page_size: int = 5000) -> Iterator[tuple[App, Emulator, Counter[str]]]:
    """Open the application on the demo organization; the counter tells what was asked, by kind."""
    emulator = Emulator.load(DEMO, now=NOW)
    kinds: Counter[str] = Counter()

    def note(address: str) -> None:
        path = address.partition("?")[0]
        kind = "sign-in" if "://" in path else "delta" if "deltatoken" in address else "rows"
        kind = "who" if path == "WhoAmI" else kind
        kinds["batch" if path == "$batch" else "metadata" if "Definitions" in path else kind] += 1

    session = requests.Session()
    session.mount("https://", Between(emulator, note, []))
    config = configuration(emulator, folder, dataverse={"page_size": page_size}, writeback={"mode": "plan"})
    with opened(config, clock=lambda: NOW, environ={}, session=session) as app:
        yield app, emulator, kinds


def tracked(result: CycleResult) -> int:
    return sum(result.snapshot.schema.table(pull.name).change_tracking for pull in result.pulls)


def test_a_first_sync_is_a_request_a_table_and_two_for_definitions_an_idle_one_a_delta_call_each_and_a_batch(
    tmp_path: Path,
) -> None:
    with counted(tmp_path) as (app, _, kinds):
        first = app.sync(write=False)
        del kinds["sign-in"]
        assert kinds == {"who": 1, "rows": len(first.pulls), "batch": 2}
        kinds.clear()
        result = app.sync(write=False)
        assert result.counts["changed_rows"] == 0
        assert kinds == {"delta": tracked(result), "batch": 1}
        assert result.counts["requests"] == tracked(result) + 1
        assert tracked(result) < len(result.pulls)


def test_changed_rows_cost_the_pages_they_fill(tmp_path: Path) -> None:
    with counted(tmp_path) as (app, _, _):
        app.sync(write=False)
    with counted(tmp_path, page_size=PAGE) as (app, emulator, kinds):
        app.sync(write=False)
        kinds.clear()
        app.sync(write=False)
        idle = kinds.total()
        kinds.clear()
        deals = sorted(emulator.store.rows("opportunity"))[:30]
        for number, key in enumerate(deals):
            if number % 3 == 0:
                emulator.store.remove("opportunity", key)
            else:
                emulator.store.change("opportunity", key, {"name": f"Changed {number}"})
        result = app.sync(write=False)
        assert result.counts["changed_rows"] == len(deals)
        assert kinds.total() == idle + len(deals) // PAGE - 1
