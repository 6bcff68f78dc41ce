"""The scenes in which d365sync is killed, and flaws that a kill loop has to notice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from d365sync.app import App
from d365sync.core.goals.backfill import Window
from d365sync.core.values import Value
from d365sync.emulator import Emulator
from d365sync.journal.store import Journal
from d365sync.mirror import bookmarks
from d365sync.mirror.store import Mirror
from d365sync.sync.backfill import backfill
from tests.golden.casebook import made_id
from tests.integration.test_backfill import org as three_quarters
from tests.integration.test_line import BOB, load
from tests.integration.test_pull import DEAL, more
from tests.kills.world import Scenario

MANY = 34
SMALL: Mapping[str, Mapping[str, object]] = {
    "dataverse": {"page_size": 10, "retry_budget": "0s"},
    "pull": {"tables": 2, "partitions": 1},
    "writeback": {"mode": "override", "batch_size": 1},
}
"""Small pages and batches, so that there is much between them."""


def organization(folder: Path) -> Emulator:
    """Return the tree of goals with several pages of deals."""
    emulator = load(folder)
    for number in range(MANY):
        more(emulator, number)
    return emulator


def busy_hour(emulator: Emulator) -> None:
    """Edit, make and delete deals: more than a page of each."""
    deals = sorted(emulator.store.rows(DEAL))
    for number, key in enumerate(deals[:14]):
        worth(emulator, key, Decimal(number) * 17 + Decimal("0.25"))
    for key in deals[14:26]:
        emulator.store.remove(DEAL, key)
    for number in range(100, 111):
        more(emulator, number)


def worth(emulator: Emulator, deal_id: str, amount: Decimal) -> None:
    """Give a deal another amount, in a currency whose rate is one."""
    emulator.store.change(DEAL, deal_id, {"actualvalue": amount, "actualvalue_base": amount})


def nothing(_emulator: Emulator) -> None:
    """Let nothing happen."""


def typed_over(emulator: Emulator) -> None:
    """Let a person type a number over one goal, and change what another counts."""
    typed: dict[str, Value] = {"actualmoney": Decimal("77.7000"), "isoverride": True, "isoverridden": True}
    emulator.store.change("goal", BOB, typed)
    worth(emulator, min(emulator.store.rows(DEAL)), Decimal("4321.0000"))


def bookmark_before_its_rows() -> None:
    """Save the bookmark in a transaction before the rows it stands for."""
    put, fill = Mirror.put, Mirror.fill

    def early(mirror: Mirror, table: Any, last: Any) -> None:
        if last is not None:
            with mirror._writing() as connection:
                bookmarks.save(connection, table.name, last)

    def spoiled_put(mirror: Mirror, table: Any, *arguments: Any, last: Any = None, **options: Any) -> Any:
        early(mirror, table, last)
        return put(mirror, table, *arguments, last=last, **options)

    def spoiled_fill(mirror: Mirror, table: Any, last: Any, *arguments: Any) -> Any:
        early(mirror, table, last)
        return fill(mirror, table, last, *arguments)

    Mirror.put, Mirror.fill = spoiled_put, spoiled_fill  # type: ignore[method-assign,assignment]


def writes_not_noted_before() -> None:
    """Note a write only when its outcome is known."""
    intend, done = Journal.intend, Journal.done
    kept: list[tuple[Any, ...]] = []

    def spoiled_intend(journal: Journal, run_id: str, writes: Any, now: Any) -> list[int]:
        noted = list(writes)
        kept.append((run_id, noted, now))
        return list(range(10**6, 10**6 + len(noted)))

    def spoiled_done(journal: Journal, endings: Any, now: Any) -> None:
        numbers = [number for arguments in kept for number in intend(journal, *arguments)]
        kept.clear()
        done(
            journal,
            [
                type(one)(number, one.outcome, one.etag, one.message, one.after)
                for number, one in zip(numbers, endings, strict=False)
            ],
            now,
        )

    Journal.intend, Journal.done = spoiled_intend, spoiled_done  # type: ignore[method-assign,assignment]


def typed_over_an_old_goal(emulator: Emulator) -> None:
    """Let a person type a number over a goal of last year."""
    typed: dict[str, Value] = {"actualmoney": Decimal("77.7000"), "isoverride": True, "isoverridden": True}
    emulator.store.change("goal", made_id("goal", "Bob 2"), typed)


def backfilled(app: App) -> object:
    """Run a backfill of every goal, or go on with it."""
    return backfill(app.line, Window(dt.date(2025, 1, 1), dt.date(2026, 12, 31)), write=True)


SCENES = {
    "first": Scenario(organization, 0, nothing, typed_over, frozenset({"Bob"}), SMALL),
    "busy": Scenario(organization, 1, busy_hour, typed_over, frozenset({"Bob"}), SMALL),
    "backfill": Scenario(
        three_quarters, 0, nothing, typed_over_an_old_goal, frozenset({"Bob 2"}), SMALL, run=backfilled
    ),
}
FLAWS = {"bookmark": bookmark_before_its_rows, "journal": writes_not_noted_before}
