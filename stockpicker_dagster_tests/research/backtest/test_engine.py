"""The engine against an exact slow back-test, closed forms, and the promises of its docstrings."""

from dataclasses import fields, replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.book_state import BookState
from stockpicker_dagster.research.backtest.engine import BookHistory, BookRuined, Rules, run, targets
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.backtest.trailing_risk import trailing_risk
from stockpicker_dagster.research.portfolio import target_weights
from stockpicker_dagster_tests.research.backtest.random_markets import (
    NAN,
    World,
    quiet_market,
    random_world,
)
from stockpicker_dagster_tests.research.backtest.slow_backtest import slow_backtest

COSTS: dict[str, Any] = {
    "commission_bps": 3.0,
    "spread_bps": 12.0,
    "borrow_bps_per_year": 400.0,
    "cash_interest_bps_per_year": 150.0,
}
MONEY = {"equity", "cash", "dividends", "delistings", "bought"}
"""Figures in currency."""
RULES = [
    Rules(2, 2, rebalance="daily", **COSTS),
    Rules(3, 2, "score", rebalance="daily", assumed_delisting_return=-0.3, **COSTS),
    Rules(2, 3, rebalance="weekly", rebalance_offset=2, assumed_delisting_return=-0.3, **COSTS),
    Rules(4, 4, "score", rebalance="monthly", rebalance_offset=3, **COSTS),
    Rules(3, 0, rebalance="weekly", capital=1000.0, **COSTS),
    Rules(6, 6, rebalance="weekly", **COSTS),
]
ALL_COSTS: dict[str, Any] = COSTS | {
    "capital": 10_000.0,
    "commission_per_share": 0.004,
    "impact_coefficient": 0.8,
    "hard_to_borrow_bps_per_year": 2500.0,
    "hard_to_borrow_below": 1_500_000.0,
    "short_interest_bps_per_year": 40.0,
}
DEMANDING_RULES = [
    Rules(3, 3, "volatility", rebalance="daily", hold_band=1.8, fill="vwap_proxy", **ALL_COSTS),
    Rules(3, 2, "rank", rebalance=3, rebalance_offset=1, sleeves=3, fill="close", gross=1.4, **ALL_COSTS),
    Rules(3, 3, "score", rebalance="daily", neutral="beta", max_weight=0.4, **ALL_COSTS),
    Rules(4, 4, "rank", rebalance=2, neutral="sector", hold_band=2.0, sleeves=2, max_weight=0.3, **ALL_COSTS),
    Rules(5, 5, neutral="exposures", exposures=("market", "size"), sleeves=2, volatility_target=0.15, **ALL_COSTS),
    Rules(5, 4, "score", rebalance=2, neutral="exposures", exposures=("sector", "value"), max_weight=0.3, **ALL_COSTS),
    Rules(3, 3, "rank", rebalance=3, hold_band=1.5, volatility_target=0.1, **ALL_COSTS),
]
"""With everything on; only in `World.full_market`."""
SEEDS = st.integers(0, 10**6)


def back_test(world: World, rules: Rules) -> BookHistory:
    market = world.market()
    return run(world.panel(market), market, rules, world.decisions(rules))


def full_back_test(world: World, rules: Rules) -> BookHistory:
    market = world.full_market()
    return run(world.panel(market), market, rules, world.decisions(rules))


def resumed(world: World, rules: Rules, count: int) -> BookHistory:
    """The sessions from number `count` on, from the state that the sessions before it left, read back from bytes."""
    first = full_back_test(world.until(count), rules)
    assert first.state is not None
    state = BookState.from_bytes(first.state.to_bytes())
    market, scores, decisions = later_part(world, rules, count, state)
    return run(scores, market, rules, decisions, resume_from=state)


