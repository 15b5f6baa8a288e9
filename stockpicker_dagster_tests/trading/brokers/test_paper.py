"""The paper broker keeps books that add up, fills only what can fill, and books an event once."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.brokers import Absent, OrderRequest, Rejected
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.rebalance import PHASES

PRICES = {"AAA": 50.0, "BBB": 20.0}
TARGETS = {"AAA": 0.5, "BBB": -0.5}


def request(trading_desk: Any, number: int, symbol: str, side: str, quantity: object, **extra: Any) -> OrderRequest:
    figures: dict[str, Any] = {"collar_low": None, "collar_high": None, **extra}
    return OrderRequest(
        client_order_id=f"order-{number}",
        symbol=symbol,
        side=side,  # type: ignore[arg-type]
        quantity=Decimal(str(quantity)),
        phase="openings" if side in ("buy", "short") else "reductions",
        order_type="market",
        time_in_force="opg",
        trade_session=trading_desk.session + timedelta(days=1),
        submitted_at=trading_desk.now,
        **figures,
    )


def auction(trading_desk: Any, **opens: object) -> int:
    prices = {symbol: Decimal(str(price)) for symbol, price in opens.items()}
    filled: int = trading_desk.broker().fill_at_open(trading_desk.session + timedelta(days=1), prices, trading_desk.now)
    return filled


def test_an_order_waits_for_its_open_and_can_be_found(trading_desk: Any) -> None:
    broker = trading_desk.broker()
    broker.submit(request(trading_desk, 1, "AAA", "buy", 10))
    assert broker.find("order-1").status == "working"
    assert broker.find("order-2") == Absent()
    assert broker.fill_at_open(trading_desk.session, {"AAA": Decimal(5)}, trading_desk.now) == 0
    assert auction(trading_desk, AAA=5) == 1
    assert broker.find("order-1").filled_quantity == 10
    assert broker.open_orders() == []


def test_a_client_id_is_taken_once_even_after_a_cancel(trading_desk: Any) -> None:
    broker = trading_desk.broker()
    broker.submit(request(trading_desk, 1, "AAA", "buy", 10))
    broker.cancel("order-1", "changed my mind")
    again = broker.submit(request(trading_desk, 1, "AAA", "buy", 10))
    assert again == broker.find("order-1")
    other = broker.submit(request(trading_desk, 1, "AAA", "buy", 11))
    assert isinstance(other, Rejected)
    assert "taken by another order: buy 10 AAA" in other.reason
    assert auction(trading_desk, AAA=5) == 0
    assert (broker.find("order-1").status, broker.find("order-1").reason) == ("cancelled", "changed my mind")


@pytest.mark.parametrize(("quantity", "why"), [(0, "more than 0"), (-1, "more than 0"), ("0.5", "only whole shares")])
def test_only_positive_whole_shares_are_taken(trading_desk: Any, quantity: object, why: str) -> None:
    answer = trading_desk.broker().submit(request(trading_desk, 1, "AAA", "buy", quantity))
    assert isinstance(answer, Rejected)
    assert why in answer.reason
    assert trading_desk.broker().find("order-1") == Absent()


def test_cancelling_what_is_not_there_or_has_ended(trading_desk: Any) -> None:
    broker = trading_desk.broker()
    assert broker.cancel("order-9", "why not") == Absent()
    broker.submit(request(trading_desk, 1, "AAA", "buy", 10))
    auction(trading_desk, AAA=5)
    assert broker.cancel("order-1", "too late").status == "filled"


@pytest.mark.parametrize(
    ("side", "extra", "opens", "reason"),
    [
        ("buy", {}, {}, "AAA did not open"),
        ("buy", {"collar_high": Decimal(6)}, {"AAA": "6.01"}, "outside the collar"),
        ("short", {"collar_low": Decimal(6)}, {"AAA": "5.99"}, "outside the collar"),
        ("sell", {}, {"AAA": 5}, "only 0 shares"),
        ("cover", {}, {"AAA": 5}, "only 0 shares"),
    ],
)
def test_what_cannot_fill_is_cancelled_with_its_reason(
    trading_desk: Any, side: str, extra: dict[str, Any], opens: dict[str, object], reason: str
) -> None:
    trading_desk.broker().submit(request(trading_desk, 1, "AAA", side, 10, **extra))
    assert auction(trading_desk, **opens) == 0
    order = trading_desk.broker().find("order-1")
    assert order.status == "cancelled"
    assert reason in order.reason
    assert trading_desk.broker().positions() == {}


def test_reductions_fill_before_openings_and_only_what_is_held(trading_desk: Any) -> None:
    broker = trading_desk.broker()
    broker.submit(request(trading_desk, 1, "AAA", "buy", 10))
    auction(trading_desk, AAA=5)
    broker.submit(request(trading_desk, 2, "AAA", "short", 4))
    broker.submit(request(trading_desk, 3, "AAA", "sell", 15))
    assert auction(trading_desk, AAA=5) == 2
    assert broker.positions() == {"AAA": Decimal(-4)}
    assert broker.find("order-3").filled_quantity == 10
    assert "only 10 shares" in broker.find("order-3").reason


orders = st.lists(
    st.tuples(st.sampled_from("ABC"), st.sampled_from(["buy", "sell", "short", "cover"]), st.integers(1, 50)),
    max_size=12,
)


@given(orders, st.dictionaries(st.sampled_from("ABC"), st.decimals("0.5", 50, places=2)))
@settings(max_examples=25, deadline=None)
def test_no_auction_takes_a_position_across_zero_and_cash_adds_up(
    new_ledger: Any, placed: list[tuple[str, str, int]], opens: dict[str, Decimal]
) -> None:
    from datetime import UTC, date, datetime

    from stockpicker_dagster.trading.accounts import ensure_paper_account
    from stockpicker_dagster.trading.brokers.paper import PaperBroker

    engine, now, day = new_ledger(), datetime(2024, 3, 4, tzinfo=UTC), date(2024, 3, 5)
    ensure_paper_account(engine, "paper", now, cash=1000)
    broker = PaperBroker(engine, "paper")
    for number, (symbol, side, quantity) in enumerate(placed):
        phase = PHASES[side in ("buy", "short")]
        broker.submit(
            OrderRequest(
                f"o{number:02d}",
                symbol,
                side,  # type: ignore[arg-type]
                Decimal(quantity),
                phase,
                "market",
                "opg",
                None,
                None,
                day,
                now,
            )
        )
    broker.fill_at_open(day, opens, now)
    held: dict[str, Decimal] = {}
    cash = Decimal(1000)
    for fill in broker.fills_since(None):
        before = held.get(fill.symbol, Decimal(0))
        held[fill.symbol] = before + fill.quantity
        assert before * held[fill.symbol] >= 0
        cash -= fill.quantity * fill.price + fill.commission
        worse = 1 if fill.quantity > 0 else -1
        assert (fill.price - opens[fill.symbol]) * worse >= 0
    assert broker.positions() == {symbol: quantity for symbol, quantity in sorted(held.items()) if quantity}
    assert broker.cash() == cash
    assert broker.open_orders() == []


def test_events_are_booked_once_and_in_both_books(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    before, cash = trading_desk.broker().positions(), trading_desk.broker().cash()
    ex_day = trading_desk.session + timedelta(days=1)
    events = [
        CorporateAction(ex_day, "AAA", "split", Decimal(2), Decimal(25)),
        CorporateAction(ex_day, "AAA", "dividend", Decimal(1)),
        CorporateAction(ex_day, "BBB", "dividend", Decimal("0.5")),
        CorporateAction(ex_day, "ZZZ", "split", Decimal(3), Decimal(9)),
    ]
    assert len(trading_desk.broker().apply_corporate_actions(events, trading_desk.now)) == 3
    assert trading_desk.broker().apply_corporate_actions(events, trading_desk.now) == []
    assert trading_desk.broker().positions() == {"AAA": before["AAA"] * 2, "BBB": before["BBB"]}
    # The dividend is per share before the split, and the short pays.
    assert trading_desk.broker().cash() == cash + before["AAA"] + before["BBB"] / 2
    with trading_desk.engine.connect() as connection:
        assert ledger.held_quantities(connection, "paper") == trading_desk.broker().positions()


def test_what_traded_in_the_open_of_the_event_is_not_entitled(trading_desk: Any) -> None:
    trading_desk.rebalance({"AAA": 0.5}, PRICES)
    held = trading_desk.broker().positions()["AAA"]
    trading_desk.rebalance({"AAA": 0.25}, PRICES)
    left = trading_desk.broker().positions()["AAA"]
    # The sale was filled in the open of the day on which the split took effect.
    split = CorporateAction(trading_desk.session, "AAA", "split", Decimal(2), Decimal(25))
    trading_desk.broker().apply_corporate_actions([split], trading_desk.now)
    assert trading_desk.broker().positions()["AAA"] == left + held


def test_a_delisted_position_is_closed(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    held, cash = trading_desk.broker().positions(), trading_desk.broker().cash()
    gone = CorporateAction(trading_desk.session, "BBB", "delisting", Decimal("-0.5"), Decimal(20))
    trading_desk.broker().apply_corporate_actions([gone], trading_desk.now)
    assert trading_desk.broker().positions() == {"AAA": held["AAA"]}
    assert trading_desk.broker().cash() == cash + held["BBB"] * 10


def test_a_crash_while_booking_leaves_both_books_as_they_were(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    before = trading_desk.broker().positions(), trading_desk.broker().cash()

    def crash(_step: str) -> None:
        raise RuntimeError("power cut")

    split = CorporateAction(trading_desk.session + timedelta(days=1), "AAA", "split", Decimal(2), Decimal(25))
    with pytest.raises(RuntimeError, match="power cut"):
        trading_desk.broker(crash).apply_corporate_actions([split], trading_desk.now)
    assert (trading_desk.broker().positions(), trading_desk.broker().cash()) == before
    assert len(trading_desk.broker().apply_corporate_actions([split], trading_desk.now)) == 1


def test_an_auction_fills_no_more_than_is_there(trading_desk: Any) -> None:
    from stockpicker_dagster.trading.brokers.paper import PaperBroker

    there = {"AAA": Decimal(4), "BBB": Decimal(0)}
    broker: Any = PaperBroker(trading_desk.engine, trading_desk.account, available=there.get)
    for number, symbol in enumerate(("AAA", "BBB", "CCC")):
        broker.submit(request(trading_desk, number, symbol, "buy", 10))
    session, prices = trading_desk.session + timedelta(days=1), dict.fromkeys(("AAA", "BBB", "CCC"), Decimal(5))
    assert broker.fill_at_open(session, prices, trading_desk.now) == 2
    assert broker.positions() == {"AAA": 4, "CCC": 10}
    assert [broker.find(f"order-{n}").status for n in range(3)] == ["cancelled", "cancelled", "filled"]
    assert "only 4 shares of AAA were there" in broker.find("order-0").reason


def test_what_cannot_be_borrowed_is_not_sold_short(trading_desk: Any) -> None:
    from stockpicker_dagster.trading.brokers.paper import PaperBroker

    borrow = {"AAA": "none", "BBB": "hard"}
    broker = PaperBroker(trading_desk.engine, trading_desk.account, borrowable=lambda s: borrow[s])  # type: ignore[arg-type,return-value]
    refused = broker.submit(request(trading_desk, 1, "AAA", "short", 10))
    assert isinstance(refused, Rejected)
    assert "cannot be borrowed" in refused.reason
    assert broker.submit(request(trading_desk, 2, "BBB", "short", 10)) == broker.find("order-2")
    assert broker.borrow(["AAA", "BBB"]) == borrow


@pytest.mark.parametrize(("side", "limit", "filled"), [("buy", "4.99", 0), ("buy", 5, 10), ("short", "5.01", 0)])
def test_a_limit_is_kept(trading_desk: Any, side: str, limit: object, filled: int) -> None:
    order = request(trading_desk, 1, "AAA", side, 10, limit_price=Decimal(str(limit)))
    broker = trading_desk.broker()
    assert "a limit price goes with limit orders" in broker.submit(order).reason
    broker.submit(replace(order, order_type="limit"))
    auction(trading_desk, AAA=5)
    found = broker.find("order-1")
    assert found.filled_quantity == filled
    assert ("beyond the limit" in found.reason) == (not filled)


def test_a_part_fills_at_the_price_and_no_more_than_is_left_or_held(trading_desk: Any) -> None:
    broker = trading_desk.broker()
    broker.submit(request(trading_desk, 1, "AAA", "buy", 10))
    broker.fill_part("order-1", Decimal(4), Decimal(5), trading_desk.now)
    assert (broker.find("order-1").status, broker.find("order-1").filled_quantity) == ("working", 4)
    with pytest.raises(InvalidInput, match="6 are left"):
        broker.fill_part("order-1", Decimal(7), Decimal(5), trading_desk.now)
    broker.submit(request(trading_desk, 2, "AAA", "sell", 9))
    with pytest.raises(InvalidInput, match="only 4 shares"):
        broker.fill_part("order-2", Decimal(5), Decimal(5), trading_desk.now)
    assert auction(trading_desk, AAA=5) == 2
    assert broker.find("order-2").filled_quantity == 4
    assert broker.find("order-1").filled_quantity == 10
    assert sum(fill.quantity for fill in broker.fills_since(None)) == 6
