"""``parity`` against the emulator's own rollup, made to differ in every way it can."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from d365sync.core.goals.parity import Kind, Limits
from d365sync.emulator import Emulator
from d365sync.emulator.native import recalculate
from d365sync.emulator.settings import ClosedGoals
from d365sync.sync.offline import mirrored
from d365sync.sync.parity import Compared, Parity, compare
from tests.emulated import NOW, application
from tests.golden.casebook import made_id
from tests.integration.test_line import CASES, load

ROLLED_UP = NOW - dt.timedelta(days=1)
BEFORE = NOW - dt.timedelta(days=2)
TABLES = ("opportunity", "opportunityproduct", "phonecall")


def rolled_up(folder: Path, name: str = "tree", **options: Any) -> Emulator:
    """Load a case whose records are old, and have the platform roll up every tree."""
    emulator = load(folder, name, **options)
    for table in TABLES:
        for row in list(emulator.store.rows(table).values()):
            key = emulator.store.catalogue.tables[table].key
            emulator.store.change(table, str(row[key]), {"modifiedon": BEFORE})
    recalculate_all(emulator)
    return emulator


def recalculate_all(emulator: Emulator) -> None:
    for goal in list(emulator.store.rows("goal").values()):
        if goal.get("parentgoalid") is None:
            recalculate(emulator.store, str(goal["goalid"]), emulator.store.settings, ROLLED_UP)


@contextmanager
def compared(
    emulator: Emulator, folder: Path, *, limits: Limits | None = None, write: bool = False
) -> Iterator[Parity]:
    with application(emulator, folder) as app:
        app.sync(write=write)
        yield compare(app.line, mirrored(app.line, NOW), limits=limits or Limits())


def differing(found: Parity) -> dict[tuple[str, str], Compared]:
    return {(one.title, one.column): one for one in found.compared if one.finding.kind is not Kind.EQUAL}


def change(emulator: Emulator, deal: str, **columns: Any) -> None:
    emulator.store.change("opportunity", made_id("deal", deal), {"modifiedon": NOW, **columns})


@pytest.mark.parametrize("name", sorted(set(CASES) - {"last-day"}))
def test_what_the_platform_just_rolled_up_is_equal(tmp_path: Path, name: str) -> None:
    with compared(rolled_up(tmp_path, name), tmp_path) as found:
        assert found.compared
        assert differing(found) == {}


def test_a_deal_raised_after_the_rollup_is_stale_and_so_are_the_goals_above(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path)
    change(emulator, "1", actualvalue=Decimal(500), actualvalue_base=Decimal(500))
    with compared(emulator, tmp_path) as found:
        differences = differing(found)
    assert {key: one.finding.kind for key, one in differences.items()} == {
        ("Ann", "actualmoney"): Kind.STALE,
        ("North", "actualmoney"): Kind.CHILDREN,
        ("Company", "actualmoney"): Kind.CHILDREN,
    }
    ann = differences["Ann", "actualmoney"]
    assert (ann.native, ann.ours, ann.rolled_up_at) == (Decimal("100.25"), 500, ROLLED_UP)
    assert ([one.name for one in ann.finding.records], ann.finding.certain) == (["1"], False)
    assert found.unknown == []


def test_a_deal_lost_after_the_rollup_is_stale_to_the_last_digit(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path)
    change(emulator, "1", statecode=2, statuscode=4)
    with compared(emulator, tmp_path) as found:
        finding = differing(found)["Ann", "actualmoney"].finding
    assert (finding.kind, finding.certain, finding.amount) == (Kind.STALE, True, Decimal("-100.25"))


def test_a_product_line_is_stale_when_its_deal_changed(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path, "units")
    change(emulator, "old", actualclosedate=dt.date(2026, 11, 2))
    with compared(emulator, tmp_path) as found:
        finding = differing(found)["Ann", "actualdecimal"].finding
    assert (finding.kind, finding.certain, finding.amount) == (Kind.STALE, True, 100)
    assert [one.id for one in finding.records] == [made_id("product", "lamp")]


def test_days_in_another_zone_are_edge_days(tmp_path: Path) -> None:
    emulator = load(tmp_path, rollup_time_zone=ZoneInfo("America/Los_Angeles"))
    change(emulator, "1", actualclosedate=dt.date(2026, 12, 31), modifiedon=BEFORE)
    for deal in "2345":
        change(emulator, deal, modifiedon=BEFORE)
    recalculate_all(emulator)
    with compared(emulator, tmp_path) as found:
        finding = differing(found)["Ann", "actualmoney"].finding
    assert (finding.kind, finding.certain) == (Kind.EDGE_DAY, True)
    assert "2026-09-30 to 2026-12-30" in finding.words
    assert [one.name for one in finding.records] == ["1"]


def test_instants_in_another_zone_are_edge_days(tmp_path: Path) -> None:
    emulator = load(tmp_path, "calls", rollup_time_zone=ZoneInfo("America/Los_Angeles"))
    for call in list(emulator.store.rows("phonecall").values()):
        state = {"statecode": 0, "statuscode": 1} if call["subject"] == "last second" else {}
        emulator.store.change("phonecall", str(call["activityid"]), {"modifiedon": BEFORE, **state})
    recalculate_all(emulator)
    with application(emulator, tmp_path, rollup={"time_zone": "Europe/Berlin"}) as app:
        app.sync(write=False)
        finding = differing(compare(app.line, mirrored(app.line, NOW)))["Ann", "actualinteger"].finding
    assert (finding.kind, [one.name for one in finding.records]) == (Kind.EDGE_DAY, ["second too early"])
    assert "the platform begins its days -" in finding.words


def test_more_records_than_a_query_may_return(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path, "query", rollup_query_limit=1)
    with compared(emulator, tmp_path, limits=Limits(query=1)) as found:
        assert {one.finding.kind for one in differing(found).values()} == {Kind.LIMIT}
    with compared(emulator, tmp_path) as found:
        assert {one.finding.kind for one in differing(found).values()} == {Kind.UNKNOWN}


def test_a_closed_child_that_the_platform_leaves_out(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path, "closed-child", closed_goals=ClosedGoals.SKIP)
    with compared(emulator, tmp_path) as found:
        finding = differing(found)["North", "actualmoney"].finding
        assert [skip.title for skip in found.skipped] == ["Bob"]
    assert (finding.kind, finding.setting) == (Kind.CLOSED_CHILD, 'rollup.closed_child = "excluded"')


def test_an_overridden_child_that_the_platform_computes(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path, "overridden", overridden_feed_parents=False)
    with compared(emulator, tmp_path) as found:
        finding = differing(found)["North", "actualmoney"].finding
        assert [(skip.title, skip.reason) for skip in found.skipped] == [("Bob", "overridden by a person")]
    assert (finding.kind, finding.setting) == (Kind.OVERRIDDEN_CHILD, 'rollup.overridden_child = "recomputed"')


def test_an_owners_records_that_are_missing_look_like_visibility(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path, "owners")
    emulator.store.change("goal", made_id("goal", "Everyone"), {"actualmoney": Decimal(301)})
    with compared(emulator, tmp_path) as found:
        finding = differing(found)["Everyone", "actualmoney"].finding
    assert (finding.kind, [one.name for one in finding.records]) == (Kind.VISIBILITY, ["2"])


def test_a_number_nothing_explains_is_unknown(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path)
    emulator.store.change("goal", made_id("goal", "Ann"), {"actualmoney": Decimal("12.34")})
    with compared(emulator, tmp_path) as found:
        assert [(one.title, one.column) for one in found.unknown if one.title == "Ann"] == [("Ann", "actualmoney")]


def test_relative_dates_are_as_of_the_rollup(tmp_path: Path) -> None:
    emulator = load(tmp_path, "query")
    document = (
        '<fetch><entity name="opportunity"><filter><condition attribute="actualclosedate" '
        'operator="last-x-days" value="17"/></filter></entity></fetch>'
    )
    emulator.store.change("goalrollupquery", made_id("query", "big and new"), {"fetchxml": document})
    recalculate(
        emulator.store, made_id("goal", "Ann"), emulator.store.settings, dt.datetime(2026, 11, 19, 9, tzinfo=dt.UTC)
    )
    with application(emulator, tmp_path) as app:
        result = app.sync(write=False)
        assert result.rollup.totals[made_id("goal", "Ann")].totals["actualmoney"] == 0, "as of today nothing is in"
        found = compare(app.line, mirrored(app.line, NOW))
    assert [(one.native, one.ours) for one in found.compared if one.column == "actualmoney"] == [
        (Decimal("5449.99"), Decimal("5449.99"))
    ]


def test_goals_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    emulator = rolled_up(tmp_path)
    emulator.store.change("goal", made_id("goal", "South"), {"lastrolledupdate": None})
    with compared(emulator, tmp_path) as found:
        assert [(one.title, one.reason) for one in found.skipped] == [("South", "never rolled up by the platform")]
    with compared(emulator, tmp_path, write=True) as found:
        pass
    change(emulator, "1", actualvalue=Decimal(1), actualvalue_base=Decimal(1))
    with compared(emulator, tmp_path, write=True) as found:
        taken = {one.title for one in found.skipped if one.reason.startswith("taken over by d365sync")}
    assert {"Ann", "North", "Company"} <= taken
