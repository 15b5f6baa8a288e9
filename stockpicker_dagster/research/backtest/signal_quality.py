"""How well scores order the returns that follow, day by day: the information coefficient and its significance.

Nothing here trades: no costs, no portfolio. An information coefficient of a day compares that day's cross-section of
scores with the labels, which become known only `horizon + 1` sessions later. Neighbouring days share most of their
label window, so significance is Newey and West's (1987). Quantiles, turnover, sectors and years are in `signal_study`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import signal_kernels as kernels

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
    return _per_day(scores, labels)[0]


def daily_rank_ic(scores: Floats, labels: Floats) -> Floats:
    """Spearman's correlation within each day: `daily_ic` of the ranks, equal values sharing their average rank."""
    return _per_day(scores, labels)[1]


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
    return quality_of(*_per_day(scores, labels), horizon)


def quality_of(ic: Floats, rank_ic: Floats, horizon: int) -> SignalQuality:
    """The same from the figures of each day, `(T,)`, NaN on days without one."""
    return SignalQuality(
        days=int((~np.isnan(rank_ic)).sum()),
        mean_ic=mean_of_days(ic),
        ic_t=newey_west_t(ic, horizon),
        mean_rank_ic=mean_of_days(rank_ic),
        rank_ic_t=newey_west_t(rank_ic, horizon),
        horizon=horizon,
    )


def decay(scores: Floats, labels_by_horizon: Mapping[int, Floats]) -> dict[int, SignalQuality]:
    """`signal_quality` of the same scores against labels of several horizons (sessions): how fast the signal fades."""
    return {horizon: signal_quality(scores, labels, horizon) for horizon, labels in labels_by_horizon.items()}


def mean_of_days(series: Floats) -> float:
    """The mean over the days with a figure, NaN if there is none."""
    present = series[~np.isnan(series)]
    return float(present.mean()) if len(present) else float("nan")


def _per_day(scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """The IC and the rank IC of every day."""
    scores, labels = checked_panels(scores, labels)
    sessions = len(scores)
    ranks = np.empty(scores.shape), np.empty(scores.shape)
    for panel, of_panel in zip((scores, labels), ranks, strict=True):
        kernels.rank_days(panel, 0, sessions, of_panel)
    ic, rank_ic = np.empty((1, sessions)), np.empty((1, sessions))
    everyone = np.zeros(scores.shape, dtype=np.int64)
    kernels.information_coefficients(scores, labels, *ranks, everyone, 0, sessions, ic, rank_ic)
    return ic[0], rank_ic[0]


def checked_panels(scores: Floats, *labels: Floats) -> list[Floats]:
    """All of them as float64 in rows; `InvalidInput` where the shapes differ or a value is infinite."""
    for panel in labels:
        if scores.shape != panel.shape or scores.ndim != 2:
            raise InvalidInput(
                f"scores of shape {scores.shape} and labels of shape {panel.shape} are not the same panel"
            )
    if any(np.isinf(panel).any() for panel in (scores, *labels)):
        raise InvalidInput("a score or a label is infinite; use NaN for what is missing")
    return [np.ascontiguousarray(panel, dtype=np.float64) for panel in (scores, *labels)]
