"""Backfills over the whole line: what they write, what they only show, and that a broken one goes on where it was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from d365sync.app import App
from d365sync.core.goals.backfill import Batch, Window
from d365sync.core.goals.writes import SkipReason
from d365sync.core.values import Value
from d365sync.emulator import Emulator, EmulatorSettings
from d365sync.errors import GuardError
from d365sync.sync.backfill import BackfillResult, Steps, backfill
from d365sync.sync.commanded import undo
from d365sync.sync.cycle import Outcome
from d365sync.sync.guarding import NOTHING, Accepted
from tests.emulated import NOW, goal_values
from tests.golden.casebook import Case, Cells, made_id, write_org
from tests.integration.test_guards import guarded

LAST_YEAR = Window(dt.date(2025, 1, 1), dt.date(2025, 12, 31))
QUARTERS = [("2025-01-01", "2025-03-31"), ("2025-04-01", "2025-06-30"), ("2026-10-01", "2026-12-31")]


def org(folder: Path, closed: str = "", **settings: Any) -> Emulator:
    """Three quarters, two of them last year's: a team, and two sellers below it with a deal a quarter each.

    Ann's first quarter is closed with the number 70, where her deal gives 100. ``closed`` are further options of it.
    """
    goals: list[Cells] = []
    deals: list[Cells] = []
    for number, (first, last) in enumerate(QUARTERS, 1):
        common = {"metric": "Revenue", "from": first, "to": last, "target": "1000"}
        goals.append({"goal": f"Team {number}", "parent": "", "owner": "Tom", "options": "children only", **common})
        for who in ("Ann", "Bob"):
            shut = f"closed,actualmoney=70,inprogressmoney=0,{closed}" if (who, number) == ("Ann", 1) else ""
            goals.append(
                {"goal": f"{who} {number}", "parent": f"Team {number}", "owner": who, "options": shut, **common}
            )
            deals.append({"deal": f"{who} {number}", "owner": who, "state": "won", "amount": "100", "closed": last})
    write_org(Case("backfill", ZoneInfo("UTC"), {"Goals": goals, "Deals": deals}), folder / "org")
    return Emulator.load(folder / "org", now=NOW, settings=EmulatorSettings(**settings))


def actuals(emulator: Emulator) -> dict[str, Value]:
    return {title: values["actualmoney"] for title, values in sorted(goal_values(emulator).items())}


def untouched(emulator: Emulator, *titles: str) -> bool:
    return all(goal_values(emulator)[title]["actualmoney"] is None for title in titles)


class Killed(BaseException):
    """Ends everything at once, as a kill does."""


def dying(after: int) -> Steps:
    """Return steps at which a process dies once so many batches are done."""
    done: list[Batch] = []

    def on_batch(batch: Batch) -> None:
        done.append(batch)
        if len(done) == after:
            raise Killed

    return Steps(on_batch=on_batch)


SMALL: Mapping[str, object] = {"mode": "override", "batch_size": 2}


@contextmanager
def line(emulator: Emulator, folder: Path, **sections: Mapping[str, object]) -> Iterator[tuple[App, list[str]]]:
    with guarded(emulator, folder, **{"writeback": SMALL, **sections}) as both:
        yield both


def test_the_open_goals_of_the_window_are_written_and_no_others(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with line(emulator, tmp_path) as (app, _):
        result = backfill(app.line, LAST_YEAR, write=True)
        assert result.outcome is Outcome.OK
        assert actuals(emulator) == {
            "Ann 1": 70,
            "Ann 2": 100,
            "Ann 3": None,
            "Bob 1": 100,
            "Bob 2": 100,
            "Bob 3": None,
            "Team 1": 170,
            "Team 2": 200,
            "Team 3": None,
        }
        run = app.line.journal.run(result.run_id)
        assert run is not None
        assert (run.command, run.outcome, run.counts["written_goals"]) == ("backfill", "ok", 5)
        assert run.message == "2025-01-01 to 2025-12-31"
        after = app.sync(write=True)
        assert {write.title for write in after.plan.writes} == {"Ann 3", "Bob 3", "Team 3"}, (
            "a sync agrees with the rest"
        )


@pytest.mark.parametrize(
    ("first", "last", "titles"),
    [
        ("2025-03-31", "2025-03-31", {"Bob 1", "Team 1"}),
        ("2025-03-31", "2025-04-01", {"Bob 1", "Team 1", "Ann 2", "Bob 2", "Team 2"}),
        ("2025-04-01", "2025-04-01", {"Ann 2", "Bob 2", "Team 2"}),
        ("2025-07-01", "2026-09-30", set()),
    ],
)
def test_both_days_of_the_window_belong_to_it(tmp_path: Path, first: str, last: str, titles: set[str]) -> None:
    emulator = org(tmp_path)
    with line(emulator, tmp_path) as (app, _):
        window = Window(dt.date.fromisoformat(first), dt.date.fromisoformat(last))
        assert {write.title for write in backfill(app.line, window, write=False).plan.writes} == titles


def test_a_closed_goal_is_shown_with_our_number_beside_the_stored_one(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with line(emulator, tmp_path) as (app, _):
        result = backfill(app.line, LAST_YEAR, write=True)
    (closed,) = result.unwritable
    assert (closed.title, closed.stored["actualmoney"], closed.ours and closed.ours["actualmoney"]) == (
        "Ann 1",
        70,
        100,
    )
    assert [skip.reason for skip in result.plan.skips] == [SkipReason.CLOSED]
    (year,) = result.years
    assert (year.goals, year.changed, year.written, year.unwritable) == (6, 5, 5, 1)
    assert [(one.metric, one.before, one.after, one.computed) for one in year.sums] == [("Revenue", 0, 370, 370)]


def test_records_that_only_closed_goals_need_are_pulled(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    ann = made_id("goal", "Ann 1")
    calls = {"metricid": made_id("metric", "Calls"), "actualmoney": None, "parentgoalid": None}
    emulator.store.change("goal", ann, {**calls, "actualinteger": 3})
    emulator.store.put(
        "phonecall",
        {
            "activityid": made_id("call", "1"),
            "statecode": 1,
            "statuscode": 2,
            "ownerid": made_id("user", "Ann"),
            "owneridtype": "systemuser",
            "actualend": dt.datetime(2025, 2, 1, 9, tzinfo=dt.UTC),
        },
    )
    with line(emulator, tmp_path) as (app, _):
        assert "phonecall" not in {pull.name for pull in app.sync(write=False).pulls}
        (closed,) = backfill(app.line, LAST_YEAR, write=True).unwritable
        assert (closed.stored["actualinteger"], closed.ours and closed.ours["actualinteger"]) == (3, 1)
        assert app.sync(write=True).outcome is Outcome.OK


def test_a_problem_of_a_closed_goal_is_told_and_stops_nothing(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    emulator.store.change("goal", made_id("goal", "Ann 1"), {"metricid": None, "parentgoalid": None})
    with line(emulator, tmp_path) as (app, _):
        result = backfill(app.line, LAST_YEAR, write=True)
    assert result.outcome is Outcome.OK
    assert "has no goal metric" in result.unwritable[0].problem
    assert actuals(emulator)["Team 2"] == 200


@pytest.mark.parametrize("mode", ["override", "plan", "recalculate"])
def test_a_dry_run_writes_nothing_and_leaves_nothing_to_go_on_with(tmp_path: Path, mode: str) -> None:
    emulator = org(tmp_path)
    with line(emulator, tmp_path, writeback={"mode": mode}) as (app, writes):
        shown = backfill(app.line, LAST_YEAR, write=False)
        assert (len(shown.plan.writes), shown.years[0].changed, shown.years[0].written) == (5, 5, 0)
        assert writes == []
        assert backfill(app.line, LAST_YEAR, write=False).resumed is None
        assert {run.mode for run in app.line.journal.runs(9)} == {"plan"}


@pytest.mark.parametrize("after", [1, 2, 3])
def test_one_that_was_broken_off_goes_on_where_it_was_as_the_same_run(tmp_path: Path, after: int) -> None:
    emulator = org(tmp_path)
    before = goal_values(emulator)
    with line(emulator, tmp_path) as (app, _):
        with pytest.raises(Killed):
            backfill(app.line, LAST_YEAR, write=True, steps=dying(after))
        begun = app.line.journal.runs(1)[0]
    done = [title for title, value in actuals(emulator).items() if value is not None and title != "Ann 1"]
    versions = {row["title"]: row["versionnumber"] for row in emulator.store.rows("goal").values()}
    told: list[tuple[int, int]] = []
    with line(emulator, tmp_path) as (app, _):
        result = backfill(
            app.line, LAST_YEAR, write=True, steps=Steps(on_begin=lambda goals, before: told.append((goals, before)))
        )
        assert (result.run_id, result.resumed, told) == (begun.id, len(done), [(5, len(done))])
        assert all(
            row["versionnumber"] == versions[row["title"]]
            for row in emulator.store.rows("goal").values()
            if row["title"] in done
        ), "what was done is not sent again"
        assert (actuals(emulator)["Team 1"], actuals(emulator)["Team 2"]) == (170, 200)
        (year,) = result.years
        assert (year.changed, year.written) == (5, 5)
        assert [(one.before, one.after) for one in year.sums] == [(0, 370)]
        assert backfill(app.line, LAST_YEAR, write=True).resumed is None, "it came to its end"
        assert undo(app.line, begun.id, write=True).outcome is Outcome.OK
        assert goal_values(emulator) == before


def test_another_window_or_a_restart_begins_again(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with line(emulator, tmp_path) as (app, _):
        with pytest.raises(Killed):
            backfill(app.line, LAST_YEAR, write=True, steps=dying(1))
        begun = app.line.journal.runs(1)[0].id
        spring = Window(dt.date(2025, 4, 1), dt.date(2025, 4, 1))
        assert backfill(app.line, spring, write=True).resumed is None
        again = backfill(app.line, LAST_YEAR, write=True, restart=True)
        assert again.run_id != begun
        assert again.resumed is None
        assert actuals(emulator)["Team 1"] == 170
        assert backfill(app.line, LAST_YEAR, write=True).resumed is None


def test_records_that_change_between_two_tries_are_taken_as_they_are(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    with line(emulator, tmp_path) as (app, _):
        with pytest.raises(Killed):
            backfill(app.line, LAST_YEAR, write=True, steps=dying(1))
        assert actuals(emulator)["Bob 1"] == 100
        for deal in ("Bob 1", "Bob 2"):
            money = {"actualvalue": Decimal(500), "actualvalue_base": Decimal(500)}
            emulator.store.change("opportunity", made_id("deal", deal), money)
        person = {"actualmoney": Decimal(1), "isoverridden": True}
        emulator.store.change("goal", made_id("goal", "Ann 2"), person)
        result = backfill(app.line, LAST_YEAR, write=True)
    assert (actuals(emulator)["Bob 2"], actuals(emulator)["Bob 1"], actuals(emulator)["Team 1"]) == (500, 500, 570)
    assert actuals(emulator)["Ann 2"] == 1, "a person's number stays"
    assert {skip.reason for skip in result.plan.skips} == {SkipReason.CLOSED, SkipReason.OVERRIDDEN}


def test_a_guard_stops_it_before_its_first_write_and_what_was_accepted_holds_to_its_end(tmp_path: Path) -> None:
    emulator = org(tmp_path)
    for title in ("Bob 1", "Ann 2", "Bob 2", "Team 2"):
        emulator.store.change("goal", made_id("goal", title), {"actualmoney": Decimal(9000)})
    strict = {"jumps_goals": 1}
    with line(emulator, tmp_path, guards=strict) as (app, writes):
        with pytest.raises(GuardError, match="actualmoney would become more than 10 times") as refused:
            backfill(app.line, LAST_YEAR, write=True, accepted=NOTHING)
        assert writes == []
        assert "d365sync backfill --from 2025-01-01 --to 2025-12-31 --accept 5" in refused.value.hint
        assert app.line.journal.runs(1)[0].outcome == "refused"
        with pytest.raises(Killed):
            backfill(app.line, LAST_YEAR, write=True, accepted=Accepted(5), steps=dying(1))
        done: BackfillResult = backfill(app.line, LAST_YEAR, write=True)
        assert (done.outcome, done.resumed) == (Outcome.OK, 2)
        assert actuals(emulator)["Team 2"] == 200