def later_part(world: World, rules: Rules, count: int, state: BookState) -> tuple[MarketData, np.ndarray, np.ndarray]:
    """Market, scores and decisions of the sessions from number `count` on, with no more look-back than is asked for."""
    sessions = world.sessions[count:]
    look_back = world.sessions[max(0, count - rules.look_back) : count] if rules.look_back else []
    market = market_data(
        world.prices.filter(pl.col("date").is_in([*look_back, *sessions])),
        world.delistings,
        sessions,
        known=[str(symbol) for symbol in state.symbols],
        trailing=rules.needs_trailing_risk,
        look_back=look_back,
        sectors=world.sectors,
        borrow_rates=world.borrow_rates,
        styles=world.styles,
    )
    scores = market.panel(world.scores.filter(pl.col("date") >= sessions[0]), "score")
    return market, scores, world.decisions(rules)[count:]


def hold_from_the_first_open(market: MarketData, weights_of: list[float], **costs: Any) -> BookHistory:
    """Decide once, after the first close, and never again; positive scores are long, negative ones short."""
    scores = np.full(market.open.shape, NAN)
    scores[0] = weights_of
    longs, shorts = sum(score > 0 for score in weights_of), sum(score < 0 for score in weights_of)
    decision = np.zeros(len(market.sessions), dtype=bool)
    decision[0] = True
    return run(scores, market, Rules(longs, shorts, **costs), decision)


def daily_arrays(history: BookHistory) -> dict[str, np.ndarray]:
    values = {field.name: getattr(history, field.name) for field in fields(history)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(RULES))
def test_the_engine_agrees_with_a_slow_back_test_in_exact_decimals(seed: int, rules: Rules) -> None:
    world = random_world(seed)
    history = back_test(world, rules)
    slow = slow_backtest(world, rules)
    for name in slow[0].keys() & {field.name for field in fields(history)}:
        expected = np.array([day[name] for day in slow])
        np.testing.assert_allclose(getattr(history, name), expected, rtol=1e-9, atol=1e-9, err_msg=name)
    for column, symbol in enumerate(history.symbols):
        expected = np.array([day.get(f"shares of {symbol}", 0.0) for day in slow])
        np.testing.assert_allclose(history.shares[:, column], expected, rtol=1e-9, atol=1e-9, err_msg=symbol)


def test_the_random_worlds_hold_everything_that_can_happen() -> None:
    """Otherwise the agreement above would prove little."""
    worlds = [random_world(seed) for seed in range(30)]
    prices = pl.concat([world.prices for world in worlds])
    split, paid = prices["split_ratio"] != 1.0, prices["dividend"] > 0.0
    ends = pl.concat([world.delistings for world in worlds])
    assert (split & paid).any()
    assert prices["open"].null_count()
    assert prices["close"].null_count()
    assert ends["return"].null_count()
    assert ends["return"].drop_nulls().len()
    assert (ends["date"] < ends["last_session"]).any()
    assert (ends["date"] > ends["last_session"]).any()
    histories = [back_test(world, RULES[0]) for world in worlds]
    assert any((history.shares[40:] != 0).any() for history in histories)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("rules", DEMANDING_RULES)
def test_the_engine_agrees_with_the_slow_one_with_every_cost_and_rule_on(seed: int, rules: Rules) -> None:
    world = random_world(seed, sessions=170, names=12)
    history = full_back_test(world, rules)
    slow = slow_backtest(world, rules, listed_fees=True)
    for name in slow[0].keys() & {field.name for field in fields(history)}:
        expected = np.array([day[name] for day in slow])
        # Money is compared against the equity.
        np.testing.assert_allclose(
            getattr(history, name), expected, rtol=1e-9, atol=1e-9 * (1e6 if name in MONEY else 1), err_msg=name
        )
    assert history.impact.any()
    assert history.borrow.any()


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(RULES))
def test_cash_positions_and_costs_balance_every_day(seed: int, rules: Rules) -> None:
    history = back_test(random_world(seed), rules)
    before = np.concatenate([[rules.capital], history.equity[:-1]])
    costs = history.commission + history.spread + history.impact + history.borrow
    np.testing.assert_allclose(before * (1 + history.net_return), history.equity, rtol=1e-12)
    np.testing.assert_allclose(history.gross_return + history.interest - costs, history.net_return, atol=1e-12)
    np.testing.assert_allclose(history.overnight + history.intraday, history.gross_return, atol=1e-12)
    np.testing.assert_allclose(history.weights.sum(axis=1), history.net_exposure, atol=1e-12)
    np.testing.assert_allclose(history.turnover * rules.commission_bps / 1e4, history.commission, atol=1e-15)
    np.testing.assert_allclose(history.turnover * rules.spread_bps / 2e4, history.spread, atol=1e-15)
    assert all(np.isfinite(values).all() for values in daily_arrays(history).values())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(RULES), st.integers(1, 59))
