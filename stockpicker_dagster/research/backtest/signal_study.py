"""Everything about how scores order the returns that follow: over horizons, by quantile, by year and by sector.

Nothing here trades. Definitions are those of the field's usual tear sheet (alphalens), with these differences.
Quantiles and ranks are of all scored stocks of the day, as was known then, while alphalens first drops stocks without a
return at every horizon: figures are equal where no scored stock lacks one. A spread is the whole difference of two
quantiles, not half of it. A day whose quantiles cannot be told apart for ties keeps its information coefficient. The t
statistics are Newey and West's, because the returns of neighbouring days overlap. Information coefficients alone are in
`signal_quality`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest import signal_kernels as kernels
from stockpicker_dagster.research.backtest.signal_quality import (
    SignalQuality,
    checked_panels,
    mean_of_days,
    newey_west_t,
    quality_of,
)
from stockpicker_dagster.research.order_statistics import average_ranks

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

QUANTILES = 5
_SESSIONS_AT_ONCE = 128


@dataclass(frozen=True)
class Sectors:
    """Which sector each stock was in on each day."""

    names: tuple[str, ...]
    members: Integers
    """`(T, N)`: the place of the sector in `names`, -1 where it is unknown."""


@dataclass(frozen=True)
class QuantileReturns:
    """What followed the stocks of each quantile of the score, over one horizon; NaN where no day has a figure."""

    days: int
    """Days with a spread."""
    means: tuple[float, ...]
    """Lowest scores first: the mean over days of the mean return over the horizon, less that of all stocks."""
    spread: float
    """The highest quantile less the lowest, over the days with both."""
    spread_t: float
    steps_in_order: float
    """The share of neighbouring quantiles of which the higher has the higher mean."""
    rank_correlation: float
    """Spearman's, of the means with the numbers of their quantiles: 1 if they rise all the way."""


@dataclass(frozen=True)
class SignalFigures:
    """A signal against the returns over one horizon; `quality.horizon` says which."""

    quality: SignalQuality
    quantile_returns: QuantileReturns
    quantile_turnover: tuple[float, ...]
    """The mean share of a quantile's stocks that were not in it one horizon before."""
    rank_autocorrelation: float
    """The mean correlation of a day's ranks with those one horizon before."""


@dataclass(frozen=True, eq=False)
class DailyFigures:
    """The same day by day, NaN where there is none: `(H, T)`, and `(H, T, Q)` by quantile, lowest scores first."""

    ic: Floats
    rank_ic: Floats
    quantile_returns: Floats
    """Mean returns over the horizon, a fraction, less the mean of all stocks; known `horizon + 1` sessions later."""
    quantile_turnover: Floats
    rank_autocorrelation: Floats


@dataclass(frozen=True, eq=False)
class SignalStudy:
    """One signal, its figures by ascending horizon."""

    horizons: tuple[int, ...]
    daily: DailyFigures
    """Of all stocks."""
    all_stocks: tuple[SignalFigures, ...]
    by_year: Mapping[int, tuple[SignalFigures, ...]]
    by_sector: Mapping[str, tuple[SignalFigures, ...]]
    """Within each sector: its own ranks, quantiles and mean. Empty where no sectors were given."""


def signal_study(
    scores: Floats,
    returns_by_horizon: Mapping[int, Floats],
    sessions: Sequence[date],
    *,
    sectors: Sectors | None = None,
    quantiles: int = QUANTILES,
    workers: int | None = None,
) -> SignalStudy:
    """All figures of a score panel `(T, N)` against the returns that followed, `(T, N)` for each horizon in sessions.

    `sessions` are the days of the rows, without a gap. A NaN score or return leaves the stock out of what needs it.
    Quantiles are cut at linearly interpolated ones, equal scores together; a day on which two edges coincide has none.
    Every day is computed by itself, so that later rows, columns without a value and the number of `workers` (threads;
    default: one per core) move no bit of a day. Raises `InvalidInput` for panels of different shapes, an infinite
    value, no horizon, a horizon below 1 or fewer than two quantiles.
    """
    horizons = tuple(sorted(returns_by_horizon))
    if not horizons or horizons[0] < 1 or quantiles < 2:
        raise InvalidInput(
            f"a study over horizons {list(horizons)} with {quantiles} quantiles; give at least one horizon of 1 "
            "session or more, and 2 quantiles or more"
        )
    scores, *returns = checked_panels(scores, *(returns_by_horizon[horizon] for horizon in horizons))
    if len(sessions) != len(scores):
        raise InvalidInput(f"{len(sessions)} sessions for scores of {len(scores)}; give the day of every row")
    ranked = _rank(scores, returns, workers)
    everyone = np.zeros(scores.shape, dtype=np.int64)
    (daily,) = _daily(ranked, horizons, everyone, 1, quantiles, workers)
    years = np.array([session.year for session in sessions], dtype=np.int64)
    within: list[DailyFigures] = []
    if sectors is not None and sectors.names:
        if sectors.members.shape != scores.shape:
            raise InvalidInput(
                f"sectors of shape {sectors.members.shape} for scores of {scores.shape}; give one a stock"
            )
        members = np.ascontiguousarray(sectors.members, dtype=np.int64)
        within = _daily(ranked, horizons, members, len(sectors.names), quantiles, workers)
    return SignalStudy(
        horizons=horizons,
        daily=daily,
        all_stocks=_figures(daily, horizons, slice(None)),
        by_year={int(year): _figures(daily, horizons, years == year) for year in np.unique(years)},
        by_sector={
            name: _figures(figures, horizons, slice(None))
            for name, figures in zip(sectors.names if sectors else (), within, strict=True)
        },
    )


