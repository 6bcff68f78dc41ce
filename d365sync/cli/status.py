"""``status``: last cycles, freshness per table, goals by outcome, problems, pending conflicts.

IO: terminal.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from d365sync.cli.output import console, number, print_json
from d365sync.core.counts import counted
from d365sync.errors import UsageError
from d365sync.sync.documents import plain_document

if TYPE_CHECKING:
    from d365sync.app import App
    from d365sync.cli.context import Settings

RUNS_SHOWN = 10


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_obj
def status(settings: Settings, *, as_json: bool) -> int:
    """Show the last cycles, how fresh each table is, and what is wrong. Asks Dataverse nothing."""
    with settings.app(offline=True) as app:
        document = _document(app)
    if as_json:
        print_json(document)
    else:
        _print(document)
    return 0


def _document(app: App) -> dict[str, Any]:
    from d365sync.sync.entitlement import DAY, entitlement_of
    from d365sync.sync.modes import planned_as
    from d365sync.sync.offline import computed, mirrored
    from d365sync.sync.pending import pending_conflicts

    now = app.clock()
    runs = app.line.journal.runs(RUNS_SHOWN)
    remote = app.config.dataverse
    day = app.line.journal.counts_since(now - DAY)
    spent = entitlement_of(day, remote.daily_requests, remote.daily_warning_pct)
    positions = app.line.mirror.positions()
    pending: list[Any] = []
    try:
        snapshot = mirrored(app.line, now)
    except UsageError:
        goals, problems, mode = {}, [], app.config.writeback.mode
    else:
        rollup, plan = computed(app.line, snapshot)
        goals = {"different": len(plan.writes), "right": plan.unchanged}
        goals |= {str(reason): count for reason, count in Counter(str(skip.reason) for skip in plan.skips).items()}
        pending = [plain_document(one) for one in pending_conflicts(app.line.journal, plan, planned_as(app.config))]
        problems, mode = [plain_document(one) for one in rollup.problems], app.config.writeback.mode
    return {
        "mode": mode,
        "goals": goals,
        "problems": problems,
        "pending_conflicts": pending,
        "tables": [
            {
                "table": name,
                "rows": rows,
                "followed_by": "delta link" if position.delta_link else "modifiedon",
                "pulled_at": position.pulled_at,
                "age_s": int((now - position.pulled_at).total_seconds()),
            }
            for name, (position, rows) in positions.items()
        ],
        "runs": [plain_document(run) for run in runs],
        "lease": _lease(app),
        "requests_of_24_h": {
            "used": spent.used,
            "allowed": spent.allowed,
            "used_pct": spent.used_pct,
            "warn_pct": spent.warn_pct,
            "near": spent.is_near,
        },
    }


def _lease(app: App) -> dict[str, Any] | None:
    found = app.line.journal.lease()
    if found is None:
        return None
    return {**plain_document(found), "is_over": found.is_over(app.real_clock())}


def _print_lease(lease: dict[str, Any] | None) -> None:
    from d365sync.sync.holding import shown

    if lease is None:
        console().print("no instance holds the lease")
        return
    until = "was due for renewal at" if lease["is_over"] else "until"
    console().print(
        f"{shown(lease['holder'])} has held the lease since {lease['since']}, {until} {lease['until']} "
        f"(epoch {lease['epoch']})"
    )


def _print(document: dict[str, Any]) -> None:
    out = console()
    goals, problems = document["goals"], document["problems"]
    words = ", ".join(f"{count} {name}" for name, count in goals.items()) or "nothing pulled yet"
    out.print(f"mode {document['mode']}; goals: {words}")
    _print_lease(document["lease"])
    for problem in problems:
        out.print(f"{problem['severity']}: {problem['message']}")
    _print_pending(document["pending_conflicts"])
    _print_tables(document["tables"])
    _print_runs(document["runs"])
    spent = document["requests_of_24_h"]
    out.print(
        f"{'warning: ' if spent['near'] else ''}{counted(spent['used'], 'request')} in the last 24 h, "
        f"{spent['used_pct']} % of {spent['allowed']:,} (dataverse.daily_requests)"
    )


def _print_pending(pending: list[dict[str, Any]]) -> None:
    if not pending:
        return
    from rich.table import Table

    table = Table(title="Pending conflicts", title_justify="left", header_style="bold")
    for name in ("Goal", "State", "What to do"):
        table.add_column(name)
    for one in pending:
        table.add_row(one["title"], one["state"], one["mend"])
    console().print(table)


def _print_tables(tables: list[dict[str, Any]]) -> None:
    if not tables:
        return
    from rich.table import Table

    table = Table(title="Mirrored tables", title_justify="left", header_style="bold")
    for name in ("Table", "Followed by", "Read"):
        table.add_column(name)
    table.add_column("Rows", justify="right")
    for one in tables:
        table.add_row(one["table"], one["followed_by"], f"{_ago(one['age_s'])} ago", number(one["rows"]))
    console().print(table)


def _print_runs(runs: list[dict[str, Any]]) -> None:
    if not runs:
        return
    from rich.table import Table

    table = Table(title="Last cycles", title_justify="left", header_style="bold")
    table.add_column("Run", no_wrap=True)
    for name in ("Command", "Mode", "Outcome", "Written", "Requests", "Message"):
        table.add_column(name)
    for run in runs:
        counts = run["counts"]
        table.add_row(
            run["id"],
            run["command"],
            run["mode"],
            run["outcome"] or "unfinished",
            str(counts.get("written_goals", "-")),
            number(counts["requests"]) if "requests" in counts else "-",
            run["message"],
        )
    console().print(table)


def _ago(seconds: int) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