def test_a_day_of_the_book_ignores_everything_after_it(seed: int, rules: Rules, count: int) -> None:
    """Byte for byte, with symbols that list and delist after the cut."""
    world = random_world(seed)
    same_until(count, back_test(world, rules), back_test(world.until(count), rules))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(DEMANDING_RULES), st.integers(1, 99))
def test_exposures_volatility_targets_and_every_cost_ignore_what_comes_after(
    seed: int, rules: Rules, count: int
) -> None:
    world = random_world(seed, sessions=100, names=10)
    same_until(count, full_back_test(world, rules), full_back_test(world.until(count), rules))


def same_until(count: int, whole: BookHistory, cut: BookHistory) -> None:
    """The first `count` sessions of a history are those of one that knew no more, byte for byte."""
    kept = len(cut.symbols)
    assert whole.symbols[:kept] == cut.symbols
    for name, values in daily_arrays(cut).items():
        expected = getattr(whole, name)[:count]
        expected = expected[:, :kept] if expected.ndim == 2 else expected
        assert values.tobytes() == np.ascontiguousarray(expected).tobytes(), name


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9), st.sampled_from(RULES + DEMANDING_RULES), st.integers(1, 99))
def test_going_on_from_a_stored_state_is_one_run_from_the_start(seed: int, rules: Rules, count: int) -> None:
    """Byte for byte, whichever day the state is of."""
    world = random_world(seed, sessions=100, names=10)
    whole, later = full_back_test(world, rules), resumed(world, rules, count)
    assert later.symbols == whole.symbols
    for name, values in daily_arrays(later).items():
        expected = np.ascontiguousarray(getattr(whole, name)[count:])
        assert np.ascontiguousarray(values).tobytes() == expected.tobytes(), name
    assert later.state is not None
    assert whole.state is not None
    assert later.state.to_bytes() == whole.state.to_bytes()


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(RULES + DEMANDING_RULES))
def test_the_change_of_cash_is_explained_to_the_cent(seed: int, rules: Rules) -> None:
    """By trades, costs, dividends, delistings and interest; and cash and positions are the equity, every day."""
    history = full_back_test(random_world(seed, sessions=120, names=10), rules)
    market_value = history.weights.sum(axis=1) * history.equity
    np.testing.assert_allclose(history.cash + market_value, history.equity, atol=0.005)
    before = np.concatenate([[rules.capital], history.equity[:-1]])
    costs = before * (history.commission + history.spread + history.impact + history.borrow - history.interest)
    explained = history.dividends + history.delistings - history.bought - costs
    np.testing.assert_allclose(np.diff(history.cash, prepend=rules.capital), explained, atol=0.005)


def test_the_scores_of_a_day_first_move_the_book_on_the_next() -> None:
    world, rules = random_world(7), RULES[0]
    market = world.market()
    scores, decisions = world.panel(market), world.decisions(rules)
    changed = scores.copy()
    changed[30] = -changed[30]
    first, second = (run(panel, market, rules, decisions) for panel in (scores, changed))
    differs = (first.shares != second.shares).any(axis=1)
    assert np.flatnonzero(differs)[0] == 31


