"""Intervals of figures of a return series, by drawing it anew in blocks that keep its autocorrelation.

The stationary bootstrap of Politis and Romano (1994), its mean block length chosen as by Politis and White (2004) with
the correction of Patton, Politis and White (2009).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import FEWEST_SESSIONS, finite_series

Floats = NDArray[np.float64]
_RESAMPLES_AT_ONCE = 256


@dataclass(frozen=True)
class Interval:
    """From the lower to the upper percentile of the resampled figures."""

    low: float
    high: float


def mean_block_length(returns: ArrayLike) -> float:
    """The mean block length with the least error of the mean's variance, from 1 to ceil(min(3 sqrt(T), T / 3)).

    (2 G^2 / D)^(1/3) T^(1/3) with G = sum lambda(k/M) |k| R(k) and D = 2 g(0)^2, g(0) = sum lambda(k/M) R(k), lambda
    the flat-top window, and M twice the first lag after which K_T = max(5, log10 T) autocorrelations in a row are
    insignificant (below 2 sqrt(log10 T / T)). 1.0 for a series without variance.
    """
    values = finite_series(returns, FEWEST_SESSIONS)
    count = len(values)
    errors = values - values.mean()
    in_a_row = max(5, math.ceil(math.log10(count)))
    longest = math.ceil(math.sqrt(count)) + in_a_row
    covariance = np.array([errors[lag:] @ errors[: count - lag] / count for lag in range(longest + 1)])
    if covariance[0] <= 0.0:
        return 1.0
    significant = np.abs(covariance[1:] / covariance[0]) > 2.0 * math.sqrt(math.log10(count) / count)
    first_quiet = next(
        (lag for lag in range(1, longest - in_a_row + 2) if not significant[lag - 1 : lag - 1 + in_a_row].any()), None
    )
    window = int(np.flatnonzero(significant)[-1]) + 1 if first_quiet is None else max(first_quiet - 1, 1)
    lags = np.arange(1, min(2 * window, longest) + 1)
    weights = np.minimum(1.0, 2.0 * (1.0 - lags / (2.0 * window)))
    spectrum = covariance[0] + 2.0 * float((weights * covariance[lags]).sum())
    slope = 2.0 * float((weights * lags * covariance[lags]).sum())
    if spectrum == 0.0:
        return 1.0
    length = (slope**2 / spectrum**2) ** (1.0 / 3.0) * count ** (1.0 / 3.0)
    return float(min(max(length, 1.0), math.ceil(min(3.0 * math.sqrt(count), count / 3.0))))


def bootstrap_interval(
    returns: ArrayLike,
    figure: Callable[[Floats], Floats],
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
    block_length: float | None = None,
) -> Interval:
    """The percentile interval of `figure` over resampled series.

    `figure` takes `(T, n)` returns, one series a column, and gives `(n,)`; its NaN values are left out. Blocks have a
    geometric length with the mean `block_length` (default: `mean_block_length`) and wrap around the end. `seed` fixes
    the answer. Raises `InvalidInput` for settings out of range, and if no resampled figure exists.
    """
    values = finite_series(returns, FEWEST_SESSIONS)
    if not 0.0 < confidence < 1.0 or resamples < 1:
        raise InvalidInput(
            f"confidence {confidence} with {resamples} resamples: give a confidence between 0 and 1 and at least one"
        )
    length = mean_block_length(values) if block_length is None else block_length
    if not length >= 1.0:
        raise InvalidInput(f"a mean block length of {length} sessions is not allowed; give 1 or more")
    rng = np.random.default_rng(seed)
    figures = np.concatenate(
        [
            figure(values[_positions(rng, len(values), min(_RESAMPLES_AT_ONCE, resamples - done), length)])
            for done in range(0, resamples, _RESAMPLES_AT_ONCE)
        ]
    )
    known = figures[np.isfinite(figures)]
    if not len(known):
        raise InvalidInput("no resampled series has the figure asked for; judge a book that traded")
    low, high = np.quantile(known, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    return Interval(float(low), float(high))


def _positions(rng: np.random.Generator, count: int, series: int, length: float) -> NDArray[np.int64]:
    """Rows of the original series, `(count, series)`: the next one, or with probability 1 / length any one."""
    begins = rng.random((count, series)) < 1.0 / length
    begins[0] = True
    starts = rng.integers(0, count, (count, series))
    rows = np.arange(count)[:, None]
    began_at = np.maximum.accumulate(np.where(begins, rows, 0), axis=0)
    return (np.take_along_axis(starts, began_at, axis=0) + rows - began_at) % count
