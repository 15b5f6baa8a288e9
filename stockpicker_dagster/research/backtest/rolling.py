"""Figures over a window of sessions that moves through a back-test. Those of a whole span are in `performance`."""

import math

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.research.backtest.performance import SESSIONS_PER_YEAR

Floats = NDArray[np.float64]

_STILL = 1e-16
"""A variance below this is rounding."""


def rolling_window(sessions: int) -> int | None:
    """A year of sessions where there are two, a quarter where there are two; None for less."""
    return next((window for window in (SESSIONS_PER_YEAR, SESSIONS_PER_YEAR // 4) if sessions >= 2 * window), None)


def rolling_sharpes(returns: Floats, window: int) -> Floats:
    """The annualised Sharpe ratio of the last `window` of `(T, n)` returns; NaN before there are so many.

    A book that stood still for a whole window has a ratio of 0: it neither gained nor lost.
    """
    sums = np.cumsum(np.vstack([np.zeros(returns.shape[1]), returns]), axis=0)
    squares = np.cumsum(np.vstack([np.zeros(returns.shape[1]), returns**2]), axis=0)
    mean = (sums[window:] - sums[:-window]) / window
    variance = np.maximum((squares[window:] - squares[:-window]) / window - mean**2, 0.0) * window / (window - 1)
    ratios = np.full(returns.shape, np.nan)
    moves = variance > _STILL
    ratios[window - 1 :] = np.where(moves, mean / np.sqrt(np.where(moves, variance, 1.0)), 0.0)
    return ratios * math.sqrt(SESSIONS_PER_YEAR)