def test_reinvested_dividends_and_splits_reproduce_total_return() -> None:
    """The book holds one stock and reinvests at each open; where that open only moved by the event, its wealth is the
    product of closes and adjustments."""
    rng = np.random.default_rng(3)
    count = 250
    split = rng.choice([1.0, 2.0, 3.0, 0.1, 1.5], size=count, p=[0.9, 0.04, 0.02, 0.02, 0.02])
    pays = rng.random(count) < 0.1
    opens, closes, dividends = np.empty(count), np.empty(count), np.zeros(count)
    split[:2] = 1.0
    price = 100.0
    for t in range(count):
        if t > 1 and pays[t]:
            dividends[t] = 0.03 * price
        opens[t] = (price - dividends[t]) / split[t]
        price = closes[t] = opens[t] * np.exp(rng.normal(0, 0.02))
    previous = np.concatenate([[100.0], closes[:-1]])
    adjustment = split / (1 - dividends / previous)
    market = replace(
        quiet_market(opens[:, None], closes[:, None]),
        dividend=dividends[:, None],
        split_ratio=split[:, None],
        adjustment=adjustment[:, None],
    )
    history = run(np.ones((count, 1)), market, Rules(1, 0, rebalance="daily"), np.ones(count, dtype=bool))
    total_return = np.cumprod(closes[2:] * adjustment[2:] / closes[1:-1])
    assert dividends.any()
    assert (split != 1).any()
    np.testing.assert_allclose(history.equity[2:] / history.equity[1], total_return, rtol=1e-9)


def test_a_dividend_is_paid_on_shares_before_the_split_and_owed_on_shorts() -> None:
    prices = np.array([[100.0, 50.0], [100.0, 50.0], [49.0, 24.5]])
    market = replace(
        quiet_market(prices),
        dividend=np.array([[0, 0], [0, 0], [2.0, 1.0]]),
        split_ratio=np.array([[1, 1], [1, 1], [2.0, 2.0]]),
        adjustment=np.array([[1, 1], [1, 1], [2 / 0.98, 2 / 0.98]]),
    )
    history = hold_from_the_first_open(market, [1.0, -1.0], capital=1000.0)
    np.testing.assert_allclose(history.shares[1:], [[10.0, -20.0], [20.0, -40.0]])
    np.testing.assert_allclose(history.equity, 1000.0)


