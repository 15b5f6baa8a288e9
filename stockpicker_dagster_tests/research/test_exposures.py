"""Size and beta against pandas and a closed form; either ignores the future and every day but its own."""

from datetime import date

import numpy as np
import pandas as pd
import polars as pl
import pytest

from stockpicker_dagster.research.exposures import LOOKBACK, sessions_needed, size_and_beta
from stockpicker_dagster_tests.research.price_frames import (
    CALENDAR,
    START,
    prices_from,
    random_market,
    same_bytes,
    sessions,
)

DAYS = sessions(START, date(2019, 12, 31))
MARKET = random_market(DAYS, 6, seed=4)


def stocks_on(days: list[date]) -> pl.DataFrame:
    return MARKET.filter(pl.col("date").is_in(days)).select("symbol", "date")


def test_size_and_beta_agree_with_pandas() -> None:
    day = DAYS[400]
    stocks = stocks_on([day])
    found = size_and_beta(stocks, MARKET, CALENDAR)
    wide = {
        name: MARKET.to_pandas().pivot(index="date", columns="symbol", values=name).reindex(pd.to_datetime(DAYS))
        for name in ("close", "volume", "adjustment")
    }
    listed = stocks["symbol"].to_list()
    returns = (wide["close"] * wide["adjustment"] / wide["close"].shift(1) - 1)[listed].iloc[400 - 251 : 401]
    market = returns.mean(axis=1)
    traded = (wide["close"] * wide["volume"])[listed].iloc[400 - 62 : 401]
    for symbol, size, beta in found.select("symbol", "size", "beta").iter_rows():
        both = pd.DataFrame({"stock": returns[symbol], "market": market}).dropna()
        expected = both.cov().loc["stock", "market"] / both["market"].var() if len(both) >= 168 else None
        assert beta == (None if expected is None else pytest.approx(expected, rel=1e-9))
        observed = traded[symbol].dropna()
        assert size == (pytest.approx(np.log(observed.mean())) if len(observed) >= 42 else None)
    assert found["beta"].null_count() < found.height


def test_a_stock_that_moves_twice_as_much_has_twice_the_beta() -> None:
    moves = np.random.default_rng(1).normal(0, 0.01, 300)
    calm, wild = (100 * np.cumprod(1 + share * moves) for share in (1.0, 2.0))
    prices = pl.concat([prices_from("CALM", DAYS[:300], calm), prices_from("WILD", DAYS[:300], wild)])
    found = size_and_beta(prices.filter(pl.col("date") == DAYS[299]).select("symbol", "date"), prices, CALENDAR)
    assert found["beta"].to_list() == pytest.approx([1 / 1.5, 2 / 1.5])


def test_a_split_or_dividend_changes_neither() -> None:
    split = np.where(np.arange(300) == 280, 4.0, 1.0)
    close = 100 * np.cumprod(1 + np.random.default_rng(2).normal(0, 0.01, 300))
    other = prices_from("B", DAYS[:300], 50 * np.cumprod(1 + np.random.default_rng(3).normal(0, 0.01, 300)))
    factor = np.cumprod(split)
    plain = prices_from("A", DAYS[:300], close)
    divided = prices_from("A", DAYS[:300], close / factor, volume=1000.0 * factor, split_ratio=split, adjustment=split)
    wanted = plain.filter(pl.col("date") == DAYS[299]).select("symbol", "date")
    wanted = pl.concat([wanted, wanted.with_columns(symbol=pl.lit("B"))])
    one, two = (size_and_beta(wanted, pl.concat([each, other]), CALENDAR) for each in (plain, divided))
    for name in ("size", "beta"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-9)


def test_days_together_and_one_by_one_are_the_same_bytes_and_ignore_the_future() -> None:
    days = DAYS[300:340]
    together = size_and_beta(stocks_on(days), MARKET, CALENDAR)
    for day in (days[0], days[17], days[-1]):
        needed = sessions_needed([day], CALENDAR, START)
        assert len(needed) == LOOKBACK
        assert needed[-1] == day
        read = MARKET.filter(pl.col("date").is_in(needed))
        alone = size_and_beta(stocks_on([day]), read, CALENDAR)
        assert same_bytes(alone, together.filter(pl.col("date") == day))
    assert together["beta"].null_count() < together.height


def test_a_short_history_knows_neither() -> None:
    found = size_and_beta(stocks_on(DAYS[20:22]), MARKET, CALENDAR)
    assert found["size"].null_count() == found["beta"].null_count() == found.height
    assert sessions_needed(DAYS[20:22], CALENDAR, START) == DAYS[:22]


def test_rows_keep_their_order_and_no_rows_are_no_rows() -> None:
    stocks = stocks_on(DAYS[300:303]).sample(fraction=1.0, shuffle=True, seed=1)
    assert size_and_beta(stocks, MARKET, CALENDAR).select("symbol", "date").equals(stocks)
    assert size_and_beta(stocks.clear(), MARKET, CALENDAR).schema["beta"] == pl.Float64
