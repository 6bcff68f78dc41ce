"""The ids that managers may see, on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from d365sync.mirror.bookmarks import Position
from d365sync.mirror.store import Mirror
from d365sync.mirror.visible import REFUSED, UNREADABLE, Difference, Fault, PairState
from tests.integration.test_mirror import DEALS, NOW, deal, row_id

ANN, BOB = (
    ("opportunity", "a0000000-0000-0000-0000-000000000001"),
    ("opportunity", "b0000000-0000-0000-0000-000000000002"),
)
LATER = NOW + dt.timedelta(hours=1)


@pytest.fixture
def mirror(database_url: str) -> Iterator[Mirror]:
    opened = Mirror.open(database_url)
    opened.ensure(DEALS)
    yield opened
    opened.close()


def test_replacing_tells_the_difference_and_moves_the_version_only_then(mirror: Mirror) -> None:
    with mirror.visible() as ids:
        assert ids.replace(ANN, ["1", "2", "3"], NOW) == Difference(3, 0)
        assert ids.replace(BOB, ["1"], NOW) == Difference(1, 0)
        assert ids.states()[ANN] == PairState(NOW, 1)
        assert ids.replace(ANN, ["3", "2", "1"], LATER) == Difference(0, 0)
        assert ids.states()[ANN] == PairState(LATER, 1)
        assert ids.replace(ANN, ["2", "4"], LATER) == Difference(1, 2)
        assert (ids.ids(ANN), ids.ids(BOB)) == ({"2", "4"}, {"1"})
        assert {pair: state.version for pair, state in ids.states().items()} == {ANN: 2, BOB: 1}


def test_some_ids_are_corrected_without_counting_as_asked_in_full(mirror: Mirror) -> None:
    with mirror.visible() as ids:
        ids.replace(ANN, ["1", "2"], NOW)
        assert ids.settle(ANN, ["2", "3", "4"], ["3"]) == Difference(1, 1)
        assert ids.ids(ANN) == {"1", "3"}
        assert ids.states()[ANN] == PairState(NOW, 2)
        assert ids.settle(ANN, ["3", "9"], ["3"]) == Difference(0, 0)
        assert ids.states()[ANN].version == 2


def test_a_refusal_keeps_the_ids_and_the_next_answer_forgets_it(mirror: Mirror) -> None:
    refused = Fault(REFUSED, "why", "how")
    with mirror.visible() as ids:
        ids.replace(ANN, ["1"], NOW)
        ids.refuse(ANN, LATER, refused)
        assert ids.states()[ANN] == PairState(LATER, 1, refused)
        assert ids.ids(ANN) == {"1"}
        ids.replace(ANN, ["1"], LATER)
        assert ids.states()[ANN] == PairState(LATER, 1)


def test_nothing_to_see_has_a_reason(mirror: Mirror) -> None:
    unreadable = Fault(UNREADABLE, "why")
    with mirror.visible() as ids:
        ids.replace(ANN, ["1"], NOW)
        ids.replace(ANN, [], LATER, unreadable)
        assert ids.states()[ANN] == PairState(LATER, 2, unreadable)
        assert ids.ids(ANN) == set()


def test_pairs_no_goal_needs_are_forgotten(mirror: Mirror) -> None:
    with mirror.visible() as ids:
        ids.replace(ANN, ["1"], NOW)
        ids.replace(BOB, ["1"], NOW)
        ids.keep_only([BOB])
        assert set(ids.states()) == {BOB}
        assert (ids.ids(ANN), ids.ids(BOB)) == (set(), {"1"})


def test_many_ids_are_kept(mirror: Mirror) -> None:
    many = [row_id(number) for number in range(20_000)]
    with mirror.visible() as ids:
        ids.replace(ANN, many, NOW)
    with mirror.visible() as ids:
        assert ids.replace(ANN, many[1:], NOW) == Difference(0, 1)


def test_changed_rows_still_there_are_told_up_to_a_number(mirror: Mirror) -> None:
    def told(up_to: int = 2) -> list[str] | None:
        with mirror.visible() as ids:
            return ids.changed_ids(DEALS, up_to=up_to)

    mirror.apply(DEALS, [deal(1, "1"), deal(2, "2"), deal(3, "3")], last=Position(NOW))
    assert told() is None
    mirror.settle({})
    assert told() == []
    mirror.apply(DEALS, [deal(2, "3", version=2), deal(4, "4")], ["00000000-0000-0000-0000-000000000003"])
    assert told() == [row_id(2), row_id(4)]
    assert told(1) is None
