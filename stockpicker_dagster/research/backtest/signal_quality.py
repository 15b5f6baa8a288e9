"""How well scores order the returns that follow, day by day: the information coefficient and its significance.

Nothing here trades: no costs, no portfolio. An information coefficient of a day compares that day's cross-section of
scores with the labels, which become known only `horizon + 1` sessions later. Neighbouring days share most of their
label window, so significance is Newey and West's (1987).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput

Floats = NDArray[np.float64]

_STILL = 1e-12


@dataclass(frozen=True)
class SignalQuality:
    """Means over the days on which they exist, and their t statistics; NaN where there are too few days."""

    days: int
    """Days with a rank IC."""
    mean_ic: float
    ic_t: float
    mean_rank_ic: float
    rank_ic_t: float
    horizon: int
    """Sessions that a label spans, the lag of the t statistics."""


def daily_ic(scores: Floats, labels: Floats) -> Floats:
    """Pearson's correlation of scores and labels within each day, `(T,)` from two `(T, N)` panels.

    A stock with NaN in either panel is left out of that day. NaN for a day with fewer than three stocks, or on which
    either side does not vary. Known when the day's labels are. Each day is computed by itself, in the order of the
    columns. Raises `InvalidInput` where the panels' shapes differ or a value is infinite.
    """
    return _per_day(scores, labels, False)


def daily_rank_ic(scores: Floats, labels: Floats) -> Floats:
    """Spearman's correlation within each day: `daily_ic` of the ranks, equal values sharing their average rank."""
    return _per_day(scores, labels, True)


def newey_west_t(series: ArrayLike, lag: int) -> float:
    """The t statistic of a mean under autocorrelation up to `lag` (Newey and West 1987, Bartlett weights).

    mean / sqrt(S / n) with S = gamma_0 + 2 sum_l (1 - l / (lag + 1)) gamma_l and gamma_l = sum_t e_t e_(t-l) / n,
    without a small-sample correction. NaN values are dropped first and their neighbours then count as adjacent.
    NaN if fewer than `lag + 2` values remain or they do not vary. Raises `InvalidInput` for a negative lag.
    """
    if lag < 0:
        raise InvalidInput(f"a lag of {lag} sessions is negative; take the label's horizon")
    values = np.asarray(series, dtype=np.float64)
    values = values[~np.isnan(values)]
    count = len(values)
    if count < lag + 2:
        return float("nan")
    errors = values - values.mean()
    variance = float((errors * errors).sum()) / count
    if variance < _STILL * _STILL:
        return float("nan")
    for distance in range(1, lag + 1):
        autocovariance = float((errors[distance:] * errors[:-distance]).sum()) / count
        variance += 2.0 * (1.0 - distance / (lag + 1)) * autocovariance
    return float(values.mean() / np.sqrt(variance / count))


def signal_quality(scores: Floats, labels: Floats, horizon: int) -> SignalQuality:
    """Mean IC and rank IC of `(T, N)` panels with Newey-West t statistics at `lag = horizon` sessions."""
    ic, rank_ic = daily_ic(scores, labels), daily_rank_ic(scores, labels)
    return SignalQuality(
        days=int((~np.isnan(rank_ic)).sum()),
        mean_ic=_mean(ic),
        ic_t=newey_west_t(ic, horizon),
        mean_rank_ic=_mean(rank_ic),
        rank_ic_t=newey_west_t(rank_ic, horizon),
        horizon=horizon,
    )


def decay(scores: Floats, labels_by_horizon: Mapping[int, Floats]) -> dict[int, SignalQuality]:
    """`signal_quality` of the same scores against labels of several horizons (sessions): how fast the signal fades."""
    return {horizon: signal_quality(scores, labels, horizon) for horizon, labels in labels_by_horizon.items()}


def _mean(series: Floats) -> float:
    present = series[~np.isnan(series)]
    return float(present.mean()) if len(present) else float("nan")


def _per_day(scores: Floats, labels: Floats, ranked: bool) -> Floats:
    if scores.shape != labels.shape or scores.ndim != 2:
        raise InvalidInput(f"scores of shape {scores.shape} and labels of shape {labels.shape} are not the same panel")
    if np.isinf(scores).any() or np.isinf(labels).any():
        raise InvalidInput("a score or a label is infinite; use NaN for what is missing")
    result = np.empty(len(scores))
    _correlations(scores.astype(np.float64, order="C"), labels.astype(np.float64, order="C"), ranked, result)
    return result


@numba.njit(cache=True, nogil=True)
def _correlations(scores: Floats, labels: Floats, ranked: bool, result: Floats) -> None:
    sessions, names = scores.shape
    x, y = np.empty(names), np.empty(names)
    for t in range(sessions):
        count = 0
        for c in range(names):
            if not (np.isnan(scores[t, c]) or np.isnan(labels[t, c])):
                x[count], y[count] = scores[t, c], labels[t, c]
                count += 1
        if count < 3:
            result[t] = np.nan
        elif ranked:
            result[t] = _correlation(_average_ranks(x[:count]), _average_ranks(y[:count]))
        else:
            result[t] = _correlation(x[:count], y[:count])


@numba.njit(cache=True, nogil=True)
def _average_ranks(values: Floats) -> Floats:
    order = np.argsort(values)
    ranks = np.empty(len(values))
    first = 0
    while first < len(values):
        last = first
        while last + 1 < len(values) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in range(first, last + 1):
            ranks[order[place]] = 0.5 * (first + last)
        first = last + 1
    return ranks


@numba.njit(cache=True, nogil=True)
def _correlation(x: Floats, y: Floats) -> float:
    mean_x, mean_y = x.sum() / len(x), y.sum() / len(y)
    xx, yy, xy = 0.0, 0.0, 0.0
    for place in range(len(x)):
        dx, dy = x[place] - mean_x, y[place] - mean_y
        xx += dx * dx
        yy += dy * dy
        xy += dx * dy
    # A side whose variance is below 1e-12 of its scale is constant but for rounding.
    if xx <= 1e-12 * len(x) * mean_x * mean_x or yy <= 1e-12 * len(y) * mean_y * mean_y:
        return np.nan
    return min(1.0, max(-1.0, xy / np.sqrt(xx * yy)))
