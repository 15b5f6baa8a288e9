"""The verdict on a back-test: plain words first, the reason, then every figure that they rest on.

A result is believed only if two independent questions are answered with yes: is its Sharpe ratio, deflated for all that
was tried, surely above zero; and do random books with the same turnover and costs seldom do as well. The second alone
can be fooled: a book that is merely more volatile than its random copies loses less to costs per unit of risk, and so
"beats" most of them with a ratio of nothing at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.performance import SESSIONS_PER_YEAR, sharpes
from stockpicker_dagster.research.backtest.random_books import Percentile, percentile
from stockpicker_dagster.research.backtest.significance.bootstrap import Interval, bootstrap_interval
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import (
    FEWEST_SESSIONS,
    SharpeSample,
    deflated_sharpe,
    minimum_track_record,
    probabilistic_sharpe,
)
from stockpicker_dagster.research.backtest.significance.overfitting import BLOCKS, probability_of_overfitting
from stockpicker_dagster.research.backtest.significance.stability import (
    OffsetSpread,
    SubPeriods,
    break_even_cost,
    offset_spread,
    sub_periods,
)

Words = Literal["cannot be told from luck", "weak", "strong"]

WEAK = (0.975, 0.025)
"""The least deflated Sharpe ratio and the largest permutation p-value of a weak result."""
STRONG = (0.99, 0.01)
"""The same of a strong one."""


@dataclass(frozen=True)
class Verdict:
    """What a back-test is worth. Sharpe ratios are annualised with 252 sessions, probabilities from 0 to 1."""

    words: Words
    reason: str
    """One sentence: what carries the words, or what keeps them from being better."""
    sessions: int
    sharpe: float
    """Of net returns."""
    deflated_sharpe: float
    """The probability that the true Sharpe ratio is above what luck gives the best of all trials."""
    probabilistic_sharpe: float
    """The same if this had been the only trial: above zero."""
    trials: int
    permutation: Percentile
    """Where the net Sharpe ratio stands among random books with the same costs and turnover."""
    sharpe_interval: Interval
    """95 %, by the stationary bootstrap."""
    return_interval: Interval
    """Likewise of the arithmetic mean return per year, a fraction."""
    minimum_track_record: float
    """Sessions until this ratio would be above zero with 95 % confidence; infinite if it is not positive."""
    break_even_cost: float
    """By what factor costs would have to grow for nothing to be left; NaN without costs."""
    sub_periods: SubPeriods
    offsets: OffsetSpread | None
    """None where the strategy has but one rebalance offset."""
    overfitting: float | None
    """The probability that the best of the configurations tried owes its place to over-fitting; None without one."""


def words_of(deflated: float, p_value: float, ratio: float) -> Words:
    """The words for a deflated Sharpe ratio, a permutation p-value and the ratio itself, which must be positive."""
    if ratio > 0.0:
        if deflated >= STRONG[0] and p_value <= STRONG[1]:
            return "strong"
        if deflated >= WEAK[0] and p_value <= WEAK[1]:
            return "weak"
    return "cannot be told from luck"


def verdict(
    *,
    sessions: Sequence[date],
    net_return: ArrayLike,
    cost: ArrayLike,
    random_net_returns: ArrayLike,
    trial_sharpes: ArrayLike,
    trials: int | None = None,
    offset_sharpes: ArrayLike = (),
    configurations: ArrayLike | None = None,
    seed: int = 0,
) -> Verdict:
    """Judge the days of a back-test, all known after the close of the last one.

    `net_return`, `cost` `(T,)` are daily fractions of equity; `random_net_returns` `(T, n)` those of permuted books;
    `trial_sharpes` `(N,)` the ratios per session of every logged trial on the universe and window, this one included;
    `trials` how many there were, if the caller counts them himself; `offset_sharpes` the annualised ratios over all
    rebalance offsets; `configurations` `(T, k)` the returns of whatever was chosen among, such as trials or offsets.

    Raises `InvalidInput` for fewer than 42 sessions, lengths that do not fit, values that are not finite, a book that
    never traded, or a count of trials that differs from what is logged.
    """
    ratios = np.atleast_1d(np.asarray(trial_sharpes, dtype=np.float64))
    if not len(ratios) or (trials is not None and trials != len(ratios)):
        claimed = len(ratios) if trials is None else trials
        raise InvalidInput(
            f"the verdict is asked for {claimed} trials and {len(ratios)} are logged; "
            "log every trial, this one included"
        )
    books = np.asarray(random_net_returns, dtype=np.float64)
    if books.ndim != 2 or len(books) != len(sessions):
        raise InvalidInput(
            f"random books of shape {books.shape} for {len(sessions)} sessions; give one row a session and one column "
            "a book"
        )
    returns = np.asarray(net_return, dtype=np.float64)
    stability = sub_periods(returns, sessions)
    sample = SharpeSample.of(returns)
    deflated = deflated_sharpe(sample, ratios)
    annual = sample.sharpe * math.sqrt(SESSIONS_PER_YEAR)
    standing = percentile(annual, sharpes(books))
    words = words_of(deflated, standing.p_value, annual)
    return Verdict(
        words=words,
        reason=_reason(words, annual, deflated, standing, len(ratios)),
        sessions=sample.sessions,
        sharpe=annual,
        deflated_sharpe=deflated,
        probabilistic_sharpe=probabilistic_sharpe(sample),
        trials=len(ratios),
        permutation=standing,
        sharpe_interval=bootstrap_interval(returns, sharpes, seed=seed),
        return_interval=bootstrap_interval(returns, _annual_mean, seed=seed),
        minimum_track_record=minimum_track_record(sample),
        break_even_cost=break_even_cost(returns, cost),
        sub_periods=stability,
        offsets=offset_spread(offset_sharpes),
        overfitting=_overfitting(configurations),
    )


def _annual_mean(returns: np.ndarray) -> np.ndarray:
    return np.asarray(returns.mean(axis=0) * SESSIONS_PER_YEAR)


def _overfitting(configurations: ArrayLike | None) -> float | None:
    panel = None if configurations is None else np.asarray(configurations, dtype=np.float64)
    enough = panel is not None and panel.ndim == 2 and panel.shape[1] > 1 and len(panel) >= BLOCKS * FEWEST_SESSIONS
    return probability_of_overfitting(panel) if panel is not None and enough else None


def _reason(words: Words, ratio: float, deflated: float, standing: Percentile, trials: int) -> str:
    tried = "the only trial" if trials == 1 else f"the best of {trials} trials"
    against = f"it beats {standing.percentile:.1f} % of {standing.books} random books (p {standing.p_value:.3f})"
    surely = f"a net Sharpe ratio of {ratio:.2f} is above what luck gives {tried} with probability {deflated:.3f}"
    if words != "cannot be told from luck":
        return f"{surely}, and {against}"
    if ratio <= 0.0:
        beaten = f", although {against}" if standing.p_value <= WEAK[1] else ""
        return f"the net Sharpe ratio of {ratio:.2f} is not above zero{beaten}"
    lacking = []
    if deflated < WEAK[0]:
        lacking.append(f"{surely}, where {WEAK[0]} is asked for")
    if standing.p_value > WEAK[1]:
        lacking.append(f"{against}, where a p of at most {WEAK[1]} is asked for")
    if standing.p_value <= WEAK[1]:
        lacking.append(f"that {against} may be no more than its being more volatile than they are")
    return "; ".join(lacking)
