"""``explain``: the records and children behind each number of a goal.

IO: terminal.
"""

from __future__ import annotations

import csv
import sys

import click
from rich.table import Table
from rich.text import Text

from d365sync.cli.context import Settings
from d365sync.cli.output import console, number, plain_document, print_json
from d365sync.core.goals.goal import Number
from d365sync.sync.explain import ColumnExplanation, Explanation, Record, find_goal
from d365sync.sync.explain import explain as explain_goal
from d365sync.sync.offline import computed, mirrored

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@click.command()
@click.argument("goal")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the records as CSV.")
@click.option("--query", "with_query", is_flag=True, help="Show the FetchXML that the records match.")
@click.pass_obj
def explain(settings: Settings, goal: str, *, as_json: bool, as_csv: bool, with_query: bool) -> int:
    """Show the records behind each number of GOAL (its title or id), and the sum.

    Reads what the last sync mirrored; asks Dataverse nothing.
    """
    with settings.app(offline=True) as app:
        snapshot = mirrored(app.line, app.clock())
        rollup, _ = computed(app.line, snapshot)
        found = explain_goal(app.line, snapshot, rollup, find_goal(snapshot, goal))
        code = snapshot.book.organization.base_currency_code
    if as_json:
        print_json(_document(found))
    elif as_csv:
        _print_csv(found)
    else:
        _print(found, code, with_query=with_query)
    return 0


def _print(found: Explanation, code: str, *, with_query: bool) -> None:
    out = console()
    period = f"{found.span.first_on} to {found.span.last_on}" if found.span else "no period"
    out.print(Text.assemble((found.goal.title, "bold"), f"  {found.metric}, {found.owner or 'no owner'}, {period}"))
    for column in found.columns:
        _print_column(column, code)
        if with_query and column.fetchxml:
            out.print(column.fetchxml)
    for problem in found.problems:
        out.print(f"problem: {problem}")


def _print_column(column: ColumnExplanation, code: str) -> None:
    out = console()
    money = column.column.endswith("money")
    table = Table(title=f"{column.column}", title_justify="left", header_style="bold", show_footer=True)
    table.add_column("Record", footer="total")
    table.add_column("Date")
    table.add_column("Owner")
    table.add_column("Amount", justify="right")
    table.add_column(
        f"Counts for{f' ({code})' if money and code else ''}", justify="right", footer=number(_sum(column))
    )
    for record in column.records:
        table.add_row(record.name, _date(record), record.owner, _amount(record), number(record.counts_for))
    for child in column.children:
        source = "" if child.source == "computed" else f" ({child.source})"
        table.add_row(f"child goal {child.title}{source}", "", "", "", number(child.amount))
    out.print(table)
    out.print(
        f"{len(column.records)} records give {number(column.own)}, {len(column.children)} children give "
        f"{number(sum((child.amount for child in column.children), start=0))}; Dataverse held {number(column.native)}\n"
    )


def _sum(column: ColumnExplanation) -> Number:
    return sum((child.amount for child in column.children), start=column.own)


def _date(record: Record) -> str:
    return str(plain_document(record.date) or "")


def _amount(record: Record) -> str:
    return "" if record.amount is None else f"{number(record.amount)} {record.currency}".strip()


def _print_csv(found: Explanation) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(["column", "kind", "id", "name", "date", "owner", "amount", "currency", "counts_for"])
    for column in found.columns:
        for one in column.records:
            amount = "" if one.amount is None else plain_document(one.amount)
            cells = [one.id, _safe(one.name), _date(one), _safe(one.owner), amount, one.currency, one.counts_for]
            writer.writerow([column.column, "record", *map(plain_document, cells)])
        for child in column.children:
            cells = [child.goal_id, _safe(child.title), "", "", "", "", child.amount]
            writer.writerow([column.column, "child", *map(plain_document, cells)])


def _safe(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _document(found: Explanation) -> dict[str, object]:
    return {
        "goal": found.goal.id,
        "title": found.goal.title,
        "metric": found.metric,
        "owner": found.owner,
        "from": found.span.first_on if found.span else None,
        "to": found.span.last_on if found.span else None,
        "columns": [{**plain_document(column), "total": _sum(column)} for column in found.columns],
        "problems": found.problems,
    }
