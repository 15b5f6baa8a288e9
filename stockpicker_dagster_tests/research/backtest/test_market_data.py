"""The dense matrices against a dictionary of rows, and what is refused on the way in."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster_tests.research.backtest.random_markets import random_world

WORLD = random_world(4)
DEFAULTS = {"open": np.nan, "close": np.nan, "dividend": 0.0, "split_ratio": 1.0, "adjustment": 1.0}


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_row_is_in_its_cell_and_every_other_cell_is_quiet(name: str) -> None:
    market = WORLD.market()
    stored = {(symbol, day): value for symbol, day, value in WORLD.prices.select("symbol", "date", name).iter_rows()}
    expected = [[stored.get((symbol, day), DEFAULTS[name]) for symbol in market.symbols] for day in WORLD.sessions]
    np.testing.assert_array_equal(getattr(market, name), np.array(expected, dtype=float))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_later_sessions_only_append_symbols(seed: int, count: int) -> None:
    world = random_world(seed)
    whole, cut = world.market(), world.until(count).market()
    kept = len(cut.symbols)
    assert whole.symbols[:kept] == cut.symbols
    for name in (*DEFAULTS, "delisted", "delisting_return"):
        np.testing.assert_array_equal(getattr(whole, name)[:count, :kept], getattr(cut, name), err_msg=name)


def test_symbols_are_ordered_by_first_row_then_by_name() -> None:
    market = WORLD.market()
    firsts = WORLD.prices.group_by("symbol").agg(pl.col("date").min()).sort("date", "symbol")
    assert list(market.symbols) == firsts["symbol"].to_list()
    assert [market.symbols[column] for column in market.by_name] == sorted(market.symbols)


def test_the_order_of_the_rows_changes_nothing() -> None:
    shuffled = market_data(WORLD.prices.sample(fraction=1, shuffle=True, seed=1), WORLD.delistings, WORLD.sessions)
    np.testing.assert_array_equal(shuffled.close, WORLD.market().close)


def delisting(symbol: str, known: date, last: date, value: float | None) -> pl.DataFrame:
    return pl.DataFrame([(symbol, known, last, "merger", value, known)], schema=DELISTINGS_SCHEMA, orient="row")


def with_delisting(frame: pl.DataFrame) -> MarketData:
    return market_data(WORLD.prices, frame, WORLD.sessions)


def test_a_delisting_takes_effect_when_known_but_not_before_the_last_session() -> None:
    symbol, days = WORLD.market().symbols[0], WORLD.sessions
    for known, last, effective in [(20, 20, 20), (25, 20, 25), (15, 20, 20)]:
        market = with_delisting(delisting(symbol, days[known], days[last], -0.4))
        assert np.argwhere(market.delisted).tolist() == [[effective, 0]]
        assert market.delisting_return[effective, 0] == -0.4


def test_a_delisting_that_concerns_no_position_is_left_out() -> None:
    symbol, days = WORLD.market().symbols[0], WORLD.sessions
    outside = days[-1] + timedelta(days=30)
    for frame in (delisting("NONE", days[5], days[5], 0.0), delisting(symbol, outside, days[-1], 0.0)):
        assert not with_delisting(frame).delisted.any()


def test_an_unknown_delisting_return_stays_unknown() -> None:
    market = with_delisting(delisting(WORLD.market().symbols[0], WORLD.sessions[9], WORLD.sessions[9], None))
    assert market.delisted[9, 0]
    assert np.isnan(market.delisting_return[9, 0])


def test_an_empty_market_has_no_symbols() -> None:
    market = replace(WORLD, prices=WORLD.prices.clear(), delistings=WORLD.delistings.clear()).market()
    assert market.open.shape == (len(WORLD.sessions), 0)


def test_a_panel_follows_the_columns_of_the_market() -> None:
    market = WORLD.market()
    panel = market.panel(WORLD.scores, "score")
    for symbol, day, score in WORLD.scores.sample(20, seed=1).iter_rows():
        assert panel[WORLD.sessions.index(day), market.symbols.index(symbol)] == score
    assert (~np.isnan(panel)).sum() == WORLD.scores.height


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("open", 0.0),
        ("close", -1.0),
        ("close", float("inf")),
        ("dividend", -0.1),
        ("dividend", None),
        ("split_ratio", 0.0),
        ("adjustment", float("nan")),
        ("adjustment", float("inf")),
    ],
)
def test_a_row_outside_the_price_contract_is_named(column: str, value: float | None) -> None:
    first = pl.int_range(pl.len()) == 0
    broken = WORLD.prices.with_columns(pl.when(first).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))
    symbol, day = broken.row(0)[:2]
    with pytest.raises(InvalidInput, match=f"{column} of {symbol} on {day} is {value}"):
        market_data(broken, WORLD.delistings, WORLD.sessions)


def test_rows_that_have_no_place_are_named() -> None:
    symbol, day = WORLD.prices.row(0)[:2]
    with pytest.raises(InvalidInput, match=f"prices: {symbol} on {day} is not among the market's 59 sessions"):
        market_data(WORLD.prices, WORLD.delistings, WORLD.sessions[1:])
    with pytest.raises(InvalidInput, match=f"prices: {symbol} has more than one row on {day}"):
        market_data(pl.concat([WORLD.prices, WORLD.prices.head(1)]), WORLD.delistings, WORLD.sessions)
    with pytest.raises(InvalidInput, match="not ascending"):
        market_data(WORLD.prices, WORLD.delistings, WORLD.sessions[::-1])
    stray = pl.DataFrame({"symbol": ["NONE"], "date": [day], "score": [1.0]})
    with pytest.raises(InvalidInput, match=f"score: NONE on {day} is not among"):
        WORLD.market().panel(stray, "score")
