"""Pulling under change: what the mirror holds after a quiet sync, whatever happened before, and what is refused."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.app import App, opened
from d365sync.core.storage import encode
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from d365sync.errors import AuthError, GuardError, RetryableError
from d365sync.sync.cycle import CycleResult, Outcome
from d365sync.sync.pull import TablePull, Way
from tests.emulated import NOW, configuration
from tests.golden.casebook import made_id
from tests.integration.test_line import load

DEAL = "opportunity"
MANY = 120
EXPIRED = "0x80044352"
PRIVILEGE = "0x80040220"


class Between(BaseAdapter):
    """Acts before every request, and counts pages by table."""

    def __init__(self, emulator: Emulator, act: Callable[[str], object], faults: list[Fault]) -> None:
        super().__init__()
        self._inner = mounted_session(FaultyApp(emulator.app, faults)).get_adapter("https://x")
        self._act = act
        self.asked: Counter[str] = Counter()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        address = str(request.url).rpartition("/v9.2/")[2]
        self.asked[address.partition("?")[0].partition("(")[0]] += 1
        self._act(address)
        return self._inner.send(request, *args, **kwargs)

    def close(self) -> None:
        self._inner.close()


@contextmanager
def pulling(
    emulator: Emulator,
    folder: Path,
    act: Callable[[str], object] = str,
    *,
    faults: tuple[Fault, ...] = (),
    page_size: int = 10,
    guards: Mapping[str, object] | None = None,
    **rules: object,
) -> Iterator[tuple[App, Between]]:
    """Build the application with small pages; ``act`` happens before each request, with its address."""
    config = configuration(
        emulator,
        folder,
        dataverse={"page_size": page_size, "retry_budget": "0s"},
        pull={"tables": 2, **rules},
        guards=guards or {},
    )
    between = Between(emulator, act, list(faults))
    session = requests.Session()
    session.mount("https://", between)
    with opened(config, clock=emulator.clock.now, environ={}, session=session) as app:
        yield app, between


def grown(folder: Path, *, spread_s: int = 3600, **settings: Any) -> Emulator:
    """Return the org with many more deals; two are made at each instant."""
    emulator = load(folder, **settings)
    for number in range(MANY):
        more(emulator, number, spread_s)
    return emulator


def more(emulator: Emulator, number: int, spread_s: int = 3600) -> str:
    pattern = next(iter(emulator.store.rows(DEAL).values()))
    made = NOW - dt.timedelta(days=300) + dt.timedelta(seconds=spread_s * (number // 2))
    key = f"{number * 7919 % 1009:08x}-0000-4000-8000-{number:012x}"
    emulator.store.put(DEAL, {**pattern, "opportunityid": key, "name": f"More {number}", "createdon": made})
    return key


def assert_mirrored(app: App, emulator: Emulator, result: CycleResult) -> None:
    """Every table pulled holds the remote's rows: the keys, and every column mirrored, to the last digit."""
    for name, table in result.snapshot.tables.items():
        mirrored = {row[table.table.primary_id]: row for row in app.line.mirror.rows(table)}
        remote = emulator.store.rows(name)
        assert mirrored.keys() == remote.keys(), name
        for key, row in remote.items():
            found = {c.logical_name: table.encode(c, mirrored[key][c.logical_name]) for c in table.columns}
            expected = {c.logical_name: row.get(c.logical_name) for c in table.columns}
            differing = {
                c.logical_name: (found[c.logical_name], expected[c.logical_name])
                for c in table.columns
                if c.logical_name not in table.as_text
                and found[c.logical_name] != (encode(c, expected[c.logical_name]))
            }
            assert not differing, (name, key, differing)


