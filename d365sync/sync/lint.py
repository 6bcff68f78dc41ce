"""Everything to say about the goals as mirrored: what stops them, what counts twice, what is unwise.

IO: SQL, through the mirror.
"""

from __future__ import annotations

from d365sync.core.goals.doubles import double_problems
from d365sync.core.goals.lint import lint_goals
from d365sync.core.goals.writes import overridden_by_person
from d365sync.core.problems import Problem, Severity
from d365sync.sync.cycle import recompute, roll_up_all
from d365sync.sync.doubles import all_doubles
from d365sync.sync.snapshot import Line, Snapshot


def lint(line: Line, snapshot: Snapshot) -> tuple[Problem, ...]:
    """Return every problem of the goals: blocking ones first, then by goal title, each once; nothing is kept."""
    book = snapshot.book
    recomputed = recompute(line, snapshot, settle=False)
    rollup = roll_up_all(
        line.config,
        snapshot,
        recomputed,
        overridden_by_person(book.goals.values(), line.journal.written_values(book.goals)),
    )
    problems = dict.fromkeys(
        [
            *rollup.problems,
            *double_problems(book, all_doubles(line, snapshot)),
            *lint_goals(book, snapshot.forest, snapshot.zone, recomputed.own),
        ]
    )
    return tuple(sorted(problems, key=lambda one: _place(snapshot, one)))


def _place(snapshot: Snapshot, problem: Problem) -> tuple[bool, str, str, str]:
    goal = snapshot.book.goals.get(problem.goal_id or "")
    title = goal.title if goal else ""
    return problem.severity is not Severity.BLOCKING, title, problem.code, problem.message