def test_costs_follow_their_definitions() -> None:
    """Flat prices from Wednesday 2019-03-06: bought on Thursday, borrowed over one night, then over a weekend."""
    market = quiet_market(np.full((5, 2), 10.0), start=date(2019, 3, 6))
    history = hold_from_the_first_open(market, [1.0, -1.0], commission_bps=10, spread_bps=6, borrow_bps_per_year=3650)
    assert history.turnover.tolist() == [0.0, 2.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(history.commission[1], 2 * 0.0010)
    np.testing.assert_allclose(history.spread[1], 2 * 0.0003)
    short_value = 1_000_000.0
    np.testing.assert_allclose(
        history.borrow * np.concatenate([[1e6], history.equity[:-1]]), np.array([0, 0, 1, 3, 1]) * short_value * 0.001
    )
    assert history.gross_return == pytest.approx(np.zeros(5), abs=1e-15)


def test_cash_earns_interest_by_the_calendar_day() -> None:
    market = quiet_market(np.full((4, 1), 10.0), start=date(2019, 3, 7))
    scores = np.full((4, 1), NAN)
    rules = Rules(1, 0, cash_interest_bps_per_year=365)
    history = run(scores, market, rules, np.ones(4, dtype=bool))
    np.testing.assert_allclose(history.interest, [0, 1e-4, 3e-4, 1e-4])
    np.testing.assert_allclose(history.equity[-1], 1e6 * 1.0001 * 1.0003 * 1.0001)


def test_a_name_that_does_not_open_keeps_its_position_and_the_leg_is_not_scaled_up() -> None:
    opens = np.full((4, 4), 10.0)
    opens[1, 0] = NAN
    opens[2, 1] = NAN
    scores = np.array([[4.0, 3, 2, 1], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    market = quiet_market(opens, np.full((4, 4), 10.0))
    history = run(scores, market, Rules(2, 2, rebalance="daily"), np.ones(4, dtype=bool))
    np.testing.assert_allclose(history.weights[1], [0.0, 0.5, -0.5, -0.5])
    np.testing.assert_allclose(history.weights[2], [-0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(history.weights[3], [-0.5, -0.5, 0.5, 0.5])


def test_a_missing_close_is_marked_at_the_last_price_known() -> None:
    closes = np.array([[10.0], [12.0], [NAN], [NAN]])
    opens = np.array([[10.0], [10.0], [13.0], [NAN]])
    history = hold_from_the_first_open(quiet_market(opens, closes), [1.0])
    np.testing.assert_allclose(history.equity / 1e6, [1.0, 1.2, 1.3, 1.3])


@pytest.mark.parametrize(
    ("known_return", "assumed", "equity"), [(NAN, 0.0, 1.0), (NAN, -0.3, 0.7), (-0.9, -0.3, 0.1), (0.1, -0.3, 1.1)]
)
def test_a_delisting_closes_the_position_at_its_return(known_return: float, assumed: float, equity: float) -> None:
    prices = np.full((5, 1), 10.0)
    prices[3:] = NAN
    delisted, returns = np.zeros((5, 1), dtype=bool), np.full((5, 1), NAN)
    delisted[3], returns[3] = True, known_return
    market = replace(quiet_market(prices), delisted=delisted, delisting_return=returns)
    history = hold_from_the_first_open(market, [1.0], assumed_delisting_return=assumed)
    np.testing.assert_allclose(history.equity / 1e6, [1, 1, 1, equity, equity])
    assert history.longs.tolist() == [0, 1, 1, 0, 0]
    assert history.shares[3:].tolist() == [[0.0], [0.0]]


def test_a_short_earns_when_its_stock_is_delisted_for_nothing() -> None:
    prices = np.full((3, 2), 10.0)
    delisted, returns = np.zeros((3, 2), dtype=bool), np.full((3, 2), NAN)
    delisted[2, 1], returns[2, 1] = True, -1.0
    market = replace(quiet_market(prices), delisted=delisted, delisting_return=returns)
    assert hold_from_the_first_open(market, [1.0, -1.0]).equity[-1] == pytest.approx(2e6)


def test_a_book_without_equity_is_stopped_on_the_day_it_is_lost() -> None:
    prices = np.array([[10.0, 10], [10, 10], [10, 15], [10, 21], [10, 10]])
    market = quiet_market(prices)
    with pytest.raises(BookRuined, match=str(market.sessions[3])):
        hold_from_the_first_open(market, [1.0, -1.0])


def test_a_decision_without_any_score_sells_everything() -> None:
    scores = np.array([[1.0, -1.0], [NAN, NAN], [NAN, NAN]])
    history = run(scores, quiet_market(np.full((3, 2), 5.0)), Rules(1, 1), np.ones(3, dtype=bool))
    assert history.longs.tolist() == [0, 1, 0]
    assert history.shorts.tolist() == [0, 1, 0]


def test_positions_drift_between_decisions() -> None:
    prices = np.array([[10.0, 10], [10, 10], [11, 10], [12.1, 9]])
    history = hold_from_the_first_open(quiet_market(prices), [1.0, -1.0])
    assert (history.shares[1:] == history.shares[1]).all()
    assert history.turnover[2:].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(history.weights[3], [1.21 / 1.31, -0.9 / 1.31])


def test_fresh_weights_at_the_open_are_those_of_the_plan() -> None:
    """What `research.portfolio` proposes after a close is what the book holds after the next open."""
    rng = np.random.default_rng(5)
    scores = np.round(rng.normal(size=(40, 12)), 1)
    scores[rng.random(scores.shape) < 0.2] = NAN
    prices = np.full((40, 12), 20.0)
    for weighting in ("equal", "score"):
        history = run(scores, quiet_market(prices), Rules(0.3, 4, weighting), np.ones(40, dtype=bool))
        for t in range(39):
            plan = target_weights(scores[t], 0.3, 4, weighting)
            np.testing.assert_allclose(history.weights[t + 1], plan, atol=1e-12)


def test_nothing_is_left_of_what_the_book_is_neutral_to() -> None:
    rng = np.random.default_rng(6)
    shape = (90, 60)
    market = quiet_market(20.0 * np.exp(np.cumsum(rng.normal(0, 0.01, shape), axis=0)))
    styles = {name: rng.normal(size=shape) for name in ("size", "value")}
    sector = np.broadcast_to(np.array(["a", "b", "c"])[np.arange(60) % 3], shape)
    market = replace(market, sector=sector, styles=styles)
    # Scores that lean on both: the plain book is far from neutral.
    scores = styles["size"] - styles["value"] + 2.0 * rng.normal(size=shape)
    rules = Rules(20, 20, neutral="exposures", exposures=("sector", "size", "value"))
    plain, neutral = (targets(scores, market, chosen, np.ones(90, dtype=bool)) for chosen in (Rules(20, 20), rules))
    for style in styles.values():
        assert np.abs((plain * style).sum(axis=1)).mean() > 0.5
        np.testing.assert_allclose((neutral * style).sum(axis=1), 0.0, atol=1e-12)
    for name in "abc":
        np.testing.assert_allclose(np.where(sector == name, neutral, 0.0).sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.abs(neutral).sum(axis=1), 2.0)
    assert (np.sign(neutral) == np.sign(plain))[neutral != 0.0].all()
    assert (neutral != 0.0).sum() > 0.7 * (plain != 0.0).sum()


def test_scores_that_are_nothing_but_a_style_leave_no_book_that_is_neutral_to_it() -> None:
    rng = np.random.default_rng(6)
    shape = (30, 60)
    size = rng.normal(size=shape)
    market = replace(quiet_market(np.full(shape, 20.0)), styles={"size": size})
    rules = Rules(20, 20, neutral="exposures", exposures=("size",))
    assert (targets(size, market, rules, np.ones(30, dtype=bool)) == 0.0).all()


def test_a_book_that_aims_at_a_volatility_has_it_where_the_gross_allows() -> None:
    rng = np.random.default_rng(7)
    shape = (800, 40)
    prices = 20.0 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0))
    market = quiet_market(prices)
    trailing = trailing_risk(
        pl.DataFrame(
            {
                "symbol": np.repeat(market.symbols, 800),
                "date": list(market.sessions) * 40,
                "close": prices.T.ravel(),
                "adjustment": 1.0,
                "volume": 1.0,
            }
        ),
        [],
        market.sessions,
        market.symbols,
    )
    market, scores = replace(market, trailing=trailing), rng.normal(size=shape)
    aimed, plain = (
        run(scores, market, Rules(10, 10, rebalance="daily", volatility_target=target), np.ones(800, dtype=bool))
        for target in (0.06, None)
    )
    assert plain.net_return[61:].std() * np.sqrt(252) > 0.1
    assert 0.055 < aimed.net_return[61:].std() * np.sqrt(252) < 0.068
    np.testing.assert_array_equal(aimed.net_return[:30], plain.net_return[:30])
    assert (aimed.gross_exposure[61:] < 1.9).all()


def test_returns_do_not_depend_on_the_capital() -> None:
    world = random_world(11)
    large, small = (back_test(world, replace(RULES[1], capital=capital)) for capital in (1e9, 1.0))
    np.testing.assert_allclose(large.net_return, small.net_return, atol=1e-12)
    np.testing.assert_allclose(large.shares, small.shares * 1e9, rtol=1e-9, atol=1e-6)


def test_open_to_open_returns_belong_to_the_book_bought_at_their_start() -> None:
    opens = np.array([[10.0], [10.0], [11.0], [11.0], [13.2]])
    closes = np.array([[10.0], [10.5], [11.0], [12.0], [13.0]])
    history = hold_from_the_first_open(quiet_market(opens, closes), [1.0])
    np.testing.assert_allclose(history.open_to_open(), [0.0, 0.1, 0.0, 0.2], atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"long": 0, "short": 1}, "long is 0"),
        ({"long": 1, "short": 1, "weights": "size"}, "weights 'size' is unknown"),
        ({"long": 1, "short": 1, "rebalance": "hourly"}, "rebalance rule 'hourly' is unknown"),
        ({"long": 1, "short": 1, "rebalance_offset": 7}, "rebalance_offset 7 is not allowed with 'weekly'"),
        ({"long": 1, "short": 1, "commission_bps": -1.0}, "commission_bps is -1.0; allowed is 0 to below 10000"),
        ({"long": 1, "short": 1, "spread_bps": NAN}, "spread_bps is nan"),
        ({"long": 1, "short": 1, "borrow_bps_per_year": -2.0}, "borrow_bps_per_year is -2.0"),
        ({"long": 1, "short": 1, "assumed_delisting_return": -1.5}, "assumed_delisting_return is -1.5"),
        ({"long": 1, "short": 1, "capital": 0.0}, "capital is 0.0; allowed is a positive amount"),
        ({"long": 1, "short": 1, "fill": "vwap"}, "fill is 'vwap'; allowed is 'open', 'close', 'vwap_proxy'"),
        ({"long": 1, "short": 1, "hold_band": 0.5}, "hold_band is 0.5; give a multiple"),
        ({"long": 1, "short": 1, "sleeves": 0}, "sleeves is 0; give a whole number from 1"),
        ({"long": 1, "short": 1, "gross": 0.0}, "gross is 0.0; give a positive multiple"),
        ({"long": 1, "short": 1, "max_weight": -1.0}, "max_weight is -1.0; give a positive fraction"),
        ({"long": 1, "short": 1, "neutral": "size"}, "neutral 'size' is unknown; known: dollar, beta, sector"),
        ({"long": 1, "short": 0, "neutral": "beta"}, "neutral 'beta' needs a short leg"),
        ({"long": 1, "short": 1, "neutral": "exposures"}, "exposures is \\(\\); allowed is at least one"),
        (
            {"long": 1, "short": 1, "exposures": ("market",)},
            "allowed is at least one with neutral 'exposures' and none",
        ),
        ({"long": 1, "short": 1, "volatility_target": 0.0}, "volatility_target is 0.0; give the standard deviation"),
        ({"long": 1, "short": 1, "commission_per_share": -0.1}, "commission_per_share is -0.1; allowed is 0 or more"),
        ({"long": 1, "short": 1, "impact_coefficient": NAN}, "impact_coefficient is nan; allowed is 0 or more"),
        ({"long": 1, "short": 1, "short_interest_bps_per_year": -1.0}, "short_interest_bps_per_year is -1.0"),
        ({"long": 1, "short": 1, "rebalance": 5, "rebalance_offset": 5}, "rebalance_offset 5 is not allowed with 5"),
    ],
)
def test_rules_that_are_not_allowed_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Rules(**arguments)


def test_panels_that_do_not_fit_the_market_are_refused() -> None:
    market = quiet_market(np.full((3, 2), 5.0))
    with pytest.raises(InvalidInput, match=r"scores of shape \(2, 2\)"):
        run(np.ones((2, 2)), market, Rules(1, 1), np.ones(3, dtype=bool))
    with pytest.raises(InvalidInput, match=r"with \(2,\) decision days"):
        run(np.ones((3, 2)), market, Rules(1, 1), np.ones(2, dtype=bool))
    with pytest.raises(InvalidInput, match="score inf in row 0, column 1 is not finite"):
        run(np.array([[1.0, np.inf]] * 3), market, Rules(1, 1), np.ones(3, dtype=bool))


@pytest.mark.parametrize("shape", [(5, 0), (1, 3), (0, 0), (0, 2)])
def test_a_market_without_sessions_or_stocks_has_a_book_of_cash(shape: tuple[int, int]) -> None:
    history = run(np.ones(shape), quiet_market(np.ones(shape)), Rules(1, 1), np.ones(shape[0], dtype=bool))
    assert history.equity.tolist() == [1e6] * shape[0]
    assert history.shares.shape == shape