def pulled(result: CycleResult, name: str = DEAL) -> TablePull:
    return next(pull for pull in result.pulls if pull.name == name)


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("spread_s", [3600, 0])
def test_a_first_load_by_pages_or_by_ranges_holds_every_row(
    tmp_path: Path, partitions: int, tracked: bool, spread_s: int
) -> None:
    emulator = grown(tmp_path, spread_s=spread_s, change_tracking={DEAL: tracked, "systemuser": True})
    ranges: list[str] = []

    def note(address: str) -> None:
        if address.startswith("opportunities?") and "createdon+ge" in address:
            ranges.append(address)

    with pulling(emulator, tmp_path, note, partitions=partitions) as (app, _):
        result = app.sync(write=False)
        assert_mirrored(app, emulator, result)
        assert pulled(result).way is Way.FULL
        assert bool(ranges) == (partitions > 1)
        emulator.store.remove(DEAL, more(emulator, 500))
        changed = more(emulator, 501)
        again = app.sync(write=False)
        assert_mirrored(app, emulator, again)
        assert (pulled(again).way is Way.DELTA) == tracked
        assert changed in emulator.store.rows(DEAL)


@pytest.mark.parametrize(("page_size", "status", "by_ranges"), [(15, None, False), (15, 403, True), (10, None, True)])
def test_only_a_large_table_is_read_by_ranges(
    tmp_path: Path, page_size: int, status: int | None, by_ranges: bool
) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True, "systemuser": True})
    ranges: list[str] = []

    def note(address: str) -> None:
        if "createdon%20ge" in address or "createdon+ge" in address:
            ranges.append(address)

    faults = (Fault("GET RetrieveTotalRecordCount*", every=1, status=status, code=PRIVILEGE),) if status else ()
    with pulling(emulator, tmp_path, note, faults=faults, page_size=page_size, partitions=4) as (app, _):
        assert_mirrored(app, emulator, app.sync(write=False))
        assert bool(ranges) == by_ranges


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ("asc", {"body": '{"value":[{"createdon":"the day before"}]}'}),
        ("desc", {"body": '{"value":[{"createdon":"0001-01-01T00:00:00+14:00"}]}'}),
        ("desc", {"body": '{"value":[7]}'}),
        ("asc", {"body": "<html>"}),
        ("asc", {"status": 400, "code": "0x80040203"}),
    ],
)
def test_a_table_that_does_not_tell_when_its_rows_were_made_is_read_page_after_page(
    tmp_path: Path, order: str, fault: dict[str, Any]
) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True, "systemuser": True})
    ranges: list[str] = []

    def note(address: str) -> None:
        if "createdon%20ge" in address or "createdon+ge" in address:
            ranges.append(address)

    broken = Fault(f"GET opportunities?*createdon+{order}*top=1*", every=1, **fault)
    with pulling(emulator, tmp_path, note, faults=(broken,), partitions=4) as (app, _):
        assert_mirrored(app, emulator, app.sync(write=False))
        assert not ranges


@pytest.mark.parametrize("tracked", [True, False])
def test_rows_that_come_change_and_go_while_ranges_are_read_are_in_the_next_sync_at_the_latest(
    tmp_path: Path, tracked: bool
) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: tracked, "systemuser": True})
    left = iter(range(1000, 1030))

    def move(address: str) -> None:
        if address.startswith("opportunities?") and (number := next(left, None)):
            keys = sorted(emulator.store.rows(DEAL))
            emulator.store.change(DEAL, keys[number % len(keys)], {"name": f"Moved {number}"})
            emulator.store.remove(DEAL, keys[number * 7 % len(keys)])
            more(emulator, number)

    with pulling(emulator, tmp_path, move, partitions=4, reread_up_to=1, sweep_every="0s") as (app, _):
        app.sync(write=False)
        for _ in left:
            pass
        assert_mirrored(app, emulator, app.sync(write=False))


def test_a_token_that_other_tables_do_not_honour_costs_a_load_page_after_page(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True, "systemuser": True})
    refused = Fault("GET opportunities?*&$deltatoken=*", nth=frozenset({1}), status=400, code="0x80048d19")
    with pulling(emulator, tmp_path, faults=(refused,), partitions=4) as (app, _):
        result = app.sync(write=False)
        assert_mirrored(app, emulator, result)
        more(emulator, 700)
        again = app.sync(write=False)
        assert pulled(again).way is Way.DELTA
        assert_mirrored(app, emulator, again)


