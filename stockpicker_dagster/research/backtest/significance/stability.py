"""Whether a result holds through time, over rebalance offsets and under dearer trading.

Plain arithmetic on stored days; nothing here says how likely luck is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import ArrayLike

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.performance import sharpe
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import FEWEST_SESSIONS, finite_series


@dataclass(frozen=True)
class SubPeriods:
    """Annualised Sharpe ratios of parts of the whole span; NaN for a part that never moves."""

    by_year: Mapping[int, float]
    """Calendar years with at least 21 sessions."""
    halves: tuple[float, float]
    positive_years: float
    """The share of those years with a positive ratio; NaN without such a year."""


@dataclass(frozen=True)
class OffsetSpread:
    """Annualised Sharpe ratios of the same scores decided on other days of the week or month."""

    mean: float
    lowest: float
    highest: float


def sub_periods(returns: ArrayLike, sessions: Sequence[date]) -> SubPeriods:
    """The Sharpe ratio by calendar year and by half; an odd session belongs to the later half."""
    values = finite_series(returns, 2 * FEWEST_SESSIONS)
    if len(values) != len(sessions):
        raise InvalidInput(f"{len(values)} returns for {len(sessions)} sessions; give one for each")
    years = np.array([day.year for day in sessions])
    by_year = {
        int(year): sharpe(values[years == year])
        for year in np.unique(years)
        if (years == year).sum() >= FEWEST_SESSIONS
    }
    middle = len(values) // 2
    known = [ratio for ratio in by_year.values() if not np.isnan(ratio)]
    positive = sum(ratio > 0 for ratio in known) / len(known) if known else float("nan")
    return SubPeriods(by_year, (sharpe(values[:middle]), sharpe(values[middle:])), positive)


def offset_spread(sharpes: ArrayLike) -> OffsetSpread | None:
    """Mean and range over the offsets `(n,)`, NaN ones left out; None if fewer than two are known."""
    ratios = np.asarray(sharpes, dtype=np.float64)
    known = ratios[~np.isnan(ratios)]
    return OffsetSpread(float(known.mean()), float(known.min()), float(known.max())) if len(known) > 1 else None


def break_even_cost(net_return: ArrayLike, cost: ArrayLike) -> float:
    """By what factor all costs would have to grow for the mean net return to be zero.

    Daily fractions `(T,)`, the net return being what is left after `cost`. 1 is the costs as they are: below 1 the book
    loses money already, below 0 it would even without costs. NaN for a book without costs.
    """
    net = finite_series(net_return, FEWEST_SESSIONS)
    costs = finite_series(cost, FEWEST_SESSIONS)
    if len(net) != len(costs):
        raise InvalidInput(f"{len(net)} returns and {len(costs)} costs; give one of each for every session")
    paid = float(costs.mean())
    return float((net.mean() + paid) / paid) if paid > 0.0 else float("nan")
