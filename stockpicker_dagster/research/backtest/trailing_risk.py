"""What the recent past says of each stock: volatility, beta and dollar volume over fixed windows.

Every figure is computed anew from the rows of its own window, so it does not depend on where reading began. The
portfolio step and the costs of `engine` use them; features for learning are in `research.features`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

VOLATILITY_SESSIONS: Final = 60
BETA_SESSIONS: Final = 252
DOLLAR_VOLUME_SESSIONS: Final = 20


@dataclass(frozen=True, eq=False)
class TrailingRisk:
    """Figures of `symbols` (N) from the prices of `look_back + T` sessions; each is `(T + 1, N)`.

    Row *t* is known before session *t*, row *t + 1* after its close. NaN where fewer than half of the window's sessions
    have what is needed. A return counts only between two sessions in a row, so a halted stock has none over the halt.
    """

    look_back: int
    columns: NDArray[np.int64]
    """(N,) where each of the N symbols is among the M stocks of the two matrices, -1 for one without any row."""
    returns: Floats
    """(look_back + T, M) from close to close, dividends and splits included, of all stocks with prices, by name."""
    traded: Floats
    """(look_back + T, M) close x volume in currency, NaN without a row."""

    @cached_property
    def volatility(self) -> Floats:
        """The standard deviation (ddof 1) of the last 60 daily returns, per day."""
        return self._of(_deviations(self.returns, self.look_back, VOLATILITY_SESSIONS))

    @cached_property
    def beta(self) -> Floats:
        """The regression slope of the last 252 daily returns on the equally weighted mean of all stocks with prices."""
        return self._of(_betas(self.returns, _row_means(self.returns), self.look_back, BETA_SESSIONS))

    @cached_property
    def dollar_volume(self) -> Floats:
        """The mean of close x volume over those of the last 20 sessions that have a row, in currency per day."""
        return self._of(_means(self.traded, self.look_back, DOLLAR_VOLUME_SESSIONS))

    @property
    def of_symbols(self) -> Floats:
        """(look_back + T, N) the returns of `symbols`."""
        return self._of(self.returns)

    def _of(self, figures: Floats) -> Floats:
        chosen = np.full((len(figures), len(self.columns)), np.nan)
        there = self.columns >= 0
        chosen[:, there] = figures[:, self.columns[there]]
        return chosen


def trailing_risk(
    prices: pl.DataFrame, look_back: Sequence[date], sessions: Sequence[date], symbols: Sequence[str]
) -> TrailingRisk:
    """The figures of `symbols` before and after each of `sessions`.

    `prices` has `symbol`, `date`, `close`, `adjustment` and `volume` on `look_back`, the sessions right before the
    first, and on `sessions`; the longest window asks for 252 sessions of look-back.
    """
    days = pl.DataFrame({"date": [*look_back, *sessions]}, schema={"date": pl.Date}).with_row_index("row")
    names = prices["symbol"].unique().sort()
    columns = pl.DataFrame({"symbol": names, "column": np.arange(len(names))}, schema_overrides={"symbol": pl.String})
    placed = prices.join(days, on="date").join(columns, on="symbol")
    rows, places = placed["row"].to_numpy(), placed["column"].to_numpy()
    shape = (days.height, len(names))

    def matrix(column: pl.Series, empty: float) -> Floats:
        values = np.full(shape, empty)
        values[rows, places] = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
        return values

    close, adjustment = matrix(placed["close"], np.nan), matrix(placed["adjustment"], 1.0)
    returns = np.full(shape, np.nan)
    returns[1:] = close[1:] * adjustment[1:] / close[:-1] - 1.0
    column_of = {name: column for column, name in enumerate(names.to_list())}
    return TrailingRisk(
        look_back=len(look_back),
        columns=np.array([column_of.get(symbol, -1) for symbol in symbols], dtype=np.int64),
        returns=returns,
        traded=close * matrix(placed["volume"], np.nan),
    )


@numba.njit(cache=True, nogil=True)
def _row_means(values: Floats) -> Floats:
    """From left to right: a later stock without a value changes no bit."""
    means = np.full(len(values), np.nan)
    for t in range(len(values)):
        total, count = 0.0, 0
        for value in values[t]:
            if not np.isnan(value):
                total += value
                count += 1
        if count:
            means[t] = total / count
    return means


@numba.njit(cache=True, nogil=True)
def _means(values: Floats, look_back: int, window: int) -> Floats:
    days, names = values.shape
    means = np.full((days - look_back + 1, names), np.nan)
    for end in range(max(look_back, 1), days + 1):
        for c in range(names):
            total, count = 0.0, 0
            for row in range(max(0, end - window), end):
                if not np.isnan(values[row, c]):
                    total += values[row, c]
                    count += 1
            if 2 * count >= window:
                means[end - look_back, c] = total / count
    return means


@numba.njit(cache=True, nogil=True)
def _deviations(values: Floats, look_back: int, window: int) -> Floats:
    means = _means(values, look_back, window)
    days, names = values.shape
    deviations = np.full(means.shape, np.nan)
    for end in range(max(look_back, 1), days + 1):
        for c in range(names):
            mean, total, count = means[end - look_back, c], 0.0, 0
            if np.isnan(mean):
                continue
            for row in range(max(0, end - window), end):
                if not np.isnan(values[row, c]):
                    total += (values[row, c] - mean) ** 2
                    count += 1
            deviations[end - look_back, c] = np.sqrt(total / (count - 1))
    return deviations


@numba.njit(cache=True, nogil=True)
def _betas(values: Floats, market: Floats, look_back: int, window: int) -> Floats:
    days, names = values.shape
    betas = np.full((days - look_back + 1, names), np.nan)
    for end in range(max(look_back, 1), days + 1):
        for c in range(names):
            own, index, count = 0.0, 0.0, 0
            for row in range(max(0, end - window), end):
                if not np.isnan(values[row, c]):
                    own += values[row, c]
                    index += market[row]
                    count += 1
            if 2 * count < window:
                continue
            covariance, variance = 0.0, 0.0
            for row in range(max(0, end - window), end):
                if not np.isnan(values[row, c]):
                    covariance += (values[row, c] - own / count) * (market[row] - index / count)
                    variance += (market[row] - index / count) ** 2
            if variance > 1e-12 * count:
                betas[end - look_back, c] = covariance / variance
    return betas
