"""The shortfall is what the real portfolio is behind the paper one, to the last decimal, whatever was filled."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.trading.proposal import ProposedOrder, UnknownProposal
from stockpicker_dagster.trading.shortfall import DayPrices, order_shortfall, shortfall

PRICES = {"AAA": 50.0, "BBB": 20.0}

prices = st.integers(100, 100_000).map(lambda cents: Decimal(cents) / 100)


@dataclass(frozen=True)
class Part:
    quantity: Decimal
    price: Decimal
    commission: Decimal


def order(side: str, quantity: int, price: Decimal) -> ProposedOrder:
    return ProposedOrder("AAA", side, Decimal(quantity), "openings", price, "market", "opg", None, None)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["buy", "sell", "short", "cover"]),
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(1, 100), prices, prices), max_size=4),
    prices,
    prices | st.none(),
    prices,
)
def test_the_parts_add_up_to_what_the_real_portfolio_is_behind_the_paper_one(
    side: str,
    more: int,
    traded: list[tuple[int, Decimal, Decimal]],
    decision: Decimal,
    opened: Decimal | None,
    close: Decimal,
) -> None:
    sign = 1 if side in ("buy", "cover") else -1
    fills = [Part(Decimal(sign * shares), price, fee) for shares, price, fee in traded]
    wanted = sum(shares for shares, _, _ in traded) + more
    measured = order_shortfall(order(side, wanted, decision), fills, DayPrices(opened, close))
    # Two books, both marked at the close: one that traded all at the decision price, and the one there is.
    paper = sign * wanted * (close - decision)
    real = sum((fill.quantity * (close - fill.price) - fill.commission for fill in fills), Decimal(0))
    assert measured.total == paper - real
    assert measured.complete
    if opened is not None and fills:
        assert measured.delay is not None
        assert measured.trading is not None
        assert measured.delay + measured.trading == measured.filling
    else:
        assert (measured.delay, measured.trading) == (None, None)


def test_a_dividend_on_the_day_is_no_cost() -> None:
    # The close was 50, a dividend of 1 came off: opening at 49 is opening where it closed.
    adjustment = 1 / (1 - Decimal(1) / 50)
    measured = order_shortfall(
        order("buy", 10, Decimal(50)),
        [Part(Decimal(10), Decimal(49), Decimal(0))],
        DayPrices(Decimal(49), Decimal(49), adjustment),
    )
    assert measured.total.quantize(Decimal("1e-9")) == 0


def test_what_was_not_traded_and_has_no_close_is_not_counted_and_says_so() -> None:
    measured = order_shortfall(order("buy", 10, Decimal(50)), [], DayPrices(None, None))
    assert (measured.opportunity, measured.complete, measured.total) == (None, False, 0)


def test_an_executed_proposal_is_measured_from_the_ledger(trading_desk: Any) -> None:
    proposal = trading_desk.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    trading_desk.approve(proposal)
    trading_desk.market.prices = {"AAA": Decimal(51)}  # BBB does not open
    report = trading_desk.execute(proposal)
    filled = {done.symbol: done for done in report.orders}
    closes = {"AAA": DayPrices(Decimal(51), Decimal(52)), "BBB": DayPrices(None, Decimal(19))}
    measured = shortfall(trading_desk.engine, proposal, closes)
    bought, missed = measured.orders
    assert (bought.delay, bought.arrival) == (filled["AAA"].quantity, Decimal(51))
    assert bought.price == filled["AAA"].price
    assert bought.trading == filled["AAA"].quantity * (filled["AAA"].price - 51)
    assert bought.opportunity == 0
    assert bought.fees > 0
    # A short that was missed before the price fell by one.
    assert (missed.filled, missed.opportunity) == (0, filled["BBB"].quantity)
    assert measured.total == bought.total + missed.total
    assert measured.bps == measured.total / (bought.quantity * 50 + missed.quantity * 20) * 10_000
    with pytest.raises(UnknownProposal):
        shortfall(trading_desk.engine, "abcdef", {})
