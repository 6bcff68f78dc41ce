"""What ``explain`` shows on a terminal: the numbers of a goal with what is behind them, and the verdict on a record.

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
from d365sync.core.goals.goal import Number
from d365sync.core.goals.why import Criterion
from d365sync.sync.documents import plain_document
from d365sync.sync.explain import ChildPart, ColumnExplanation, Explanation, Record, exact_sum
from d365sync.sync.whynot import Answer, ColumnVerdict

WITH_OWNER_WIDTH = 110
"""Columns a terminal needs for owner and exchange rate to be shown too."""


def print_explanation(found: Explanation, *, with_query: bool) -> None:
    """Print every number of a goal with the records and children behind it."""
    out = console()
    period = f"{found.span.first_on} to {found.span.last_on}" if found.span else "no period"
    out.print(Text.assemble((found.goal.title, "bold"), f"  {found.metric}, {found.owner or 'no owner'}, {period}"))
    for note in found.notes:
        out.print(note)
    for problem in found.problems:
        out.print(Text.assemble(("problem: ", "bold red"), problem))
    for column in found.columns:
        _print_column(out, column, found.base_currency)
        if with_query and column.fetchxml:
            out.print(column.fetchxml, soft_wrap=True)


def _print_column(out: Console, column: ColumnExplanation, code: str) -> None:
    unit = code if column.column.endswith("money") else ""
    out.print()
    held = f"Dataverse holds {number(column.native)}"
    ours = held if column.ours is None else f"{number(column.ours)} {unit}".rstrip()
    out.print(Text.assemble((column.column, "bold"), f": {ours}"))
    if column.asked:
        out.print(Padding(f"counts: {'; '.join(column.asked)}", (0, 0, 0, 2), expand=False))
    if column.records:
        out.print(_record_table(out, column.records, column.own, column.record_count, unit))
    _print_rest(out, column.records, column.record_count)
    if column.children:
        out.print(_child_table(out, column.children, unit))
        for child in column.children:
            _print_child_records(out, child, unit)
    if column.ours is not None or column.record_count:
        _print_sum(out, column)


def _print_sum(out: Console, column: ColumnExplanation) -> None:
    below = exact_sum(child.amount or 0 for child in column.children)
    records, children = column.record_count, len(column.children)
    own = f"{counted(records, 'record')} {by_count(records, 'gives', 'give')} {number(column.own)}"
    theirs = f"{counted(children, 'child', 'children')} {by_count(children, 'gives', 'give')} {number(below)}"
    out.print(f"{own}, {theirs}; Dataverse held {number(column.native)}")


def _print_rest(out: Console, records: Sequence[Record], count: int) -> None:
    shown = len(records)
    if count > shown:
        out.print(f"  ... and {counted(count - shown, 'more record')} (--limit N shows more, --json and --csv all)")


def _record_table(out: Console, listed: Sequence[Record], own: Number, count: int, unit: str) -> Table:
    wide = out.width >= WITH_OWNER_WIDTH
    foreign = any(record.currency != record.base_currency for record in listed)
    branches = any(record.branch for record in listed)
    table = Table(header_style="bold", show_footer=True)
    table.add_column("Record", footer=counted(count, "record"), overflow="fold")
    table.add_column("Date", no_wrap=not _has_times(listed))
    if wide:
        table.add_column("Owner", overflow="fold")
    if branches:
        table.add_column("By", overflow="fold")
    amounts = any(record.amount is not None for record in listed)
    if amounts:
        table.add_column("Amount", justify="right")
    if wide and foreign:
        table.add_column("Rate", justify="right")
    table.add_column(f"Counts{f' ({unit})' if unit else ''}", justify="right", footer=number(own), no_wrap=True)
    for record in listed:
        cells = [record.name or record.id, _date(record)]
        cells += [record.owner] if wide else []
        cells += [record.branch] if branches else []
        cells += [_amount(record)] if amounts else []
        cells += [_rate(record)] if wide and foreign else []
        table.add_row(*cells, number(record.counts_for))
    return table


def _child_table(out: Console, listed: Sequence[ChildPart], unit: str) -> Table:
    wide = out.width >= WITH_OWNER_WIDTH
    table = Table(header_style="bold", show_footer=True)
    table.add_column("Child goal", footer=counted(len(listed), "child", "children"), overflow="fold")
    if wide:
        table.add_column("Owner", overflow="fold")
    table.add_column("From")
    table.add_column("Own", justify="right", no_wrap=True)
    total = number(exact_sum(child.amount or 0 for child in listed))
    table.add_column(f"Total{f' ({unit})' if unit else ''}", justify="right", footer=total, no_wrap=True)
    pending = [(child, 0) for child in reversed(listed)]
    while pending:
        child, level = pending.pop()
        cells = [f"{'  ' * level}{child.title}", *([child.owner] if wide else [])]
        table.add_row(*cells, child.source, number(child.own), number(child.amount))
        pending.extend((one, level + 1) for one in reversed(child.children))
    return table


def _print_child_records(out: Console, child: ChildPart, unit: str) -> None:
    if child.records:
        out.print(f"records of {child.title}:")
        out.print(_record_table(out, child.records, child.own or 0, child.record_count, unit))
        _print_rest(out, child.records, child.record_count)
    for one in child.children:
        _print_child_records(out, one, unit)


def print_answer(answer: Answer) -> None:
    """Print which tests admit a record and which exclude it."""
    out = console()
    who = f"{answer.name or answer.record_id}  {answer.table} {answer.record_id}"
    out.print(Text.assemble((f"{answer.goal.title}: ", "bold"), who))
    for note in answer.notes:
        out.print(note, soft_wrap=True)
    for column in answer.columns:
        _print_verdict(out, column)


def _print_verdict(out: Console, column: ColumnVerdict) -> None:
    words = (column.summary, "green") if column.counts else f"does not count: {column.summary}"
    out.print(Text.assemble((column.column, "bold"), "  " if column.column else "", words))
    for test in column.tests:
        _print_test(out, test, 1)
    if column.counts_for_children:
        out.print(f"  counts for the goals below: {', '.join(column.counts_for_children)}")


def _print_test(out: Console, test: Criterion, level: int) -> None:
    mark = ("yes ", "green") if test.holds else ("no  ", "bold yellow")
    words = f"{test.asked}:" if test.parts else test.sentence
    out.print(Padding(Text.assemble(mark, words), (0, 0, 0, 2 * level), expand=False))
    for part in test.parts:
        _print_test(out, part, level + 1)


def _has_times(records: Sequence[Record]) -> bool:
    return any("T" in _date(record) for record in records)


def _date(record: Record) -> str:
    return str(plain_document(record.date) or "")


def _rate(record: Record) -> str:
    return "" if record.exchange_rate is None else number(record.exchange_rate)


def _amount(record: Record) -> str:
    return "" if record.amount is None else f"{number(record.amount)} {record.currency}".strip()