def test_what_is_deleted_while_ranges_are_read_goes_also_where_the_token_is_not_shared(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True, "systemuser": True})
    gone: list[str] = []

    def remove(address: str) -> None:
        if address.startswith("opportunities?") and "&$deltatoken=" in address and not gone:
            gone.append(sorted(emulator.store.rows(DEAL))[5])
            emulator.store.remove(DEAL, gone[0])

    refused = Fault("GET opportunities?*&$deltatoken=*", nth=frozenset({1}), status=400, code="0x80048d19")
    with pulling(emulator, tmp_path, remove, faults=(refused,), partitions=4) as (app, _):
        assert_mirrored(app, emulator, app.sync(write=False))
        assert gone


def test_what_is_edited_during_a_long_first_load_is_in_the_next_poll(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: False, "systemuser": True})
    pages: list[str] = []

    def edit(address: str) -> None:
        if address.startswith("opportunities?"):
            pages.append(address)
            keys = sorted(emulator.store.rows(DEAL))
            for page, seconds, key in ((3, 5, keys[0]), (6, 1500, keys[-1])):
                if len(pages) == page:
                    emulator.clock.advance(dt.timedelta(seconds=seconds))
                    emulator.store.change(DEAL, key, {"name": f"Edited {page}", "modifiedon": emulator.clock.now()})

    with pulling(emulator, tmp_path, edit, partitions=1, reread_up_to=1) as (app, _):
        app.sync(write=False)
        emulator.clock.advance(dt.timedelta(seconds=300))
        result = app.sync(write=False)
        assert pulled(result).way is Way.POLL
        assert_mirrored(app, emulator, result)


def test_links_of_a_former_address_are_not_followed_and_the_tables_are_loaded_again(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True, "systemuser": True})
    with pulling(emulator, tmp_path, partitions=4) as (app, _):
        table = app.sync(write=False).snapshot.tables[DEAL]
        position = app.line.mirror.position(DEAL)
        assert position is not None
        former = str(position.delta_link).replace("https://", "https://former.")
        app.line.mirror.apply(table, [], last=replace(position, delta_link=former))
        emulator.store.remove(DEAL, sorted(emulator.store.rows(DEAL))[3])
        result = app.sync(write=False)
        assert pulled(result).way is Way.FULL
        assert_mirrored(app, emulator, result)


@pytest.mark.parametrize("code", [EXPIRED, "0x80048d19"])
def test_a_delta_link_not_honoured_gives_a_full_load_with_deletions(tmp_path: Path, code: str) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True})
    refused = Fault("GET opportunities?*deltatoken*", nth=frozenset({1}), status=400, code=code)
    with pulling(emulator, tmp_path, faults=(refused,), page_size=5000) as (app, _):
        app.sync(write=False)
        emulator.store.remove(DEAL, sorted(emulator.store.rows(DEAL))[5])
        more(emulator, 800)
        result = app.sync(write=False)
        assert (pulled(result).way, pulled(result).changed, pulled(result).deleted) == (Way.FULL, 1, 1)
        assert_mirrored(app, emulator, result)


@pytest.mark.parametrize("kept", [0, 10])
def test_a_table_that_comes_back_nearly_empty_is_not_emptied(tmp_path: Path, kept: int) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: False})
    with pulling(emulator, tmp_path) as (app, _):
        before = app.sync(write=False)
        rows = app.line.mirror.count(DEAL)
        for key in sorted(emulator.store.rows(DEAL))[kept:]:
            emulator.store.remove(DEAL, key)
        with pytest.raises(
            GuardError, match=f"opportunity (came back empty, {rows} rows|lost {rows - kept} of {rows} rows)"
        ):
            app.sync(write=True)
        assert app.line.mirror.count(DEAL) == rows
        assert "refused" in {run.outcome for run in app.line.journal.runs(2)}
        after = app.sync(write=False, full=True)
        assert_mirrored(app, emulator, after)
        assert before.snapshot.book.goals.keys() == after.snapshot.book.goals.keys()


