"""What a series of returns is worth for its risk, under the field's other notions of risk than the standard deviation.

Tails, downside deviations and drawdowns, and the ratios built on them. Formulas as in Bacon, *Practical Portfolio
Performance Measurement and Attribution* (2008), each in its own docstring. Every function takes simple returns as
fractions, `(T,)`, raises `InvalidInput` where one is NaN or infinite, and answers NaN where the figure is undefined
(too few returns, or none of the risk that it divides by). `periods` is how many returns make a year.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.performance import (
    SESSIONS_PER_YEAR,
    annual_return,
    finite,
    max_drawdown,
)

Floats = NDArray[np.float64]
_STILL = 1e-12
"""Risk below this is rounding."""


@dataclass(frozen=True)
class RiskSummary:
    """The figures of this file that a back-test is usually asked for; NaN where undefined."""

    sortino: float
    calmar: float
    ulcer_index: float
    skewness: float
    kurtosis: float
    tail_ratio: float
    value_at_risk: float
    """Per day, at 5 %: a return, negative for a loss."""
    expected_shortfall: float
    """The same of the days beyond it."""
    holding_sessions: float
    """How long a position is held: mean gross exposure over half the mean daily turnover."""


def risk_summary(net_return: ArrayLike, turnover: ArrayLike, gross_exposure: ArrayLike) -> RiskSummary:
    """The `RiskSummary` of daily columns `(T,)` as defined in `engine.BookHistory`."""
    traded, exposure = finite(turnover), finite(gross_exposure)
    return RiskSummary(
        sortino=sortino(net_return),
        calmar=calmar(net_return),
        ulcer_index=ulcer_index(net_return),
        skewness=skewness(net_return),
        kurtosis=kurtosis(net_return),
        tail_ratio=tail_ratio(net_return),
        value_at_risk=value_at_risk(net_return),
        expected_shortfall=expected_shortfall(net_return),
        holding_sessions=_ratio(float(exposure.mean()), 0.5 * float(traded.mean())) if len(traded) else _NAN,
    )


# The shape of the distribution


def skewness(returns: ArrayLike) -> float:
    """Third central moment over the 3/2 power of the second (population moments, as SciPy's default).

    quantstats and pandas give the sample-adjusted one, larger by sqrt(n (n - 1)) / (n - 2).
    """
    deviations = _deviations(returns)
    return _ratio(float((deviations**3).mean()), float((deviations**2).mean()) ** 1.5) if len(deviations) else _NAN


def kurtosis(returns: ArrayLike) -> float:
    """Fourth central moment over the square of the second (population moments); 3 for a normal distribution."""
    deviations = _deviations(returns)
    return _ratio(float((deviations**4).mean()), float((deviations**2).mean()) ** 2) if len(deviations) else _NAN


def mean_absolute_deviation(returns: ArrayLike) -> float:
    """The mean distance from the mean."""
    deviations = _deviations(returns)
    return float(np.abs(deviations).mean()) if len(deviations) else _NAN


def value_at_risk(returns: ArrayLike, tail: float = 0.05) -> float:
    """The historical quantile at `tail`, a return (negative for a loss), linearly interpolated as in empyrical.

    quantstats gives that of a normal distribution with the same mean and deviation instead.
    """
    values = _with_tail(returns, tail)
    return float(np.quantile(values, tail)) if len(values) else _NAN


def expected_shortfall(returns: ArrayLike, tail: float = 0.05) -> float:
    """The mean of the worst floor((T - 1) tail) + 1 returns (CVaR), as in empyrical; a return, negative for a loss."""
    values = _with_tail(returns, tail)
    return float(np.sort(values)[: int((len(values) - 1) * tail) + 1].mean()) if len(values) else _NAN


def tail_ratio(returns: ArrayLike) -> float:
    """The 95th percentile over the absolute 5th: above 1, good days are larger than bad ones."""
    values = finite(returns)
    return _ratio(*(abs(float(np.quantile(values, at))) for at in (0.95, 0.05))) if len(values) else _NAN


# Downside and upside


def downside_risk(returns: ArrayLike, target: float = 0.0, periods: int = SESSIONS_PER_YEAR) -> float:
    """sqrt(mean(min(r - target, 0)^2)) per year; `target` is per period, and all returns are counted."""
    return _partial_moment(np.minimum(finite(returns) - target, 0.0), 2) * np.sqrt(periods)


def upside_risk(returns: ArrayLike, target: float = 0.0) -> float:
    """sqrt(mean(max(r - target, 0)^2)), per period."""
    return _partial_moment(np.maximum(finite(returns) - target, 0.0), 2)


def downside_frequency(returns: ArrayLike, target: float = 0.0) -> float:
    """The share of returns below `target`."""
    values = finite(returns)
    return float((values < target).mean()) if len(values) else _NAN


def sortino(returns: ArrayLike, target: float = 0.0, periods: int = SESSIONS_PER_YEAR) -> float:
    """Mean excess over `target` per year over `downside_risk`, as in empyrical and quantstats."""
    values = finite(returns) - target
    return _ratio(float(values.mean()) * periods, downside_risk(returns, target, periods)) if len(values) else _NAN


def omega(returns: ArrayLike, target: float = 0.0) -> float:
    """All that was gained above `target` over all that was lost below it; at 0 the Bernardo-Ledoit ratio."""
    excess = finite(returns) - target
    return _ratio(float(np.maximum(excess, 0.0).sum()), float(np.maximum(-excess, 0.0).sum()))


def omega_sharpe(returns: ArrayLike, target: float = 0.0) -> float:
    """Mean excess over `target` over the mean shortfall below it: `omega` less 1."""
    return omega(returns, target) - 1.0


def d_ratio(returns: ArrayLike) -> float:
    """Losses over gains, each weighted by how often it occurs: 0 if nothing was lost, NaN if nothing was gained."""
    values = finite(returns)
    gains, losses = values[values > 0.0], values[values < 0.0]
    return _ratio(-len(losses) * float(losses.sum()), len(gains) * float(gains.sum()))


def kappa(returns: ArrayLike, target: float = 0.0, order: int = 2) -> float:
    """Mean excess over `target` over the root of the lower partial moment of that order (Kaplan and Knowles 2004)."""
    values = finite(returns) - target
    return _ratio(float(values.mean()), _partial_moment(np.maximum(-values, 0.0), order)) if len(values) else _NAN


def adjusted_sharpe(returns: ArrayLike, periods: int = SESSIONS_PER_YEAR) -> float:
    """SR [1 + S / 6 SR - (K - 3) / 24 SR^2] (Pezier and White 2006).

    SR is the compounded annual return over the annual sample deviation, as Bacon has it, S `skewness`, K `kurtosis`.
    """
    values = finite(returns)
    if len(values) < 2:
        return _NAN
    ratio = _ratio(annual_return(values, periods), float(values.std(ddof=1)) * np.sqrt(periods))
    return ratio * (1.0 + skewness(values) / 6.0 * ratio - (kurtosis(values) - 3.0) / 24.0 * ratio**2)


# Drawdowns


def drawdowns(returns: ArrayLike) -> Floats:
    """How far compounded wealth is below its peak after each return, `(T,)`, positive fractions; the start counts."""
    wealth = np.cumprod(1.0 + finite(returns))
    return np.asarray(1.0 - wealth / np.maximum(np.maximum.accumulate(wealth), 1.0))


def pain_index(returns: ArrayLike) -> float:
    """The mean drawdown over all periods (Becker)."""
    falls = drawdowns(returns)
    return float(falls.mean()) if len(falls) else _NAN


def ulcer_index(returns: ArrayLike) -> float:
    """The root mean square drawdown over all periods (Martin)."""
    falls = drawdowns(returns)
    return float(np.sqrt((falls**2).mean())) if len(falls) else _NAN


def calmar(returns: ArrayLike, periods: int = SESSIONS_PER_YEAR) -> float:
    """The compounded annual return over the deepest drawdown; NaN if wealth never fell."""
    return _ratio(annual_return(returns, periods), max_drawdown(returns).depth)


def pain_ratio(returns: ArrayLike, periods: int = SESSIONS_PER_YEAR) -> float:
    """The compounded annual return over `pain_index`."""
    return _ratio(annual_return(returns, periods), pain_index(returns))


def martin_ratio(returns: ArrayLike, periods: int = SESSIONS_PER_YEAR) -> float:
    """The compounded annual return over `ulcer_index`, also called the ulcer performance index."""
    return _ratio(annual_return(returns, periods), ulcer_index(returns))


_NAN = float("nan")


def _deviations(returns: ArrayLike) -> Floats:
    values = finite(returns)
    return np.asarray(values - values.mean()) if len(values) else values


def _with_tail(returns: ArrayLike, tail: float) -> Floats:
    if not 0.0 < tail < 1.0:
        raise InvalidInput(f"a tail of {tail} is not allowed; give a probability between 0 and 1, such as 0.05")
    return finite(returns)


def _partial_moment(shortfalls: Floats, order: int) -> float:
    return float((np.abs(shortfalls) ** order).mean()) ** (1.0 / order) if len(shortfalls) else _NAN


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if abs(denominator) > _STILL else _NAN