def cumulative_quantile_returns(quantile_returns: Floats, horizon: int) -> Floats:
    """Compounded returns `(T, Q)` from those of each day over a horizon; a day without a figure adds nothing.

    As if 1 / horizon of the book were put into the quantile every day. At a horizon of one session it is the plain
    compounding of daily returns.
    """
    return np.asarray(np.cumprod(1.0 + np.nan_to_num(quantile_returns) / horizon, axis=0) - 1.0)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The panels, and the ranks of their values within each day."""

    scores: Floats
    score_ranks: Floats
    returns: Sequence[Floats]
    return_ranks: Sequence[Floats]


def _rank(scores: Floats, returns: Sequence[Floats], workers: int | None) -> _Ranked:
    ranks = [np.empty(scores.shape) for _ in range(1 + len(returns))]

    def rank(first: int, last: int) -> None:
        for panel, of_panel in zip((scores, *returns), ranks, strict=True):
            kernels.rank_days(panel, first, last, of_panel)

    _in_blocks(rank, len(scores), workers)
    return _Ranked(scores, ranks[0], returns, ranks[1:])


def _daily(
    ranked: _Ranked, horizons: Sequence[int], groups: Integers, group_count: int, quantiles: int, workers: int | None
) -> list[DailyFigures]:
    """The figures of each group by itself."""
    shape = ranked.scores.shape
    ic, rank_ic, autocorrelation = (np.empty((group_count, len(horizons), shape[0])) for _ in range(3))
    means, turnover = (np.empty((group_count, len(horizons), shape[0], quantiles)) for _ in range(2))
    ranks, quantile = np.empty(shape), np.empty(shape, dtype=np.int64)

    def against_returns(first: int, last: int) -> None:
        kernels.quantiles_of_days(ranked.score_ranks, groups, group_count, quantiles, first, last, ranks, quantile)
        for place, (returns, return_ranks) in enumerate(zip(ranked.returns, ranked.return_ranks, strict=True)):
            values = (ranked.scores, returns, ranked.score_ranks, return_ranks)
            kernels.information_coefficients(*values, groups, first, last, ic[:, place], rank_ic[:, place])
            kernels.quantile_returns(quantile, returns, groups, first, last, means[:, place])

    def against_earlier_days(first: int, last: int) -> None:
        for place, lag in enumerate(horizons):
            kernels.quantile_turnover(quantile, groups, lag, first, last, turnover[:, place])
            kernels.rank_autocorrelation(ranks, groups, lag, first, last, autocorrelation[:, place])

    _in_blocks(against_returns, shape[0], workers)
    _in_blocks(against_earlier_days, shape[0], workers)
    return [
        DailyFigures(ic[group], rank_ic[group], means[group], turnover[group], autocorrelation[group])
        for group in range(group_count)
    ]


def _in_blocks(work: Callable[[int, int], None], sessions: int, workers: int | None) -> None:
    """`work(first, last)` over blocks of sessions; the kernels hold no lock and write to rows of their own."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        blocks = range(0, sessions, _SESSIONS_AT_ONCE)
        for done in [pool.submit(work, first, min(first + _SESSIONS_AT_ONCE, sessions)) for first in blocks]:
            done.result()


def _figures(
    daily: DailyFigures, horizons: Sequence[int], rows: slice | NDArray[np.bool_]
) -> tuple[SignalFigures, ...]:
    return tuple(
        SignalFigures(
            quality=quality_of(daily.ic[place, rows], daily.rank_ic[place, rows], horizon),
            quantile_returns=_quantile_returns(daily.quantile_returns[place, rows], horizon),
            quantile_turnover=tuple(mean_of_days(column) for column in daily.quantile_turnover[place, rows].T),
            rank_autocorrelation=mean_of_days(daily.rank_autocorrelation[place, rows]),
        )
        for place, horizon in enumerate(horizons)
    )


def _quantile_returns(daily: Floats, horizon: int) -> QuantileReturns:
    means = np.array([mean_of_days(column) for column in daily.T])
    spread = daily[:, -1] - daily[:, 0]
    known = not np.isnan(means).any()
    numbers = np.arange(1.0, len(means) + 1.0)
    return QuantileReturns(
        days=int((~np.isnan(spread)).sum()),
        means=tuple(means.tolist()),
        spread=mean_of_days(spread),
        spread_t=newey_west_t(spread, horizon),
        steps_in_order=float((np.diff(means) > 0.0).mean()) if known else float("nan"),
        rank_correlation=float(kernels.correlation(average_ranks(means), numbers)) if known else float("nan"),
    )
