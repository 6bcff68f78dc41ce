"""Showing the records that one goal's total holds twice.

IO: terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from d365sync.cli.output import console, number
from d365sync.core.counts import by_count, counted
from d365sync.core.goals.doubles import Double
from d365sync.core.goals.goal import Goal
from d365sync.sync.snapshot import Snapshot


def doubles_document(snapshot: Snapshot, goal: Goal, found: Sequence[Double]) -> dict[str, object]:
    """Return what a goal's total holds twice as one document."""
    goals = snapshot.book.goals
    return {
        "goal": goal.id,
        "title": goal.title,
        "doubles": [
            {
                "column": one.column,
                "through": [{"goal": side, "title": goals[side].title} for side in (one.first, one.second)],
                "records": one.shared.records,
                "amount": one.shared.amount,
                "sample": [{"id": record, "name": name} for record, name in one.shared.sample],
            }
            for one in found
        ],
    }


def print_doubles(snapshot: Snapshot, goal: Goal, found: Sequence[Double]) -> None:
    """Print what a goal's total holds twice, pair by pair, with the records concerned."""
    out = console()
    pairs = counted(len(found), "pair") if found else "no pairs"
    share = by_count(len(found), "shares", "share")
    out.print(Text.assemble((goal.title, "bold"), f": {pairs} of goals {share} records in its total"))
    for one in found:
        first, second = (snapshot.book.goals[side].title for side in (one.first, one.second))
        worth = f"{counted(one.shared.records, 'record')} worth {number(one.shared.amount)}"
        count = by_count(one.shared.records, "counts", "count")
        out.print()
        out.print(Text.assemble((one.column, "bold"), f": {worth} {count} in '{first}' and in '{second}'"))
        table = Table(header_style="bold")
        table.add_column("Record")
        table.add_column("Id", no_wrap=True)
        for record, name in one.shared.sample:
            table.add_row(name, record)
        out.print(table)
        if one.shared.records > len(one.shared.sample):
            out.print(f"and {one.shared.records - len(one.shared.sample)} more")
