"""The journal's runs: what their ids look like."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from d365sync.core.goals.goal import VALUE_COLUMNS
from d365sync.core.goals.modes import OVERRIDE, RECALCULATE
from d365sync.journal.latest import AT_ONCE, asked, latest, left_open
from d365sync.journal.store import Ending, Intent, Journal, WriteOutcome

NOW = dt.datetime(2026, 11, 20, 9, 0, tzinfo=dt.UTC)
FORMAT_1 = Path(__file__).parents[2] / "fixtures" / "journal" / "format-1-sqlite.sql"


def test_the_id_of_a_run_is_its_instant_and_enough_chance_for_a_clock_that_stands(tmp_path: Path) -> None:
    journal = Journal.open(f"sqlite:///{tmp_path / 'journal.db'}")
    try:
        made = [journal.start_run("sync", "plan", NOW + dt.timedelta(seconds=second)) for second in (0, 0, 1)]
        assert all(re.fullmatch(r"20261120T09000[01]Z-[0-9a-f]{8,}", run_id) for run_id in made)
        assert len(set(made)) == 3
        assert max(made) == made[2] == journal.runs(1)[0].id
    finally:
        journal.close()


@pytest.fixture
def journal(database_url: str) -> Iterator[Journal]:
    one = Journal.open(database_url)
    yield one
    one.close()


def intend(journal: Journal, run_id: str, goal: str, amount: int, now: dt.datetime = NOW) -> int:
    after = {**dict.fromkeys(VALUE_COLUMNS), "actualmoney": Decimal(amount)}
    return journal.intend(run_id, [Intent(goal, goal, "1", after, after)], now)[0]


def end(journal: Journal, number: int, outcome: WriteOutcome = WriteOutcome.DONE, *, sent: int | None = None) -> None:
    after = None if sent is None else {"actualmoney": Decimal(1), "sent.actualmoney": Decimal(sent)}
    journal.done([Ending(number, outcome, after=after)], NOW)


def amounts(journal: Journal, *goals: str) -> dict[str, list[object]]:
    return {goal: [one["actualmoney"] for one in found] for goal, found in journal.written_values(goals).items()}


def test_of_a_goal_its_last_write_counts_and_what_was_left_open_after_it(journal: Journal) -> None:
    override, other = (journal.start_run("sync", mode, NOW) for mode in (OVERRIDE, RECALCULATE))
    for amount in (1, 2):
        intend(journal, override, "a", amount)
        end(journal, intend(journal, override, "a", amount + 10))
    end(journal, intend(journal, other, "a", 99))
    intend(journal, override, "a", 3)
    end(journal, intend(journal, override, "a", 4), WriteOutcome.FAILED)
    end(journal, intend(journal, override, "b", 5))
    intend(journal, override, "c", 6)
    assert amounts(journal, "a", "c", "none") == {"a": [12, 3], "c": [6]}
    assert amounts(journal) == {}
    assert journal.goals_written(["a", "c", "none"], OVERRIDE) == {"a", "c"}
    assert journal.goals_written(["a", "c"], RECALCULATE) == {"a"}


def test_what_was_stored_otherwise_is_kept_of_the_last_write_of_a_mode(journal: Journal) -> None:
    run_id, other = (journal.start_run("sync", mode, NOW) for mode in (OVERRIDE, RECALCULATE))
    end(journal, intend(journal, run_id, "a", 1), sent=7)
    end(journal, intend(journal, other, "a", 1))
    end(journal, intend(journal, run_id, "b", 1), sent=7)
    end(journal, intend(journal, run_id, "b", 1))
    assert journal.kept_values(["a", "b"]) == {"a": {"actualmoney": 1, "sent.actualmoney": 7}}
    assert journal.kept_values(["b"]) == {}


def test_more_goals_than_one_statement_asks_for_are_all_found(journal: Journal) -> None:
    run_id = journal.start_run("sync", OVERRIDE, NOW)
    goals = [f"goal {number}" for number in range(AT_ONCE + 1)]
    intend(journal, run_id, goals[0], 1)
    intend(journal, run_id, goals[-1], 2)
    assert journal.written_values(goals).keys() == {goals[0], goals[-1]}
    assert [len(some) for some in asked([*goals, *goals])] == [AT_ONCE, 1]


def test_an_attempt_counts_whatever_came_of_it(journal: Journal) -> None:
    run_id = journal.start_run("sync", RECALCULATE, NOW)
    later = NOW + dt.timedelta(hours=1)
    end(journal, intend(journal, run_id, "a", 1))
    end(journal, intend(journal, run_id, "a", 1, later), WriteOutcome.FAILED)
    assert journal.attempts(["a", "b"], RECALCULATE) == {"a": later}
    assert journal.attempts(["a"], OVERRIDE) == {}


def test_the_latest_writes_are_found_by_index_in_a_journal_of_an_earlier_version_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    with closing(sqlite3.connect(tmp_path / "journal.db")) as earlier:
        earlier.executescript(FORMAT_1.read_text(encoding="utf-8"))
    Journal.open(url).close()
    engine = create_engine(url)
    done, intended = WriteOutcome.DONE.value, WriteOutcome.INTENDED.value
    statements = [
        latest(["a", "b"], OVERRIDE, done),
        latest(["a", "b"], RECALCULATE),
        left_open(["a", "b"], OVERRIDE, intended, done),
    ]
    with engine.connect() as connection:
        for statement in statements:
            sql = statement.compile(engine, compile_kwargs={"literal_binds": True})
            plan = [str(row[3]) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
            tables = [step for step in plan if re.match(r"(SCAN|SEARCH) (goal_write|one|run)\b", step)]
            assert tables, plan
            assert all(step.startswith("SEARCH") for step in tables), plan
    engine.dispose()
