"""Whether returns are dated to the day on which they were earned: on real prices, against other people's results.

French's momentum factor was computed from other data by others, so a back-test of momentum follows it only if every
day's return stands on that day. A score that knows one interval's return must earn it in that interval and nowhere
else, which pins the fill to the next open.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA
from stockpicker_dagster.research.backtest.engine import BookHistory, Rules, run
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.backtest.performance import sharpe

pytestmark = pytest.mark.real_data

RULES = Rules(0.3, 0.3, weights="equal", rebalance="daily")
FRESH_OPENS_FROM = date(2005, 1, 3)
"""Before, many recorded opens are the previous close."""
SNAPPED = 5e-5


@dataclass(frozen=True)
class RealMarket:
    """S&P 500 stocks since 2000; matrices `(T, N)`, returns adjusted for dividends and splits."""

    market: MarketData
    member: np.ndarray
    adjusted_close: np.ndarray
    adjusted_open: np.ndarray
    french: pl.DataFrame

    def back_test(self, scores: np.ndarray) -> BookHistory:
        members_only = np.where(self.member & ~np.isnan(self.market.close), scores, np.nan)
        return run(members_only, self.market, RULES, np.ones(len(self.market.sessions), dtype=bool))

    def open_to_open_sharpe(self, scores: np.ndarray) -> float:
        returns = self.back_test(scores).open_to_open()
        first = next(row for row, day in enumerate(self.market.sessions) if day >= FRESH_OPENS_FROM)
        return sharpe(returns[first:])

    def correlation_with_momentum(self, returns: np.ndarray) -> float:
        own = pl.DataFrame({"date": self.market.sessions[: len(returns)], "return": returns})
        both = own.join(self.french, on="date").filter(pl.col("date") >= date(2001, 1, 1))
        assert both.height > 5_800
        return float(np.corrcoef(both["return"], both["mom"])[0, 1])


@pytest.fixture(scope="module")
def real(real_data: Path) -> RealMarket:
    prices = split_adjusted_prices(real_data / "prices" / "sp500_ever_2000_2024.parquet")
    market = market_data(prices, pl.DataFrame(schema=DELISTINGS_SCHEMA), prices["date"].unique().sort().to_list())
    adjusted_close = market.panel(prices, "adj_close")
    return RealMarket(
        market=market,
        member=membership(market, real_data / "universes" / "sp500_membership_1996_2024.csv"),
        adjusted_close=adjusted_close,
        adjusted_open=market.open * adjusted_close / market.close,
        french=pl.read_csv(real_data / "factors" / "french_daily_1990_2024.csv", try_parse_dates=True),
    )


def split_adjusted_prices(path: Path) -> pl.DataFrame:
    """The file as it is, each dividend inferred from the step that `adj_close` takes against `close`."""
    raw = pl.read_parquet(path, columns=["ticker", "date", "open", "close", "adj_close"]).sort("ticker", "date")
    raw = raw.with_columns(pl.col("open", "close", "adj_close").cast(pl.Float64)).rename({"ticker": "symbol"})
    factor = pl.col("adj_close") / pl.col("close")
    step = (factor / factor.shift(1)).over("symbol").fill_null(1.0)
    adjustment = pl.when((step - 1).abs() < SNAPPED).then(1.0).otherwise(step.clip(lower_bound=1.0))
    previous = pl.col("close").shift(1).over("symbol")
    return raw.with_columns(adjustment=adjustment, split_ratio=pl.lit(1.0)).with_columns(
        dividend=((1 - 1 / pl.col("adjustment")) * previous).fill_null(0.0)
    )


def membership(market: MarketData, path: Path) -> np.ndarray:
    """Who was in the index on each session; the spells' end is the first day out."""
    spells = pl.read_csv(path, try_parse_dates=True)
    days = np.array(market.sessions, dtype="datetime64[D]")
    column_of = {symbol: column for column, symbol in enumerate(market.symbols)}
    member = np.zeros(market.close.shape, dtype=bool)
    for ticker, start, end in spells.iter_rows():
        column = column_of.get(ticker.replace(".", "-"))
        if column is not None:
            last = len(days) if end is None else np.searchsorted(days, np.datetime64(end))
            member[np.searchsorted(days, np.datetime64(start)) : last, column] = True
    return member


def ahead(prices: np.ndarray, sessions: int) -> np.ndarray:
    """The prices that many sessions later, NaN where there are none yet."""
    shifted = np.full(prices.shape, np.nan)
    shifted[: len(prices) - sessions] = prices[sessions:]
    return shifted


def test_momentum_follows_frenchs_factor_day_by_day(real: RealMarket) -> None:
    """Found independently: 0.927 marked at the close; open to open, dated at the start 0.73, at the end 0.33."""
    momentum = np.full(real.adjusted_close.shape, np.nan)
    momentum[250:] = real.adjusted_close[229:-21] / real.adjusted_close[:-250] - 1
    history = real.back_test(momentum)
    open_to_open = history.open_to_open()
    assert real.correlation_with_momentum(history.net_return) == pytest.approx(0.927, abs=0.005)
    assert real.correlation_with_momentum(open_to_open) == pytest.approx(0.73, abs=0.01)
    assert real.correlation_with_momentum(np.concatenate([[0.0], open_to_open[:-1]])) == pytest.approx(0.33, abs=0.01)


def test_knowing_the_interval_that_is_traded_earns_a_fortune(real: RealMarket) -> None:
    scores = ahead(real.adjusted_open, 2) / ahead(real.adjusted_open, 1) - 1
    assert real.open_to_open_sharpe(scores) == pytest.approx(34, abs=1)


@pytest.mark.parametrize(
    ("interval", "found_independently"),
    [
        ("open t to open t+1", -1.6),
        ("open t+2 to open t+3", -2.5),
        ("close t to open t+1", -2.1),
        ("open t to close t", -0.8),
    ],
)
def test_knowing_any_other_interval_earns_nothing(real: RealMarket, interval: str, found_independently: float) -> None:
    opens, closes = real.adjusted_open, real.adjusted_close
    scores = {
        "open t to open t+1": ahead(opens, 1) / opens - 1,
        "open t+2 to open t+3": ahead(opens, 3) / ahead(opens, 2) - 1,
        "close t to open t+1": ahead(opens, 1) / closes - 1,
        "open t to close t": closes / opens - 1,
    }[interval]
    assert real.open_to_open_sharpe(scores) == pytest.approx(found_independently, abs=0.1)
