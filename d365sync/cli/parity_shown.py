"""What ``parity`` shows: a line per number compared, and the sums of what was found.

IO: terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from d365sync.cli.output import console, number
from d365sync.core.counts import by_count, counted
from d365sync.core.goals.parity import Finding, Kind
from d365sync.sync.documents import plain_document
from d365sync.sync.parity import Compared, Parity

MOST_NAMED = 3
TABLE_WIDTH = 110
"""Columns a terminal needs for a table; a narrower one gets lines."""
STYLES = {Kind.EQUAL: "green", Kind.UNKNOWN: "bold red"}


def print_parity(found: Parity, *, everything: bool) -> None:
    """Print what was compared, and the sums."""
    out = console()
    shown = [one for one in found.compared if everything or one.finding.kind not in (Kind.EQUAL, Kind.CHILDREN)]
    if shown and out.width >= TABLE_WIDTH:
        out.print(_table(shown))
    elif shown:
        for one in shown:
            _print_one(out, one)
    if everything:
        for skip in found.skipped:
            out.print(f"not compared: '{skip.title}': {skip.reason}", soft_wrap=True)
    _print_summary(out, found)


def _table(shown: Sequence[Compared]) -> Table:
    table = Table(header_style="bold", title="Platform and d365sync", title_justify="left")
    table.add_column("Goal", overflow="fold", ratio=2)
    for name in ("Platform", "Ours", "Difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Class and evidence", overflow="fold", ratio=3)
    for one in shown:
        numbers = (number(one.native), number(one.ours), number(one.finding.difference))
        table.add_row(f"{one.title}\n{one.column}", *numbers, _words(one.finding))
    return table


def _print_one(out: Console, one: Compared) -> None:
    """Print one number in two or three lines, for narrow terminals."""
    numbers = f"platform {number(one.native)}, ours {number(one.ours)}, difference {number(one.finding.difference)}"
    out.print(Text.assemble((one.title, "bold"), f"  {one.column}"))
    out.print(Padding(numbers, (0, 0, 0, 2), expand=False))
    out.print(Padding(_words(one.finding), (0, 0, 0, 2), expand=False))


def _words(finding: Finding) -> Text:
    possible = not finding.certain and finding.is_explained
    name = f"{finding.kind} (possible)" if possible else str(finding.kind)
    words = Text.assemble((name, STYLES.get(finding.kind, "bold")))
    if finding.kind is Kind.EQUAL:
        return words
    words.append(f": {finding.words}")
    names = [f"{record.name or record.id} {number(record.amount)}" for record in finding.records[:MOST_NAMED]]
    if names:
        more = len(finding.records) - len(names)
        words.append(f": {'; '.join(names)}" + (f" and {more} more" if more else ""))
    if finding.setting:
        words.append(f" (see {finding.setting})")
    return words


def _print_summary(out: Console, found: Parity) -> None:
    for one in found.unasked:
        out.print(f"not asked: {one.name or one.manager_id} {one.reason}", soft_wrap=True)
    counts = [f"{found.count(kind)} {kind}" for kind in Kind if found.count(kind)]
    out.print(f"{counted(len(found.compared), 'number')} compared: {', '.join(counts) or 'none'}", soft_wrap=True)
    if found.skipped:
        taken = sum(skip.reason.startswith("taken over") for skip in found.skipped)
        words = f", {taken} of them because d365sync took them over" if taken else ""
        goals = f"{counted(len(found.skipped), 'goal')} {by_count(len(found.skipped), 'is', 'are')}"
        out.print(f"{goals} not compared{words} (--all says why)", soft_wrap=True)


def parity_document(found: Parity, *, everything: bool) -> dict[str, object]:
    """Return what was compared as a document."""
    shown = [one for one in found.compared if everything or one.finding.kind is not Kind.EQUAL]
    return {
        "compared": len(found.compared),
        "counts": {str(kind): found.count(kind) for kind in Kind},
        "unexplained": len(found.unknown),
        "numbers": [_one(one) for one in shown],
        "not_compared": found.skipped,
        "not_asked": found.unasked,
    }


def _one(one: Compared) -> dict[str, object]:
    finding = plain_document(one.finding)
    return {
        "goal": one.goal_id,
        "title": one.title,
        "column": one.column,
        "rolled_up_at": one.rolled_up_at,
        "native": one.native,
        "ours": one.ours,
        "difference": finding["difference"],
        "class": finding["kind"],
        "explained": one.finding.is_explained,
        "certain": finding["certain"],
        "evidence": finding["words"],
        "amount": finding["amount"],
        "setting": finding["setting"],
        "records": finding["records"],
    }
