"""``probe`` against the emulator: it measures what the emulator does, whatever that is, and leaves nothing behind."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from requests.adapters import BaseAdapter

from d365sync.app import make_client
from d365sync.core.goals.probe import Reading
from d365sync.core.values import Value
from d365sync.emulator import Emulator
from d365sync.emulator.faults import Fault, FaultyApp
from d365sync.emulator.inprocess import mounted_session
from d365sync.emulator.settings import ClosedGoals
from d365sync.errors import AuthError
from d365sync.sync.probe import Probe
from tests.emulated import NOW, configuration
from tests.golden.casebook import Cells, made_id
from tests.integration.test_line import load

UTC = ZoneInfo("UTC")


def probing(
    emulator: Emulator,
    folder: Path,
    *,
    session: requests.Session | None = None,
    records: bool = True,
    zone: ZoneInfo = UTC,
) -> Probe:
    config = configuration(emulator, folder, dataverse={"retry_budget": "0s"})
    client = make_client(config, environ={}, session=session or emulator.session())
    return Probe(client, zone, NOW, create_records=records)


def rows(emulator: Emulator) -> Mapping[str, Mapping[str, Mapping[str, Value]]]:
    """Return everything that is in the organization, row versions aside."""
    store = emulator.store
    names = ("goal", "metric", "rollupfield", "goalrollupquery", "opportunity", "systemuser")
    return copy.deepcopy(
        {
            name: {
                key: {column: value for column, value in row.items() if column != "versionnumber"}
                for key, row in store.rows(name).items()
            }
            for name in names
        }
    )


def found(emulator: Emulator, folder: Path, **options: Any) -> dict[str, Reading]:
    probe = probing(emulator, folder, **options)
    before = rows(emulator)
    try:
        readings = {one.id: one for one in probe.run()}
    finally:
        left = probe.clean_up()
    assert left == []
    assert probe.notes == []
    assert rows(emulator) == before
    return readings


def test_the_emulators_defaults_are_what_d365sync_assumes(tmp_path: Path) -> None:
    readings = found(load(tmp_path), tmp_path)
    assert {one.id: one.holds for one in readings.values() if one.holds is not True} == {}
    assert len(readings) == 18


@pytest.mark.parametrize(
    ("settings", "reading", "words", "setting"),
    [
        ({"closed_goals": ClosedGoals.SKIP}, "closed-child", "0", 'rollup.closed_child = "excluded"'),
        ({"closed_goals": ClosedGoals.RECOMPUTE}, "closed-child", "rolled up again: 0", ""),
        ({"overridden_feed_parents": False}, "overridden-child", "0", 'rollup.overridden_child = "recomputed"'),
        ({"empty_is_zero": False}, "empty-category", "empty", ""),
        ({"rounding": ROUND_HALF_EVEN}, "percentage-rounding", "half even", 'rollup.percentage_rounding = "half_even"'),
        ({"keep_percentage": False}, "percentage-recomputed", "left at empty", ""),
        ({"guard_percentage": True}, "percentage-alone", "refused", ""),
        ({"depth_of_root": 1}, "depth-of-root", "1", ""),
    ],
)
def test_another_platform_gives_another_reading(
    tmp_path: Path, settings: dict[str, Any], reading: str, words: str, setting: str
) -> None:
    one = found(load(tmp_path, **settings), tmp_path)[reading]
    assert one.holds is False
    assert words in one.found
    assert one.setting == setting


def test_the_platforms_zone_is_told_by_the_start_dates_it_fills(tmp_path: Path) -> None:
    emulator = load(tmp_path, rollup_time_zone=ZoneInfo("America/Los_Angeles"))
    new_year = dt.datetime(2026, 1, 1, 8, tzinfo=dt.UTC)
    emulator.store.change("organization", made_id("org", "org"), {"fiscalcalendarstart": new_year})
    readings = found(emulator, tmp_path)
    one = readings["bounds-zone"]
    assert (one.holds, one.found) == (False, "the platform stored 2026-10-01T07:00:00Z, midnight at UTC-7")
    assert one.setting == "rollup.time_zone: a zone that is UTC-7 on that day"
    assert readings["bounds-days"].holds is True


def test_start_dates_that_are_no_midnight_here_say_where_they_are(tmp_path: Path) -> None:
    one = found(load(tmp_path), tmp_path, zone=ZoneInfo("Europe/Berlin"))["bounds-zone"]
    assert one.holds is False
    assert "2026-10-01T00:00:00Z, midnight at UTC" in one.found


def test_without_records_the_days_are_not_told(tmp_path: Path) -> None:
    one = found(load(tmp_path), tmp_path, records=False)["bounds-days"]
    assert one.holds is None
    assert "--create-records" in one.found


def test_without_a_money_metric_one_is_made_and_removed(tmp_path: Path) -> None:
    def no_money(tables: dict[str, list[Cells]]) -> None:
        tables["Goals"] = []

    emulator = load(tmp_path, edit=no_money)
    for key in list(emulator.store.rows("metric")):
        emulator.store.change("metric", key, {"statecode": 1})
    assert all(one.holds for one in found(emulator, tmp_path).values())


class Interrupting(BaseAdapter):
    """Passes calls on; at one of them the user presses Ctrl-C, after it arrived or before."""

    def __init__(self, emulator: Emulator, at: int, error: type[BaseException]) -> None:
        super().__init__()
        self._inner = emulator.session().get_adapter("https://x")
        self._at, self._error = at, error
        self.changes = 0

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        answer = self._inner.send(request, *args, **kwargs)
        if request.method != "GET" and "/api/" in str(request.url) and "batch" not in str(request.url):
            self.changes += 1
            if self.changes == self._at:
                raise self._error("stop")
        return answer

    def close(self) -> None:
        self._inner.close()


def interrupted(emulator: Emulator, at: int, error: type[BaseException]) -> requests.Session:
    session = requests.Session()
    session.mount("https://", Interrupting(emulator, at, error))
    return session


@pytest.mark.parametrize("at", [1, 2, 3, 7, 12, 15])
def test_after_ctrl_c_nothing_is_left(tmp_path: Path, at: int) -> None:
    emulator = load(tmp_path)
    before = rows(emulator)
    probe = probing(emulator, tmp_path, session=interrupted(emulator, at, KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        probe.run()
    assert rows(emulator) != before
    assert probe.clean_up() == []
    assert rows(emulator) == before


@pytest.mark.parametrize("at", [1, 2, 9])
def test_a_create_whose_answer_is_lost_is_not_sent_again(tmp_path: Path, at: int) -> None:
    emulator = load(tmp_path)
    before = rows(emulator)
    probe = probing(emulator, tmp_path, session=interrupted(emulator, at, requests.ConnectionError))
    act: Callable[[], object] = probe.run
    if at < 3:
        assert act()
        assert len([row for row in emulator.store.rows("goal").values() if "probe" in str(row["title"])]) == 2
    else:
        with pytest.raises(Exception, match="no answer"):
            act()
    assert probe.clean_up() == []
    assert rows(emulator) == before


def test_what_cannot_be_removed_is_named(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    faulty = FaultyApp(emulator.app, [Fault("DELETE goals*", status=403)])
    probe = probing(emulator, tmp_path, session=mounted_session(faulty))
    probe.run()
    left = probe.clean_up()
    assert [one.name for one in left] == ["parent goal", "child goal"]
    assert all(emulator.store.get("goal", one.id) is not None for one in left)


def test_without_the_privilege_nothing_is_made(tmp_path: Path) -> None:
    emulator = load(tmp_path, missing_privileges=frozenset({"prvCreateGoal"}))
    before = rows(emulator)
    probe = probing(emulator, tmp_path)
    with pytest.raises(AuthError, match="prvCreateGoal"):
        probe.run()
    assert probe.clean_up() == []
    assert rows(emulator) == before


def test_a_step_the_platform_refuses_leaves_only_its_questions_open(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    faulty = FaultyApp(emulator.app, [Fault("POST goals*Recalculate", nth=(3,), status=400)])
    probe = probing(emulator, tmp_path, session=mounted_session(faulty))
    readings = {one.id: one for one in probe.run()}
    probe.clean_up()
    assert "rolled up with the child overridden" in probe.notes[0]
    assert {one.id for one in readings.values() if one.holds is None} == {"override-kept", "overridden-child"}


def test_where_fiscal_goals_are_refused_a_custom_period_is_taken(tmp_path: Path) -> None:
    emulator = load(tmp_path)
    before = rows(emulator)
    faulty = FaultyApp(emulator.app, [Fault("POST goals", nth=(1,), status=400)])
    probe = probing(emulator, tmp_path, session=mounted_session(faulty))
    readings = {one.id: one for one in probe.run()}
    assert "a goal with a fiscal period was refused" in probe.notes[0]
    assert {one.id for one in readings.values() if one.holds is None} == {"bounds-filled", "bounds-zone"}
    assert readings["bounds-days"].found == "counted: the first day, the last day"
    assert probe.clean_up() == []
    assert rows(emulator) == before
