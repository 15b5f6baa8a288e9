"""Size and market beta: what a stock is exposed to on a day, from prices up to the close of that day.

Each day is worked out from its own stocks and their last sessions alone, so that it has the same bytes whether it is
computed by itself or among others. Prices do not tell market values: traded value stands in for size. How exposures are
taken out of features is in `neutralization`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.research.features.panel import Panel
from stockpicker_dagster.research.features.rolling import VARIANCE_FLOOR, lag, logarithm, mean, observations_needed

if TYPE_CHECKING:
    from stockpicker_dagster.market.calendar import TradingCalendar

SIZE_SESSIONS, BETA_SESSIONS = 63, 252
"""The windows of size and beta, in sessions up to and including the day."""
LOOKBACK = BETA_SESSIONS + 1
"""Sessions of prices that the exposures of a day need, the day included."""

Matrix = NDArray[np.float64]


def sessions_needed(days: Sequence[date], calendar: "TradingCalendar", start: date) -> list[date]:
    """Every session whose prices the exposures of `days` need; `start` is the first day of the source."""
    before = calendar.sessions(start, min(days))[-LOOKBACK:]
    return calendar.sessions(before[0], max(days))


def size_and_beta(stocks: pl.DataFrame, prices: pl.DataFrame, calendar: "TradingCalendar") -> pl.DataFrame:
    """`size` and `beta` (Float64) of each row of `stocks` (`symbol`, `date`), null where unknown; in the same order.

    `prices` is in the price contract and holds every row of these stocks on the sessions that `sessions_needed` names;
    rows after a day change nothing of it. With D the dollar volume and r the daily total return:

    - `size`: ln of the mean of D over 63 sessions, in the place of market value
    - `beta`: slope of r on the day's market, the equal-weighted mean of r over the stocks that `stocks` has on that
      day, over 252 sessions (Fama and MacBeth, 1973, with a plain mean as their index)

    Each is unknown where less than two thirds of its window is observed, and beta where the market does not move. Both
    are known after the close of `date`.
    """
    keys = stocks.select("symbol", "date")
    if stocks.is_empty():
        return keys.with_columns(size=pl.lit(None, pl.Float64), beta=pl.lit(None, pl.Float64))
    first, last = min(prices["date"].min(), stocks["date"].min()), stocks["date"].max()  # type: ignore[type-var]
    assert isinstance(first, date)
    assert isinstance(last, date)
    sessions, symbols = calendar.sessions(first, last), stocks["symbol"].unique().sort().to_list()
    panel = Panel.from_prices(prices, sessions, symbols)
    listed = keys.with_row_index("row").sort("date", "symbol")
    rows = listed["date"].replace_strict(sessions, list(range(len(sessions))), return_dtype=pl.Int64).to_numpy()
    columns = listed["symbol"].replace_strict(symbols, list(range(len(symbols))), return_dtype=pl.Int64).to_numpy()
    size = logarithm(mean(panel.dollar_volume, SIZE_SESSIONS, int(rows[0])))[rows, columns]
    # Not from prices that cumulate adjustments: their last bits would depend on where reading begins.
    returns = panel.close * panel.adjustment / lag(panel.close, 1) - 1.0
    found = {"size": size, "beta": _betas(returns, rows, columns)}
    unsorted = np.argsort(listed["row"].to_numpy())
    return keys.with_columns(pl.Series(name, values[unsorted], nan_to_null=True) for name, values in found.items())


def _betas(returns: Matrix, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Matrix:
    """The beta of each stock (column) on each day (row); rows ascend, and columns within a row."""
    bounds = [0, *(np.flatnonzero(np.diff(rows)) + 1), len(rows)]
    needed = observations_needed(BETA_SESSIONS)
    betas = np.empty(len(rows))

    def one_day(bound: tuple[int, int]) -> None:
        first, last = bound
        _betas_of_day(returns, int(rows[first]), columns[first:last], BETA_SESSIONS, needed, betas[first:last])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(one_day, pairwise(bounds)))
    return betas


@njit(cache=True, nogil=True)
def _betas_of_day(
    returns: Matrix, row: int, stocks: NDArray[np.int64], window: int, needed: int, betas: Matrix
) -> None:
    first = max(0, row - window + 1)
    market = np.full(row + 1 - first, np.nan)
    for session in range(len(market)):
        total, count = 0.0, 0
        for column in stocks:
            value = returns[first + session, column]
            if abs(value) < np.inf:
                total += value
                count += 1
        if count > 0:
            market[session] = total / count
    for place in range(len(stocks)):
        betas[place] = _slope(returns[first : row + 1, stocks[place]], market, needed)


@njit(cache=True, nogil=True)
def _slope(stock: Matrix, market: Matrix, needed: int) -> float:
    """The least-squares slope over the sessions on which both are observed; NaN if those are fewer than `needed`."""
    total_stock, total_market, count = 0.0, 0.0, 0
    for session in range(len(market)):
        if abs(stock[session]) < np.inf and market[session] == market[session]:
            total_stock += stock[session]
            total_market += market[session]
            count += 1
    if count < needed:
        return np.nan
    mean_stock, mean_market = total_stock / count, total_market / count
    variance, covariance = 0.0, 0.0
    for session in range(len(market)):
        if abs(stock[session]) < np.inf and market[session] == market[session]:
            moved = market[session] - mean_market
            variance += moved * moved
            covariance += moved * (stock[session] - mean_stock)
    # A return is one less than a ratio: its noise is relative to one.
    return covariance / variance if variance > VARIANCE_FLOOR * count else np.nan
