"""A sweep of ids: what the other side has no longer is removed, in the memory of a page, holding up nobody."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from d365sync.errors import LeaseLostError, RemoteError
from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Guard, Mirror, Withheld
from tests.integration.test_mirror import DEALS, HERE, NOW, deal, row_id

SWEPT = Position(NOW, delta_link="https://x/swept")
PAGE = 1000


@pytest.fixture
def mirror(database_url: str) -> Iterator[Mirror]:
    opened = Mirror.open(database_url)
    opened.ensure(DEALS)
    opened.apply(DEALS, [deal(number, "1") for number in range(10)], last=HERE)
    opened.settle(())
    yield opened
    opened.close()


def left(mirror: Mirror) -> list[str]:
    return [str(row["opportunityid"]) for row in mirror.rows(DEALS)]


def test_what_is_on_no_page_is_removed_and_noted(mirror: Mirror) -> None:
    pages = [[row_id(3), row_id(1)], [], [row_id(3), row_id(99)]]
    assert mirror.remove_missing(DEALS, pages, SWEPT).deleted == 8
    assert (left(mirror), mirror.position(DEALS.name)) == ([row_id(1), row_id(3)], SWEPT)
    assert mirror.changes(DEALS, up_to=100).rows == 8
    assert mirror.remove_missing(DEALS, [[row_id(1)]], SWEPT).deleted == 1
    assert left(mirror) == [row_id(1)]


def test_the_guard_is_told_how_many_of_how_many(mirror: Mirror) -> None:
    told: list[tuple[int, int]] = []
    pages = [[row_id(number)] for number in range(4)]

    def judged(believed: bool) -> Guard:
        return lambda *counts: told.append(counts) or believed

    kept = mirror.remove_missing(DEALS, pages, SWEPT, guard=judged(False))
    assert (kept.deleted, kept.withheld) == (0, Withheld(tuple(map(row_id, range(4, 10))), 10, SWEPT))
    assert (len(left(mirror)), mirror.position(DEALS.name)) == (10, HERE)
    assert mirror.remove_missing(DEALS, pages, SWEPT, guard=judged(True)).deleted == 6
    assert mirror.remove_missing(DEALS, pages, SWEPT, guard=judged(True)).deleted == 0
    assert told == [(6, 10), (6, 10)]


def test_pages_that_end_early_remove_nothing(mirror: Mirror) -> None:
    def broken() -> Iterator[list[str]]:
        yield [row_id(1)]
        raise RemoteError("gone")

    with pytest.raises(RemoteError):
        mirror.remove_missing(DEALS, broken(), SWEPT)
    assert (len(left(mirror)), mirror.position(DEALS.name)) == (10, HERE)
    assert mirror.remove_missing(DEALS, [[row_id(number) for number in range(2, 10)]], SWEPT).deleted == 2


def test_others_write_while_pages_are_on_their_way(mirror: Mirror, database_url: str) -> None:
    other = Mirror.open(database_url)

    def slow() -> Iterator[list[str]]:
        for number in range(5):
            other.save_definitions({"deal": f"{number}"}, NOW)
            yield [row_id(number)]

    assert mirror.remove_missing(DEALS, slow(), SWEPT).deleted == 5
    other.close()


def test_one_who_lost_the_lease_removes_nothing(mirror: Mirror, database_url: str) -> None:
    mirror.fence(1)
    other = Mirror.open(database_url)

    def taken_over() -> Iterator[list[str]]:
        yield [row_id(1)]
        other.fence(2)

    with pytest.raises(LeaseLostError):
        mirror.remove_missing(DEALS, taken_over(), SWEPT)
    other.close()
    assert len(left(mirror)) == 10


def test_memory_does_not_grow_with_the_ids(mirror: Mirror) -> None:
    def peak(pages: int) -> int:
        numbers = range(0, pages * PAGE, PAGE)
        tracemalloc.start()
        mirror.remove_missing(DEALS, ([row_id(n + one) for one in range(PAGE)] for n in numbers), SWEPT)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)
    assert peak(30) < 2 * peak(2)
