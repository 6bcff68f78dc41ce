"""The fault list, row by row: whole cycles under a fault file, then a quiet one, and what must hold after it.

Each file of ``fixtures/faults`` is one row, or one side of it; docs/faults.md says in words what is shown here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.app import App, opened
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.emulator.faults import Fault, FaultyApp, read_faults
from d365sync.emulator.inprocess import InProcessAdapter
from d365sync.emulator.native import recalculate
from d365sync.errors import D365SyncError
from d365sync.sync.cycle import CycleResult
from d365sync.sync.pull import Way
from tests.effort import examples
from tests.emulated import NOW, URL, configuration, goal_values
from tests.golden.casebook import made_id
from tests.integration.test_pull import assert_mirrored, pulled
from tests.scripted import VirtualTimer

FIXTURES = Path(__file__).parents[2] / "fixtures"
ORG = FIXTURES / "orgs" / "faults"
FILES = {path.stem: path for path in sorted((FIXTURES / "faults").glob("*.toml"))}
DEAL = "opportunity"
BOB = "Bob"
A_FORTNIGHT_S = 14 * 86_400


class Watched(BaseAdapter):
    """A network whose server can be exchanged; notes where requests went, and when by the timer."""

    def __init__(self, timer: VirtualTimer) -> None:
        super().__init__()
        self.server = InProcessAdapter(lambda _environ, _start: ())
        self.sent: list[tuple[float, str]] = []
        self._timer = timer

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self.sent.append((self._timer.now(), str(request.url)))
        return self.server.send(request, *args, **kwargs)

    def close(self) -> None:
        """Nothing is held open."""


@dataclass
class Bout:
    """What happened in the cycles under faults: exit codes, errors, results, requests, and the network."""

    app: App
    emulator: Emulator
    network: Watched
    codes: list[int] = field(default_factory=list)
    errors: list[D365SyncError] = field(default_factory=list)
    results: list[CycleResult] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)

    def cycle(self) -> None:
        before = len(self.network.sent)
        try:
            result = self.app.sync(write=True)
        except D365SyncError as error:
            self.codes.append(error.exit_code)
            self.errors.append(error)
        else:
            self.codes.append(int(result.outcome))
            self.results.append(result)
        self.requests.append(len(self.network.sent) - before)

    @property
    def said(self) -> str:
        return " ".join(str(error) for error in self.errors)

    def told(self) -> set[str]:
        return {problem.code for result in self.results for problem in result.rollup.problems}

    def left(self) -> set[str]:
        return {str(s.reason) for result in self.results if result.pushed for s in result.pushed.skips}


def nothing_more(_bout: Bout) -> None:
    """Exit codes, mirror, goals and silence are all."""


@dataclass(frozen=True)
class Row:
    """What a file promises: the exit codes of the cycles under it, and anything else that must hold then."""

    codes: Sequence[int]
    holds: Callable[[Bout], object] = nothing_more
    theirs: frozenset[str] = frozenset()
    guards: Mapping[str, object] = field(default_factory=dict)
    mended: Callable[[Emulator], object] = lambda _emulator: None


def waited(bout: Bout) -> None:
    assert sum(result.traffic.retries for result in bout.results) >= 1
    assert all(result.traffic.counts["requests"] < 200 for result in bout.results)


def asked_once(bout: Bout) -> None:
    assert all("retry_budget" in error.hint for error in bout.errors)
    assert sum("/opportunities" in url for _at, url in bout.network.sent) <= 2


def gave_up_early(bout: Bout) -> None:
    assert max(bout.requests) <= 40


def loaded_again(bout: Bout) -> None:
    assert pulled(bout.results[1]).way is Way.FULL
    assert pulled(bout.results[1]).deleted == 1


def a_token_for_each_that_expired(bout: Bout) -> None:
    assert sum(url.endswith("/token") for _at, url in bout.network.sent) == 1 + 3


def one_more_token(bout: Bout) -> None:
    assert sum(url.endswith("/token") for _at, url in bout.network.sent) <= 2 * len(bout.codes)
    assert all(count <= 8 for count in bout.requests)


def kept_the_rest(bout: Bout) -> None:
    assert "changed meanwhile" in bout.left()


def read_back(bout: Bout) -> None:
    assert all(result.pushed and not result.pushed.failures for result in bout.results)


def nothing_removed(bout: Bout) -> None:
    assert "nothing was removed" in bout.said
    assert bout.app.line.mirror.count(DEAL) > 20


def names_the_right(bout: Bout) -> None:
    assert "security role" in bout.errors[0].hint
    assert bout.app.line.mirror.count(DEAL) > 20


def left_out_and_named(bout: Bout) -> None:
    told = sorted(reason.partition(":")[0] for reason in pulled(bout.results[0]).damaged)
    assert told == ["opportunity.actualclosedate", "opportunity.actualvalue", "opportunity.name"]
    assert bout.app.line.mirror.count(DEAL) == 30
    titles = {goal.id: goal.title for goal in bout.results[0].snapshot.book.goals.values()}
    for result in bout.results:
        told = {titles[str(one.goal_id)]: one.code for one in result.rollup.problems}
        damaged = dict.fromkeys(("Ann", "South", "Fees"), "record-damaged")
        assert told == damaged | dict.fromkeys(("North", "Company"), "child-blocked")


def correct_records(emulator: Emulator) -> None:
    for key in list(emulator.store.rows(DEAL)):
        emulator.store.change(DEAL, key, {})


ROWS: Mapping[str, Row] = {
    "01-throttled": Row((0, 0), waited),
    "01-throttled-for-hours": Row((5, 5), asked_once),
    "02-failing-service": Row((0, 0), waited),
    "02-service-down": Row((5, 5), gave_up_early),
    "03-broken-connections": Row((0, 0), waited),
    "04-answers-that-are-none": Row((1, 1, 1, 1, 1)),
    "05-gzip-bomb": Row((1,), lambda bout: "larger" in bout.said),
    "06-delta-links-expired": Row((0, 0), loaded_again),
    "06-delta-links-refused": Row((0, 0), loaded_again),
    "06-tracking-switched-off": Row((0, 0), loaded_again),
    "07-tokens-expire": Row((0, 0), a_token_for_each_that_expired),
    "07-no-token-accepted": Row((6, 6), one_more_token),
    "08-tokens-that-are-none": Row((6, 6), one_more_token),
    "09-clocks-differ": Row((0, 0)),
    "17-people-edit-meanwhile": Row((0, 3), kept_the_rest, theirs=frozenset({BOB})),
    "18-native-rollup-meanwhile": Row((0, 0)),
    "19-answer-to-writes-lost": Row((0, 0, 0), read_back),
    "20-etags-of-another-kind": Row((0, 0), read_back),
    "20-no-etags": Row((3, 0)),
    "21-pages-twice-turned-and-stale": Row((0, 0)),
    "21-pages-in-a-circle": Row((1,)),
    "22-rows-change-while-paging": Row((0, 0)),
    "23-deleted-and-made-again": Row((0, 0, 0)),
    "24-rows-vanish": Row((0, 4), nothing_removed, guards={"deletions_rows": 10}),
    "24-right-taken-away": Row((0, 6), names_the_right),
    "25-column-removed": Row((0, 3)),
    "26-poison-records": Row((3, 3), left_out_and_named, mended=correct_records),
    "30-links-that-lead-away": Row((1,) * 16),
}


def test_every_file_is_run() -> None:
    assert FILES.keys() == ROWS.keys()


def seeded() -> list[tuple[str, int]]:
    """Return the files with seed 0, and those that are drawn by a seed with more seeds: as many as tests try hard."""
    drawn = [name for name in ROWS if any(fault.chance < 1 for fault in read_faults(FILES[name]))]
    return [(name, 0) for name in ROWS] + [(name, seed) for name in drawn for seed in range(1, 1 + examples(1))]


@pytest.mark.parametrize(("name", "seed"), seeded())
def test_cycles_end_as_promised_and_the_next_quiet_one_leaves_all_right(name: str, seed: int, tmp_path: Path) -> None:
    """Every seed but the first reads tables side by side, and large ones by ranges."""
    row = ROWS[name]
    together = {"partitions": 4, "tables": 4} if seed else {"partitions": 1, "tables": 1}
    settings = EmulatorSettings(change_tracking={DEAL: True})
    emulator = Emulator.load(ORG, now=NOW, settings=settings)
    faults = [replace(fault, seed=f"{fault.seed}/{seed}") for fault in read_faults(FILES[name])]
    timer = VirtualTimer()
    network = Watched(timer)
    session = requests.Session()
    session.mount("https://", network)
    session.mount("http://", network)
    config = configuration(emulator, tmp_path, dataverse={"page_size": 10}, pull=together, guards=row.guards)
    with opened(config, clock=lambda: NOW, environ={}, session=session, timer=timer) as app:
        bout = Bout(app, emulator, network)
        faulty = FaultyApp(emulator.app, faults)
        network.server = InProcessAdapter(faulty)
        for number in range(len(row.codes)):
            bout.cycle()
            people_work(emulator, number)
        assert bout.codes == list(row.codes), bout.said
        assert row.holds(bout) is not False
        assert_struck(faulty.struck, faults, row, seed)
        assert {urlsplit(url)[:2] for _at, url in network.sent} == {("https", urlsplit(URL).netloc)}
        network.server = InProcessAdapter(emulator.app)
        timer.wait_until(timer.now() + A_FORTNIGHT_S)
        row.mended(emulator)
        assert_all_right(app, emulator, row.theirs)


def assert_struck(struck: Sequence[int], faults: Sequence[Fault], row: Row, seed: int) -> None:
    """Every fault of a row changed something, those with numbers at each of them; by other seeds some fault did."""
    if seed:
        assert any(struck)
        return
    never = [f"fault {number} ({faults[number - 1].match})" for number, times in enumerate(struck, 1) if not times]
    assert not never, f"never struck: {', '.join(never)}"
    assert [times for times, fault in zip(struck, faults, strict=True) if times < len(fault.nth)] == []


def people_work(emulator: Emulator, number: int) -> None:
    """Change a deal, delete one and make one, as people do between cycles."""
    store = emulator.store
    deals = sorted(key for key, deal in store.rows(DEAL).items() if str(deal["name"]).isdigit())
    amount = Decimal(number * 100) + Decimal("17.5")
    store.change(DEAL, deals[number], {"actualvalue": amount, "actualvalue_base": amount})
    pattern = store.rows(DEAL)[deals[5]]
    if number == 0:
        store.remove(DEAL, deals[9])
    store.put(DEAL, {**pattern, "opportunityid": made_id("deal", f"made {number}"), "name": f"Made {number}"})


def assert_all_right(app: App, emulator: Emulator, theirs: frozenset[str]) -> None:
    """After a quiet cycle the mirror is the remote, and every goal holds what the platform itself would compute."""
    quiet = app.sync(write=True)
    assert_mirrored(app, emulator, quiet)
    ours = goal_values(emulator)
    native = copy.deepcopy(dict(emulator.store.rows("goal")))
    for key, goal in native.items():
        if goal["title"] not in theirs:
            emulator.store.change("goal", key, {"isoverridden": False})
    for key, goal in native.items():
        if goal.get("parentgoalid") is None:
            recalculate(emulator.store, key, emulator.store.settings, NOW)
    assert ours == goal_values(emulator)
