"""Explanations for programs: the JSON document and the CSV rows.

IO: terminal.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence

from d365sync.core.goals.goal import Number
from d365sync.core.goals.why import Criterion
from d365sync.sync.documents import plain_document
from d365sync.sync.explain import ChildPart, ColumnExplanation, Explanation, Record, exact_sum
from d365sync.sync.whynot import Answer

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
CSV_COLUMNS = (
    *("column", "kind", "id", "name", "date", "owner", "amount", "currency", "counts_for"),
    *("base_currency", "exchange_rate", "goal", "because"),
)


def document(found: Explanation) -> dict[str, object]:
    """Return an explanation as JSON holds it; ``total`` is the sum of own records and direct children."""
    return {
        "goal": found.goal.id,
        "title": found.goal.title,
        "metric": found.metric,
        "owner": found.owner,
        "from": found.span.first_on if found.span else None,
        "to": found.span.last_on if found.span else None,
        "base_currency": found.base_currency,
        "notes": found.notes,
        "columns": [_column(column) for column in found.columns],
        "problems": found.problems,
    }


def verdict_document(answer: Answer) -> dict[str, object]:
    """Return the answer about one record as JSON holds it."""
    return {
        "goal": answer.goal.id,
        "title": answer.goal.title,
        "asked": answer.asked,
        "table": answer.table,
        "record": answer.record_id,
        "name": answer.name,
        "counts": answer.counts,
        "notes": answer.notes,
        "columns": [
            {
                "column": one.column,
                "counts": one.counts,
                "summary": one.summary,
                "tests": [_test(test) for test in one.tests],
                "record": None if one.record is None else _record(one.record),
                "counts_for_children": one.counts_for_children,
            }
            for one in answer.columns
        ],
    }


def print_csv(found: Explanation) -> None:
    """Print the records: kinds ``record`` and ``child`` add up to the number, ``below`` is what is behind a child."""
    writer = csv.writer(sys.stdout)
    writer.writerow(CSV_COLUMNS)
    for column in found.columns:
        for record in column.records:
            writer.writerow([column.column, "record", *_record_cells(record, found.goal.title)])
        for child in column.children:
            writer.writerow([column.column, "child", *_child_cells(child, found.goal.title)])
            for cells in _below(child):
                writer.writerow([column.column, "below", *cells])


def total_of(column: ColumnExplanation) -> Number:
    """Return the sum of own records and direct children."""
    return exact_sum((child.amount or 0 for child in column.children), column.own)


def _below(child: ChildPart) -> Iterator[Sequence[object]]:
    for record in child.records:
        yield _record_cells(record, child.title)
    for one in child.children:
        yield _child_cells(one, child.title)
        yield from _below(one)


def _record_cells(record: Record, goal: str) -> Sequence[object]:
    because = "; ".join(test.sentence for test in record.tests)
    cells = [
        *(record.id, _safe(record.name), record.date, _safe(record.owner), record.amount, record.currency),
        *(record.counts_for, record.base_currency, record.exchange_rate, _safe(goal), _safe(because)),
    ]
    return ["" if cell is None else plain_document(cell) for cell in cells]


def _child_cells(child: ChildPart, goal: str) -> Sequence[object]:
    cells = [child.goal_id, _safe(child.title), "", _safe(child.owner), "", "", child.amount]
    return ["" if cell is None else plain_document(cell) for cell in (*cells, "", "", _safe(goal), child.source)]


def _column(column: ColumnExplanation) -> dict[str, object]:
    return {
        **plain_document(column),
        "records": [_record(record) for record in column.records],
        "children": [_child(child) for child in column.children],
        "total": total_of(column),
    }


def _child(child: ChildPart) -> dict[str, object]:
    return {
        **plain_document(child),
        "records": [_record(record) for record in child.records],
        "children": [_child(one) for one in child.children],
    }


def _record(record: Record) -> dict[str, object]:
    because = [test.sentence for test in record.tests if test.holds]
    return {**plain_document(record), "tests": [_test(test) for test in record.tests], "because": because}


def _test(test: Criterion) -> dict[str, object]:
    """Return a test; what it has not is left out."""
    said: dict[str, object] = {"test": test.kind, "holds": test.holds, "asked": test.asked}
    extra = {"found": test.found, "path": test.path, "parts": [_test(part) for part in test.parts]}
    return said | {name: value for name, value in extra.items() if value} | {"sentence": test.sentence}


def _safe(text: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
