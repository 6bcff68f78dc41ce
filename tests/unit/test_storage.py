from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d365sync.core.schema import Column, ColumnType, DateBehavior
from d365sync.core.storage import decode, encode
from d365sync.core.values import Value

MONEY = Column("amount", ColumnType.MONEY)
QUANTITY = Column("quantity", ColumnType.DECIMAL, precision=5)
DAY = Column("closed", ColumnType.DATETIME, date_behavior=DateBehavior.DATE_ONLY)
INSTANT = Column("created", ColumnType.DATETIME, date_behavior=DateBehavior.USER_LOCAL)
CHOICES = Column("colours", ColumnType.MULTISELECT)
FLAG = Column("flag", ColumnType.BOOLEAN)
COUNT = Column("count", ColumnType.INTEGER)


def test_the_largest_money_of_the_platform_keeps_every_digit() -> None:
    largest = Decimal("922337203685477.5807")
    assert encode(MONEY, largest) == 9223372036854775807
    assert decode(MONEY, 9223372036854775807) == largest


@given(st.decimals(Decimal("-922337203685477"), Decimal("922337203685477"), places=4))
def test_money_survives_storage(amount: Decimal) -> None:
    assert decode(MONEY, encode(MONEY, amount)) == amount


@pytest.mark.parametrize(
    ("column", "value", "stored"),
    [
        (QUANTITY, Decimal("2.50001"), 250001),
        (DAY, dt.date(2026, 11, 20), "2026-11-20"),
        (INSTANT, dt.datetime(2026, 11, 20, 9, 0, 1, tzinfo=dt.UTC), "2026-11-20T09:00:01Z"),
        (CHOICES, frozenset({3, 1}), ",1,3,"),
        (FLAG, True, 1),
        (COUNT, -7, -7),
        (MONEY, None, None),
    ],
)
def test_every_type_has_one_spelling_and_comes_back(column: Column, value: Value, stored: object) -> None:
    assert encode(column, value) == stored
    assert decode(column, stored) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (MONEY, 1.5),
        (MONEY, Decimal("0.00001")),
        (MONEY, Decimal("922337203685477.5808")),
        (COUNT, True),
        (COUNT, Decimal(1)),
        (FLAG, 1),
        (DAY, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        (INSTANT, dt.date(2026, 1, 1)),
        (INSTANT, dt.datetime(2026, 1, 1)),  # noqa: DTZ001
    ],
)
def test_what_cannot_be_stored_exactly_is_refused(column: Column, value: Value) -> None:
    with pytest.raises(ValueError, match=r"closed|amount|count|flag|created|zone"):
        encode(column, value)
