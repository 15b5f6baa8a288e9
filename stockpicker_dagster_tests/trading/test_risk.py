"""Every limit stops what exceeds it, names its figure, and lets a book that is too large shrink."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.rebalance import PlannedOrder
from stockpicker_dagster.trading.risk import (
    LIMIT_NAMES,
    AccountState,
    Limits,
    LooserThanAccount,
    Market,
    check,
    check_burst,
    strictest,
    tightened,
)

PRICES = {"AAA": Decimal(10), "BBB": Decimal(20)}
CASH = AccountState(Decimal(10_000), {})
WIDE = Limits(
    order_notional=Decimal(10**6),
    position=Decimal(10),
    gross=Decimal(10),
    net=Decimal(10),
    turnover=Decimal(10),
    buying_power=Decimal(10),
)


def order(symbol: str, side: str, quantity: int, phase: str = "openings", price: int | None = None) -> PlannedOrder:
    return PlannedOrder(symbol, side, Decimal(quantity), phase, Decimal(price) if price else PRICES[symbol])  # type: ignore[arg-type]


# Two orders on 10,000 of equity: long 0.5 in AAA, short 0.4 in BBB.
BASKET = [order("AAA", "buy", 500), order("BBB", "short", 200)]


@pytest.mark.parametrize(
    ("limit", "figure", "just_enough"),
    [
        ("order_notional", "5000", "5000"),
        ("position", "0.5", "0.5"),
        ("gross", "0.9", "0.9"),
        ("net", "0.1", "0.1"),
        ("turnover", "0.9", "0.9"),
        ("orders", "2", "2"),
        ("price_age_days", "3", "3"),
        ("buying_power", "0.912", "0.912"),
    ],
)
def test_each_limit_stops_just_above_its_figure(limit: str, figure: str, just_enough: str) -> None:
    assert check(BASKET, tightened(WIDE, {limit: just_enough}), CASH, PRICES, 3) == []
    breaches = check(BASKET, tightened(WIDE, {limit: Decimal(just_enough) * Decimal("0.99")}), CASH, PRICES, 3)
    assert [breach.limit for breach in breaches] == [limit]
    assert f"`{limit}`" in breaches[0].message
    assert f"{Decimal(figure):.4f}" in breaches[0].message


def test_a_price_that_left_its_collar_is_named() -> None:
    moved = [order("AAA", "buy", 1, price=8)]
    assert [b.subject for b in check(moved, WIDE, CASH, PRICES, 1)] == ["AAA"]
    assert check([order("AAA", "buy", 1, price=9)], WIDE, CASH, PRICES, 1) == []


def test_nothing_is_opened_in_a_restricted_name_but_it_may_be_closed() -> None:
    limits = tightened(WIDE, {"restricted": ["AAA"]})
    held = AccountState(Decimal(5_000), {"AAA": Decimal(500)})
    assert [b.limit for b in check(BASKET, limits, CASH, PRICES, 1)] == ["restricted"]
    assert check([order("AAA", "sell", 500, "reductions")], limits, held, PRICES, 1) == []


def test_a_book_beyond_its_limits_may_be_reduced_but_not_grown() -> None:
    large = AccountState(Decimal(-20_000), {"AAA": Decimal(3_000)})
    limits = Limits(position=Decimal(1), gross=Decimal(1), net=Decimal(1), buying_power=Decimal(1))
    assert check([order("AAA", "sell", 100, "reductions")], limits, large, PRICES, 1) == []
    grown = {breach.limit for breach in check([order("AAA", "buy", 100)], limits, large, PRICES, 1)}
    assert grown == {"position", "gross", "net", "buying_power"}


HELD = AccountState(Decimal(5_000), {"AAA": Decimal(500)})
SALE = order("AAA", "sell", 500, "reductions")


def limits_broken(orders: list[PlannedOrder], market: Market, state: AccountState = CASH, **limits: str) -> list[str]:
    return [b.limit for b in check(orders, tightened(WIDE, limits), state, PRICES, 1, market)]


def test_an_opening_takes_no_more_of_a_day_s_volume_than_is_allowed_and_a_closing_may() -> None:
    market = Market(volumes={"AAA": Decimal(5_000), "BBB": Decimal(1_999)})
    assert limits_broken(BASKET, market, volume_share="0.1") == ["volume_share"]
    [breach] = check(BASKET, tightened(WIDE, {"volume_share": "0.1"}), CASH, PRICES, 1, market)
    assert (breach.subject, breach.phase) == ("BBB", "openings")
    assert breach.message == (
        "BBB: share of the mean daily volume of 1999 shares would be 0.1001, above the limit `volume_share` of 0.1"
    )
    assert limits_broken([SALE], Market(volumes={"AAA": Decimal(1)}), HELD) == []
    assert limits_broken(BASKET[:1], Market(volumes={"AAA": Decimal(0)})) == ["volume_share"]


def test_nothing_is_opened_in_a_name_whose_volume_is_not_known() -> None:
    assert limits_broken(BASKET, Market(volumes={})) == ["volume_share"] * len(BASKET)
    [breach] = check(BASKET[:1], WIDE, CASH, PRICES, 1, Market(volumes={}))
    assert "AAA: its daily volume is not known" in breach.message
    assert limits_broken([SALE], Market(volumes={}), HELD) == []


@pytest.mark.parametrize(("borrow", "stopped"), [("easy", 0), ("unknown", 0), ("hard", 1), ("none", 1)])
def test_what_is_not_easy_to_borrow_is_not_sold_short(borrow: str, stopped: int) -> None:
    market = Market(borrow={"AAA": borrow, "BBB": borrow})
    assert limits_broken(BASKET, market) == ["borrow"] * stopped
    cover = order("BBB", "cover", 100, "reductions")
    assert limits_broken([cover], market, AccountState(Decimal(10_000), {"BBB": Decimal(-100)})) == []


def test_after_a_day_s_loss_nothing_is_opened_any_more_and_everything_may_be_closed() -> None:
    # Equity is 10,000; what it was in the morning says what was lost.
    just_enough, too_much = Market(start_equity=Decimal(10_500)), Market(start_equity=Decimal("10526.32"))
    assert limits_broken(BASKET, just_enough, daily_loss="0.05") == []
    assert limits_broken(BASKET, too_much, daily_loss="0.05") == ["daily_loss", "daily_loss"]
    assert limits_broken([SALE], too_much, HELD, daily_loss="0.05") == []
    assert limits_broken(BASKET, Market(), daily_loss="0.0") == []


def test_the_broker_s_own_buying_power_is_enough_for_all_openings_or_nothing_is_sent() -> None:
    # 5,000 for the long, 4,000 and a reserve of 3 % for the short.
    assert limits_broken(BASKET, Market(buying_power=Decimal(9_120))) == []
    assert limits_broken(BASKET, Market(buying_power=Decimal("9119.99"))) == ["buying_power"]
    assert limits_broken([SALE], Market(buying_power=Decimal(0)), HELD) == []


def test_what_runs_wild_is_stopped_by_the_orders_of_a_minute() -> None:
    limits = tightened(WIDE, {"orders_per_minute": 3})
    assert check_burst(2, limits) is None
    breach = check_burst(3, limits)
    assert breach is not None
    assert breach.limit == "orders_per_minute"
    assert "4.0000" in breach.message


def test_nothing_is_traded_on_an_account_without_equity() -> None:
    broke = AccountState(Decimal(-10_000), {"AAA": Decimal(1_000)})
    assert [breach.limit for breach in check([], WIDE, broke, PRICES, 1)] == ["equity"]


def test_equity_needs_a_price_for_everything_held() -> None:
    with pytest.raises(InvalidInput, match="no price for ZZZ"):
        AccountState(Decimal(1), {"ZZZ": Decimal(1)}).equity(PRICES)


@given(st.sampled_from(LIMIT_NAMES), st.decimals("0.01", 3, places=3))
@settings(max_examples=40, deadline=None)
def test_a_strategy_only_ever_tightens(name: str, factor: Decimal) -> None:
    account = Limits()
    wanted = getattr(account, name) * factor
    if factor > 1:
        with pytest.raises(LooserThanAccount, match=name):
            tightened(account, {name: wanted})
    else:
        granted = tightened(account, {name: wanted})
        assert getattr(granted, name) == wanted
        assert strictest(account, granted) == granted


def test_limits_left_out_are_the_account_s() -> None:
    assert tightened(Limits(restricted=("AAA",)), {"gross": None, "restricted": ["BBB"]}) == Limits(
        restricted=("AAA", "BBB")
    )


@pytest.mark.parametrize("wanted", [{"leverage": 1}, {"gross": "wide"}, {"gross": -1}, {"gross": float("nan")}])
def test_limits_that_cannot_be_are_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"allowed"):
        tightened(Limits(), wanted)
