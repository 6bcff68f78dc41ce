"""Pruning forgets runs and writes, and nothing of what tells our overrides from a person's."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.errors import UsageError
from d365sync.journal.store import Ending, Intent, Journal, Values, WriteOutcome
from tests.effort import examples

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MODES = ("override", "columns")


def columns(number: int) -> Values:
    return {**dict.fromkeys(VALUE_COLUMNS), "actualmoney": Decimal(number), "percentage": Decimal(1)}


def at(day: int) -> dt.datetime:
    return START + dt.timedelta(days=day)


def write(journal: Journal, day: int, goal: str, before: int, after: int, outcome: WriteOutcome, mode: str) -> str:
    run = journal.start_run("sync", mode, at(day))
    (number,) = journal.intend(run, [Intent(goal, goal, 'W/"1"', columns(before), columns(after))], at(day))
    if outcome is not WriteOutcome.INTENDED:
        journal.done([Ending(number, outcome)], at(day))
        journal.finish_run(run, "ok", {}, "", at(day))
    return run


def known(journal: Journal) -> object:
    """What the line asks of the journal about the goals."""
    goals = ["a", "b", "c"]
    asked = (journal.kept_values, journal.attempts, journal.unsettled, journal.goals_written)
    return journal.written_values(goals), journal.native_values(), [ask(goals, mode) for ask in asked for mode in MODES]


def test_old_runs_go_and_the_last_write_of_each_goal_stays(database_url: str) -> None:
    with closing(Journal.open(database_url)) as journal:
        for day in range(10):
            write(journal, day, "a", day, day + 1, WriteOutcome.DONE, "override")
        write(journal, 3, "b", 0, 7, WriteOutcome.CONFLICT, "override")
        write(journal, 4, "c", 0, 7, WriteOutcome.INTENDED, "override")
        before = known(journal)
        pruned = journal.prune(at(8), at(20))
        assert (pruned.runs, pruned.writes, pruned.kept) == (10, 7, 3)
        assert known(journal) == before
        kept, *newer = journal.runs(9)
        assert (kept.command, kept.mode, kept.outcome, len(newer)) == ("prune", "override", "ok", 2)
        assert journal.prune(at(8), at(20)).writes == 0
        assert known(journal) == before


def test_what_pruning_kept_cannot_be_undone(tmp_path: Path) -> None:
    from d365sync.emulator import Emulator
    from d365sync.sync.commanded import undo
    from tests.emulated import NOW, application

    small = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
    with application(Emulator.load(small, now=NOW), tmp_path) as app:
        assert app.sync(write=True).counts["written_goals"]
        app.line.journal.prune(NOW + dt.timedelta(days=1), NOW)
        (run,) = app.line.journal.runs(9)
        with pytest.raises(UsageError, match="cannot be undone"):
            undo(app.line, run.id, write=True)
        assert app.sync(write=True).counts["written_goals"] == 0


def test_runs_are_forgotten_after_as_long_as_the_configuration_says(tmp_path: Path) -> None:
    from d365sync.emulator import Emulator
    from tests.emulated import NOW, application

    small = Path(__file__).parents[2] / "fixtures" / "orgs" / "small"
    emulator = Emulator.load(small, now=NOW)
    for days, expected in ((0, 1), (30, 2), (31, 2)):
        with application(emulator, tmp_path, now=NOW + dt.timedelta(days=days), storage={"keep": "30d"}) as app:
            app.sync(write=True)
            assert len([run for run in app.line.journal.runs(9) if run.command != "prune"]) == expected


STEP = st.tuples(
    st.integers(0, 20),
    st.sampled_from(["a", "b"]),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from(list(WriteOutcome)),
    st.sampled_from(MODES),
)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(STEP, max_size=12), st.lists(st.integers(0, 25), max_size=3))
def test_whatever_was_written_pruning_changes_no_answer_of_the_journal(
    steps: list[tuple[int, str, bool, int, int, WriteOutcome, str]], cuts: list[int]
) -> None:
    """Writes in the order of their days; ``chained``: one begins from what the last one of its goal left."""
    with closing(Journal.open("sqlite://")) as journal:
        left: dict[tuple[str, str], int] = {}
        for day, goal, chained, before, after, outcome, mode in sorted(steps, key=lambda step: step[0]):
            first = left.get((goal, mode), before) if chained else before
            write(journal, day, goal, first, after, outcome, mode)
            if outcome is WriteOutcome.DONE:
                left[goal, mode] = after
        expected = known(journal)
        for cut in sorted(cuts):
            journal.prune(at(cut), at(30 + cut))
            assert known(journal) == expected