def closed_after_one_cycle(emulator: Emulator, folder: Path) -> AbstractContextManager[tuple[App, Between]]:
    """Build the application; the opportunities may not be read once the first cycle is over."""
    forbidden = Fault("GET opportunities?*", nth=frozenset(range(20, 40)), status=403, code=PRIVILEGE)
    return pulling(emulator, folder, faults=(forbidden,), partitions=1, page_size=5000)


def until_closed(app: App, between: Between) -> None:
    while between.asked["opportunities"] < 19:
        app.line.client.get("opportunities", {"$top": "1"})


def test_a_table_that_may_not_be_read_keeps_its_rows_and_concerns_its_goals_only(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True})
    calls = {"metricid": made_id("metric", "Calls"), "isamount": False, "amountdatatype": 2, "targetinteger": 5}
    south = next(key for key, row in emulator.store.rows("goal").items() if row["title"] == "South")
    emulator.store.change("goal", south, {**calls, "parentgoalid": None})
    with closed_after_one_cycle(emulator, tmp_path) as (app, between):
        app.sync(write=True)
        rows = app.line.mirror.count(DEAL)
        until_closed(app, between)
        result = app.sync(write=True)
        assert pulled(result).way is Way.UNREADABLE
        assert result.outcome is Outcome.PARTIAL
        concerned = {problem.goal_id for problem in result.rollup.problems if problem.code == "table-unreadable"}
        assert len(concerned) == 3
        assert south not in concerned
        assert result.rollup.totals[south].totals["actualinteger"] == 0
        assert result.plan.writes == ()
        assert app.line.mirror.count(DEAL) == rows


def test_when_no_goal_can_do_without_the_table_the_right_is_named(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True})
    with closed_after_one_cycle(emulator, tmp_path) as (app, between):
        app.sync(write=True)
        rows = app.line.mirror.count(DEAL)
        until_closed(app, between)
        with pytest.raises(AuthError, match="opportunities") as refused:
            app.sync(write=True)
        assert "security role" in refused.value.hint
        assert app.line.mirror.count(DEAL) == rows


def test_tracking_switched_on_and_off_between_cycles_is_followed(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: False})
    with pulling(emulator, tmp_path) as (app, _):
        app.sync(write=False)
    for tracked, way in ((True, Way.FULL), (False, Way.FULL)):
        other = load(tmp_path, change_tracking={DEAL: tracked})
        for row in emulator.store.rows(DEAL).values():
            other.store.put(DEAL, row)
        with pulling(other, tmp_path, guards={"deletions_rows": 1000}) as (app, _):
            app.line.mirror.forget_definitions()
            result = app.sync(write=False)
            assert pulled(result).way is way
            assert_mirrored(app, other, result)


def test_a_load_broken_off_is_begun_again(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True, "systemuser": True})
    broken = Fault("GET opportunities?*", nth=frozenset({7}), status=503)
    with pulling(emulator, tmp_path, faults=(broken,), partitions=4) as (app, _):
        with pytest.raises(RetryableError):
            app.sync(write=False)
        assert_mirrored(app, emulator, app.sync(write=False))


def test_a_row_deleted_and_made_again_is_the_new_one(tmp_path: Path) -> None:
    emulator = grown(tmp_path, change_tracking={DEAL: True})
    with pulling(emulator, tmp_path, partitions=1) as (app, _):
        app.sync(write=False)
        key, row = next(iter(emulator.store.rows(DEAL).items()))
        emulator.store.remove(DEAL, key)
        emulator.store.put(DEAL, {**row, "name": "Again"})
        emulator.store.remove(DEAL, more(emulator, 900))
        result = app.sync(write=False)
        assert_mirrored(app, emulator, result)
