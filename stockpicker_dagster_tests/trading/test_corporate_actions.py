"""Splits, dividends and delistings leave wealth as it was, but for the return of a delisting; borrowing costs."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.corporate_actions import CorporateAction, book

DAY = date(2024, 3, 5)


@given(
    st.integers(-10_000, 10_000).filter(bool).map(Decimal),
    st.fractions("1/7", 20, max_denominator=7),
    st.decimals("0.5", 500, places=2),
)
@settings(max_examples=50, deadline=None)
def test_a_split_keeps_the_value_and_whole_shares(held: Decimal, ratio: Any, price: Decimal) -> None:
    exact = Decimal(str(float(ratio)))  # as a data file has it
    booking = book(CorporateAction(DAY, "AAA", "split", exact, price), held, held)
    change, cash = (booking.quantity_change, booking.cash) if booking else (Decimal(0), Decimal(0))
    now = held + change
    assert now == now.to_integral_value()
    assert now * held >= 0
    before = float(held) * float(ratio) * float(price)
    assert abs(float(now * price + cash) - before) <= 1e-4 + 1e-6 * float(price)
    assert abs(cash) < price


def test_thirds_do_not_lose_a_share() -> None:
    action = CorporateAction(DAY, "AAA", "split", Decimal(str(2 / 3)), Decimal(30))
    booking = book(action, Decimal(300), Decimal(300))
    assert booking is not None
    assert (booking.quantity_change, booking.cash) == (Decimal(-100), Decimal(0))


def test_longs_earn_and_shorts_pay_the_dividend_on_what_they_were_entitled_to() -> None:
    action = CorporateAction(DAY, "AAA", "dividend", Decimal("0.25"))
    for entitled in (Decimal(100), Decimal(-100)):
        booking = book(action, entitled, held=Decimal(7))
        assert booking is not None
        assert (booking.quantity_change, booking.cash) == (0, entitled * Decimal("0.25"))
    assert book(action, Decimal(0), held=Decimal(7)) is None


@pytest.mark.parametrize(("given_return", "paid"), [(Decimal("-0.3"), "700"), (None, "1000"), (Decimal(-1), "0")])
def test_a_delisting_closes_at_the_last_price_and_its_return(given_return: Decimal | None, paid: str) -> None:
    action = CorporateAction(DAY, "AAA", "delisting", given_return, Decimal(10))
    booking = book(action, Decimal(0), held=Decimal(100))
    assert booking is not None
    assert (booking.quantity_change, booking.cash) == (Decimal(-100), Decimal(paid))


@pytest.mark.parametrize(
    ("kind", "amount", "price"),
    [
        ("split", Decimal(2), None),
        ("split", Decimal(0), Decimal(1)),
        ("dividend", None, None),
        ("dividend", Decimal(-1), None),
        ("delisting", Decimal(-2), Decimal(1)),
        ("delisting", None, None),
        ("merger", Decimal(1), Decimal(1)),
    ],
)
def test_events_that_cannot_be_are_refused(kind: Any, amount: Decimal | None, price: Decimal | None) -> None:
    with pytest.raises(InvalidInput):
        CorporateAction(DAY, "AAA", kind, amount, price)


def test_shorts_pay_for_what_they_borrowed_overnight_and_longs_nothing() -> None:
    action = CorporateAction(DAY, "AAA", "borrow", Decimal("0.05"))
    booking = book(action, Decimal(-100), held=Decimal(0))
    assert booking is not None
    assert (booking.quantity_change, booking.cash) == (0, Decimal(-5))
    assert book(action, Decimal(100), held=Decimal(100)) is None
    # Sold short in the open of the day itself: nothing was borrowed before it.
    assert book(action, Decimal(0), held=Decimal(-100)) is None
