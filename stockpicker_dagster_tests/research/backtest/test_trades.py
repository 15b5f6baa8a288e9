"""Trades read off stored positions, against the engine's own turnover."""

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.research.backtest.days import backtest_days
from stockpicker_dagster.research.backtest.engine import Rules
from stockpicker_dagster.research.backtest.trades import VOLUME_SESSIONS, capacity_of, trades_of
from stockpicker_dagster_tests.research.price_frames import CALENDAR, START, no_delistings, random_market, sessions

SESSIONS = sessions(START, START.replace(month=4))
PRICES = random_market(SESSIONS, 10, seed=7)


def _predictions() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    return PRICES.select("symbol", "date").with_columns(score=pl.Series(rng.normal(size=PRICES.height)))


def stored(capital: float = 1e6) -> pl.DataFrame:
    """A book that fills at the close, so that the engine values its trades as they are read."""
    rules = Rules(long=3, short=3, rebalance="weekly", fill="close", capital=capital)
    return backtest_days(_predictions(), PRICES, no_delistings(), SESSIONS, SESSIONS, rules, CALENDAR, 2, 0)


def test_trades_add_up_to_the_turnover_of_the_engine() -> None:
    days = stored()
    traded = trades_of(days, PRICES).group_by("date").agg(pl.col("traded").sum())
    both = days.select("date", "turnover").join(traded, on="date", how="left").fill_null(0.0)
    assert both.filter(pl.col("turnover") > 0.0).height > 5
    np.testing.assert_allclose(both["traded"], both["turnover"], atol=1e-9)


def test_volume_and_volatility_are_of_the_sessions_before_the_trade() -> None:
    trades = trades_of(stored(), PRICES).drop_nulls()
    symbol, day = trades["symbol"][-1], trades["date"][-1]
    before = PRICES.filter((pl.col("symbol") == symbol) & (pl.col("date") < day)).sort("date")
    money = (before["close"] * before["volume"])[-VOLUME_SESSIONS:]
    assert trades["dollar_volume"][-1] == pytest.approx(money.mean())
    change = (before["close"] * before["adjustment"] / before["close"].shift(1) - 1.0).drop_nulls()[-60:]
    assert trades["volatility"][-1] == pytest.approx(change.std())
    later = PRICES.with_columns(volume=pl.when(pl.col("date") >= day).then(1.0).otherwise(pl.col("volume")))
    assert trades_of(stored(), later).drop_nulls()["dollar_volume"][-1] == trades["dollar_volume"][-1]


def test_capacity_does_not_depend_on_the_capital_that_was_back_tested() -> None:
    small, large = (capacity_of(stored(capital), PRICES) for capital in (1e5, 1e8))
    assert small is not None
    assert large is not None
    assert small.at_one_percent_of_volume == pytest.approx(large.at_one_percent_of_volume, rel=1e-6)
    assert small.break_even == pytest.approx(large.break_even, rel=1e-6)


def test_too_few_days_have_no_capacity() -> None:
    assert capacity_of(stored().head(VOLUME_SESSIONS), PRICES) is None
